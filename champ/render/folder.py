"""Reads and writes folders of guidance maps in the official layout: depth/ normal/ semantic_map/ dwpose/ mask/, and for
training the images/ that they belong to."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files.pictures import read_picture
from ..output import whole
from ..progress import advance

MAP_FOLDERS = ("depth", "normal", "semantic_map", "dwpose", "mask")
IMAGES = "images"
GREY = ("depth", "mask")  # one channel in the files
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def load_maps(
    folder: str | Path,
    start: int = 0,
    count: int | None = None,
) -> dict[str, Tensor]:
    """Loads the maps of a folder by name: uint8 RGB (F, H, W, 3), the mask (F, H, W); maps not in the folder are left
    out.

    Loads at most `count` frames from `start` on, in the order of the numbers in their names. As in the official
    inference, the semantic map is black where the mask is 0.
    """
    frames = {name: files for name in MAP_FOLDERS if (files := list_frames(Path(folder) / name))}
    if not frames:
        raise ValueError(
            f"No guidance maps in {folder}: expected pictures in a folder named {', '.join(MAP_FOLDERS[:-1])}."
        )
    _check_same_frames(frames)
    length = len(next(iter(frames.values())))
    if not 0 <= start < length:
        raise ValueError(f"Frame {start} is not in {folder}: it has {length} frames, counted from 0.")
    stop = length if count is None else min(start + count, length)
    maps: dict[str, Tensor] = {}
    for i in range(start, stop):
        for name, files in frames.items():
            picture = read_picture(files[i], "L" if name == "mask" else "RGB")
            if not maps:
                size = picture.shape[:2]
            if picture.shape[:2] != size:
                raise ValueError(
                    f"{files[i]} is {picture.shape[1]}x{picture.shape[0]} but the frames before it are "
                    f"{size[1]}x{size[0]}; make all maps of one size."
                )
            if name not in maps:
                maps[name] = _room_for(stop - start, picture)
            maps[name][i - start] = torch.from_numpy(picture)
        if "mask" in maps and "semantic_map" in maps:
            maps["semantic_map"][i - start][maps["mask"][i - start] == 0] = 0
        advance(i - start + 1, stop - start)
    return maps


def save_maps(
    folder: str | Path,
    maps: dict[str, Tensor],
    finish: Callable[[Path], None] = lambda made: None,
) -> None:
    """Saves maps as load_maps returns them, or as floats in 0..1, optionally with images, frame by frame: 0000.png,
    0001.png, ...

    The folder appears when it is complete. `finish` may add to it; it is called with the temporary folder.
    """
    for name in maps:
        if name not in (*MAP_FOLDERS, IMAGES):
            raise ValueError(f"There is no guidance map called {name!r}; choose from {', '.join(MAP_FOLDERS)}.")
    lengths = {len(frames) for frames in maps.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"The maps to save have {sorted(lengths)} frames; connect one or more maps of the same length."
        )
    sizes = {name: tuple(frames.shape[1:3]) for name, frames in maps.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{name} {width}x{height}" for name, (height, width) in sizes.items())
        raise ValueError(f"The maps to save differ in size ({listed}); connect maps of one size.")
    with whole(folder, folder=True) as made:
        for name in maps:
            (made / name).mkdir()
        length = lengths.pop()
        for i in range(length):
            for name, frames in maps.items():
                picture = frames[i].cpu()
                if picture.is_floating_point():
                    picture = picture.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
                picture = picture.numpy()
                if name in GREY and picture.ndim == 3:
                    picture = picture[..., 0]
                Image.fromarray(picture).save(made / name / f"{i:04d}.png", compress_level=4)
            advance(i + 1, length)
        finish(made)


def list_frames(folder: Path) -> list[Path]:
    """Lists the pictures of a folder in the order of the numbers in their names: 2 before 10."""
    if not folder.is_dir():
        return []
    files = [f for f in folder.iterdir() if f.suffix.lower() in PICTURES and not f.name.startswith(".") and f.is_file()]
    return sorted(files, key=lambda f: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", f.stem)])


def _room_for(frames: int, picture: np.ndarray) -> Tensor:
    try:
        return torch.empty((frames, *picture.shape), dtype=torch.uint8)
    except RuntimeError:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise ValueError(
            f"{frames} frames of {size} take {frames * picture.nbytes / 1e9:.0f} GB for each map, more than this "
            "machine has; load fewer at once with start and count, or render smaller maps."
        ) from None


def _check_same_frames(frames: dict[str, list[Path]]) -> None:
    """Checks that all maps have the same frames, by the last number in their names: a gap in one map would shift it."""
    numbers = {name: [_number(f) for f in files] for name, files in frames.items()}
    for name, own in numbers.items():
        for previous, file, number in zip(own, frames[name][1:], own[1:]):
            if number == previous:
                raise ValueError(f"{file.parent} has frame {number} twice ({file.name}); remove one of the files.")
    union = set().union(*numbers.values())
    unnumbered = [name for name in union if isinstance(name, str)]
    if unnumbered and len(unnumbered) < len(union):
        folder = next(frames[name][0].parent for name, own in numbers.items() if unnumbered[0] in own)
        raise ValueError(
            f"{folder} has the picture {unnumbered[0]} without a number beside numbered frames; give it a number, or "
            "remove it."
        )
    for name, own in numbers.items():
        if len(own) < len(union):
            missing = min(union - set(own))
            other = next(n for n in numbers if missing in numbers[n])
            raise ValueError(
                f"{name} has {len(own)} frames and lacks number {missing}, which {other} has ({len(numbers[other])} "
                "frames); render that map again, or remove its folder."
            )


def _number(file: Path) -> int | str:
    found = re.findall(r"\d+", file.stem)
    return int(found[-1]) if found else file.stem
