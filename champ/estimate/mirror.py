"""Limbs the other way round: what is in front goes behind, and looks the same in the picture."""

import torch
from torch import Tensor
from torch.linalg import cross
from torch.nn.functional import max_pool1d, normalize, pad

from ..body.skeleton import JOINTS, PARENTS
from ..motion.rotation import from_axis_angle, to_axis_angle
from .observed import ANKLES, HIPS, SHOULDERS, WRISTS

# Of each leg and arm: the joint that turns it, and the points at its ends.
LIMBS = [
    (JOINTS.index(f"{side}_{joint}"), start[i], end[i])
    for joint, start, end in (("hip", HIPS, ANKLES), ("shoulder", SHOULDERS, WRISTS))
    for i, side in enumerate(("left", "right"))
]
AROUND = 6  # frames before and after a stretch, in which its limbs come to where they were


def mirrored(pose: Tensor, facing: Tensor, points: Tensor, chosen: Tensor) -> Tensor:
    """Returns axis-angles (F, 24, 3) with the `chosen` (F, 4) of LIMBS turned so that their ends are as far in front of
    where they begin as they were behind it, of a body at `points` (F, P, 3)."""
    local = from_axis_angle(pose)
    turn = [facing @ local[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        turn.append(turn[parent] @ local[:, joint])
    out = pose.clone()
    for (joint, start, end), frames in zip(LIMBS, chosen.T):
        way = normalize(points[:, end] - points[:, start], dim=1)
        other = way * way.new_tensor([1, 1, -1])
        axis = normalize(cross(way, other), dim=1)
        flip = from_axis_angle(axis * (way * other).sum(1).clamp(-1, 1).acos()[:, None])
        parent = turn[PARENTS[joint]]
        turned = to_axis_angle(parent.mT @ flip @ turn[joint])
        out[:, joint] = torch.where(frames[:, None], turned, pose[:, joint])
    return out


def stretches_around(wrong: Tensor, runs: list[slice], longest: int) -> list[slice]:
    """Returns stretches of frames around those that are `wrong` (F,), inside runs and of at most `longest` frames."""
    found = []
    for run in runs:
        near = max_pool1d(wrong[None, run].double(), 2 * AROUND + 1, 1, AROUND)[0] > 0
        edges = pad(near.int(), (1, 1)).diff().nonzero().flatten() + run.start
        for first, last in edges.view(-1, 2).tolist():
            found += [slice(i, min(i + longest, last)) for i in range(first, last, longest)]
    return found
