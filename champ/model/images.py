"""Resizes pictures as the official pipelines do: with PIL, on 8-bit pictures."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FITS = ("stretch", "crop", "pad")
BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
CLIP_SIZE = 224
SMALLEST = 16  # pixels of a side; below it, the networks would normalise over a single number
TOO_SMALL = (
    f"which is too small for the networks; use {SMALLEST}x{SMALLEST} or more, and at least 256x256 for a useful picture"
)


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def nearest_size(pixels: int) -> int:
    """Returns the nearest side length that the networks can take."""
    return max(SMALLEST, round(pixels / 8) * 8)


def check_size(width: int, height: int) -> None:
    """Checks a size: the VAE and the encoders halve a picture three times."""
    if width % 8 or height % 8 or width <= 0 or height <= 0:
        near = [nearest_size(n) for n in (width, height)]
        raise ValueError(f"{width}x{height} pixels are not multiples of 8; use {near[0]}x{near[1]}, for example.")
    if min(width, height) < SMALLEST:
        raise ValueError(f"The size of the video is {width}x{height} pixels, {TOO_SMALL}.")


def check_images(images: Tensor, what: str) -> None:
    if images.ndim != 4 or images.shape[-1] < 3:
        raise ValueError(f"{what} has shape {tuple(images.shape)}, but pictures (frames, height, width, 3) are needed.")
    if not len(images):
        raise ValueError(f"{what} has no pictures; connect at least one.")


def resize(images: Tensor, width: int, height: int, method: Image.Resampling = BICUBIC) -> Tensor:
    """Stretches pictures (F, H, W, 3) in 0..1 to (F, height, width, 3), rounded to 8 bits before and after."""
    resized = torch.empty(len(images), height, width, 3)
    for picture, out in zip(images, resized):  # one by one, so that no second clip of floats is needed
        levels = picture[..., :3].mul(255).round_().clamp_(0, 255).to("cpu", torch.uint8).numpy()
        if levels.shape[:2] != (height, width):
            levels = np.array(Image.fromarray(levels).resize((width, height), method))
        out.copy_(torch.from_numpy(levels)).div_(255)
    return resized


def fit_boxes(columns: int, rows: int, width: int, height: int, how: str) -> tuple[Box, Box]:
    """Returns the part of a picture of columns x rows pixels that is shown, and its place in width x height pixels."""
    if how not in FITS:
        raise ValueError(f"There is no fit called {how!r}; choose from {', '.join(FITS)}.")
    check_size(width, height)
    shown, place = Box(0, 0, columns, rows), Box(0, 0, width, height)
    if how == "crop":
        scale = min(columns / width, rows / height)
        w, h = min(columns, round(width * scale)), min(rows, round(height * scale))
        shown = Box((columns - w) // 2, (rows - h) // 2, w, h)
    elif how == "pad":
        scale = min(width / columns, height / rows)
        w, h = max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale)))
        place = Box((width - w) // 2, (height - h) // 2, w, h)
    return shown, place


def fit_images(images: Tensor, width: int, height: int, how: str, method: Image.Resampling = LANCZOS) -> Tensor:
    """Resizes pictures of another aspect ratio: stretch (official), centre crop, or pad with black."""
    check_images(images, "The picture")
    shown, place = fit_boxes(images.shape[2], images.shape[1], width, height, how)
    images = images[:, shown.top : shown.top + shown.height, shown.left : shown.left + shown.width]
    resized = resize(images, place.width, place.height, method)
    if (place.width, place.height) == (width, height):
        return resized
    padded = resized.new_zeros(len(images), height, width, 3)
    padded[:, place.top : place.top + place.height, place.left : place.left + place.width] = resized
    return padded


def clip_vision_input(images: Tensor) -> Tensor:
    """Resizes pictures for CLIP vision as the official inference does: 224x224, bicubic, aspect ratio not kept.

    ComfyUI's CLIP vision encoding takes pictures of this size as they are.
    """
    return resize(images, CLIP_SIZE, CLIP_SIZE, BICUBIC)
