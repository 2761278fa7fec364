"""Videos in the official layout: one folder each, with images/, mask/ and a folder for every kind of map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.clip_vision
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ..files.pictures import read_picture
from ..model.families import ENCODED_MAPS
from ..model.images import clip_vision_input
from ..output import is_part
from ..render.folder import list_frames
from .batches import Batch
from .latents import ImageCodec

FAR = 30  # frames between reference and target of stage 1, where the video is long enough
SPAN = 93  # frames of a video over which the frames of a stage 2 clip are spread: 24 at every fourth
TRIES = 10  # tries to find a crop that fits

Frame = int
CropBox = tuple[int, int, int]  # x, y, side


@dataclass(frozen=True)
class Video:
    """The files of a folder, frame by frame."""

    files: dict[str, list[Path]]  # "images", the maps, perhaps "mask"

    def __len__(self) -> int:
        return len(self.files["images"])


def find_videos(folder: Path) -> list[Video]:
    """Finds the videos in a folder: itself, or each folder below it that has images/."""
    found = [path for path in folder.rglob("images") if path.is_dir()]
    found = sorted(path.parent for path in found if not any(map(is_part, path.parts)))
    if not found:
        raise ValueError(f"{folder} has no videos; each needs a folder with images, {', '.join(ENCODED_MAPS)} inside.")
    return [_video(path) for path in found]


def _video(folder: Path) -> Video:
    files = {name: found for name in ("images", *ENCODED_MAPS, "mask") if (found := list_frames(folder / name))}
    counts = {name: len(files.get(name, ())) for name in ("images", *ENCODED_MAPS)}
    if "mask" in files:
        counts["mask"] = len(files["mask"])
    if len(set(counts.values())) > 1 or not counts["images"]:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{folder} needs as many pictures of every kind, but has {listed}; render the maps again.")
    return Video(files)


class FolderSamples:
    """Samples from videos: sample i is a clip of video i, with another frame as the reference; both are random each
    time."""

    def __init__(
        self,
        folder: Path,
        frames: int,
        size: int,
        codec: ImageCodec,
        clip_vision: Path | None = None,
        around_person: bool = False,
    ):
        self.videos, self.frames, self.size, self.codec = find_videos(folder), frames, size, codec
        self.around_person = around_person
        self.masks = all("mask" in video.files for video in self.videos)
        if around_person and not self.masks:
            raise ValueError(
                f"Not every video in {folder} has a folder mask, which --around-person needs; add the masks, or leave "
                "out --around-person."
            )
        self.clip_vision = comfy.clip_vision.load(str(clip_vision)) if clip_vision else None

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, indices: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Reads uint8 pictures: images, maps and mask (B, F, H, W, 3), and the reference (B, H, W, 3)."""
        clips = [self._clip(self.videos[i], generator) for i in indices]
        return {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}

    def batch(self, pictures: dict[str, Tensor]) -> Batch:
        encoded = torch.cat([self.codec.encode(part) for part in pictures["images"].flatten(0, 1).split(8)])
        person = None
        if "mask" in pictures:
            person = avg_pool2d(pictures["mask"][..., 0].gt(127).float(), 8)
        embeds = None
        if self.clip_vision is not None:
            shown = clip_vision_input(pictures["reference"].float() / 255)
            embeds = self.clip_vision.encode_image(shown, crop=False)["image_embeds"].cpu().float()
        return Batch(
            encoded.unflatten(0, pictures["images"].shape[:2]),
            {name: pictures[name] for name in ENCODED_MAPS},
            self.codec.encode(pictures["reference"]),
            person,
            embeds,
        )

    def _clip(self, video: Video, generator: torch.Generator) -> dict[str, Tensor]:
        reference, frames = choose_frames(len(video), self.frames, generator)
        names = [name for name in video.files if name != "mask" or self.masks]
        example = video.files["images"][reference]
        seen = _read(example)
        height, width = seen.shape[:2]

        def read(name: str, frame: Frame) -> Tensor:
            file = video.files[name][frame]
            picture = _read(file)
            if picture.shape != seen.shape:
                raise ValueError(
                    f"{file} has {picture.shape[1]}x{picture.shape[0]} pixels, but {example} has {width}x{height}; "
                    "make all pictures of a video of one size."
                )
            return picture

        pictures = {name: [read(name, i) for i in frames] for name in names}
        if self.around_person:
            masks = [*pictures["mask"], read("mask", reference)]
            box = person_crop(torch.stack(masks).gt(127).any(-1).any(0), generator)
        else:
            box = random_crop(width, height, generator)
        clip = {name: _crop(torch.stack(one), box, self.size) for name, one in pictures.items()}
        return {**clip, "reference": _crop(seen[None], box, self.size)[0]}


def choose_frames(count: int, frames: int, generator: torch.Generator) -> tuple[Frame, list[Frame]]:
    """Draws a reference frame and the frames of the clip: one far from it, or `frames` evenly spread ones."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    reference = draw(0, count)
    if frames == 1:
        if reference + FAR < count:
            return reference, [draw(reference + FAR, count)]
        if reference - FAR > 0:
            return reference, [draw(0, reference - FAR)]
        return reference, [draw(0, count)]
    span = min(count, SPAN)
    start = draw(0, count - span + 1)
    return reference, [start + i * (span - 1) // (frames - 1) for i in range(frames)]


def random_crop(width: int, height: int, generator: torch.Generator) -> CropBox:
    """Draws a square of 0.9 to 1 times the area, or the centre if no such square fits."""
    for _ in range(TRIES):
        share = 0.9 + 0.1 * float(torch.rand((), generator=generator))
        side = round(math.sqrt(share * width * height))
        if side <= min(width, height):
            x = int(torch.randint(width - side + 1, (), generator=generator))
            y = int(torch.randint(height - side + 1, (), generator=generator))
            return x, y, side
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def person_crop(shown: Tensor, generator: torch.Generator) -> CropBox:
    """Draws a square of 0.9 to 1.5 times the person's height or width, whichever is larger, inside the picture."""
    height, width = shown.shape
    rows, columns = shown.any(1).nonzero().flatten(), shown.any(0).nonzero().flatten()
    if not len(rows):
        return random_crop(width, height, generator)
    extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    side = round(extent * (0.9 + 0.6 * float(torch.rand((), generator=generator))))
    side = min(side, width, height)
    x = (int(columns[0]) + int(columns[-1]) + 1 - side) // 2
    y = (int(rows[0]) + int(rows[-1]) + 1 - side) // 2
    return min(max(x, 0), width - side), min(max(y, 0), height - side), side


def _read(file: Path) -> Tensor:
    return torch.from_numpy(read_picture(file))


def _crop(pictures: Tensor, box: CropBox, size: int) -> Tensor:
    """Crops the same square from every picture (N, H, W, 3), resized to `size` pixels."""
    x, y, side = box
    part = pictures[:, y : y + side, x : x + side].permute(0, 3, 1, 2).float()
    part = interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (part + 0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
