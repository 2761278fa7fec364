"""BVH files: a skeleton as text, and the channels of its joints, frame by frame."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..files.errors import DamagedError, reading
from ..files.room import Room
from ..output import whole
from ..progress import advance
from .camera import CAMERA_FROM_WORLD
from .foreign import FRAMES
from .joint_names import Found, Tree
from .motion import Motion
from .retarget import SIDES, SkeletonMotion
from .rotation import rot_x, rot_y, rot_z
from .transfer import lowest

WHAT = ("a motion", "export it again as BVH")
BYTES = 512 << 20
LINE = 1 << 20  # characters
NODES = 1000  # joints and end sites
NAME = 200  # characters
AT_ONCE = 1000  # frames
POSED = 100_000  # joints times frames that are posed at once
TURN, PLACE = 36, 16  # bytes; of a place with its height
TURNS = (rot_x, rot_y, rot_z)
CHANNELS = {f"{axis}{what}": (what, "xyz".index(axis)) for axis in "xyz" for what in ("position", "rotation")}

# What our joints are called in the files that we write: the names of most tools, so that they know them again.
NAMES = {
    "pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head",
    "hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase", "collar": "Shoulder", "shoulder": "Arm",
    "elbow": "ForeArm", "wrist": "Hand", "hand": "Fingers",
}  # fmt: skip


@dataclass
class BvhJoint:
    """A joint, or the end of one."""

    name: str  # empty for an end
    parent: int
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    channels: list[tuple[str, int]] = field(default_factory=list)  # in their order in the file
    first: int = 0  # column of the first of them


@dataclass(frozen=True)
class Clip:
    """The contents of a BVH file, in its own units and axes."""

    nodes: list[BvhJoint]  # a parent stands before its children
    values: np.ndarray  # (F, C) float32, degrees and lengths
    fps: float

    def __len__(self) -> int:
        return len(self.values)

    def local(self, node: int, part: slice) -> tuple[Tensor, Tensor]:
        """Returns rotations (F, 3, 3) and places (F, 3) of a node relative to its parent."""
        own = self.nodes[node]
        values = torch.from_numpy(self.values[part, own.first : own.first + len(own.channels)])
        turn = torch.eye(3).expand(len(values), 3, 3)
        place = torch.tensor(own.offset).repeat(len(values), 1)
        for (what, axis), value in zip(own.channels, values.T):
            if what == "position":
                place[:, axis] = value
            else:
                turn = turn @ TURNS[axis](value)
        return turn, place

    def posed(self, part: slice) -> tuple[Tensor, Tensor]:
        """Returns rotations (F, N, 3, 3) and places (F, N, 3) of all nodes in the file's world."""
        turns: list[Tensor] = []
        places: list[Tensor] = []
        for node, own in enumerate(self.nodes):
            turn, place = self.local(node, part)
            if own.parent >= 0:
                place = places[own.parent] + (turns[own.parent] @ place[..., None])[..., 0]
                turn = turns[own.parent] @ turn
            turns.append(turn)
            places.append(place)
        return torch.stack(turns, dim=1), torch.stack(places, dim=1)

    def rest(self) -> Tensor:
        """Returns the places (N, 3) of all nodes where nothing is turned."""
        places: list[Tensor] = []
        for own in self.nodes:
            offset = torch.tensor(own.offset)
            places.append(offset + places[own.parent] if own.parent >= 0 else offset)
        return torch.stack(places)

    def tree(self) -> Tree:
        return Tree([node.name for node in self.nodes], [node.parent for node in self.nodes])


# Reading.


