"""How good a model is: held-out synthetic people, made by the networks and by simple baselines, against the truth."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..calibrate.branch import Picture
from ..calibrate.correspondences import people_of_motion
from ..calibrate.procrustes import align_clip
from ..metrics.images import flicker, iou, l1, psnr, ssim
from ..metrics.perceptual import LPIPS, load_lpips, lpips
from ..model.checkpoint import find_set
from ..model.reference import encode_reference
from ..output import save_picture, whole
from ..people.samples import Sample, SyntheticPeople, draw_room
from ..sampling.noise import NOISES
from .latents import FORMAT, ImageCodec
from .networks import Networks
from .preview import sample_clip
from .silhouettes import find
from .start import load_networks

Method = Callable[[Sample], Tensor]  # the pictures (F, H, W, 3) uint8 that it makes of a clip's reference and maps
Scores = dict[str, float]

DIFFERS = 24  # levels of 255 in some colour by which a pixel is off the room that shows the person
SHOWN = 6  # frames of a contact sheet


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled."""

    steps: int = 20
    cfg: float = 2.0
    betas: str = "linear"
    sampler: str = "champ"  # the pack's own DDIM, or the name of a sampler of ComfyUI
    noise: str = "per frame"
    seed: int = 0


def held_out(size: int, frames: int, count: int, first: int = 0) -> list[Sample]:
    """People whom training never sees, always the same."""
    people = SyntheticPeople(size, "held_out", frames)
    return [people.sample(first + i) for i in range(count)]


def copied(clip: Sample) -> Tensor:
    """The reference in every frame."""
    return clip.reference.expand_as(clip.pictures)


def warped(clip: Sample) -> Tensor:
    """The reference moved by the similarity between the two bodies in the picture."""
    height, width = clip.reference.shape[:2]
    reference, people = (people_of_motion(clip.body, motion) for motion in (clip.reference_motion, clip.motion))
    picture = Picture(clip.reference.numpy(), width, height, "crop")
    alignments = align_clip(reference.points[0], people.points)
    return torch.from_numpy(np.stack([picture.warped(found.matrix).picture for found in alignments]))


def coded(codec: ImageCodec) -> Method:
    """The true pictures through the image codec: no model that uses it can do better."""
    return lambda clip: codec.decode(codec.encode(clip.pictures))


def sampled(networks: Networks, codec: ImageCodec, sampling: Sampling) -> Method:
    """What the networks make of the clip."""

    def pictures(clip: Sample) -> Tensor:
        references = encode_reference(networks.net, FORMAT.process_out(codec.encode(clip.reference[None])))
        return codec.decode(sample_clip(networks, clip.maps, references, **vars(sampling)))

    return pictures


def off_the_room(pictures: Tensor, *rooms: Tensor) -> Tensor:
    """(F, H, W) bool: where pictures (F, H, W, 3) differ from each of these of the room without its person; the largest
    connected region, because what is wrong in the room is not the person."""
    apart = torch.stack([(pictures.int() - room.int()).abs().amax(-1) for room in rooms]).amin(0) > DIFFERS
    return torch.stack([_largest(frame.byte()) for frame in apart])


