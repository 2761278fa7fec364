"""Lists of 3D joints over time, as pose networks and text-to-motion tools write them: which joint stands where, and the
rotations with which our joints come to lie in their places."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import cross
from torch.nn.functional import normalize

from ..body.body import Body
from ..body.skeleton import JOINTS
from ..files.errors import DamagedError
from ..keypoints.layouts import KEYPOINTS
from .containers import numbers
from .footing import swing
from .foreign import FRAMES
from .joint_names import Found
from .retarget import HINGES, LIMBS, SIDES, SkeletonMotion, frame, our_rest
from .rotation import rot_y, slerp

PEOPLE = 1000
VECTOR = 263  # numbers of a frame of HumanML3D
STEADY = 0.1  # sine of the bend of a limb below which the plane in which it bends is not believed
BUILD = (
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("left_hip", "right_hip"), ("left_hip", "spine1"),
    ("spine1", "spine2"), ("spine2", "spine3"), ("spine3", "neck"), ("spine3", "left_collar"), ("neck", "left_collar"),
    ("left_collar", "left_shoulder"), ("neck", "head"),
)  # fmt: skip
ALIKE = 0.03  # of the length of a leg
AIR = 0.1  # of the length of a leg above the floor, where a sole is no longer flat
SPINE = ("pelvis", "spine1", "spine2", "spine3")
SMPL = {name: i for i, name in enumerate(JOINTS)}
SMPL_22 = {name: i for name, i in SMPL.items() if i < 22}  # also the first of SMPL-H and SMPL-X
COCO = {name: i for i, name in enumerate(KEYPOINTS[:17])}


def _both(**parts: tuple[int, int]) -> Found:
    return {f"{side}_{part}": joint for part, pair in parts.items() for side, joint in zip(SIDES, pair)}


HUMAN36M = {"pelvis": 0, "crown": 10, "neck": 8} | _both(
    hip=(4, 1), knee=(5, 2), ankle=(6, 3), shoulder=(11, 14), elbow=(12, 15), wrist=(13, 16)
)
BLAZEPOSE = {"nose": 0} | _both(
    ear=(7, 8), shoulder=(11, 12), elbow=(13, 14), wrist=(15, 16), hip=(23, 24), knee=(25, 26), ankle=(27, 28),
    heel=(29, 30), big_toe=(31, 32),
)  # fmt: skip
MHR = {"nose": 0} | _both(
    ear=(3, 4), shoulder=(5, 6), elbow=(7, 8), wrist=(62, 41), hip=(9, 10), knee=(11, 12), ankle=(13, 14),
    heel=(17, 20), big_toe=(15, 18), hand=(53, 32),
)  # fmt: skip
SOMA_30 = _both(
    shoulder=(11, 17), elbow=(12, 18), wrist=(13, 19), hip=(22, 26), knee=(23, 27), ankle=(24, 28), foot=(25, 29)
) | {"head": 6, "neck": 4}
SOMA_77 = _both(
    shoulder=(12, 40), elbow=(13, 41), wrist=(14, 42), hip=(67, 72), knee=(68, 73), ankle=(69, 74), foot=(70, 75),
    hand=(24, 52),
) | {"head": 6, "neck": 4}  # fmt: skip
# By the number of joints; 17 are those of COCO or of Human3.6M.
LAYOUTS: dict[int, tuple[str, Found]] = {
    17: ("COCO", COCO), 22: ("HumanML3D", SMPL_22), 24: ("SMPL", SMPL), 30: ("Kimodo", SOMA_30),
    33: ("BlazePose", BLAZEPOSE), 52: ("SMPL-H", SMPL_22), 55: ("SMPL-X", SMPL_22), 70: ("SAM 3D Body", MHR),
    77: ("Kimodo", SOMA_77),
}  # fmt: skip
# What tools call the list, the likeliest first; any other name will do as well.
KEYS = ("posed_joints", "joints", "joints3d", "keypoints3d", "positions", "motion")
KNOWN = ", ".join(f"{count} ({name})" for count, (name, _) in LAYOUTS.items())


def people_as_points(values: Any) -> list[np.ndarray]:
    """Returns the joints (F, J, 3) of each person, or each sample, in a file's values; an empty list if there are
    none."""
    for value in _candidates(values):
        try:
            array = numbers(value)
        except DamagedError:
            continue
        if array.dtype.kind not in "fiu":
            continue
        if array.ndim == 2 and array.shape[1] == VECTOR:
            array = from_humanml3d(array)
        if array.ndim == 4 and array.shape[1] in LAYOUTS and array.shape[2] == 3 != array.shape[3]:
            array = array.transpose(0, 3, 1, 2)  # MDM: samples, joints, coordinates, frames
        if array.ndim == 3:
            array = array[None]
        if array.ndim == 4 and array.shape[2] in LAYOUTS and array.shape[3] == 3 and len(array) <= PEOPLE:
            if not 1 <= array.shape[1] <= FRAMES:
                raise DamagedError(f"it has {array.shape[1]} frames, and 1 to {FRAMES} can be read")
            return list(array)
    return []


def from_humanml3d(rows: np.ndarray) -> np.ndarray:
    """Returns the joints (F, 22, 3) of HumanML3D's vectors (F, 263): the root's turn and step, both for the next frame,
    its height, and the places of the other joints beside the root, turned to the front; what follows is left out."""
    values = torch.from_numpy(np.array(rows, dtype=np.float32))
    before = torch.cat([values[:1] * 0, values[:-1]])
    turn = rot_y(-2 * before[:, 0].double().cumsum(0).rad2deg())
    step = torch.stack([before[:, 1], before[:, 0] * 0, before[:, 2]], dim=1)
    place = (turn @ step[..., None])[..., 0].cumsum(0)
    others = values[:, 4:67].reshape(-1, 21, 3) @ turn.mT + place[:, None]
    root = torch.stack([place[:, 0], values[:, 3], place[:, 2]], dim=1)
    return torch.cat([root[:, None], others], dim=1).numpy()


def _candidates(values: Any) -> Iterator[Any]:
    if not isinstance(values, dict):
        yield values
        return
    yield from (values[key] for key in KEYS if key in values)
    yield from (value for key, value in values.items() if key not in KEYS)


def rate_in(values: Any) -> float | None:
    """Returns the frames per second that a file says."""
    for key in ("fps", "frame_rate", "mocap_framerate"):
        if isinstance(values, dict) and key in values:
            rate = float(numbers(values[key]).reshape(-1)[0])
            return rate if rate > 0 else None
    return None


def named_points(array: np.ndarray) -> tuple[str, dict[str, Tensor], Tensor]:
    """Returns what the layout is called, the places (F, 3) of its joints, and in which frames (F,) there are any; the
    others are filled."""
    with np.errstate(over="ignore", invalid="ignore"):
        points = torch.from_numpy(np.array(array, dtype=np.float32))
    seen = (points.isfinite() & (points != 0)).flatten(1).any(1)
    points = _without_gaps(torch.where(seen[:, None, None], points, float("nan")))
    name, layout = LAYOUTS[points.shape[1]]
    if layout is COCO:
        hips = (points[:, 1] + points[:, 4]) / 2
        if (points[:, 0] - hips).norm(dim=1).median() < 0.3 * (points[:, 1] - points[:, 2]).norm(dim=1).median():
            name, layout = "Human3.6M", HUMAN36M
    return name, _unmirrored({joint: points[:, i] for joint, i in layout.items()}), seen


def _without_gaps(points: Tensor) -> Tensor:
    """Fills joints that are not finite, in time; those that never are make the file unreadable."""
    good = points.isfinite().all(-1) & (points.abs() < 1e6).all(-1)
    if good.all():
        return points
    if not good.any(0).all():
        raise DamagedError("a joint has no place in any frame")
    filled = points.clone()
    frames = np.arange(len(points))
    for joint in (~good.all(0)).nonzero().flatten().tolist():
        seen = good[:, joint].numpy()
        for axis in range(3):
            line = np.interp(frames, frames[seen], points[seen, joint, axis].numpy())
            filled[:, joint, axis] = torch.from_numpy(line)
    return filled


def _unmirrored(at: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns points of a left-handed world, as of Unity, into those of a right-handed one: toes and nose are in front,
    and knees bend backwards."""
    left = at["left_hip"] - at["right_hip"]
    ahead = normalize(cross(left, _between(at, "shoulder") - _between(at, "hip")), dim=1)
    signs = []
    for side in SIDES:
        toe = next((name for name in (f"{side}_big_toe", f"{side}_foot") if name in at), None)
        heel = at.get(f"{side}_heel", at[f"{side}_ankle"])
        if toe:
            signs.append(normalize(at[toe] - heel, dim=1))
        thigh, shin = at[f"{side}_knee"] - at[f"{side}_hip"], at[f"{side}_ankle"] - at[f"{side}_knee"]
        signs.append(normalize(thigh, dim=1) - normalize(shin, dim=1))
    if "left_ear" in at:
        signs.append(normalize(at["nose"] - _between(at, "ear"), dim=1))
    forward = sum(float((sign * ahead).sum(1).mean()) for sign in signs)
    return at if forward >= 0 else {name: place * place.new_tensor([-1.0, 1.0, 1.0]) for name, place in at.items()}


