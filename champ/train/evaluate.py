"""Evaluates a model on held-out synthetic people, against the truth and simple baselines."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..calibrate.branch import Picture
from ..calibrate.correspondences import people_of_motion
from ..calibrate.procrustes import align_clip
from ..metrics.images import flicker, iou, l1, psnr, ssim
from ..metrics.means import mean_of_clips
from ..metrics.perceptual import LPIPS, load_lpips, lpips
from ..model.reference import encode_reference
from ..output import save_picture, whole
from ..people.samples import Sample, SyntheticPeople, draw_room, draw_surface
from ..progress import advance, listening, portion, printed
from ..sampling.noise import NOISES
from .codec import in_head
from .latents import LATENT_FORMAT, ImageCodec
from .networks import Networks
from .preview import Sampling, sample_clip
from .silhouettes import find
from .start import has_motion, load_networks

Method = Callable[[Sample], Tensor]  # the pictures (F, H, W, 3) uint8 that it makes of a clip's reference and maps
Scores = dict[str, float]

DIFFERS = 24  # levels of 255 in some colour by which a pixel is off the room that shows the person
FRONT = 0.1  # metres in front of the body's middle where the face begins, on the free body at betas 0
FACE = 0.25  # of the head that must be face where it is seen from the front
DETAIL = 5  # the finest part of a head's width that is no detail of its face
SHOWN = 6  # frames of a contact sheet


def held_out(size: int, frames: int, count: int, first: int = 0, close: float = 0.0) -> list[Sample]:
    """Draws people whom training never sees, always the same; a share of them in close framings."""
    people = SyntheticPeople(size, "held_out", frames, close=close)
    return [people.sample(first + i) for i in range(count)]


def copied(clip: Sample) -> Tensor:
    """Baseline: copies the reference into every frame."""
    return clip.reference.expand_as(clip.pictures)


def warped(clip: Sample) -> Tensor:
    """Baseline: warps the reference by the similarity between the two bodies in the picture."""
    height, width = clip.reference.shape[:2]
    reference, people = (people_of_motion(clip.body, motion) for motion in (clip.reference_motion, clip.motion))
    picture = Picture(clip.reference.numpy(), width, height, "crop")
    alignments = align_clip(reference.points[0], people.points)
    return torch.from_numpy(np.stack([picture.warped(found.matrix).picture for found in alignments]))


def coded(codec: ImageCodec) -> Method:
    """Encodes and decodes the true pictures: no model with this image codec can do better."""
    return lambda clip: codec.decode(codec.encode(clip.pictures))


def sampled(networks: Networks, codec: ImageCodec, sampling: Sampling) -> Method:
    """Samples the clip with the networks."""

    def pictures(clip: Sample) -> Tensor:
        references = encode_reference(networks.net, LATENT_FORMAT.process_out(codec.encode(clip.reference[None])))
        return codec.decode(sample_clip(networks, clip.maps, references, sampling))

    return pictures


def off_the_room(pictures: Tensor, *rooms: Tensor) -> Tensor:
    """Returns (F, H, W) bool: where pictures (F, H, W, 3) differ from each of these of the room without its person;
    the largest connected region, because what is wrong in the room is not the person."""
    return torch.stack([_largest(frame.byte()) for frame in apart_from(pictures, rooms)])


def apart_from(pictures: Tensor, rooms: Sequence[Tensor]) -> Tensor:
    """Returns (F, H, W) bool: where pictures (F, H, W, 3) differ from each of the rooms."""
    return torch.stack([(pictures.int() - room.int()).abs().amax(-1) for room in rooms]).amin(0) > DIFFERS


def _largest(mask: Tensor) -> Tensor:
    _, labels, about, _ = cv2.connectedComponentsWithStats(mask.numpy(), connectivity=8)
    areas = about[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # what is not in the mask
    return torch.from_numpy((labels == areas.argmax()) & (labels > 0))


def rooms_of(clip: Sample, codec: ImageCodec | None = None) -> list[Tensor]:
    """Returns the room behind the person, and the same through the codec, so that the codec's errors are not taken for
    a person."""
    room = draw_room(clip.actor, clip.motion, clip.up)
    return [room] if codec is None else [room, codec.decode(codec.encode(room))]


@dataclass(frozen=True)
class Head:
    """The place of the head in the frames, and of its face where it is seen from the front."""

    box: Tensor  # (F, H, W) bool
    face: Tensor  # (F, H, W) bool, nothing where it is turned away
    width: int  # of the largest box, in pixels


def head_of(clip: Sample) -> Head:
    surface = draw_surface(clip.actor, clip.motion, 1)
    head = in_head(surface)
    rows, columns = head.any(2), head.any(1)
    box = _between_ends(rows)[:, :, None] & _between_ends(columns)[:, None]
    face = head & (surface[..., 2] > FRONT)
    face &= (face.sum((1, 2)) >= FACE * head.sum((1, 2)).clamp_min(1))[:, None, None]
    return Head(box, face, int(columns.sum(1).max()))


def _between_ends(line: Tensor) -> Tensor:
    """Fills each row from its first True to its last."""
    forward = line.int().cummax(1)[0]
    backward = line.int().flip(1).cummax(1)[0].flip(1)
    return (forward > 0) & (backward > 0)


def details(pictures: Tensor, width: float) -> Tensor:
    """Returns the brightness (F, H, W) of uint8 (F, H, W, 3) without structures as wide as `width` pixels and more."""
    grey = [cv2.cvtColor(picture.numpy(), cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
    return torch.from_numpy(np.stack([one - cv2.GaussianBlur(one, (0, 0), width) for one in grey]))


def correlation(made: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Computes Pearson's correlation of values (F, H, W) inside each frame's mask; NaN where the mask is empty."""
    found = []
    for a, b, m in zip(made.double(), true.double(), mask):
        a, b = a[m] - a[m].mean(), b[m] - b[m].mean()
        found.append((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9) if m.any() else a.new_tensor(torch.nan))
    return torch.stack(found)


