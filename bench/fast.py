"""The preset fast beside the official way: the official arithmetic, 20 steps of DDIM, cfg 3.5, on the same UNet.

Champ-Tiny makes clips of held-out drawn people, whose true pictures are known. A UNet half as wide as SD1.5, with
random weights, tells the time for its proportions. All take turns; time is that of the processor for the sampling
alone, on one thread."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _random_models import CASES, Tokens, random_guidance, random_model, random_net, random_reference, use
from shortcuts import as_it_is, cached, decibels, interval
from torch import Tensor

from _clips import DDIM, Change, Clip, people  # isort: skip # _random_models finds ComfyUI

from champ.metrics.images import psnr
from champ.model.compat import managed
from champ.model.reference import Reference
from champ.output import save_picture
from champ.sampling.aggregation import with_windows
from champ.train.evaluate import sheet
from champ.train.latents import LATENT_FORMAT


@dataclass(frozen=True)
class Setting:
    steps: int = 20
    cfg: float = 3.5
    change: Change = as_it_is
    sampler: str = DDIM
    official: bool = False


SETTINGS = {
    "the official way": Setting(official=True),
    "ours, 20 steps": Setting(),
    "**fast**: 5 steps, CFG Interval 0 to 0.5": Setting(5, change=interval(0, 0.5)),
    "6 steps, CFG Interval 0 to 0.5": Setting(6, change=interval(0, 0.5)),
    "6 steps": Setting(6),
    "8 steps, CFG Interval 0 to 0.5, Feature Cache every 2, blocks 2": Setting(
        8, change=lambda model: cached(2, 2)(interval(0, 0.5)(model))
    ),
    "6 steps, dpmpp_2m": Setting(6, sampler="dpmpp_2m"),
    "6 steps, uni_pc": Setting(6, sampler="uni_pc"),
}


class OfficialReference(Reference):
    """Is projected for every frame and step, as the official code does it."""

    def run(self, model_sampling: Any, keep: bool, context: Tensor | None = None) -> Any:
        return Tokens(self)


def together(clip: Clip) -> Clip:
    """Lets positive and negative share a batch, however little memory is left, as in the official code."""
    clip.model.model.memory_required = lambda *args, **kwargs: 0
    return clip


def sample(clip: Clip, setting: Setting) -> tuple[float, Tensor]:
    """Seconds of the processor, and the latents."""
    reference = OfficialReference(clip.reference.tokens, clip.reference.family) if setting.official else None
    use(clip.model.model, setting.official)
    found = clip.sample(
        lambda model: setting.change(with_windows(model)), setting.steps, setting.cfg, setting.sampler, reference
    )
    use(clip.model.model, False)
    return found


def quality(options: argparse.Namespace) -> None:
    samples, clips, codec = people(options.size, options.frames, options.clips)
    sample(together(clips[0]), Setting(1))  # all clips have the same model
    spent: dict[str, float] = dict.fromkeys(SETTINGS, 0.0)
    made: list[dict[str, Tensor]] = []
    for i, clip in enumerate(clips):
        made.append({})
        for name, setting in SETTINGS.items():
            seconds, latents = sample(clip, setting)
            spent[name] += seconds
            made[i][name] = codec.decode(LATENT_FORMAT.process_in(latents))
        if options.sheets:
            save_picture(options.sheets / f"clip_{i}.png", sheet(samples[i], made[i]))
    print(
        f"Champ-Tiny, {options.clips} held-out people, {options.frames} frames of {options.size}x{options.size}\n\n"
        "| setting | times as fast | PSNR to the official | PSNR to the truth | lost |\n|---|---|---|---|---|"
    )
    first = next(iter(SETTINGS))
    truth = {name: mean_psnr([m[name] for m in made], [s.pictures for s in samples]) for name in SETTINGS}
    for name in SETTINGS:
        errors = [float((10 ** (-psnr(m[name], m[first]) / 10)).mean()) for m in made]
        near = "" if name == first else decibels(statistics.mean(errors))
        times = spent[first] / spent[name]
        print(f"| {name} | {times:.2f} | {near} | {truth[name]:.2f} dB | {truth[first] - truth[name]:.2f} dB |")


def mean_psnr(made: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    return statistics.mean(float(psnr(x, y).mean()) for x, y in zip(made, true))


def proportions(passes: int) -> None:
    """Single steps of a wide UNet in turns, and what follows for the preset, which has three steps with cfg and two
    without."""
    name, channels, size, frames = CASES[-1]
    model = managed(random_model(channels), torch.device("cpu"), torch.device("cpu"))
    reference = random_reference(random_net(channels), size, size)
    clip = together(Clip(model, random_guidance(channels, frames, size, size), reference))
    kinds = Setting(1, official=True), Setting(1), Setting(1, cfg=1.0)
    sample(clip, kinds[1])
    times = [[sample(clip, kind)[0] for kind in kinds] for _ in range(passes)]
    official, ours, without = map(statistics.median, zip(*times))
    ratio = statistics.median(20 * a / (3 * b + 2 * c) for a, b, c in times)
    print(
        f"\nA UNet {name} with random weights, {frames} frames of {size}x{size}: a step of the official arithmetic "
        f"takes {official:.1f} s, one of ours {ours:.1f} s, without cfg {without:.1f} s; fast is "
        f"{ratio:.2f} times as fast"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3, help="of the wide UNet")
    parser.add_argument("--sheets", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"cfg 3.5; one thread, torch {torch.__version__}")
    quality(options)
    proportions(options.passes)


if __name__ == "__main__":
    main()
