"""Removes the jitter of a motion, shot by shot."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .camera import from_sight, to_sight
from .gaps import fill_gaps
from .motion import Motion
from .rotation import continuous, from_quaternion, to_quaternion

METHODS = ("steady", "official", "off")
WINDOWS = (1.0, 1.5, 2.2, 3.3, 5.0)  # standard deviations of the Gaussians, in frames
TRUST = 1.5  # the narrower window is kept when two windows differ by more than this times the noise
DEPTH = (
    1.5  # factor for log z: relative to the standard deviation, the median of one number is smaller than that of three
)
PULL = 0.01  # of the polynomial towards a constant
REACH = 4  # frames
PERSON = 1.7  # metres
FLIP, AGREE = math.radians(100), math.radians(40)  # turns of the root between frames that disagree, and that agree
JUMP = 0.5  # the same for the place, in body heights sideways or in the logarithm of the depth


def smooth(motion: Motion, method: str = "steady", strength: float = 1.0) -> Motion:
    """Returns the motion with less jitter.

    "steady" fills the frames of `outliers`. It smooths each joint, the place in the picture (x/z, y/z) and log z
    according to their jitter, and keeps the movement. Frames are weighted by their confidence; twice the `strength`
    counts twice as much as jitter. "official" is what Champ's tool does in Blender, `strength` times. "off" changes
    nothing. The shape is already the same in all frames.
    """
    if method not in METHODS:
        raise ValueError(f"There is no smoothing method called {method!r}; choose from {', '.join(METHODS)}.")
    if strength < 0:
        raise ValueError(f"The strength of smoothing is {strength}; it must be 0 or more.")
    if method == "off":
        return motion
    if method == "steady":
        motion = fill_gaps(replace(motion, confidence=motion.confidence * ~outliers(motion)))
    place = motion.cam_t if method == "official" else to_sight(motion.cam_t)
    turn, way = continuous(to_quaternion(motion.rotations)), place.clone()
    for shot in motion.shots():
        if method == "official":
            for _ in range(round(strength)):
                turn[shot], way[shot] = smooth_keys(turn[shot]), smooth_keys(way[shot])
        else:
            weight = motion.confidence[shot].clamp(min=0.1)  # a filled frame is better than none
            turn[shot] = smooth_curve(turn[shot], weight, strength)
            way[shot, :2] = smooth_curve(way[shot, None, :2], weight, strength)[:, 0]
            way[shot, 2:] = smooth_curve(way[shot, None, 2:], weight, DEPTH * strength)[:, 0]
    return replace(motion, rotations=from_quaternion(turn), cam_t=way if method == "official" else from_sight(way))


def smooth_keys(x: Tensor) -> Tensor:
    """Applies Blender's Smooth Keys to curves (F, ...): weights (2, 3, 2, 3, 2) / 12 over five frames.

    Champ's tool bakes one key more than there are frames, which repeats the last one. The first key and this one are
    not changed. In place of the second neighbour, Blender takes the first one at both ends, and for the third key.
    """
    keys = torch.cat([x, x[-1:]])
    i = torch.arange(1, len(x))
    before, after = keys[i - 1], keys[i + 1]
    second = keys[torch.where(i > 2, i - 2, i - 1)]
    after_next = keys[(i + 2).clamp(max=len(x))]
    inner = (4 * second + 6 * before + 4 * keys[i] + 6 * after + 4 * after_next) / 24
    return torch.cat([x[:1], inner])


def smooth_curve(x: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Smooths curves (F, C, D) with wider and wider windows, as long as the change of a wider window is no more than
    noise.

    Each channel C decides for itself in every frame. The narrower result keeps the share d^4 / (d^4 + noise^4), where d
    is the difference of the two around the frame, and noise is `strength` TRUST times the median of what the narrowest
    window removes.
    """
    curve = weighted(x, window_weights(weight, WINDOWS[0]))
    noise = strength * TRUST * (x - curve).norm(dim=-1).median(0).values
    for sigma in WINDOWS[1:]:
        wide = weighted(x, window_weights(weight, sigma))
        apart = weighted((wide - curve).square().sum(-1), window_weights(weight, sigma / 1.5, degree=0))
        kept = apart.square() / (apart.square() + noise**4 + 1e-24)
        curve = torch.lerp(wide, curve, kept[..., None])
    return curve


def window_weights(weight: Tensor, sigma: float, degree: int = 2) -> Tensor:
    """Returns the filter weights (F, 2 r + 1) that give the value, at each frame, of the polynomial fitted under a
    Gaussian. A parabola keeps the height of a peak, which a mean (degree 0) cuts.

    A slight regularisation towards a constant keeps the ends calm, and the shortest shots solvable.
    """
    reach = math.ceil(3 * sigma)
    t = torch.arange(-reach, reach + 1).to(weight) / sigma
    around = pad(weight, (reach, reach)).unfold(0, len(t), 1) * torch.exp(-(t**2) / 2)
    powers = torch.stack([t**i for i in range(degree + 1)], dim=1)
    moments = torch.einsum("fk,ki,kj->fij", around, powers, powers)
    pull = PULL * moments[:, 0, 0, None] * torch.ones(degree + 1).to(t).index_fill(0, torch.tensor(0), 0)
    first = torch.eye(degree + 1).to(t)[0].expand(len(weight), -1)
    return around * (torch.linalg.solve(moments + torch.diag_embed(pull), first) @ powers.T)


def weighted(x: Tensor, window: Tensor) -> Tensor:
    """Applies filter weights to the frames around each frame, (F, ...)."""
    reach = window.shape[1] // 2
    rows = pad(x.flatten(1), (0, 0, reach, reach))
    return sum(window[:, k, None] * rows[k : k + len(x)] for k in range(window.shape[1])).view_as(x)


def outliers(motion: Motion) -> Tensor:
    """Finds frames (F,) in which the person is turned around, displaced or behind the camera for a moment: at most
    REACH - 1 of them, between two frames that agree."""
    wrong = motion.cam_t[:, 2] <= 0
    seen = (motion.confidence > 0) & ~wrong
    root = to_quaternion(motion.rotations[:, 0])
    place = torch.cat([motion.cam_t[:, :2] / PERSON, motion.cam_t[:, 2:].clamp(min=1e-3).log()], dim=1)

    def turned(a: Tensor, b: Tensor) -> Tensor:
        return 2 * (root[a] * root[b]).sum(-1).abs().clamp(max=1).acos()

    def moved(a: Tensor, b: Tensor) -> Tensor:
        return (place[a] - place[b]).norm(dim=-1)

    for shot in motion.shots():
        frames = seen[shot].nonzero().flatten() + shot.start
        for back, ahead in ((i, j) for i in range(1, REACH) for j in range(1, REACH - i + 1)):
            count = max(len(frames) - back - ahead, 0)
            before, t, after = (frames[start : start + count] for start in (0, back, back + ahead))
            for apart, alike, far in ((turned, AGREE, FLIP), (moved, JUMP / 3, JUMP)):
                away = torch.minimum(apart(before, t), apart(t, after))
                wrong[t] |= (apart(before, after) < alike) & (away > far)
    return wrong & (motion.confidence > 0)