def read_bvh(path: Path) -> Clip:
    """Reads a BVH file; what is wrong with it is said with the number of the line."""
    with reading(path, *WHAT):
        if path.stat().st_size > BYTES:
            raise DamagedError(f"it has more than {BYTES >> 20} MB")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = _lines(file)
        with reading(path, *WHAT):
            nodes = Outline().read(lines)
            count, seconds = _heading(lines)
        rows: list[np.ndarray] = []
        width = sum(len(node.channels) for node in nodes)
        while len(rows) < count:
            with reading(path, *WHAT):  # nothing that can be cancelled is inside
                rows += _frames(lines, len(rows), min(count, len(rows) + AT_ONCE), width)
            advance(len(rows), count)
    return Clip(nodes, np.stack(rows), _rate(seconds))


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, with their numbers."""
    number = 0
    while line := file.readline(LINE):
        number += 1
        if len(line) == LINE:
            raise DamagedError(f"line {number} is longer than {LINE} characters")
        if line := "".join(letter if letter.isprintable() else " " for letter in line).strip():
            yield number, line


class Outline:
    """The skeleton, as it is read."""

    def __init__(self) -> None:
        self.nodes: list[BvhJoint] = []
        self.open: list[int] = []  # the nodes around the present place
        self.waiting = False  # for the bracket of the last one

    def read(self, lines: Iterator[tuple[int, str]]) -> list[BvhJoint]:
        """Reads everything before the frames."""
        number, line = next(lines, (1, ""))
        if line.upper() != "HIERARCHY":
            raise DamagedError(f"line {number} is {line[:40]!r}, and a BVH file begins with HIERARCHY")
        for number, line in lines:
            if line.upper() == "MOTION":
                if self.open or self.waiting or not self.nodes:
                    raise DamagedError(f"line {number} begins the motion, but the skeleton is not complete")
                return self.nodes
            for statement in filter(None, map(str.strip, re.split("([{}])", line))):
                try:
                    self.take(statement)
                except DamagedError as error:
                    raise DamagedError(f"line {number}, {line[:40]!r}: {error}") from None
        raise DamagedError(f"it ends after line {number}, before the motion")

    def take(self, statement: str) -> None:
        kind, *words = statement.split()
        kind = kind.upper()
        if self.waiting != (kind == "{"):
            raise DamagedError("there is a joint without a bracket, or a bracket without a joint")
        match kind:
            case "ROOT" | "JOINT" | "END":
                self.begin(kind, statement[len(kind) :].strip()[:NAME])
            case "{":
                self.open.append(len(self.nodes) - 1)
                self.waiting = False
            case "}" if self.open:
                self.open.pop()
            case "OFFSET" if self.open:
                x, y, z = _numbers(words, 3)
                self.nodes[self.open[-1]].offset = (x, y, z)
            case "CHANNELS" if self.open:
                self.channels(words)
            case _:
                raise DamagedError("no skeleton has that here")

    def begin(self, kind: str, name: str) -> None:
        if len(self.nodes) == NODES:
            raise DamagedError(f"there are more than {NODES} joints")
        if (kind == "ROOT") == bool(self.open):
            raise DamagedError("a root is inside no joint, and every other joint is inside one")
        self.nodes.append(BvhJoint("" if kind == "END" else name or "joint", self.open[-1] if self.open else -1))
        self.waiting = True

    def channels(self, words: list[str]) -> None:
        names = [word.lower() for word in words[1:]]
        if not words or words[0] != str(len(names)) or len(names) > 6 or not set(names) <= CHANNELS.keys():
            raise DamagedError(
                "up to 6 channels are expected after their number, as in CHANNELS 3 Zrotation Xrotation Yrotation"
            )
        own = self.nodes[-1]
        if self.open[-1] != len(self.nodes) - 1 or own.channels:
            raise DamagedError("a joint has one line of channels, before the joints inside it")
        own.first = sum(len(node.channels) for node in self.nodes)
        own.channels = [CHANNELS[name] for name in names]


def _heading(lines: Iterator[tuple[int, str]]) -> tuple[int, float]:
    """Reads how many frames there are, and how many seconds one takes."""
    found = []
    number = 0
    for pattern, example in ((r"frames\s*:\s*(\S+)", "Frames: 120"), (r"frame\s*time\s*:\s*(\S+)", "Frame Time: 0.04")):
        number, line = next(lines, (0, ""))
        match = re.fullmatch(pattern, line, re.IGNORECASE)
        if not match:
            where = f"line {number} is {line[:40]!r}" if number else "it ends after MOTION"
            raise DamagedError(f"{where}, and a line such as {example!r} is expected")
        try:
            found += _numbers([match[1]], 1)
        except DamagedError as error:
            raise DamagedError(f"line {number}: {error}") from None
    count, seconds = found
    if not 1 <= count <= FRAMES or count != int(count):
        raise DamagedError(f"it has {count:g} frames, and 1 to {FRAMES} can be read")
    if not 1e-3 <= seconds <= 10:
        raise DamagedError(f"line {number} lets a frame take {seconds:g} seconds, and 0.001 to 10 can be read")
    return int(count), seconds


def _frames(lines: Iterator[tuple[int, str]], first: int, end: int, width: int) -> list[np.ndarray]:
    """Reads some rows of numbers; a row may be broken into several lines."""
    if width == 0:
        raise DamagedError("its joints have no channels, so nothing moves")
    rows: list[np.ndarray] = []
    for frame in range(first, end):
        values: list[float] = []
        while len(values) < width:
            number, line = next(lines, (0, ""))
            if not number:
                raise DamagedError(f"it ends in frame {frame}, and a frame has {width} numbers")
            try:
                values += _numbers(line.split())
            except DamagedError as error:
                raise DamagedError(f"line {number}: {error}") from None
            if len(values) > width:
                raise DamagedError(f"line {number} goes on after the {width} numbers of a frame")
        rows.append(np.array(values, dtype=np.float32))
    return rows


def _numbers(words: list[str], count: int | None = None) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise DamagedError("a number is expected where there is none") from None
    if count is not None and len(values) != count:
        raise DamagedError(f"{count} numbers are expected")
    if not all(-1e6 < value < 1e6 for value in values):  # also false for NaN
        raise DamagedError("a number is not finite, or too large")
    return values


def _rate(seconds: float) -> float:
    """Returns frames per second, which files mean more exactly than their few digits say."""
    rate = 1 / seconds
    return float(round(rate)) if abs(rate - round(rate)) < 2e-4 * rate else round(rate, 3)


def skeleton_of(clip: Clip, tree: Tree, found: Found) -> SkeletonMotion:
    """Returns the skeleton of a clip, reduced to the joints that were found and to the places below the ankles."""
    nodes = range(len(clip.nodes))
    soles = {side: [node for node in nodes if found[f"{side}_ankle"] in tree.line(node)] for side in SIDES}
    joints = sorted({*found.values()})
    kept = [*joints, *sorted({*soles["left"], *soles["right"]} - {*joints})]
    number = {node: i for i, node in enumerate(kept)}
    # What has no channels costs a file nothing, and memory in every frame.
    Room(clip.values.nbytes).pay(len(clip) * (TURN * len(joints) + PLACE * len(kept)))
    turns, places = torch.empty(len(clip), len(joints), 3, 3), torch.empty(len(clip), len(kept), 3)
    step = min(AT_ONCE, POSED // len(nodes))
    for start in range(0, len(clip), step):
        part = slice(start, start + step)
        turn, place = clip.posed(part)
        turns[part], places[part] = turn[:, joints], place[:, kept]
        advance(min(start + step, len(clip)), len(clip))
    return SkeletonMotion(
        turns, places, clip.rest()[kept], {ours: number[node] for ours, node in found.items()},
        {side: [number[node] for node in soles[side]] for side in SIDES}, clip.fps,
    )  # fmt: skip


# Writing.


def save_bvh(path: str | Path, motion: Motion, body: Body) -> None:
    """Saves a motion as BVH: metres, y up, the body's T-pose as the skeleton. In the first frame the person is on the
    floor at the origin. As in `save_amass`, up is the camera's up."""
    ground = float(lowest(motion, body))
    joints = body.with_betas(motion.betas).rest().joints[0]
    pelvis = (joints[0] + motion.cam_t) @ CAMERA_FROM_WORLD
    pelvis = pelvis - torch.stack([pelvis[0, 0], pelvis.new_tensor(-ground), pelvis[0, 2]])
    order = _depth_first()
    with whole(Path(path)) as made, open(made, "w", encoding="ascii", newline="\n") as file:
        file.write("HIERARCHY\n")
        file.writelines(_skeleton(joints, 0, 0))
        file.write(f"MOTION\nFrames: {len(motion)}\nFrame Time: {1 / motion.fps:.12g}\n")
        last = None
        for start in range(0, len(motion), AT_ONCE):
            turns = motion.rotations[start : start + AT_ONCE, order].clone()
            turns[:, 0] = CAMERA_FROM_WORLD @ turns[:, 0]
            angles = _unwound(_zxy(turns.double()), last)
            last = angles[-1]
            rows = torch.cat([pelvis[start : start + AT_ONCE].double(), angles.flatten(1)], dim=1)
            np.savetxt(file, rows.numpy(), fmt="%.6f")


