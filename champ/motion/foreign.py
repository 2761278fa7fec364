"""What each motion tool means by the numbers in its files: joints, axes, camera and pivot."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.arrays import object_members
from .camera import FOCAL_PER_PIXEL
from .containers import numbers, read_npy_file
from .rotation import from_axis_angle

# The rest pelvis of the mean body, in metres, for bodies whose file is not at hand. The free body has SMPL's.
SMPL_PELVIS = (0.0, -0.223, 0.028)
SMPLX_PELVIS = (0.0, -0.351, 0.012)

Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # camera looking along +y
Y_UP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # camera looking along -z


def lens_4d_humans(width: int, height: int) -> float:
    """5000 px for a 256 px picture."""
    return FOCAL_PER_PIXEL * max(width, height)


def lens_diagonal(width: int, height: int) -> float:
    """WHAM, TRAM and GVHMR, when nothing is known about the camera: the diagonal of the picture."""
    return math.hypot(width, height)


def lens_romp(width: int, height: int) -> float:
    """A field of view of 60 degrees along the longer side."""
    return max(width, height) / 2 / math.tan(math.radians(30))


@dataclass(frozen=True)
class Recording:
    """One person as a file has them; `transl` is added to the tool's posed body, in camera or world axes."""

    source: str
    frames: Tensor  # (T,) which of the `length` frames they are seen in
    length: int
    rotations: Tensor  # (T, 24, 3, 3)
    transl: Tensor  # (T, 3)
    betas: Tensor | None  # (B,) in SMPL's shape space; None when the file has none or another body's
    pelvis: tuple[float, float, float] = SMPL_PELVIS
    lens: Callable[[int, int], float] = lens_4d_humans
    size: tuple[int, int] | None = None  # width, height
    fps: float | None = None
    world: Tensor | None = None  # turns world axes into camera axes; None where the file is in the camera's


def _float(value: Any, *shape: int) -> Tensor:
    return torch.from_numpy(np.array(numbers(value), dtype=np.float32)).reshape(shape)


def _matrices(matrix: Tensor) -> Tensor:
    """The rotations nearest to matrices (T, 24, 3, 3) that were averaged or stored in half precision."""
    u, _, v = torch.linalg.svd(matrix)
    return u @ v


def _from_vectors(vectors: Tensor) -> Tensor:
    """Axis-angle of the first 22 or all 24 joints (T, J, 3) to matrices; SMPL-H and -X have no joints 22 and 23."""
    hands = vectors.new_zeros(len(vectors), 24 - vectors.shape[1], 3)
    return from_axis_angle(torch.cat([vectors, hands], dim=1))


def _champ(values: dict, path: Path) -> list[Recording]:
    """smpls_group.npz: the first person of every frame, in 4D-Humans' camera."""
    people = object_members(values["smpl"])
    parts = ("global_orient", "body_pose", "betas")
    root, joints, betas = (torch.stack([_float(p[key], -1)[:size] for p in people])
                           for key, size in zip(parts, (9, 207, 10)))  # fmt: skip
    matrices = torch.cat([root, joints], dim=1).reshape(-1, 24, 3, 3)
    camera = _float(values["camera"], -1, 3)
    return [Recording("Champ", torch.arange(len(people)), len(people), _matrices(matrices), camera, betas.mean(0))]


def _amass(values: dict, path: Path) -> list[Recording]:
    """World with z up. SMPL-X has its parts in arrays of their own and another space of shapes."""
    transl = _float(values["trans"], -1, 3)
    count = len(transl)
    rate = values.get("mocap_framerate", values.get("mocap_frame_rate"))
    if "root_orient" in values:
        vectors = torch.cat([_float(values[key], count, -1) for key in ("root_orient", "pose_body")], dim=1)
    else:
        vectors = _float(values["poses"], count, -1)
    smplx = "smplx" in str(values.get("surface_model_type")) or "pose_jaw" in values or vectors.shape[1] == 165
    joints = 24 if vectors.shape[1] == 72 else 22
    return [
        Recording(
            "AMASS", torch.arange(count), count, _from_vectors(vectors[:, : joints * 3].reshape(count, joints, 3)),
            transl, _float(values["betas"], -1) if "betas" in values and not smplx else None,
            SMPLX_PELVIS if smplx else SMPL_PELVIS, fps=None if rate is None else rate.item(), world=Z_UP,
        )
    ]  # fmt: skip


