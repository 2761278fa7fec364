"""What a fit could not decide: how far it is from the points, and where front and back may be exchanged."""

import math

import torch
from torch import Tensor

from .observed import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS, Observed

PERSON = 1.7  # metres
# Bones whose ends can be in front of or behind each other: thighs, shins, upper arms, forearms.
BONES = [*zip(HIPS, KNEES), *zip(KNEES, ANKLES), *zip(SHOULDERS, ELBOWS), *zip(ELBOWS, WRISTS)]
LEAST, SURE = 0.15, 0.45  # metres between two depths of a bone's end: from which they may differ, and certainly do
BENT = math.radians(45)  # of a knee: half of it is too much for a leg that looks straight
ASIDE = 0.3  # metres by which a leg goes to its side, in depth: half of it is rare
ASK = 0.15  # of a limb against the network, from which it is tried the other way round
SWAP = 0.15  # seconds in which no limb comes from behind to the front
FAR = 0.15  # metres in front and behind, for it to be a swap


def misfit_of(points: Tensor, seen: Observed, size: Tensor, focal: float) -> Tensor:
    """(F,) mean distance in the picture of points (F, SEEN, 3) from those that are seen, in a person's height."""
    away = (focal * points[..., :2] / points[..., 2:] - seen.points).norm(dim=-1) / (PERSON * size[:, None])
    return (away * seen.weight).sum(1) / seen.weight.sum(1).clamp(min=1e-9)


def knees_of(points: Tensor) -> Tensor:
    """(F, 2) radians by which knees bend."""
    hip, knee, ankle = (points[:, part] for part in (HIPS, KNEES, ANKLES))
    thigh, shin = (torch.nn.functional.normalize(bone, dim=-1) for bone in (knee - hip, ankle - knee))
    return (thigh * shin).sum(-1).clamp(-1, 1).acos()


def aside_in_depth(points: Tensor) -> Tensor:
    """(F, 2) metres by which legs go sideways, the less the more of that is seen. People seen from the side bend their
    knees rather, which looks much the same."""
    hips, ankles = points[:, HIPS], points[:, ANKLES]
    side = torch.nn.functional.normalize(hips[:, 0] - hips[:, 1], dim=-1)[:, None]
    return ((ankles - hips) * side).sum(-1).abs() * side[..., 2].square()


def against_network(points: Tensor, seen: Observed) -> Tensor:
    """(F, 4) 0..1: the left and right leg, and the arms, lie the other way than the pose network's own depth says."""
    start, end = map(list, zip(*BONES))
    deep = points[:, end, 2] - points[:, start, 2]
    said = seen.depth[:, end] - seen.depth[:, start]
    known = torch.minimum(seen.depth_weight[:, end], seen.depth_weight[:, start]) > 0
    other = ((deep - said).abs() - LEAST) / (SURE - LEAST) * ((deep * said < 0) & known)
    return other.clamp(0, 1).unflatten(1, (2, 2, 2)).amax(2).flatten(1)


def open_limbs(points: Tensor, seen: Observed) -> Tensor:
    """(F, 4) bool: limbs that point to the front or the back, and a network says the other or nothing about it."""
    start, end = HIPS + SHOULDERS, ANKLES + WRISTS
    deep = (points[:, end, 2] - points[:, start, 2]).abs() > FAR
    told = torch.minimum(seen.depth_weight[:, end], seen.depth_weight[:, start]) > 0
    shown = torch.minimum(seen.weight[:, end], seen.weight[:, start]) > 0
    return shown & torch.where(told, against_network(points, seen) > ASK, deep)


def doubt_of(points: Tensor, seen: Observed, straight: Tensor, steps: Tensor, fps: float) -> Tensor:
    """(F,) 0..1: a limb of a body at points (F, P, 3) lies the other way than the pose network's own depth says, or
    swings through too fast, or a leg goes aside where that is not seen, or its knee bends though the leg looks
    `straight` (F, 2)."""
    bent, aside = straight * knees_of(points) / BENT, aside_in_depth(points) / ASIDE
    doubt = torch.cat([against_network(points, seen), bent, aside], dim=1).amax(1).clamp(max=1)
    start, end = map(list, zip(*BONES))
    deep = points[:, end, 2] - points[:, start, 2]
    lag = max(1, round(SWAP * fps))
    if len(deep) > lag:
        ways = steps.unfold(0, lag, 1).all(1)
        shown = (torch.minimum(seen.weight[:, end], seen.weight[:, start]) > 0).unfold(0, lag + 1, 1).any(2)
        a, b = deep[:-lag], deep[lag:]
        swapped = ((a * b < 0) & (torch.minimum(a.abs(), b.abs()) > FAR) & shown).any(1) & ways
        for i in range(lag + 1):
            part = doubt[i : len(doubt) - lag + i]
            part.copy_(torch.maximum(part, swapped.to(doubt)))
    return doubt
