"""What the shortcuts of the sampling save and cost: Champ-Tiny makes clips of held-out drawn people with each setting,
beside the same without.

Time is that of the processor for the sampling alone, on one thread, as a ratio. Quality is the PSNR of the pictures
against those of the sampling without shortcuts, and what each loses against the true pictures."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import argparse
import math
import os
import statistics
import sys

import torch
from torch import Tensor

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

from _clips import DDIM, Change, Clip, people
from comfy.model_patcher import ModelPatcher

from champ.metrics.images import psnr
from champ.model.span import Span
from champ.sampling.aggregation import with_windows
from champ.sampling.shortcuts import with_cfg_interval, with_deep_cache
from champ.train.latents import LATENT_FORMAT

CFG = 2.0


def easy_cache(threshold: float) -> Change:
    from comfy_extras.nodes_easycache import EasyCacheNode

    return lambda model: EasyCacheNode.execute(model, threshold, 0.15, 0.95, False).args[0]


def cached(every: int, blocks: int) -> Change:
    return lambda model: with_deep_cache(model, every, blocks, Span())


def interval(start: float, end: float) -> Change:
    return lambda model: with_cfg_interval(model, Span(start, end))


def as_it_is(model: ModelPatcher) -> ModelPatcher:
    return model


# Name, share of the steps, change of the model, sampler: ours or one of ComfyUI.
SETTINGS: list[tuple[str, float, Change, str]] = [
    ("without", 1.0, as_it_is, DDIM),
    ("CFG Interval 0 to 0.6", 1.0, interval(0, 0.6), DDIM),
    ("CFG Interval 0 to 0.4", 1.0, interval(0, 0.4), DDIM),
    ("CFG Interval 0.2 to 0.6", 1.0, interval(0.2, 0.6), DDIM),
    ("Feature Cache every 2, blocks 3", 1.0, cached(2, 3), DDIM),
    ("Feature Cache every 2, blocks 2", 1.0, cached(2, 2), DDIM),
    ("Feature Cache every 2, blocks 1", 1.0, cached(2, 1), DDIM),
    ("Feature Cache every 3, blocks 2", 1.0, cached(3, 2), DDIM),
    ("Feature Cache every 3, blocks 1", 1.0, cached(3, 1), DDIM),
    ("EasyCache 0.1", 1.0, easy_cache(0.1), DDIM),
    ("EasyCache 0.3", 1.0, easy_cache(0.3), DDIM),
    ("half the steps", 0.5, as_it_is, DDIM),
    ("half the steps, dpmpp_2m", 0.5, as_it_is, "dpmpp_2m"),
    ("half the steps, uni_pc", 0.5, as_it_is, "uni_pc"),
    ("half the steps, CFG Interval 0 to 0.6", 0.5, interval(0, 0.6), DDIM),
    (
        "half the steps, CFG Interval 0 to 0.6, Feature Cache every 2, blocks 2",
        0.5,
        lambda model: cached(2, 2)(interval(0, 0.6)(model)),
        DDIM,
    ),
]


def decibels(error: float) -> str:
    """PSNR of a mean squared error."""
    return f"{-10 * math.log10(error):.1f} dB" if error else "the same"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clips", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, clips, codec = people(options.size, options.frames, options.clips)

    def make(clip: Clip, share: float, change: Change, sampler: str) -> tuple[float, Tensor]:
        """Seconds of the processor, and the pictures."""

        def changed(model: ModelPatcher) -> ModelPatcher:
            return change(with_windows(model, 16, 4, "open", "ramps"))

        spent, latents = clip.sample(changed, round(options.steps * share), CFG, sampler)
        return spent, codec.decode(LATENT_FORMAT.process_in(latents))

    print(
        f"Champ-Tiny, {options.clips} held-out people, {options.frames} frames of {options.size}x{options.size} in "
        f"windows of 16, {options.steps} steps, cfg {CFG:g}; one thread, torch {torch.__version__}"
    )
    print("| setting | times as fast | PSNR to that without | PSNR to the truth | lost |\n|---|---|---|---|---|")
    plain: list[tuple[float, Tensor]] = []
    base = 0.0
    for name, *setting in SETTINGS:
        found = [make(clip, *setting) for clip in clips]
        true = statistics.mean(float(psnr(x, sample.pictures).mean()) for sample, (_, x) in zip(samples, found))
        if not plain:
            plain, base = found, true
        fast = sum(spent for spent, _ in plain) / sum(spent for spent, _ in found)
        errors = [float((10 ** (-psnr(x, y) / 10)).mean()) for (_, x), (_, y) in zip(found, plain)]
        near = "" if found is plain else decibels(statistics.mean(errors))
        print(f"| {name} | {fast:.2f} | {near} | {true:.2f} dB | {base - true:.2f} dB |", flush=True)


if __name__ == "__main__":
    main()