def _meshcapade(values: dict, path: Path) -> list[Recording]:
    """World with y up; a still pose has no axis of frames."""
    count = numbers(values.get("frameCount", 1)).item()
    vectors = _float(values["bodyPose"], -1, np.shape(values["bodyPose"])[-2], 3)
    count = max(count, len(vectors))
    transl = _float(values["bodyTranslation"], -1, 3) if "bodyTranslation" in values else torch.zeros(1, 3)
    smplx = numbers(values.get("smplVersion", 0)).item() == 2
    rate = values.get("frameRate")
    return [
        Recording(
            "Meshcapade", torch.arange(count), count, _from_vectors(vectors).expand(count, -1, -1, -1),
            transl.expand(count, -1),
            _float(values["shapeParameters"], -1) if "shapeParameters" in values and not smplx else None,
            SMPLX_PELVIS if smplx else SMPL_PELVIS, fps=rate.item() if rate is not None and rate > 0 else None,
            world=Y_UP,
        )
    ]  # fmt: skip


def _gvhmr(values: dict, path: Path) -> list[Recording]:
    """The in-camera half of the file; an SMPL-X body, and the camera of every frame."""
    params = values["smpl_params_incam"]
    transl = _float(params["transl"], -1, 3)
    count = len(transl)
    vectors = torch.cat([_float(params[key], count, -1) for key in ("global_orient", "body_pose")], dim=1)
    rotations = _from_vectors(vectors.reshape(count, 22, 3))
    camera = _float(values["K_fullimg"], -1, 3, 3)[0] if "K_fullimg" in values else None
    if camera is None:
        return [Recording("GVHMR", torch.arange(count), count, rotations, transl, None, SMPLX_PELVIS, lens_diagonal)]
    focal, size = camera[0, 0].item(), (round(2 * camera[0, 2].item()), round(2 * camera[1, 2].item()))
    return [
        Recording("GVHMR", torch.arange(count), count, rotations, transl, None, SMPLX_PELVIS, lambda *_: focal, size)
    ]


def _wham(values: dict, path: Path) -> list[Recording]:
    """The in-camera half of the file; `trans` is already what is added to the posed body."""
    length = 1 + max(int(numbers(person["frame_ids"]).max()) for person in values.values())
    return [
        Recording(
            "WHAM", torch.from_numpy(numbers(person["frame_ids"]).astype(np.int64)), length,
            from_axis_angle(_float(person["pose"], -1, 24, 3)), _float(person["trans"], -1, 3),
            _float(person["betas"], -1, 10).mean(0), lens=lens_diagonal,
        )
        for person in values.values()
    ]  # fmt: skip


def _phalp(values: dict, path: Path) -> list[Recording]:
    """A person's entries with tracked_time above 0 are repetitions of the last time they were seen."""
    seen: dict[int, list] = defaultdict(list)
    for time, frame in enumerate(values.values()):
        for i, track in enumerate(frame["tid"]):
            if int(numbers(frame["tracked_time"][i])) == 0:
                seen[int(numbers(track))].append((time, frame["smpl"][i], frame["camera"][i], frame["size"][i]))
    people = []
    for entries in seen.values():
        times, bodies, cameras, sizes = zip(*entries)
        parts = [torch.cat([_float(b[key], -1, 3, 3) for key in ("global_orient", "body_pose")]) for b in bodies]
        height, width = (int(v) for v in numbers(sizes[0]))
        people.append(
            Recording(
                "4D-Humans", torch.tensor(times), len(values), _matrices(torch.stack(parts)),
                torch.stack([_float(c, 3) for c in cameras]),
                torch.stack([_float(b["betas"], -1) for b in bodies]).mean(0), size=(width, height),
            )
        )  # fmt: skip
    return people


