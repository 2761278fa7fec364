"""The preset fast beside the official way: the official arithmetic, 20 steps of DDIM, cfg 3.5, on the same UNet.

Champ-Tiny makes clips of held-out drawn people, whose true pictures are known. A UNet half as wide as SD1.5, with
random weights, tells the time for its proportions. All take turns; time is that of the processor for the sampling
alone, on one thread."""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _random_models import CASES, Tokens, random_guidance, random_model, random_net, random_reference, use
from shortcuts import ASSETS, DDIM, Change, as_it_is, cached, decibels, interval
from torch import Tensor

import comfy.sample  # found by _random_models # isort: skip
import comfy.samplers  # isort: skip
from comfy.model_patcher import ModelPatcher  # isort: skip

from champ.metrics.images import psnr
from champ.model.compat import managed
from champ.model.conditioning import conditioning
from champ.model.guidance import Guidance, GuidanceMap, encode_guidance
from champ.model.reference import Reference, encode_reference
from champ.output import save_picture
from champ.people.samples import Sample
from champ.sampling.aggregation import with_windows
from champ.sampling.noise import NOISES
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas
from champ.train.evaluate import held_out, sheet
from champ.train.latents import LATENT_FORMAT, ImageCodec
from champ.train.start import load_networks


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


@dataclass
class Work:
    """A clip to be sampled."""

    model: ModelPatcher
    guidance: Guidance
    reference: Reference

    def __post_init__(self) -> None:
        # Positive and negative share a batch, however little memory is left, as in the official code.
        self.model.model.memory_required = lambda *args, **kwargs: 0

    def sample(self, setting: Setting) -> tuple[float, Tensor]:
        """Seconds of the processor, and the latents."""
        reference = self.reference
        if setting.official:
            reference = OfficialReference(reference.tokens, reference.family)
        given = conditioning(self.model.model.context_dim, self.guidance, [reference])
        model, latent = setting.change(with_windows(self.model)), self.guidance.empty_latent()
        noise = NOISES["per frame"](0).generate_noise({"samples": latent})
        sigmas = official_sigmas(model.get_model_object("model_sampling"), setting.steps)
        method = ddim() if setting.sampler == DDIM else comfy.samplers.sampler_object(setting.sampler)
        use(self.model.model, setting.official)
        start = time.process_time()
        found = comfy.sample.sample_custom(
            model, noise, setting.cfg, method, sigmas, *given, latent, disable_pbar=True, seed=0
        )
        spent = time.process_time() - start
        use(self.model.model, False)
        return spent, found


def people(size: int, frames: int, clips: int) -> tuple[list[Sample], list[Work], ImageCodec]:
    """Clips for Champ-Tiny."""
    networks = load_networks(ASSETS / "champ" / "champ_tiny", "set")
    codec = ImageCodec(ASSETS / "vae" / "champ_tiny_vae.safetensors")
    samples, works = held_out(size, frames, clips), []
    for sample in samples:
        maps = {name: GuidanceMap(x.float() / 255) for name, x in sample.maps.items()}
        guidance = encode_guidance(networks.encoders, maps, size, size)
        (reference,) = encode_reference(networks.net, LATENT_FORMAT.process_out(codec.encode(sample.reference[None])))
        works.append(Work(networks.denoiser, guidance, reference))
    return samples, works, codec


def quality(options: argparse.Namespace) -> None:
    samples, works, codec = people(options.size, options.frames, options.clips)
    works[0].sample(Setting(1))
    spent: dict[str, float] = dict.fromkeys(SETTINGS, 0.0)
    made: list[dict[str, Tensor]] = []
    for i, work in enumerate(works):
        made.append({})
        for name, setting in SETTINGS.items():
            seconds, latents = work.sample(setting)
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
    work = Work(model, random_guidance(channels, frames, size, size), reference)
    kinds = Setting(1, official=True), Setting(1), Setting(1, cfg=1.0)
    work.sample(kinds[1])
    times = [[work.sample(kind)[0] for kind in kinds] for _ in range(passes)]
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
