"""Fills frames in which nobody was seen from the frames around them."""

from dataclasses import replace

import torch

from .camera import from_sight, to_sight
from .motion import Motion
from .rotation import slerp


def fill_gaps(motion: Motion) -> Motion:
    """Fills every frame of confidence 0 from its neighbours in the shot: rotations by slerp, the place by a straight
    line in (x/z, y/z, log z). At the ends of a shot, the nearest seen frame is held.

    Nothing is carried over a cut, but a shot in which nobody was seen holds the nearest seen frame of another.
    """
    seen = (motion.confidence > 0).nonzero().flatten()
    if len(seen) == 0:
        raise ValueError(
            "Nobody was seen in any frame of this motion, so there is nothing to fill it from; choose another person, "
            "or a part of the video in which the person is visible."
        )
    frames = torch.arange(len(motion), device=seen.device)
    start, end = frames.clone(), frames.clone()
    for shot in motion.shots():
        known = seen[(seen >= shot.start) & (seen < shot.stop)]
        if len(known) == 0:
            known = seen[(seen - (shot.start + shot.stop - 1) / 2).abs().argmin()][None]
        start[shot] = known[(torch.searchsorted(known, frames[shot], right=True) - 1).clamp(min=0)]
        end[shot] = known[torch.searchsorted(known, frames[shot]).clamp(max=len(known) - 1)]
    gap = motion.confidence == 0
    frames, start, end = frames[gap], start[gap], end[gap]
    part = ((frames - start) / (end - start).clamp(min=1)).clamp(0, 1).to(motion.cam_t)
    rotations, cam_t = motion.rotations.clone(), motion.cam_t.clone()
    turn = part[:, None].expand(-1, motion.rotations.shape[1])
    rotations[gap] = slerp(motion.rotations[start], motion.rotations[end], turn)
    way = torch.lerp(to_sight(motion.cam_t[start]), to_sight(motion.cam_t[end]), part[:, None])
    cam_t[gap] = from_sight(way)
    return replace(motion, rotations=rotations, cam_t=cam_t)
