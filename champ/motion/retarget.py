"""Puts the motion of another skeleton into our 24 joints, whatever its axes, units, proportions and rest pose.

A joint of ours that follows one of theirs keeps a fixed rotation to it, which is found once: in their rest pose if that
is a person's, and otherwise (bones that all lie along one axis) from how knees, elbows and feet move in the clip. The
place of the hips is scaled by the length of the legs, and the height is such that feet touch the floor when theirs do.
"""

from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor
from torch.linalg import cross
from torch.nn.functional import normalize

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..files.errors import DamagedError
from .footing import above_floor, put_on_floor, reach, swing, to_local
from .joint_names import Found
from .rotation import slerp

SIDES = ("left", "right")
LIMBS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
PARTS = ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot")  # the upper one first
# The axis about which a knee and an elbow bend, in our rest pose.
HINGES = {
    "knee": {side: (1.0, 0.0, 0.0) for side in SIDES},
    "elbow": {"left": (0.0, -1.0, 0.0), "right": (0.0, 1.0, 0.0)},
}
NEAR = 25.0  # degrees between axes of a skeleton that are meant to be the same
BENDS = 30.0  # degrees between joints of a trunk that is taken to be straight, at most
STRAIGHTEST = 10  # one frame of so many is taken for that
BENT = 0.25  # mean sine of a limb's bend from which that says more than what is near
SAMPLES = 2000  # frames from which a skeleton is understood
CONTACT = 0.03  # of the length of a leg, above which a foot is off the floor

AXES = torch.stack(
    [
        turned
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if torch.linalg.det(turned := torch.diag(torch.tensor(signs))[list(order)]) > 0
    ]
)  # the 24 rotations that take axes to axes
UP = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class SkeletonMotion:
    """A skeleton in motion, in the axes and units of its file."""

    turns: Tensor  # (F, J, 3, 3) rotations in the world of the joints that were found, which are the first of the N
    places: Tensor  # (F, N, 3)
    rest: Tensor  # (N, 3) places where nothing is turned
    found: Found  # which joint is which of ours
    ends: dict[str, list[int]]  # left and right: what of the foot may touch the floor
    fps: float

    def __getitem__(self, index: Tensor) -> "SkeletonMotion":
        return SkeletonMotion(self.turns[index], self.places[index], self.rest, self.found, self.ends, self.fps)

    def at(self, ours: str) -> Tensor:
        return self.places[:, self.found[ours]]

    def turn(self, ours: str) -> Tensor:
        return self.turns[:, self.found[ours]]

    def has(self, *ours: str) -> bool:
        return all(name in self.found for name in ours)

    def middle(self, part: str) -> Tensor:
        return (self.at(f"left_{part}") + self.at(f"right_{part}")) / 2

    def row(self, kind: str) -> list[str]:
        """Returns the names of what there is of "spine" or "neck", from below."""
        return sorted(
            (name for name in self.found if name.startswith(f"{kind} ")), key=lambda name: int(name.split()[1])
        )


def frame(first: Tensor, second: Tensor) -> Tensor:
    """Returns a rotation whose columns are a direction, the part of another at right angles to it, and their cross
    product."""
    x = normalize(first, dim=-1)
    z = normalize(cross(x, second), dim=-1)
    return torch.stack([x, cross(z, x), z], dim=-1)


def mean_rotation(turns: Tensor) -> Tensor:
    """Returns the rotation (3, 3) nearest to the mean of many."""
    u, _, v = torch.linalg.svd(turns.mean(0))
    sign = torch.diag(torch.stack([torch.ones(()), torch.ones(()), torch.linalg.det(u @ v)]))
    return u @ sign @ v


def nearest_axes(turn: Tensor, most: float) -> Tensor:
    """Returns the rotation that takes axes to axes and is nearest, or the same one if that is further than `most`
    degrees."""
    trace = (AXES * turn).sum((1, 2))
    best = int(trace.argmax())
    angle = ((trace[best] - 1) / 2).clamp(-1, 1).acos().rad2deg()
    return AXES[best] if angle <= most else turn