def our_points(body: Body, skin: bool) -> dict[str, Tensor]:
    """Returns the places (3,) of our joints, and of nose, ears, toes and heels, in the rest pose; with `skin` also of
    hips, knees and so on as keypoints have them."""
    keypoints = dict(zip(KEYPOINTS, body.keypoints(body.rest())[0]))
    return our_rest(body) | keypoints if skin else keypoints | our_rest(body)


def turned(at: dict[str, Tensor], ours: dict[str, Tensor], up: Tensor) -> Tensor:
    """Returns rotations (F, 24, 3, 3) of our joints in the world of the points, whose bones lie as theirs. `up` is its
    direction upwards."""
    whole = "spine3" in at and _same_build(at, ours)
    turns = _trunk(at, ours, whole)
    for side in SIDES:
        collar, chest = f"{side}_collar", turns["spine3"]
        if collar in at:
            aimed = _aimed(chest, at, ours, collar, f"{side}_shoulder")
            turns[collar] = aimed if whole else _moved(chest, at, collar, f"{side}_shoulder")
        else:
            turns[collar] = chest
        for limb, above in zip(LIMBS, ("pelvis", collar)):
            turns |= _limb(turns[above], at, ours, [f"{side}_{part}" for part in limb])
        for joint, end in (("wrist", "hand"), ("ankle", "foot")):
            name, before = f"{side}_{joint}", turns[f"{side}_{'elbow' if joint == 'wrist' else 'knee'}"]
            start, end = name, f"{side}_{end}"
            if joint == "ankle" and f"{side}_heel" in at:
                start, end = f"{side}_heel", f"{side}_big_toe"
            if end in at:
                turns[name] = _aimed(before, at, ours, start, end)
            else:
                turns[name] = _sole(before, at, side, up) if joint == "ankle" else before
            turns[f"{side}_{'hand' if joint == 'wrist' else 'foot'}"] = turns[name]
    return torch.stack([turns[name] for name in JOINTS], dim=1)


