"""What calibration costs: one evaluation of the denoiser for positive and negative with and without it, and the passes
of ReferenceNet before sampling.

Every frame has a warp of its own, which is the most there can be. The evaluations alternate, on one CPU thread."""

import statistics
import time
from dataclasses import fields

import torch
from denoise_step import CASES, PASSES, randomise

import comfy.ops  # found by denoise_step # isort: skip

from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.model.conditioning import GuidanceRun
from champ.model.config import MotionSizes, UNetSizes
from champ.model.denoiser import ChampUNet, ModelConfig, model_sampling
from champ.model.guidance import Guidance, Layer
from champ.model.reference import Reference, ReferenceUNet


def measure(channels: tuple[int, ...], size: int, frames: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each evaluation by kind, and of one pass of ReferenceNet."""
    side, sampling = size // 8, model_sampling("linear")
    sizes = UNetSizes(4, channels, 2, (True, True, True, False), 768, linear=False)
    places = {sizes.place(block, j): c for block, row in sizes.places().items() for j, c in row.items()}
    arguments = {**ModelConfig(sizes.comfy()).unet_config, "operations": comfy.ops.disable_weight_init}
    net, unet = ReferenceUNet(**arguments), ChampUNet(**arguments, motion=MotionSizes(places, 32))
    randomise(net)
    randomise(unet)

    def look() -> dict:
        return net.tokens(torch.randn(1, 4, side, side), torch.randn(1, 1, 768))

    reference = Reference(look(), "Champ")
    start = time.perf_counter()
    seen = [look() for _ in range(frames)]
    seconds = (time.perf_counter() - start) / frames

    person = torch.zeros(side, side)
    person[:, side // 4 : side // 2] = 1
    warps = tuple(Warp({p: x.half() for p, x in t.items()}, torch.ones(side, side), person) for t in seen)
    own = {field.name: getattr(reference, field.name) for field in fields(Reference)}

    def calibrated(group: int, masked: bool):
        people = person.expand(frames, -1, -1) if masked else None
        calibration = Calibration(
            warps, tuple(range(frames)), groups_of([0] * frames, group), 0,
            people=people, person=person if masked else None,
        )  # fmt: skip
        return CalibratedReference(**own, calibration=calibration, width=size, height=size)

    kinds = {
        "without": reference,
        "groups of 4": calibrated(4, False),
        "no groups": calibrated(1, False),
        "masking: paper, groups of 4": calibrated(4, True),
    }
    runs = {name: kind.run(sampling, True) for name, kind in kinds.items()}
    layer = Layer(torch.randn(frames, channels[0], side, side))
    guidance = GuidanceRun(Guidance((layer,), frames, size, size, "Champ"), sampling)
    x, t = torch.randn(2 * frames, 4, side, side), torch.full((2 * frames,), 499.0)
    context = torch.cat([torch.zeros(frames, 1, 768), torch.randn(1, 1, 768).expand(frames, -1, -1)])
    options = {"cond_or_uncond": [1, 0], "sigmas": torch.tensor([2.45])}

    def evaluate(name: str) -> float:
        start = time.perf_counter()
        values = {"guidance": [guidance] * 2, "references": [[], [runs[name]]]}
        unet(x, t, context, transformer_options=options, **values)
        return time.perf_counter() - start

    for name in runs:
        evaluate(name)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(PASSES):
        for name in runs:
            found[name].append(evaluate(name))
    return found, seconds


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, median of {PASSES} alternating evaluations")
    print("| UNet | frames | calibration | evaluation (s) | ratio | passes of ReferenceNet (s) |")
    print("|---|---|---|---|---|---|")
    for name, channels, size, frames in CASES:
        found, seconds = measure(channels, size, frames)
        for kind, times in found.items():
            ratio = statistics.median(b / a for a, b in zip(found["without"], times))
            passes = "0" if kind == "without" else f"{frames} ({frames * seconds:.2f})"
            clip = f"{frames} of {size}x{size}"
            print(f"| {name} | {clip} | {kind} | {statistics.median(times):.2f} | {ratio:.2f} | {passes} |")


if __name__ == "__main__":
    main()