def our_rest(body: Body) -> dict[str, Tensor]:
    return dict(zip(JOINTS, body.rest().joints[0]))


# Understanding the skeleton.


def is_person(rest: Tensor, found: Found) -> bool:
    """Tells whether places (N, 3) are those of a person who stands, arms in any way but up, feet in any but down."""
    at = {ours: rest[joint] for ours, joint in found.items()}
    hips, shoulders = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder"))
    up = normalize(shoulders - hips, dim=0)

    def rises(start: str, end: str) -> float:
        ends = [(at[f"{side}_{start}"], at[f"{side}_{end}"]) for side in SIDES if f"{side}_{end}" in at]
        return max((float(normalize(b - a, dim=0) @ up) for a, b in ends), default=0.0)

    across = [at[f"left_{part}"] - at[f"right_{part}"] for part in ("hip", "shoulder")]
    wide = float(across[0] @ across[1]) > 0 and float(cross(across[0], up).norm()) > 0
    legs = max(rises("hip", "knee"), rises("knee", "ankle")) < -0.5
    return wide and legs and rises("shoulder", "elbow") < 0.6 and rises("ankle", "foot") > -0.9


def rest_axes(rest: Tensor, found: Found) -> Tensor:
    """Returns the rotation (3, 3) from the axes of a person's rest pose to ours: x to the left, y up, z in front."""
    left = rest[found["left_hip"]] - rest[found["right_hip"]]
    hips, shoulders = (rest[[found[f"{side}_{part}"] for side in SIDES]].mean(0) for part in ("hip", "shoulder"))
    return nearest_axes(frame(left, shoulders - hips).T, NEAR)


