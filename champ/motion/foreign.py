"""Conventions of each motion tool: joints, axes, camera and pivot."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.arrays import object_members
from ..files.companions import tram_camera
from ..files.errors import DamagedError
from .camera import CAMERA_FROM_WORLD, FOCAL_PER_PIXEL
from .containers import numbers, read_npy_file
from .rotation import from_axis_angle

FRAMES = 100_000  # of a motion: an hour of video
FRAME_SIZE = 500  # numbers of one frame: 55 rotations of SMPL-X
PEOPLE = 1000
ENTRIES = 500_000  # number of people times frames
AT_ONCE = 1024  # frames that are converted at once

# Rest pelvis of the mean body, in metres, for bodies whose file is not available. The free body has SMPL's.
SMPL_PELVIS = (0.0, -0.223, 0.028)
SMPLX_PELVIS = (0.0, -0.351, 0.012)

Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # camera looking along +y


def lens_4d_humans(width: int, height: int) -> float:
    """4D-Humans' focal length: 5000 px for a 256 px picture."""
    return FOCAL_PER_PIXEL * max(width, height)


def lens_diagonal(width: int, height: int) -> float:
    """The focal length of WHAM, TRAM and GVHMR when nothing is known about the camera: the diagonal of the picture."""
    return math.hypot(width, height)


def lens_romp(width: int, height: int) -> float:
    """ROMP's focal length: a field of view of 60 degrees along the longer side."""
    return max(width, height) / 2 / math.tan(math.radians(30))


@dataclass(frozen=True)
class Recording:
    """One person of a file, in the tool's own conventions; `transl` is added to the tool's posed body, in camera or
    world axes."""

    source: str
    frames: Tensor  # (T,) the frames, of `length`, in which the person is seen
    length: int
    rotations: Tensor  # (T, 24, 3, 3)
    transl: Tensor  # (T, 3)
    betas: Tensor | None  # (B,) in SMPL's shape space; None if the file has none, or those of another body
    pelvis: tuple[float, float, float] = SMPL_PELVIS
    lens: Callable[[int, int], float] = lens_4d_humans
    size: tuple[int, int] | None = None  # width, height
    fps: float | None = None
    world: Tensor | None = None  # turns world axes into camera axes; None where the file is in the camera's
    repeats: int = 1  # how often a still pose is repeated


PersonInFile = tuple[int, Callable[[], Recording]]  # the number of frames in which the person is seen, and the reader


def _float(value: Any, *shape: int) -> Tensor:
    array = numbers(value)
    if array.size > FRAMES * FRAME_SIZE:
        raise DamagedError(f"it holds more than {FRAMES} frames")
    with np.errstate(over="ignore"):  # what becomes infinite is refused later
        return torch.from_numpy(np.array(array, dtype=np.float32)).reshape(shape)


def _rows(values: Iterable[Any], count: int, width: int) -> Tensor:
    """Stacks the first `width` numbers of each of `count` values, one for each frame: (T, width)."""
    rows = np.empty((count, width), dtype=np.float32)
    for row, value in zip(rows, values):
        array = numbers(value)
        if not width <= array.size <= FRAME_SIZE:
            raise DamagedError(f"it has {array.size} numbers where {width} are expected")
        flat = array.reshape(-1)
        row[:] = flat[:width]
    return torch.from_numpy(rows)


def _frame_numbers(value: Any) -> Tensor:
    array = numbers(value).reshape(-1)
    _check_length(array.size)
    if array.dtype.kind not in "iuf" or not ((0 <= array) & (array < FRAMES)).all():
        raise DamagedError(f"it names frames outside 0 to {FRAMES - 1}")
    return torch.from_numpy(array.astype(np.int64))


def _check_length(frames: int) -> int:
    if not 0 < frames <= FRAMES:
        raise DamagedError(f"it has {frames} frames, and 1 to {FRAMES} can be read")
    return frames


def _check_crowd(people: int, entries: int) -> None:
    if people > PEOPLE or entries > ENTRIES:
        raise DamagedError(f"it has more than {PEOPLE} people, or they are seen more than {ENTRIES} times")


