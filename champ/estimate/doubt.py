"""What a fit could not decide: how far it is from the points, and where front and back may be exchanged."""

import torch
from torch import Tensor

from .observed import ANKLES, ELBOWS, HIPS, KNEES, SHOULDERS, WRISTS, Observed
from .points import PosedPoints

PERSON = 1.7  # metres
# Bones whose ends can be in front of or behind each other: thighs, shins, upper arms, forearms.
BONES = [*zip(HIPS, KNEES), *zip(KNEES, ANKLES), *zip(SHOULDERS, ELBOWS), *zip(ELBOWS, WRISTS)]
LEAST, SURE = 0.15, 0.45  # metres between two depths of a bone's end: from which they may differ, and certainly do
SWAP = 0.15  # seconds in which no limb comes from behind to the front
FAR = 0.15  # metres in front and behind, for it to be a swap


def misfit_of(posed: PosedPoints, seen: Observed, size: Tensor, focal: float) -> Tensor:
    """(F,) mean distance of the seen points in the picture, in a person's height."""
    points = posed.points[:, : seen.points.shape[1]]
    away = (focal * points[..., :2] / points[..., 2:] - seen.points).norm(dim=-1) / (PERSON * size[:, None])
    return (away * seen.weight).sum(1) / seen.weight.sum(1).clamp(min=1e-9)


def doubt_of(posed: PosedPoints, seen: Observed, steps: Tensor, fps: float) -> Tensor:
    """(F,) 0..1: a limb lies the other way than the pose network's own depth says, or swings through too fast."""
    start, end = map(list, zip(*BONES))
    deep = posed.points[:, end, 2] - posed.points[:, start, 2]
    said = seen.depth[:, end] - seen.depth[:, start]
    known = torch.minimum(seen.depth_weight[:, end], seen.depth_weight[:, start]) > 0
    other = ((deep - said).abs() - LEAST) / (SURE - LEAST) * ((deep * said < 0) & known)
    doubt = other.clamp(0, 1).amax(1)
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