def _slam_camera(camera: dict) -> tuple[int, Callable[[int, int], float], tuple[int, int]]:
    """Frames, lens and picture size of the video, as TRAM and PromptHMR write them."""
    focal, centre = float(numbers(camera["img_focal"])), numbers(camera["img_center"])
    size = round(2 * float(centre[0])), round(2 * float(centre[1]))
    return len(numbers(camera["pred_cam_R"])), lambda *_: focal, size


def _tram(values: dict, path: Path) -> list[Recording]:
    """One person; the camera is in camera.npy, in the folder itself or the one around hps/."""
    folder = path.parent.parent if path.parent.name == "hps" else path.parent
    frames = torch.from_numpy(numbers(values["frame"]).astype(np.int64)).reshape(-1)
    lens: Callable[[int, int], float] = lens_diagonal
    length, size = 0, None
    if (folder / "camera.npy").is_file():
        length, lens, size = _slam_camera(read_npy_file(folder / "camera.npy"))
    length = max(length, int(frames.max()) + 1)
    return [
        Recording(
            "TRAM", frames, length, _matrices(_float(values["pred_rotmat"], -1, 24, 3, 3)),
            _float(values["pred_trans"], -1, 3), _float(values["pred_shape"], -1, 10).mean(0), lens=lens, size=size,
        )
    ]  # fmt: skip


def _prompt_hmr(values: dict, path: Path) -> list[Recording]:
    """The in-camera half of the file; an SMPL-X body with hands and face, of which SMPL has no joints."""
    length, lens, size = _slam_camera(values["camera"])
    people = []
    for person in values["people"].values():
        seen = person["smplx_cam"]
        frames = torch.from_numpy(numbers(person["frames"]).astype(np.int64))
        body = _float(seen["rotmat"], len(frames), -1, 3, 3)[:, :22]
        rotations = _matrices(torch.cat([body, torch.eye(3).expand(len(frames), 2, 3, 3)], dim=1))
        transl = _float(seen["trans"], -1, 3)
        people.append(Recording("PromptHMR", frames, length, rotations, transl, None, SMPLX_PELVIS, lens, size))
    return people


def _romp(values: dict, path: Path) -> list[Recording]:
    """Everyone in a frame stands in one array; without track_ids the row is the person."""
    results = object_members(values["results"])[0]
    seen: dict[int, list] = defaultdict(list)
    for time, frame in enumerate(results.values()):
        if not frame:
            continue
        vectors = _float(frame["smpl_thetas"], -1, 24, 3)
        tracks = numbers(frame["track_ids"]) if "track_ids" in frame else range(len(vectors))
        rows = zip(vectors, _float(frame["cam_trans"], -1, 3), _float(frame["smpl_betas"], len(vectors), -1))
        for track, row in zip(tracks, rows):
            seen[int(track)].append((time, *row))
    people = []
    for entries in seen.values():
        times, vectors, places, betas = zip(*entries)
        people.append(
            Recording(
                "ROMP", torch.tensor(times), len(results), from_axis_angle(torch.stack(vectors)), torch.stack(places),
                torch.stack(betas).mean(0)[:10], lens=lens_romp,
            )
        )  # fmt: skip
    return people


def people_in(values: Any, path: Path) -> list[Recording] | None:
    """Everyone in a file's values, the one who is seen longest first; None when no tool writes such values."""
    keys = set(values) if isinstance(values, dict) else set()
    inner = next((set(values[key]) for key in keys if isinstance(values[key], dict) and values[key]), set())
    for needed, tool in (
        ({"smpl", "camera"}, _champ),
        ({"results"}, _romp),
        ({"bodyPose"}, _meshcapade),
        ({"root_orient", "pose_body", "trans"}, _amass),
        ({"poses", "trans"}, _amass),
        ({"smpl_params_incam"}, _gvhmr),
        ({"people", "camera"}, _prompt_hmr),
        ({"pred_rotmat", "pred_trans", "frame"}, _tram),
    ):
        if needed <= keys:
            return sorted(tool(values, path), key=lambda person: -len(person.frames))
    for needed, tool in (({"tid", "smpl", "camera", "tracked_time"}, _phalp), ({"pose", "trans", "frame_ids"}, _wham)):
        if needed <= inner:
            return sorted(tool(values, path), key=lambda person: -len(person.frames))
    return None