def _largest(mask: Tensor) -> Tensor:
    _, labels, about, _ = cv2.connectedComponentsWithStats(mask.numpy(), connectivity=8)
    areas = about[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # what is not in the mask
    return torch.from_numpy((labels == areas.argmax()) & (labels > 0))


def rooms_of(clip: Sample, codec: ImageCodec | None = None) -> list[Tensor]:
    """The room behind the person, and as the codec shows it, so that the codec's errors are not taken for a person."""
    room = draw_room(clip.actor, clip.motion, clip.up)
    return [room] if codec is None else [room, codec.decode(codec.encode(room))]


def measure(made: Tensor, clip: Sample, rooms: Sequence[Tensor], perceptual: LPIPS | None = None) -> Scores:
    """Means over the frames. Flicker is in levels of 255."""
    true, person = clip.pictures, clip.masks > 0
    scores = {
        "person PSNR": psnr(made, true, person),
        "person SSIM": ssim(made, true, person),
        "background PSNR": psnr(made, true, ~person),
        "background SSIM": ssim(made, true, ~person),
        "IoU": iou(find(made), person),
        "IoU off the room": iou(off_the_room(made, *rooms), person),
        "flicker": 255 * flicker(made, true),
        "person flicker": 255 * flicker(made, true, person),
        "L1": l1(made, true),
    }
    if perceptual is not None:
        scores["LPIPS"] = lpips(perceptual, made, true)
    return {name: float(values.double().nanmean()) for name, values in scores.items()}


def compare(
    clips: Sequence[Sample],
    methods: Mapping[str, Method],
    codec: ImageCodec,
    perceptual: LPIPS | None = None,
    sheets: Path | None = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> dict[str, list[Scores]]:
    """The scores of each method on each clip; the folder `sheets` gets a contact sheet for each clip."""
    found: dict[str, list[Scores]] = {name: [] for name in methods}
    for i, clip in enumerate(clips):
        made = {name: method(clip) for name, method in methods.items()}
        rooms = rooms_of(clip, codec)
        for name, pictures in made.items():
            found[name].append(measure(pictures, clip, rooms, perceptual))
        if sheets is not None:
            save_picture(sheets / f"clip_{i:03}.png", sheet(clip, made))
        if on_clip is not None:
            on_clip(i + 1, len(clips))
    return found


def table(found: Mapping[str, Sequence[Scores]]) -> str:
    """Markdown: a row for each method with the means over its clips."""
    names = list(next(iter(found.values()))[0])
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for method, scores in found.items():
        means = (np.nanmean([one[name] for one in scores]) for name in names)
        cells = (f"{mean:.{DIGITS.get(name, 3)}f}" for name, mean in zip(names, means))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


DIGITS = {"person PSNR": 2, "background PSNR": 2, "flicker": 2, "person flicker": 2, "L1": 4}


def sheet(clip: Sample, made: Mapping[str, Tensor]) -> np.ndarray:
    """uint8 RGB: rows of reference, normal map, each method and the truth; a column for every one of some frames."""
    frames = np.unique(np.linspace(0, len(clip.pictures) - 1, SHOWN).round().astype(int))
    rows = {"reference": copied(clip), "normal map": clip.maps["normal"], **made, "truth": clip.pictures}
    height, width = clip.reference.shape[:2]
    lines = []
    for name, pictures in rows.items():
        label = np.full((height, 150, 3), 255, np.uint8)
        cv2.putText(label, name, (6, height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        chosen = frames[:1] if name == "reference" else frames
        shown = [pictures[frame].numpy() for frame in chosen]
        empty = [np.full((height, width, 3), 255, np.uint8)] * (len(frames) - len(chosen))
        lines.append(np.concatenate([label, *shown, *empty], 1))
    return np.concatenate(lines)


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "evaluate",
        help="compare a model with simple baselines on held-out people",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_options(command)
    command.add_argument("--out", type=Path, required=True, help="a folder for the table and the contact sheets")
    command.add_argument("--cfg", type=float, nargs="+", default=[2.0], help="guidance scales, a row for each")
    command.add_argument("--lpips", type=Path, nargs=2, metavar=("VGG16", "LPIPS"), help="weights, to measure it, too")
    command.set_defaults(run=run)


def add_options(command: argparse.ArgumentParser) -> None:
    """Which model, and on how much it is tried."""
    command.add_argument("--networks", type=Path, help="the folder of a checkpoint set")
    command.add_argument("--vae", type=Path, help="a VAE that ComfyUI loads, or a Codec's weights")
    command.add_argument("--clips", type=int, default=8, help="held-out people")
    command.add_argument("--first", type=int, default=0, help="the number of the first one")
    command.add_argument("--frames", type=int, default=16, help="of a clip")
    command.add_argument("--size", type=int, default=128, help="width and height in pixels")
    command.add_argument("--steps", type=int, default=20, help="of the sampling")
    command.add_argument("--betas", default="linear", help="noise schedule: linear or scaled_linear")
    command.add_argument("--noise", choices=list(NOISES), default="per frame", help="what each frame starts from")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")


def run(options: argparse.Namespace) -> None:
    if options.networks is None or options.vae is None:
        raise ValueError("There is nothing to measure; give a model with --networks and its image codec with --vae.")
    torch.set_num_threads(options.threads)
    codec = ImageCodec(options.vae)
    sampling = Sampling(options.steps, betas=options.betas, noise=options.noise)
    methods: dict[str, Method] = {
        "reference copied": copied,
        "reference warped": warped,
        "truth through the codec": coded(codec),
    }
    models = {"per frame": load_networks(options.networks, "none")}
    if find_set(options.networks).motion_module is not None:
        models["with motion modules"] = load_networks(options.networks, "set")
    for name, networks in models.items():
        for cfg in options.cfg:
            methods[f"{name}, cfg {cfg:g}"] = sampled(networks, codec, replace(sampling, cfg=cfg))
    perceptual = load_lpips(*options.lpips) if options.lpips else None
    clips = held_out(options.size, options.frames, options.clips, options.first)
    found = compare(clips, methods, codec, perceptual, options.out, report)
    text = table(found)
    with whole(options.out / "table.md", replace=True) as made:
        made.write_text(text + "\n")
    print(text)


def report(done: int, total: int) -> None:
    print(time.strftime("%H:%M:%S"), f"{done} of {total}", flush=True)