def _matrices(matrix: Tensor) -> Tensor:
    """Projects matrices (T, 24, 3, 3) that were averaged or stored in half precision to the nearest rotations."""
    near = torch.empty_like(matrix)
    for part, whole in zip(matrix.split(AT_ONCE), near.split(AT_ONCE)):
        if not (torch.linalg.det(part) > 0).all():  # also false for NaN
            raise DamagedError("it holds matrices that are not rotations")
        u, _, v = torch.linalg.svd(part)
        whole.copy_(u @ v)
    return near


def _from_vectors(vectors: Tensor) -> Tensor:
    """Converts axis-angles of the first 22 or all 24 joints (T, J, 3) to matrices; SMPL-H and SMPL-X lack joints 22 and
    23."""
    count, joints, _ = vectors.shape
    matrices = torch.eye(3).repeat(count, 24, 1, 1)
    for part, whole in zip(vectors.split(AT_ONCE), matrices.split(AT_ONCE)):
        whole[:, :joints] = from_axis_angle(part)
    return matrices


def _bodies(people: Sequence[dict]) -> Tensor:
    """Reads the rotations of 4D-Humans' bodies, one for each frame."""
    parts = (("global_orient", 9), ("body_pose", 207))
    flat = torch.cat([_rows((body[key] for body in people), len(people), size) for key, size in parts], dim=1)
    return _matrices(flat.reshape(-1, 24, 3, 3))


def _betas(people: Sequence[dict]) -> Tensor:
    return _rows((body["betas"] for body in people), len(people), 10).mean(0)


def _all_frame_numbers(values: Iterable[Any]) -> list[Tensor]:
    """Reads the frames in which each person is seen."""
    frames: list[Tensor] = []
    for value in values:
        frames.append(_frame_numbers(value))
        _check_crowd(len(frames), sum(map(len, frames)))
    return frames


def _champ(values: dict, path: Path) -> Recording:
    """Reads smpls_group.npz: the first person of every frame, in 4D-Humans' camera."""
    people = object_members(values["smpl"])
    count = _check_length(len(people))
    camera = _float(values["camera"], -1, 3)
    return Recording("Champ", torch.arange(count), count, _bodies(people), camera, _betas(people))


def _amass(values: dict, path: Path) -> Recording:
    """Reads AMASS: a world with z up. SMPL-X has separate arrays for its parts, and another shape space. HY-Motion
    writes the same, and the root's rotation once more, in a world with y up."""
    transl = _float(values["trans"], -1, 3)
    count = _check_length(len(transl))
    rate = values.get("mocap_framerate", values.get("mocap_frame_rate"))
    if "root_orient" in values:
        poses = np.concatenate([numbers(values[key]).reshape(count, -1) for key in ("root_orient", "pose_body")], 1)
    else:
        poses = numbers(values["poses"]).reshape(count, -1)
    smplx = "smplx" in str(values.get("surface_model_type")) or "pose_jaw" in values or poses.shape[1] == 165
    joints = 24 if poses.shape[1] == 72 else 22
    name, world = ("HY-Motion", CAMERA_FROM_WORLD) if "Rh" in values else ("AMASS", Z_UP)
    return Recording(
        name, torch.arange(count), count, _from_vectors(_float(poses[:, : joints * 3], count, joints, 3)),
        transl, _float(values["betas"], -1) if "betas" in values and not smplx else None,
        SMPLX_PELVIS if smplx else SMPL_PELVIS, fps=None if rate is None else numbers(rate).item(), world=world,
    )  # fmt: skip


def _meshcapade(values: dict, path: Path) -> Recording:
    """Reads Meshcapade: a world with y up; a still pose has no frame axis."""
    vectors = _float(values["bodyPose"], -1, numbers(values["bodyPose"]).shape[-2], 3)
    count = _check_length(len(vectors))
    repeats = _check_length(int(numbers(values.get("frameCount", 1)).item())) if count == 1 else 1
    transl = _float(values["bodyTranslation"], -1, 3) if "bodyTranslation" in values else torch.zeros(1, 3)
    smplx = numbers(values.get("smplVersion", 0)).item() == 2
    rate = numbers(values.get("frameRate", 0)).item()
    return Recording(
        "Meshcapade", torch.arange(count), count, _from_vectors(vectors), transl.expand(count, -1),
        _float(values["shapeParameters"], -1) if "shapeParameters" in values and not smplx else None,
        SMPLX_PELVIS if smplx else SMPL_PELVIS, fps=rate if rate > 0 else None, world=CAMERA_FROM_WORLD,
        repeats=repeats,
    )  # fmt: skip


