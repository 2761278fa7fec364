"""Trembling against lost movement, for several ways of smoothing a motion: the numbers of docs/motion.md.

Built-in motions get the errors of an estimator that sees every frame for itself: each joint is turned, half of it
anew in every frame; the depth is wrong by 2 %; one frame in a hundred is turned round. Columns:

- trembling: mean of |acceleration - true acceleration| of the joints relative to the pelvis, mm / frame^2
- depth: the same of log z, in thousandths
- error: mean distance of the joints from the truth, mm
- lost: by how many per cent wrists and ankles go less far, in the twentieth of the frames in which they are fastest:
  1 - sum(v . v_true) / sum(v_true^2), in which errors that go both ways cancel
- untouched: the same for a motion that did not tremble
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from champ.body.free import load_free_body
from champ.motion.camera import from_sight, to_sight
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.motion.retime import resample
from champ.motion.rotation import from_axis_angle, from_quaternion, rot_y, to_quaternion
from champ.motion.smooth import continuous, smooth, weighted, window_weights

FRAMES = 90
SEEDS = 6
EXTREMITIES = [7, 8, 20, 21]
BODY = load_free_body()


def clips(fps: float) -> list[Motion]:
    made = [make_motion(name, BODY, FRAMES, fps=fps, loop=False) for name in ("walk", "wave", "dance", "jumping jacks")]
    return [*made, resample(make_motion("dance", BODY, 2 * FRAMES, fps=fps, loop=False), fps, speed=2.0)[:FRAMES]]


def estimated(motion: Motion, seed: int, flips: bool) -> Motion:
    draw = torch.Generator().manual_seed(seed)
    turn, place = (torch.randn(len(motion), *shape, generator=draw) for shape in ((24, 3), (3,)))
    for noise in (turn, place):
        for t in range(1, len(motion)):
            noise[t] = 0.5 * noise[t - 1] + 0.75**0.5 * noise[t]
    degrees = torch.full((24, 1), 3.0)
    degrees[[10, 11, 20, 21, 22, 23]], degrees[[3, 6, 9, 12, 13, 14]] = 5.0, 1.8
    rotations = motion.rotations @ from_axis_angle(torch.deg2rad(degrees) * turn / math.sqrt(3))
    if flips:
        wrong = torch.rand(len(motion), generator=draw) < 0.01
        rotations[wrong, 0] = rotations[wrong, 0] @ rot_y(180)
    sight = to_sight(motion.cam_t) + place * torch.tensor([2e-4, 2e-4, 0.02])
    return replace(motion, rotations=rotations, cam_t=from_sight(sight))


def per_curve(smoother: Callable[[Tensor, float], Tensor]) -> Callable[[Motion], Motion]:
    """A filter of numbers, for the quaternions and the place."""

    def apply(motion: Motion) -> Motion:
        turn, sight = continuous(to_quaternion(motion.rotations)), to_sight(motion.cam_t)
        return replace(
            motion,
            rotations=from_quaternion(smoother(turn, motion.fps)),
            cam_t=from_sight(smoother(sight, motion.fps)),
        )

    return apply


def gaussian(sigma: float, degree: int = 0) -> Callable[[Motion], Motion]:
    return per_curve(lambda x, fps: weighted(x, window_weights(torch.ones(len(x)), sigma, degree)))


def savitzky_golay(reach: int) -> Callable[[Motion], Motion]:
    """A parabola through 2 reach + 1 frames of the same weight; the ends are mirrored through the last point."""
    t = torch.arange(-reach, reach + 1).double()
    powers = torch.stack([t**i for i in range(3)], dim=1)
    kernel = torch.linalg.pinv(powers)[0].float()

    def apply(x: Tensor, fps: float) -> Tensor:
        before = 2 * x[:1] - x[1 : reach + 1].flip(0)
        after = 2 * x[-1:] - x[-reach - 1 : -1].flip(0)
        rows = torch.cat([before, x, after])
        return sum(k * rows[i : i + len(x)] for i, k in enumerate(kernel))

    return per_curve(apply)


def one_euro(cutoff: float, beta: float) -> Callable[[Motion], Motion]:
    """Casiez and others, CHI 2012, once forwards and once backwards, and the mean of both, which has no lag."""

    def once(x: Tensor, fps: float) -> Tensor:
        def share(frequency):
            return 1 / (1 + fps / (2 * math.pi * frequency))

        result, speed = x.clone(), torch.zeros_like(x[0])
        for t in range(1, len(x)):
            speed = speed + share(1.0) * ((x[t] - x[t - 1]) * fps - speed)
            pace = share(cutoff + beta * speed.norm(dim=-1, keepdim=True))
            result[t] = result[t - 1] + pace * (x[t] - result[t - 1])
        return result

    return per_curve(lambda x, fps: (once(x, fps) + once(x.flip(0), fps).flip(0)) / 2)


def joints(motion: Motion) -> Tensor:
    posed = motion.posed(BODY).joints
    return posed - posed[:, :1]


def lost(found: Tensor, true: Tensor) -> Tensor:
    """Of joints (..., F, 24, 3), in per cent."""
    v, v_true = (x.diff(dim=-3)[..., EXTREMITIES, :] for x in (found, true))
    speed = v_true.norm(dim=-1)
    fast = (speed >= speed.quantile(0.95, dim=0))[..., None] * v_true
    return 100 * (1 - (v * fast).sum((-3, -2, -1)).mean() / (fast * v_true).sum())


def measure(method: Callable[[Motion], Motion], truths: list[Motion], flips: bool = False) -> list[float]:
    rows = []
    for truth in truths:
        true, clean = joints(truth), joints(method(truth))
        results = [method(estimated(truth, seed, flips)) for seed in range(SEEDS)]
        found = torch.stack([joints(result) for result in results])
        depth = torch.stack([(result.cam_t / truth.cam_t)[:, 2].log() for result in results])
        rows.append([
            1000 * (found - true).diff(n=2, dim=1).norm(dim=-1).mean(),
            1000 * depth.diff(n=2, dim=1).abs().mean(),
            1000 * (found - true).norm(dim=-1).mean(),
            lost(found, true),
            lost(clean, true),
        ])  # fmt: skip
    return torch.tensor(rows).mean(0).tolist()


METHODS: dict[str, Callable[[Motion], Motion]] = {
    "off": lambda motion: motion,
    "official": lambda motion: smooth(motion, "official"),
    "official, twice": lambda motion: smooth(motion, "official", 2),
    "official, four times": lambda motion: smooth(motion, "official", 4),
    "Gaussian, 1 frame": gaussian(1.0),
    "Gaussian, 2 frames": gaussian(2.0),
    "Savitzky-Golay, 9 frames": savitzky_golay(4),
    "Savitzky-Golay, 15 frames": savitzky_golay(7),
    "parabola under a Gaussian, 2 frames": gaussian(2.0, 2),
    "parabola under a Gaussian, 3 frames": gaussian(3.0, 2),
    "One-Euro both ways, 1.5 Hz, beta 3": one_euro(1.5, 3.0),
    "One-Euro both ways, 3 Hz, beta 1": one_euro(3.0, 1.0),
    "steady, strength 0.5": lambda motion: smooth(motion, strength=0.5),
    "**steady**": smooth,
    "steady, strength 2": lambda motion: smooth(motion, strength=2.0),
}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for fps in (30.0, 15.0):
        truths = clips(fps)
        print(f"\n{fps:g} frames per second, without the frames that are turned round\n")
        print("| method | trembling | depth | error | lost (%) | untouched (%) |\n|---|---|---|---|---|---|")
        for name, method in METHODS.items():
            print(f"| {name} |", " | ".join(f"{value:.1f}" for value in measure(method, truths)), "|", flush=True)
    truths = clips(30.0)
    print("\n30 frames per second, one frame in a hundred turned round\n")
    print("| method | trembling | error |\n|---|---|---|")
    for name in ("off", "official", "**steady**"):
        trembling, _, error, *_ = measure(METHODS[name], truths, flips=True)
        print(f"| {name} | {trembling:.1f} | {error:.1f} |")


if __name__ == "__main__":
    main()
