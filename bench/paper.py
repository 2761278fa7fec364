"""The papers' tables in miniature, on held-out synthetic people, with a given model: conditions, guidance attention,
shape alignment, steps, samplers and noise, calibration of the reference.

A part of the model is left out while sampling, not in training; the papers train again without it. Numbers are means
over clips, beside them the standard error of the difference from the first row, clip by clip."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

if not torch.cuda.is_available():
    comfy.cli_args.args.cpu = True

from calibration import Case, affine, cases, linear

from champ.body.free import free_body_betas
from champ.calibrate.branch import Plan, calibrate
from champ.calibrate.procrustes import IDENTITY
from champ.metrics.images import psnr, ssim
from champ.model.families import ENCODED_MAPS
from champ.model.reference import encode_reference
from champ.motion.transfer import transfer
from champ.people.samples import Sample, draw_pictures
from champ.render.guidance import render_guidance
from champ.sampling.noise import NOISES
from champ.train.evaluate import Method, Sampling, Scores, add_options, compare, held_out, sampled
from champ.train.latents import LATENT_FORMAT, ImageCodec
from champ.train.networks import Networks
from champ.train.preview import sample_clip
from champ.train.start import has_motion, load_networks

CONDITIONS = {
    "all": ENCODED_MAPS,
    "skeleton only (no SMPL maps)": ("dwpose",),
    "without geometry (depth, normal)": ("semantic_map", "dwpose"),
    "without skeleton": ("depth", "normal", "semantic_map"),
}
STEPS = (5, 10, 20, 50)
SAMPLERS = {"ours, exact DDIM": "champ", "ddim": "ddim", "euler": "euler", "dpmpp_2m": "dpmpp_2m"}
# Who drives: a heavy and tall man, and a slight and short woman.
EXTREMES = (
    free_body_betas(gender=0.0, age=45, muscle=0.6, weight=1.0, height=2.0),
    free_body_betas(gender=1.0, age=18, muscle=0.2, weight=0.0, height=1.45),
)
SHOWN = ("person PSNR", "person SSIM", "IoU", "background PSNR", "flicker")
Found = dict[str, list[Scores]]


@dataclass(frozen=True)
class Bench:
    networks: Networks
    codec: ImageCodec
    sampling: Sampling
    clips: list[Sample]

    def method(self, **changes) -> Method:
        return sampled(self.networks, self.codec, replace(self.sampling, **changes))

    def compare(self, name: str, methods: Mapping[str, Method], clips: Sequence[Sample] | None = None) -> Found:
        print(f"{name} ...", file=sys.stderr, flush=True)
        return compare(self.clips if clips is None else clips, methods, self.codec)


def conditions(bench: Bench) -> Found:
    """Features of the maps that are left out are not added."""

    def with_maps(names: Sequence[str]) -> Method:
        return lambda clip: bench.method()(replace(clip, maps={name: clip.maps[name] for name in names}))

    return bench.compare("conditions", {name: with_maps(maps) for name, maps in CONDITIONS.items()})


def attention(bench: Bench) -> Found:
    """The encoders' self-attention at their coarsest level, or the convolutions alone."""

    def without(clip: Sample) -> Tensor:
        with no_guidance_attention(bench.networks):
            return bench.method()(clip)

    return bench.compare("attention", {"on": bench.method(), "off": without})


@contextmanager
def no_guidance_attention(networks: Networks) -> Iterator[None]:
    encoders = list(networks.encoders.patcher.model.values())
    kept = [encoder.attentions for encoder in encoders]
    for encoder in encoders:
        encoder.attentions = nn.ModuleDict()
    try:
        yield
    finally:
        for encoder, attentions in zip(encoders, kept):
            encoder.attentions = attentions


def shape(bench: Bench) -> Found:
    """An extreme body drives: the maps show it as it is, or with the reference's shape. The truth is the reference's
    person in the same poses, beginning where the clip begins."""
    driven: list[Sample] = []
    theirs: dict[int, dict[str, Tensor]] = {}
    for i, clip in enumerate(bench.clips):
        betas = EXTREMES[i % len(EXTREMES)]
        ours, other = (clip.body.with_betas(b).rest().joints[0, 0] for b in (clip.motion.betas, betas))
        motion = replace(clip.motion, betas=betas, cam_t=clip.motion.cam_t + ours - other)
        aligned = transfer(motion, clip.motion[:1], clip.body)
        pictures, masks = draw_pictures(clip.actor, aligned, clip.up)
        maps = drawn_maps(clip, aligned)
        driven.append(replace(clip, pictures=pictures, masks=masks, maps=maps, motion=aligned))
        theirs[id(driven[-1])] = drawn_maps(clip, motion)

    def unaligned(clip: Sample) -> Tensor:
        return bench.method()(replace(clip, maps=theirs[id(clip)]))

    return bench.compare("shape", {"the reference's shape": bench.method(), "the driver's shape": unaligned}, driven)


def drawn_maps(clip: Sample, motion) -> dict[str, Tensor]:
    guidance = render_guidance(clip.body, motion)
    return {name: getattr(guidance, name) for name in ENCODED_MAPS}