def _gvhmr(values: dict, path: Path) -> Recording:
    """Reads the in-camera half of GVHMR's file: an SMPL-X body, and the camera of every frame."""
    params = values["smpl_params_incam"]
    transl = _float(params["transl"], -1, 3)
    count = _check_length(len(transl))
    vectors = torch.cat([_float(params[key], count, -1) for key in ("global_orient", "body_pose")], dim=1)
    rotations = _from_vectors(vectors.reshape(count, 22, 3))
    seen = Recording("GVHMR", torch.arange(count), count, rotations, transl, None, SMPLX_PELVIS, lens_diagonal)
    if "K_fullimg" not in values:
        return seen
    camera = _float(values["K_fullimg"], -1, 3, 3)[0]
    focal, size = camera[0, 0].item(), (round(2 * camera[0, 2].item()), round(2 * camera[1, 2].item()))
    return replace(seen, lens=lambda *_: focal, size=size)


def _wham(values: dict) -> list[PersonInFile]:
    """Reads the in-camera half of WHAM's file; `trans` is already added to the posed body."""
    frames = _all_frame_numbers(person["frame_ids"] for person in values.values())
    length = 1 + max(int(own.max()) for own in frames)

    def read(person: dict, own: Tensor) -> Recording:
        return Recording(
            "WHAM", own, length, _from_vectors(_float(person["pose"], -1, 24, 3)), _float(person["trans"], -1, 3),
            _float(person["betas"], -1, 10).mean(0), lens=lens_diagonal,
        )  # fmt: skip

    return [(len(own), partial(read, person, own)) for person, own in zip(values.values(), frames)]


def _phalp(values: dict) -> list[PersonInFile]:
    """Reads PHALP's file; entries with tracked_time above 0 only repeat the last detection and are dropped."""
    length, entries = _check_length(len(values)), 0
    seen: dict[int, list] = defaultdict(list)
    for time, frame in enumerate(values.values()):
        entries += len(frame["tid"])
        _check_crowd(len(seen), entries)
        for i, track in enumerate(frame["tid"]):
            if int(numbers(frame["tracked_time"][i])) == 0:
                seen[int(numbers(track))].append((time, i, frame))

    def read(entries: list) -> Recording:
        _check_length(len(entries))
        bodies = [frame["smpl"][i] for _, i, frame in entries]
        cameras = _rows((frame["camera"][i] for _, i, frame in entries), len(entries), 3)
        times = torch.tensor([time for time, *_ in entries])
        _, i, frame = entries[0]
        height, width = (int(v) for v in numbers(frame["size"][i]))
        return Recording("4D-Humans", times, length, _bodies(bodies), cameras, _betas(bodies), size=(width, height))

    return [(len(entries), partial(read, entries)) for entries in seen.values()]


def _slam_camera(camera: dict) -> tuple[int, Callable[[int, int], float], tuple[int, int]]:
    """Reads the number of frames, lens and picture size of the video, as TRAM and PromptHMR write them."""
    focal, centre = float(numbers(camera["img_focal"])), numbers(camera["img_center"])
    size = round(2 * float(centre[0])), round(2 * float(centre[1]))
    return _check_length(len(numbers(camera["pred_cam_R"]))), lambda *_: focal, size


def _tram(values: dict, path: Path) -> Recording:
    """Reads one person of TRAM; the camera is in another file."""
    frames = _frame_numbers(values["frame"])
    lens: Callable[[int, int], float] = lens_diagonal
    length, size = 0, None
    if (camera := tram_camera(path)) is not None:
        length, lens, size = _slam_camera(read_npy_file(camera))
    length = max(length, int(frames.max()) + 1)
    return Recording(
        "TRAM", frames, length, _matrices(_float(values["pred_rotmat"], -1, 24, 3, 3)),
        _float(values["pred_trans"], -1, 3), _float(values["pred_shape"], -1, 10).mean(0), lens=lens, size=size,
    )  # fmt: skip