def _sole(shin: Tensor, at: dict[str, Tensor], side: str, up: Tensor) -> Tensor:
    """Where nothing is known of a foot, its sole is flat on the floor, and follows the shin (F, 3, 3) in the air."""
    flat = frame(up.expand(len(shin), 3), shin[..., 2]) @ frame(torch.tensor([0.0, 1.0, 0.0]), torch.eye(3)[2]).T
    height = at[f"{side}_ankle"] @ up
    leg = (at[f"{side}_hip"] - at[f"{side}_ankle"]).norm(dim=1).max()
    above = (height - height.quantile(0.02)) / (AIR * leg)
    return slerp(shin, flat, torch.exp(-(above.clamp(min=0) ** 2)))


def _aimed(guide: Tensor, at: dict[str, Tensor], ours: dict[str, Tensor], start: str, end: str) -> Tensor:
    """Turns `guide` (F, 3, 3) as little as needed for a bone to lie as theirs."""
    return swing(guide @ (ours[end] - ours[start]), at[end] - at[start]) @ guide


def _moved(guide: Tensor, at: dict[str, Tensor], start: str, end: str) -> Tensor:
    """Turns `guide` (F, 3, 3) as a bone of unknown build moves against it, from where that is on average."""
    bone = normalize((guide.mT @ (at[end] - at[start])[..., None])[..., 0], dim=1)
    return guide @ swing(bone.mean(0).expand_as(bone), bone)