def steps(bench: Bench) -> Found:
    return bench.compare("steps", {f"{n} steps": bench.method(steps=n) for n in STEPS})


def samplers(bench: Bench) -> Found:
    return bench.compare("samplers", {name: bench.method(sampler=sampler) for name, sampler in SAMPLERS.items()})


def noises(bench: Bench) -> Found:
    return bench.compare("noise", {name: bench.method(noise=name) for name in NOISES if name != "official"})


def calibrated(bench: Bench) -> Found:
    """References 0.5 to 2 times as large and up to 45 degrees turned; measured inside the person."""

    def of_points(fit: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Plan], Plan]:
        def plan(plan: Plan) -> Plan:
            matrices = [IDENTITY]
            for person in plan.people:
                both = (plan.reference[:, 2] > 0) & (person[:, 2] > 0)
                p, q = plan.reference[both, :2], person[both, :2]
                matrices.append(fit(p, q) if both.sum() > 2 else IDENTITY)
            return plan._replace(matrices=matrices, warp_of=np.arange(1, len(matrices)))

        return plan

    half = bench.clips[0].reference.shape[0] / 2
    plans: dict[str, Callable[[Plan], Plan] | None] = {
        "off": None,
        "Linear": of_points(lambda p, q: linear(p, q, half)),
        "Affine": of_points(affine),
        "Procrustes": lambda plan: plan,
    }
    found: Found = {name: [] for name in plans}
    size, frames = bench.clips[0].reference.shape[0], len(bench.clips[0].pictures)
    for case in cases(len(bench.clips), "held_out", size, frames):
        for name, plan in plans.items():
            made = from_reference(bench, case, plan)
            # What the other side looks like is not in the reference.
            told = torch.tensor([not a.mirrored for a in case.plan.alignments]) & case.masks.flatten(1).any(1)
            pair = made[told], case.pictures[told], case.masks[told]
            scores = {"person PSNR": psnr(*pair), "person SSIM": ssim(*pair)} if told.any() else {}
            found[name].append({key: float(value.mean()) for key, value in scores.items()})
    return {name: [one for one in scores if one] for name, scores in found.items()}


def from_reference(bench: Bench, case: Case, change: Callable[[Plan], Plan] | None) -> Tensor:
    def encode(pictures: Tensor) -> Tensor:
        return LATENT_FORMAT.process_out(bench.codec.encode((255 * pictures + 0.5).byte()))

    reference = encode_reference(bench.networks.net, encode(torch.from_numpy(case.picture.pixels)[None].float() / 255))
    if change is not None:
        net, picture = bench.networks.net, case.picture
        reference = (calibrate(reference[0], net, encode, picture, change(case.plan)),)
    guidance = render_guidance(case.body, case.motion)
    maps = {name: getattr(guidance, name) for name in ENCODED_MAPS}
    return bench.codec.decode(sample_clip(bench.networks, maps, reference, bench.sampling))


TABLES: dict[str, tuple[str, Callable[[Bench], Found]]] = {
    "conditions": ("Which maps guide", conditions),
    "attention": ("Attention of the guidance encoders", attention),
    "shape": ("Shape alignment, extreme bodies driving", shape),
    "steps": ("Steps of the pack's DDIM", steps),
    "samplers": ("Samplers", samplers),
    "noise": ("What each frame starts from", noises),
    "calibration": ("Calibration (TPC), references 0.5x to 2x and up to 45 degrees turned", calibrated),
}


def table(found: Found) -> str:
    """Markdown: mean, and the standard error of the difference from the first row."""
    first = next(iter(found.values()))
    names = [name for name in SHOWN if name in first[0]]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, scores in found.items():
        cells = []
        for name in names:
            values = np.array([one[name] for one in scores])
            apart = values - [one[name] for one in first]
            digits = 3 if name in ("person SSIM", "IoU") else 2
            error = np.nanstd(apart, ddof=1) / len(apart) ** 0.5 if len(apart) > 1 and scores is not first else None
            cells.append(f"{np.nanmean(values):.{digits}f}" + ("" if error is None else f" ({error:.{digits}f})"))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_options(parser)
    parser.add_argument("--cfg", type=float, default=2.0, help="guidance scale")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="which of them")
    options = parser.parse_args()
    if options.networks is None or options.vae is None:
        print("No model was given: --networks is a checkpoint set, --vae its image codec.")
        return
    torch.set_num_threads(options.threads)
    moves = has_motion(options.networks)
    networks = load_networks(options.networks, "set" if moves else "none")
    sampling = Sampling(options.steps, options.cfg, options.betas, noise=options.noise)
    clips = held_out(options.size, options.frames, options.clips, options.first)
    bench = Bench(networks, ImageCodec(options.vae), sampling, clips)
    print(
        f"{len(clips)} held-out people, {options.frames} frames of {options.size}x{options.size}, "
        f"{options.steps} steps, cfg {options.cfg:g}, noise {options.noise}, "
        f"{'with' if moves else 'without'} motion modules"
    )
    for name in options.tables:
        title, make = TABLES[name]
        print(f"\n**{title}**\n\n{table(make(bench))}", flush=True)


if __name__ == "__main__":
    main()