def _prompt_hmr(values: dict) -> list[PersonInFile]:
    """Reads the in-camera half of PromptHMR's file: an SMPL-X body; SMPL has no joints for its hands and face."""
    length, lens, size = _slam_camera(values["camera"])

    def read(seen: dict, frames: Tensor) -> Recording:
        body = _float(seen["rotmat"], len(frames), -1, 3, 3)[:, :22]
        rotations = _matrices(torch.cat([body, torch.eye(3).expand(len(frames), 2, 3, 3)], dim=1))
        transl = _float(seen["trans"], -1, 3)
        return Recording("PromptHMR", frames, length, rotations, transl, None, SMPLX_PELVIS, lens, size)

    people = values["people"].values()
    frames = _all_frame_numbers(person["frames"] for person in people)
    return [(len(own), partial(read, person["smplx_cam"], own)) for person, own in zip(people, frames)]


def _romp(values: dict) -> list[PersonInFile]:
    """Reads ROMP's file: each frame has one array with all people; without track_ids, the row is the person."""
    results = object_members(values["results"])[0]
    length, entries = _check_length(len(results)), 0
    seen: dict[int, list] = defaultdict(list)
    for time, frame in enumerate(results.values()):
        if not frame:
            continue
        count = numbers(frame["smpl_thetas"]).size // 72
        entries += count
        _check_crowd(len(seen), entries)
        tracks = numbers(frame["track_ids"]) if "track_ids" in frame else range(count)
        for row, track in zip(range(count), tracks):
            seen[int(track)].append((time, row, count, frame))

    def read(entries: list) -> Recording:
        _check_length(len(entries))

        def rows(key: str, width: int) -> Tensor:
            def own() -> Iterator[np.ndarray]:
                last, people = -1, np.empty((0, 0))
                for time, row, count, frame in entries:
                    if time != last:  # all people of a frame are converted together
                        last, people = time, numbers(frame[key]).reshape(count, -1)
                    yield people[row]

            return _rows(own(), len(entries), width)

        return Recording(
            "ROMP", torch.tensor([time for time, *_ in entries]), length,
            _from_vectors(rows("smpl_thetas", 72).reshape(-1, 24, 3)), rows("cam_trans", 3),
            rows("smpl_betas", 10).mean(0), lens=lens_romp,
        )  # fmt: skip

    return [(len(entries), partial(read, entries)) for entries in seen.values()]


# How to recognise each tool's files: the names at the top, of those with one person and of those with several, and for
# files that have a name for every frame or person, the names below the first one.
ONE: list[tuple[set[str], Callable[[dict, Path], Recording]]] = [
    ({"smpl", "camera"}, _champ),
    ({"bodyPose"}, _meshcapade),
    ({"root_orient", "pose_body", "trans"}, _amass),
    ({"poses", "trans"}, _amass),
    ({"smpl_params_incam"}, _gvhmr),
    ({"pred_rotmat", "pred_trans", "frame"}, _tram),
]
SEVERAL: list[tuple[set[str], Callable[[dict], list[PersonInFile]]]] = [
    ({"results"}, _romp),
    ({"people", "camera"}, _prompt_hmr),
]
INSIDE: list[tuple[set[str], Callable[[dict], list[PersonInFile]]]] = [
    ({"tid", "smpl", "camera", "tracked_time"}, _phalp),
    ({"pose", "trans", "frame_ids"}, _wham),
]


def people_in(values: Any, path: Path) -> list[Callable[[], Recording]]:
    """Returns a reader for each person in a file's values, the one seen longest first; an empty list if no tool writes
    such values."""
    if not isinstance(values, dict):
        return []
    for needed, tool in ONE:
        if needed <= values.keys():
            return [partial(tool, values, path)]
    inner: Iterable[Any] = next((value for value in values.values() if isinstance(value, dict) and value), ())
    for names, tools in ((values, SEVERAL), (inner, INSIDE)):
        for needed, several in tools:
            if needed <= set(names):
                return [read for _, read in sorted(several(values), key=lambda person: -person[0])]
    return []