def joint_name(joint: str) -> str:
    """Returns what a joint of ours is called in a BVH file."""
    side, _, part = joint.rpartition("_")
    return f"{side.capitalize()}{NAMES[part]}"


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint]


def _depth_first(joint: int = 0) -> list[int]:
    return [joint, *(below for child in _children(joint) for below in _depth_first(child))]


def _skeleton(joints: Tensor, joint: int, depth: int) -> Iterable[str]:
    """Yields the lines of a joint and those below it."""
    pad = "  " * depth
    bone = joints[joint] - joints[PARENTS[joint]] if joint else torch.zeros(3)
    yield f"{pad}{'JOINT' if joint else 'ROOT'} {joint_name(JOINTS[joint])}\n{pad}{{\n"
    yield f"{pad}  OFFSET {_three(bone)}\n"
    place = "Xposition Yposition Zposition "
    yield f"{pad}  CHANNELS {3 if joint else f'6 {place}'.strip()} Zrotation Xrotation Yrotation\n"
    for child in _children(joint):
        yield from _skeleton(joints, child, depth + 1)
    if not _children(joint):
        yield f"{pad}  End Site\n{pad}  {{\n{pad}    OFFSET {_three(bone)}\n{pad}  }}\n"
    yield f"{pad}}}\n"


def _three(values: Tensor) -> str:
    return " ".join(f"{value:.6f}" for value in values.tolist())


def _zxy(turns: Tensor) -> Tensor:
    """Returns degrees (..., 3) about z, x and y whose rotations one after the other, Rz Rx Ry, are `turns`."""
    sine = turns[..., 2, 1].clamp(-1, 1)
    upright = sine.abs() > 1 - 1e-9  # z and y are one axis; y is left out
    z = torch.atan2(-turns[..., 0, 1], turns[..., 1, 1])
    y = torch.atan2(-turns[..., 2, 0], turns[..., 2, 2])
    z = torch.where(upright, torch.atan2(turns[..., 1, 0], turns[..., 0, 0]), z)
    y = torch.where(upright, torch.zeros_like(y), y)
    return torch.stack([z, sine.asin(), y], dim=-1).rad2deg()


def _unwound(angles: Tensor, last: Tensor | None) -> Tensor:
    """Adds whole turns, so that curves (F, ...) go on without jumps, also from the frame before."""
    before = angles[:1] if last is None else last[None]
    steps = torch.cat([before, angles]).diff(dim=0)
    whole_turns = (-(steps / 360).round()).cumsum(0) * 360
    return angles + whole_turns