def _same_build(at: dict[str, Tensor], ours: dict[str, Tensor]) -> bool:
    """Tells whether a trunk is built as ours, as far as the lengths between its joints say; otherwise the same places
    mean other rotations."""
    sizes = [[float((places[b] - places[a]).norm(dim=-1).median()) for a, b in BUILD] for places in (at, ours)]
    leg = [max(sum(size[:2]), 1e-9) for size in sizes]
    return all(abs(a / leg[0] - b / leg[1]) < ALIKE for a, b in zip(*sizes))


def _between(at: dict[str, Tensor], part: str) -> Tensor:
    return (at[f"left_{part}"] + at[f"right_{part}"]) / 2


def _lying(at: dict[str, Tensor], ours: dict[str, Tensor], part: str, up: tuple[str, str]) -> Tensor:
    """Returns how left and right of a part and a direction up from it are turned against ours."""

    def own(places: dict[str, Tensor]) -> Tensor:
        start, end = (places[name] if name in places else _between(places, name) for name in up)
        return frame(places[f"left_{part}"] - places[f"right_{part}"], end - start)

    return own(at) @ own(ours).T


def _trunk(at: dict[str, Tensor], ours: dict[str, Tensor], whole: bool) -> dict[str, Tensor]:
    """Pelvis, spine, neck and head. Unless the spine is ours, `whole`, it is straight between hips and shoulders."""
    turns = {
        "pelvis": _lying(at, ours, "hip", ("hip", "spine1" if whole else "shoulder")),
        "spine3": _lying(at, ours, "collar", ("spine3", "neck"))
        if whole
        else _lying(at, ours, "shoulder", ("hip", "shoulder")),
    }
    for i, (joint, above) in enumerate(zip(SPINE[1:3], SPINE[2:])):
        part = torch.full((len(turns["pelvis"]),), (i + 1) / 3)
        turns[joint] = slerp(turns["pelvis"], turns["spine3"], part)
        if whole:
            turns[joint] = _aimed(turns[joint], at, ours, joint, above)
    chest = turns["spine3"]
    if "left_ear" in at and (ours["left_ear"] - ours["right_ear"]).norm() > 0:
        turns["head"] = _lying(at, ours, "ear", ("ear", "nose"))
        turns["neck"] = slerp(chest, turns["head"], torch.full((len(chest),), 0.5))
    elif "crown" in at:
        turns["neck"] = turns["head"] = swing(chest[..., 1], at["crown"] - at["neck"]) @ chest
    elif "head" in at:
        aimed = _aimed(chest, at, ours, "neck", "head")
        turns["neck"] = turns["head"] = aimed if whole else _moved(chest, at, "neck", "head")
    else:
        turns["neck"] = turns["head"] = chest
    return turns


def _limb(guide: Tensor, at: dict[str, Tensor], ours: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Both bones of a limb lie as theirs, and turn about themselves so that it bends as knees and elbows do."""
    upper, lower, end = names
    side, _, part = lower.partition("_")
    hinge = torch.tensor(HINGES[part][side])
    first, second = (normalize(at[b] - at[a], dim=1) for a, b in ((upper, lower), (lower, end)))
    near = _aimed(guide, at, ours, upper, lower)
    axis = cross(first, second) + STEADY * (near @ hinge)
    found = {}
    for name, bone, lies in ((upper, ours[lower] - ours[upper], first), (lower, ours[end] - ours[lower], second)):
        found[name] = frame(lies, axis) @ frame(bone, hinge).T
    return found


def as_skeleton(at: dict[str, Tensor], fps: float) -> SkeletonMotion:
    """Returns points as a skeleton without rotations."""
    names = list(at)
    soles = {
        side: [
            i for i, name in enumerate(names) if name in {f"{side}_{p}" for p in ("ankle", "foot", "heel", "big_toe")}
        ]
        for side in SIDES
    }
    places = torch.stack([at[name] for name in names], dim=1)
    return SkeletonMotion(
        torch.empty(len(places), 0), places, places[0] * 0, {name: i for i, name in enumerate(names)}, soles, fps
    )
