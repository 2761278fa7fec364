"""Trims, resamples and repeats a motion; between frames, rotations take the shortest turn."""

from dataclasses import replace

import torch
from torch import Tensor

from .motion import Motion
from .rotation import slerp


def sample(motion: Motion, position: Tensor) -> Motion:
    """Samples the motion at fractional frame positions (N,): slerp for rotations, straight lines for the rest.

    Between the last frame of a shot and the first of the next, the nearer one is taken.
    """
    position = position.clamp(0, len(motion) - 1)
    start = position.long().clamp(max=max(len(motion) - 2, 0))
    end = (start + 1).clamp(max=len(motion) - 1)
    part = (position - start).to(motion.cam_t)
    cut = motion.shot[start] != motion.shot[end]
    part = torch.where(cut, (part >= 0.5).to(part), part)
    near = torch.where(part < 0.5, start, end)
    return replace(
        motion,
        rotations=slerp(motion.rotations[start], motion.rotations[end], part[:, None].expand(-1, 24)),
        cam_t=torch.lerp(motion.cam_t[start], motion.cam_t[end], part[:, None]),
        confidence=torch.where(
            cut, motion.confidence[near], torch.minimum(motion.confidence[start], motion.confidence[end])
        ),
        shot=motion.shot[near],
        misfit=motion.misfit[near],
        doubt=motion.doubt[near],
    )


def trim(motion: Motion, start: int, count: int = 0) -> Motion:
    """Returns `count` frames from `start` on; 0 takes all that follow."""
    if start >= len(motion):
        raise ValueError(f"The motion has {len(motion)} frames, so it cannot start at frame {start}; lower the start.")
    return motion[start : start + count if count else None]


def resample(motion: Motion, fps: float, speed: float = 1.0, loop: bool = False) -> Motion:
    """Resamples the movement at another frame rate, `speed` times as fast.

    A `loop` continues from its last frame to its first, so no time is lost at the seam.
    """
    step = motion.fps * speed / fps
    if step == 1:
        return replace(motion, fps=fps)
    if loop:
        count = max(1, round(len(motion) / step))
        position = torch.arange(count) * (len(motion) / count)
        return replace(sample(motion[torch.arange(len(motion) + 1) % len(motion)], position), fps=fps)
    count = int((len(motion) - 1) / step + 1e-6) + 1
    return replace(sample(motion, torch.arange(count) * step), fps=fps)


def repeat(motion: Motion, frames: int, ping_pong: bool = False) -> Motion:
    """Repeats the motion to `frames` frames, by starting over or by going back and forth."""
    index = torch.arange(len(motion))
    if ping_pong:
        index = torch.cat([index, index[1:-1].flip(0)])
    return motion[index[torch.arange(frames) % len(index)]]