def ghost(made: Tensor, clip: Sample, rooms: Sequence[Tensor]) -> Tensor:
    """Returns the share that shows no room, of the area that the person hides in the reference but not in the true
    frame."""
    free = max_pool2d(clip.masks.float(), 3, 1, 1) == 0  # pixels at the edge show both
    left = (clip.reference_mask > 0) & free
    return (apart_from(made, rooms) & left).sum((1, 2)) / left.sum((1, 2))


def measure(
    made: Tensor,
    clip: Sample,
    rooms: Sequence[Tensor],
    perceptual: LPIPS | None = None,
    head: Head | None = None,
) -> Scores:
    """Returns means over the frames. Flicker is in levels of 255; `head` is head_of(clip), if already computed."""
    true, person = clip.pictures, clip.masks > 0
    head = head or head_of(clip)
    fine = max(head.width / DETAIL, 1.0)
    scores = {
        "person PSNR": psnr(made, true, person),
        "person SSIM": ssim(made, true, person),
        "face PSNR": psnr(made, true, head.box),
        "face details": correlation(details(made, fine), details(true, fine), head.face),
        "background PSNR": psnr(made, true, ~person),
        "background SSIM": ssim(made, true, ~person),
        "IoU": iou(find(made), person),
        "IoU off the room": iou(off_the_room(made, *rooms), person),
        "ghost": ghost(made, clip, rooms),
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
) -> dict[str, list[Scores]]:
    """Returns the scores of each method on each clip; the folder `sheets` gets a contact sheet for each clip."""
    found: dict[str, list[Scores]] = {name: [] for name in methods}
    for i, clip in enumerate(clips):
        with portion(i, 0, len(clips)):  # what is encoded for a clip is not a clip
            made = {name: method(clip) for name, method in methods.items()}
            rooms, head = rooms_of(clip, codec), head_of(clip)
            for name, pictures in made.items():
                found[name].append(measure(pictures, clip, rooms, perceptual, head))
        if sheets is not None:
            save_picture(sheets / f"clip_{i:03}.png", sheet(clip, made))
        advance(i + 1, len(clips))
    return found


def table(found: Mapping[str, Sequence[Scores]]) -> str:
    """Formats a Markdown table: a row for each method with the means over its clips."""
    names = list(next(iter(found.values()))[0])
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for method, scores in found.items():
        cells = (f"{mean:.{DIGITS.get(name, 3)}f}" for name, mean in mean_of_clips(scores).items())
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


DIGITS = {"person PSNR": 2, "face PSNR": 2, "background PSNR": 2, "flicker": 2, "person flicker": 2, "L1": 4}


def sheet(clip: Sample, made: Mapping[str, Tensor]) -> np.ndarray:
    """Draws uint8 RGB: rows of reference, normal map, each method and the truth; a column for every one of some
    frames."""
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


def add_evaluate(commands: argparse._SubParsersAction) -> None:
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
    """Adds the options for the model and the amount of data."""
    command.add_argument("--networks", type=Path, help="the folder of a checkpoint set")
    command.add_argument("--vae", type=Path, help="a VAE that ComfyUI loads, or a Codec's weights")
    command.add_argument("--clips", type=int, default=8, help="held-out people")
    command.add_argument("--close", type=float, default=0.0, help="share of framings closer than the whole body")
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
    if has_motion(options.networks):
        models["with motion modules"] = load_networks(options.networks, "set")
    for name, networks in models.items():
        for cfg in options.cfg:
            methods[f"{name}, cfg {cfg:g}"] = sampled(networks, codec, replace(sampling, cfg=cfg))
    perceptual = load_lpips(*options.lpips) if options.lpips else None
    clips = held_out(options.size, options.frames, options.clips, options.first, options.close)
    with listening(printed()):
        found = compare(clips, methods, codec, perceptual, options.out)
    text = table(found)
    with whole(options.out / "table.md", replace=True) as made:
        made.write_text(text + "\n")
    print(text)