def from_rest(skeleton: SkeletonMotion, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the rotation of each joint of ours to theirs, from a rest pose that is a person's."""
    axes = rest_axes(skeleton.rest, skeleton.found)
    theirs = {name: axes @ skeleton.rest[joint] for name, joint in skeleton.found.items()}
    turned = {name: torch.eye(3) for name in skeleton.found}
    for side in SIDES:
        for upper, lower, end in ((f"{side}_{a}", f"{side}_{b}", f"{side}_{c}") for a, b, c in LIMBS):
            if end not in theirs:  # a hand that is missing: the forearm goes on as the upper arm
                turned[upper] = turned[lower] = swing(ours[lower] - ours[upper], theirs[lower] - theirs[upper])
                continue
            turned[upper] = swing(ours[lower] - ours[upper], theirs[lower] - theirs[upper])
            bent = turned[upper] @ (ours[end] - ours[lower])
            turned[lower] = swing(bent, theirs[end] - theirs[lower]) @ turned[upper]
        for hand in (f"{side}_wrist", f"{side}_hand"):
            turned[hand] = turned[f"{side}_elbow"]
        ankle, foot = f"{side}_ankle", f"{side}_foot"
        if foot in theirs:  # soles are flat in a rest pose; only the direction of the toes counts
            flat = torch.tensor([1.0, 0.0, 1.0])
            turned[ankle] = turned[foot] = swing(
                flat * (ours[foot] - ours[ankle]), flat * (theirs[foot] - theirs[ankle])
            )
    return {name: axes.T @ turned[name] for name in skeleton.found}


def from_movement(skeleton: SkeletonMotion, ours: dict[str, Tensor], up: Tensor) -> dict[str, Tensor]:
    """Returns the rotation of each joint of ours to theirs, from how it moves. `up` is a direction of the file."""
    trunk = _trunk(skeleton, ours)
    found = dict(trunk)
    chest = (["pelvis", *skeleton.row("spine")])[-1]
    for side in SIDES:
        if skeleton.has(f"{side}_collar"):
            found[f"{side}_collar"] = _follows(skeleton, f"{side}_collar", skeleton.turn(chest) @ found[chest])
        for limb, above in zip(LIMBS, ("pelvis", chest)):
            found |= _limb(skeleton, ours, [f"{side}_{part}" for part in limb], skeleton.turn(above) @ found[above])
        found |= _foot(skeleton, ours, side, up, skeleton.turn(f"{side}_knee") @ found[f"{side}_knee"])
        arm = [name for name in (f"{side}_elbow", f"{side}_wrist", f"{side}_hand") if skeleton.has(name)]
        for before, hand, turn in zip(arm, arm[1:], _bends(skeleton, arm)):
            found[hand] = turn.T @ found[before]
    return found


def _trunk(skeleton: SkeletonMotion, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pelvis lies as the hips and the spine say. Up to the head, the trunk is about straight in some frames."""
    spine, neck = skeleton.row("spine"), skeleton.row("neck")
    turn = skeleton.turn("pelvis").mT

    def seen(place: Tensor) -> Tensor:
        return (turn @ place[..., None])[..., 0].mean(0)

    left = seen(skeleton.at("left_hip") - skeleton.at("right_hip"))
    start = skeleton.at(spine[0]) if spine else skeleton.middle("shoulder")
    lies = frame(left, seen(start - skeleton.middle("hip")))
    axes = nearest_axes(lies, NEAR)
    if axes is lies:
        middle = (ours["left_hip"] + ours["right_hip"]) / 2
        axes = lies @ frame(torch.eye(3)[0], ours["spine1" if spine else "neck"] - middle).T
    found = {"pelvis": axes}
    line = ["pelvis", *spine, *neck, *(["head"] if skeleton.has("head") else [])]
    straight = skeleton[_straightest(skeleton, skeleton.turn("pelvis") @ axes)]
    for joint, turn in zip(line[1:], _bends(straight, line)):
        found[joint] = turn.T @ found[line[line.index(joint) - 1]]
    return found


def _straightest(skeleton: SkeletonMotion, pelvis: Tensor) -> Tensor:
    """Returns the numbers of the frames in which the shoulders are most as above the pelvis (F, 3, 3)."""
    up = normalize(skeleton.middle("shoulder") - skeleton.middle("hip"), dim=1)
    across = normalize(skeleton.at("left_shoulder") - skeleton.at("right_shoulder"), dim=1)
    straight = (up * pelvis[..., 1]).sum(1) + (across * pelvis[..., 0]).sum(1)
    return straight.topk(max(1, len(straight) // STRAIGHTEST)).indices


def _bends(skeleton: SkeletonMotion, line: list[str]) -> list[Tensor]:
    """Returns how each joint of a line is turned against the one before it where the body is straight: on average, or
    so that axes lie on axes, if that is near for all of them."""
    means = [mean_rotation(skeleton.turn(a).mT @ skeleton.turn(b)) for a, b in zip(line, line[1:])]
    exact = [nearest_axes(mean, BENDS) for mean in means]
    return means if any(a is b for a, b in zip(means, exact)) else exact


def _follows(skeleton: SkeletonMotion, joint: str, guide: Tensor) -> Tensor:
    """A joint that on average is turned as `guide` (F, 3, 3)."""
    return mean_rotation(skeleton.turn(joint).mT @ guide)


def _limb(skeleton: SkeletonMotion, ours: dict[str, Tensor], names: list[str], guide: Tensor) -> dict[str, Tensor]:
    """Upper and lower part of a limb: their bones lie as ours, and they bend about the same axis."""
    upper, lower, end = names
    if not skeleton.has(end):
        return {name: _follows(skeleton, name, guide) for name in (upper, lower)}
    bones = (skeleton.at(lower) - skeleton.at(upper), skeleton.at(end) - skeleton.at(lower))
    first, second = (
        normalize((skeleton.turn(name).mT @ bone[..., None])[..., 0].mean(0), dim=0)
        for name, bone in zip((upper, lower), bones)
    )
    axes = cross(normalize(bones[0], dim=1), normalize(bones[1], dim=1))  # as long as the sine of the bend
    side, _, part = lower.partition("_")
    hinge = torch.tensor(HINGES[part][side])
    found = {}
    for name, own, end_of in ((upper, first, lower), (lower, second, end)):
        bone = ours[end_of] - ours[name]
        near = _follows(skeleton, name, guide)
        near = swing(near @ bone, own) @ near
        axis = (skeleton.turn(name).mT @ axes[..., None])[..., 0].mean(0) + BENT * near @ hinge
        found[name] = frame(own, axis) @ frame(bone, hinge).T
        guide = skeleton.turn(name) @ found[name]
    return found


def _foot(skeleton: SkeletonMotion, ours: dict[str, Tensor], side: str, up: Tensor, guide: Tensor) -> dict[str, Tensor]:
    """The sole is flat on the floor where both ends of the foot are at their lowest."""
    ankle, foot = f"{side}_ankle", f"{side}_foot"
    if not skeleton.has(foot):
        return {ankle: _follows(skeleton, ankle, guide)}
    heights = torch.stack([skeleton.at(ankle) @ up, skeleton.at(foot) @ up], dim=1)
    low = heights - heights.quantile(0.02, dim=0)
    flat = (low < CONTACT * leg_of(skeleton)).all(1)
    ahead = skeleton.at(foot) - skeleton.at(ankle)
    our_ahead = ours[foot] - ours[ankle]
    if flat.any():
        lying = frame(up.expand(int(flat.sum()), 3), ahead[flat]) @ frame(torch.tensor([0.0, 1.0, 0.0]), our_ahead).T
        found = mean_rotation(skeleton.turn(ankle)[flat].mT @ lying)
    else:
        near = _follows(skeleton, ankle, guide)
        found = swing(near @ our_ahead, (skeleton.turn(ankle).mT @ ahead[..., None])[..., 0].mean(0)) @ near
    return {ankle: found, foot: _follows(skeleton, foot, skeleton.turn(ankle) @ found)}


def upwards(skeleton: SkeletonMotion, said: str = "") -> Tensor:
    """Returns what is up in the file's world: as said, as the person stands in the clip, or in the rest pose."""
    if said:
        return torch.tensor(UP[said])
    trunk = normalize(skeleton.middle("shoulder") - skeleton.middle("ankle"), dim=1).mean(0)
    if trunk.abs().max() < 0.5:
        trunk = torch.tensor(UP["y"])
        if is_person(skeleton.rest, skeleton.found):
            trunk = rest_axes(skeleton.rest, skeleton.found)[1]
    axis = int(trunk.abs().argmax())
    return torch.eye(3)[axis] * trunk[axis].sign()


def read_up(text: str) -> tuple[str, str]:
    """Takes a line `up = z` out of what the user says about the joints; returns the axis, or nothing, and the rest."""
    lines = text.splitlines()
    said = [line for line in lines if line.partition("=")[0].strip() == "up"]
    axis = said[-1].partition("=")[2].strip().lower() if said else ""
    if said and axis not in UP:
        raise ValueError(f"joints has the line {said[-1][:60]!r}, and up is x, y or z; the line may also be left out.")
    return axis, "\n".join(line for line in lines if line not in said)


def leg_of(skeleton: SkeletonMotion) -> float:
    """Returns the length of a leg in the file's units."""
    bones = [
        (skeleton.at(f"{side}_{b}") - skeleton.at(f"{side}_{a}")).norm(dim=1).mean()
        for side in SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]  # fmt: skip
    length = float(sum(bones)) / 2
    if not length > 0:
        raise DamagedError("its legs have no length")
    return length


# From their joints to ours.


def our_turns(skeleton: SkeletonMotion, to_theirs: dict[str, Tensor]) -> Tensor:
    """Returns the rotations (F, 24, 3, 3) of our joints in the file's world."""

    def one(name: str) -> Tensor:
        return skeleton.turn(name) @ to_theirs[name]

    def between(line: list[str], place: float) -> Tensor:
        below = min(int(place), len(line) - 1)
        if place == below:
            return one(line[below])
        part = torch.full((len(skeleton.turns),), place - below)
        return slerp(one(line[below]), one(line[below + 1]), part)

    spine, neck = ["pelvis", *skeleton.row("spine")], skeleton.row("neck")
    turns = {"pelvis": one("pelvis")}
    for i in (1, 2, 3):
        turns[f"spine{i}"] = between(spine, i / 3 * (len(spine) - 1))
    up = [spine[-1], *neck, *(["head"] if skeleton.has("head") else [])]
    turns["neck"] = between(up, (len(up) - 1) / 2)
    turns["head"] = one(up[-1])
    for side in SIDES:
        for joint in (f"{side}_{part}" for part in PARTS):
            above = JOINTS[PARENTS[JOINTS.index(joint)]]
            turns[joint] = one(joint) if skeleton.has(joint) else turns[above]
    return torch.stack([turns[name] for name in JOINTS], dim=1)


def retarget(skeleton: SkeletonMotion, body: Body, said_up: str = "") -> tuple[Tensor, Tensor]:
    """Returns rotations (F, 24, 3, 3) relative to the parents and root translations (F, 3) of a body that moves as a
    skeleton does; y is up, and the floor is at 0."""
    frames = len(skeleton.turns)
    some = skeleton[torch.linspace(0, frames - 1, min(frames, SAMPLES)).round().long()]
    up, ours = upwards(some, said_up), our_rest(body)
    if is_person(skeleton.rest, skeleton.found):
        to_theirs = from_rest(skeleton, ours)
    else:
        to_theirs = from_movement(some, ours, up)
    return stood(skeleton, our_turns(skeleton, to_theirs), up, body, ours)


def stood(
    skeleton: SkeletonMotion, turns: Tensor, up: Tensor, body: Body, ours: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns rotations and root translations as `retarget`, from the rotations (F, 24, 3, 3) of our joints in the
    world of a skeleton. `ours` are the rest places (3,) of what the skeleton's legs consist of."""
    upright = upright_from(up, skeleton)
    turns = upright @ turns
    size = leg_length(ours) / leg_of(skeleton)
    hips = skeleton.middle("hip")
    for side in SIDES:
        reach(turns, side, size * (skeleton.at(f"{side}_ankle") - hips) @ upright.T, ours)
    heights = torch.stack([skeleton.places[:, part] @ up for side in SIDES for part in skeleton.ends[side]], dim=1)
    rotations = to_local(_without_holes(turns))
    middle = (ours["left_hip"] + ours["right_hip"]) / 2 - our_rest(body)["pelvis"]
    root = size * hips @ upright.T - rotations[:, 0] @ middle
    return rotations, put_on_floor(rotations, root, size * above_floor(heights), body, skeleton.fps)


def _without_holes(turns: Tensor) -> Tensor:
    """Fills frames in which bones have no direction, because joints are in one place, with the frame before."""
    good = (torch.linalg.det(turns) > 0.5).all(1)
    if not good.any():
        raise DamagedError("in every frame, bones have no length")
    numbers = torch.arange(len(turns))
    last = torch.where(good, numbers, -1).cummax(0).values
    return turns[torch.where(last < 0, good.int().argmax(), last)]


def leg_length(ours: dict[str, Tensor]) -> float:
    bones = [(ours[f"left_{a}"] - ours[f"left_{b}"]).norm() for a, b in (("hip", "knee"), ("knee", "ankle"))]
    return float(sum(bones))


def upright_from(up: Tensor, skeleton: SkeletonMotion) -> Tensor:
    """Returns the rotation (3, 3) from the file's world to ours: up becomes y, and the front of a person at rest z."""
    if is_person(skeleton.rest, skeleton.found):
        axes = rest_axes(skeleton.rest, skeleton.found)
        if axes[1] @ up > 0.9:
            z = normalize(cross(axes[0], up, dim=0), dim=0)
            return torch.stack([cross(up, z, dim=0), up, z])
    # Without a person, the front is that of most tools: z, or in Blender, where z is up, -y.
    across = torch.tensor([1.0, 0.0, 0.0]) if up[0] == 0 else torch.tensor([0.0, 0.0, 1.0])
    return torch.stack([across, up, cross(across, up, dim=0)])
