"""Reads the SMPL files that people have: original chumpy pickles, cleaned pickles, .npz, .safetensors, .pth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.arrays import NAMES, read_npz, to_array
from ..files.errors import DamagedError, reading
from ..files.pickles import Node, Unpickler
from ..files.room import Room
from ..files.tensors import tensors_in
from ..keypoints.layouts import KEYPOINTS
from .body import Body, Posed
from .skeleton import JOINTS, PARENTS

# Face and foot keypoints: their vertex among SMPL's 6890, and the joint nearest to them.
LANDMARKS = {
    "nose": (332, "head"), "left_eye": (2800, "head"), "right_eye": (6260, "head"),
    "left_ear": (583, "head"), "right_ear": (4071, "head"),
    "left_big_toe": (3216, "left_foot"), "left_small_toe": (3226, "left_foot"), "left_heel": (3387, "left_ankle"),
    "right_big_toe": (6617, "right_foot"), "right_small_toe": (6624, "right_foot"), "right_heel": (6787, "right_ankle"),
}  # fmt: skip

# chumpy's expressions and scipy's matrices, which the original files hold instead of arrays.
SMPL_NAMES = rf"{NAMES}|chumpy\.(ch|ch_ops|linalg|reordering|utils)\.\w+|scipy\.sparse\.(\w+\.)?cs[cr]_(matrix|array)"
KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f")
COMPONENTS = 10
VERTICES, FACES = 20_000, 50_000  # SMPL has 6890 and 13776
LARGEST = 1e6  # number
STEPS = 8  # depth of nested expressions


@dataclass(frozen=True)
class SmplBody(Body):
    """SMPL with its pose-dependent blend shapes, posed by smplx.

    smplx, like SMPL, is for non-commercial use only; therefore only this class and load_smpl import it.
    """

    posedirs: Tensor  # (207, V * 3)

    def pose(self, rotations: Tensor, transl: Tensor | None = None) -> Posed:
        from smplx.lbs import lbs

        frames = len(rotations)
        if transl is None:
            transl = rotations.new_zeros(frames, 3)
        betas, template = self.betas.expand(frames, -1), self.template.expand(frames, -1, -1)
        parents = torch.tensor(PARENTS)  # on the CPU: smplx reads them one by one
        vertices, joints = lbs(betas, rotations, template, self.shapedirs, self.posedirs, self.joint_regressor,
                               parents, self.weights, pose2rot=False)  # fmt: skip
        return Posed(vertices + transl[:, None], joints + transl[:, None])

    def only(self, chosen: Tensor) -> "SmplBody":
        body = super().only(chosen)
        assert isinstance(body, SmplBody)
        moves = self.posedirs.unflatten(1, (-1, 3))[:, chosen]
        moves = torch.cat([moves, moves.new_zeros(len(moves), len(PARENTS), 3)], dim=1)  # none for the joints
        return replace(body, posedirs=moves.flatten(1))


def load_smpl(path: str | Path) -> SmplBody:
    """Loads the SMPL model in a file, with the first 10 components of its shape space."""
    path = Path(path)
    model = _read(path)
    _check(path, model)
    try:
        import smplx.lbs  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path.name} needs the package smplx, which cannot be imported here ({error}): install it with "
            "`pip install smplx` in ComfyUI's Python, or choose the free body."
        ) from None

    def tensor(key: str) -> Tensor:
        return torch.from_numpy(model[key].astype(np.float32))

    return SmplBody(
        name=path.stem,
        template=tensor("v_template"),
        shapedirs=tensor("shapedirs")[..., :COMPONENTS].contiguous(),
        joint_regressor=tensor("J_regressor"),
        weights=tensor("weights"),
        faces=torch.from_numpy(model["f"].astype(np.int64)),
        part_labels=tensor("weights").argmax(dim=1),
        keypoint_regressor=_keypoint_regressor(len(model["v_template"])),
        betas=torch.zeros(COMPONENTS),
        posedirs=tensor("posedirs").reshape(-1, 207).T.contiguous(),
    )


def _check(path: Path, model: dict[str, np.ndarray]) -> None:
    """Raises an error for what is missing, has another shape, or is not a number."""
    missing = [key for key in KEYS if key not in model]
    if missing:
        raise ValueError(f"{path.name} is not an SMPL model: it has no {', '.join(missing)}; choose another file.")
    count = model["v_template"].size // 3
    components = model["shapedirs"].size // max(1, 3 * count)
    expected = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, max(COMPONENTS, components)),
        "posedirs": (count, 3, 207),
        "J_regressor": (24, count),
        "weights": (count, 24),
        "f": (model["f"].size // 3, 3),
    }
    for key, shape in expected.items():
        if model[key].shape != shape:
            raise ValueError(
                f"{path.name} is not an SMPL model: {key} is {model[key].shape} instead of {shape}; choose an SMPL "
                "file, not SMPL-H, SMPL-X or another body."
            )
        if model[key].dtype.kind not in "iuf" or not (np.abs(model[key]) <= LARGEST).all():  # nor for NaN
            raise ValueError(f"{path.name} is damaged: its {key} contain NaN or impossible numbers; get it again.")
    faces = model["f"]
    if not 0 < len(faces) <= FACES or not 0 < count <= VERTICES:
        raise ValueError(
            f"{path.name} is not an SMPL model: it has {count} vertices and {len(faces)} faces, where SMPL has 6890 "
            "and 13776; choose another file."
        )
    if faces.min() < 0 or faces.max() >= count:
        raise ValueError(
            f"{path.name} is damaged: its faces refer to vertices {faces.min():.0f} to {faces.max():.0f}, but it has "
            f"{count}; get it again."
        )


def _keypoint_regressor(count: int) -> Tensor:
    """Builds the keypoint regressor: face and feet from SMPL's vertices if the mesh has them, every other point from a
    joint."""
    regressor = torch.zeros(len(KEYPOINTS), count + len(JOINTS))
    for row, name in zip(regressor, KEYPOINTS, strict=True):
        vertex, joint = LANDMARKS.get(name, (None, name))
        column = vertex if vertex is not None and count == 6890 else count + JOINTS.index(joint)
        row[column] = 1
    return regressor


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(
            f"SMPL model not found: put {path.name} into models/smpl (register at smpl.is.tue.mpg.de), "
            "or choose the free body."
        )
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path.name} is not an SMPL model: choose a file that ends in {', '.join(READERS)}.")
    with reading(path, "an SMPL model", "get it from smpl.is.tue.mpg.de"):
        return READERS[suffix](path)


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    reader = Unpickler(path.read_bytes(), SMPL_NAMES)
    model = reader.load()
    return {key: _evaluate(model[key], reader.room) for key in KEYS if key in model}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    return {key: to_array(value) for key, value in read_npz(path.read_bytes(), only=KEYS).items()}


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in tensors_in(path).items() if key in KEYS}


READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pkl": _read_pickle,
    ".npz": _read_npz,
    ".safetensors": _read_tensors,
    ".pth": _read_tensors,
}


def _evaluate(value: Any, room: Room, steps: int = STEPS) -> np.ndarray:
    """Evaluates a chumpy expression, a scipy matrix or a numpy array.

    An expression may refer to another one several times: its depth is limited, and all values count against the memory
    budget.
    """
    if not isinstance(value, Node):
        return to_array(value)
    if steps == 0:
        raise DamagedError("its expressions are nested too deeply")
    state, inner = value.state, partial(_evaluate, room=room, steps=steps - 1)
    match value.kind.rpartition(".")[2]:
        case "Ch":
            return inner(state["x"])
        case "Select":
            chosen = inner(state["idxs"])
            room.pay(8 * chosen.size)
            return inner(state["a"]).ravel()[chosen].reshape(state["preferred_shape"])
        case "transpose":
            return inner(state["a"]).transpose(state["axes"])
        case "reshape":
            return inner(state["a"]).reshape(state["newshape"])
        case "csc_matrix" | "csc_array":
            return _dense(state, room, columns_first=True)
        case "csr_matrix" | "csr_array":
            return _dense(state, room, columns_first=False)
        case _:
            return to_array(value)


def _dense(state: dict, room: Room, columns_first: bool) -> np.ndarray:
    """Builds the dense matrix whose line i holds data[indptr[i]:indptr[i + 1]] at indices[...]; lines are columns in
    csc."""
    shape = state["_shape"] if "_shape" in state else state["shape"]
    lines, length = shape[::-1] if columns_first else shape
    if lines < 0 or length < 0:
        raise DamagedError("it is damaged")
    room.pay(8 * lines * length)
    starts, values = to_array(state["indptr"]), to_array(state["data"])
    counts = np.diff(starts)
    if len(counts) != lines or (counts < 0).any() or counts.sum() != len(values):
        raise DamagedError("it is damaged")
    dense = np.zeros((lines, length))
    np.add.at(dense, (np.repeat(np.arange(lines), counts), to_array(state["indices"])), values)
    return dense.T if columns_first else dense
