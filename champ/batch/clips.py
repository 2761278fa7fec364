"""The frames of what a row saved, or of a true clip: pictures, animations, videos, folders of pictures."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files.pictures import PIXELS, read_animation

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
SHOWN, HEIGHT = 4, 120  # frames of a thumbnail, and how high they are


def is_shown(name: str) -> bool:
    """Returns whether a file of this name holds frames."""
    return name.lower().endswith((*PICTURES, *VIDEOS))


def by_number(files: Sequence[Path]) -> list[Path]:
    """Sorts 2 before 10."""
    return sorted(files, key=lambda file: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", file.name)])


def frames(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """uint8 RGB (H, W, 3): of all the files, one after the other; of the pictures in a folder in their order."""
    for file in files:
        if file.is_dir():
            yield from frames(
                by_number([inside for inside in file.iterdir() if inside.name.lower().endswith(PICTURES)])
            )
        elif file.name.lower().endswith(VIDEOS):
            yield from _video(file)
        else:
            yield from read_animation(file)


def _video(file: Path) -> Iterator[np.ndarray]:
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise ValueError(f"{file.name} has no pictures in it")
            stream = container.streams.video[0]
            if stream.width * stream.height > PIXELS:
                raise ValueError(f"{file.name} has {stream.width}x{stream.height} pixels, and {PIXELS} are the limit")
            for frame in container.decode(stream):
                yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
    except av.error.FFmpegError as error:
        raise ValueError(f"{file.name} cannot be read as a video: {error}") from None


def thumbnail(files: Sequence[Path], path: Path) -> None:
    """Makes a JPEG of some frames, evenly spread. Two passes, because a file need not know how many frames it has."""
    count = sum(1 for _ in frames(files))
    chosen = {round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)}
    strips = []
    for i, frame in enumerate(frames(files)):
        if i in chosen:
            picture = Image.fromarray(np.ascontiguousarray(frame))
            strips.append(picture.resize((max(1, round(picture.width * HEIGHT / picture.height)), HEIGHT)))
    sheet = Image.new("RGB", (sum(strip.width for strip in strips), HEIGHT))
    at = 0
    for strip in strips:
        sheet.paste(strip, (at, 0))
        at += strip.width
    sheet.save(path, "JPEG", quality=80)
