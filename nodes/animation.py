"""Animated previews inside nodes."""

import math
import uuid
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ..champ.output import not_saved, whole
from .types import warn

PREVIEW_SIZE = 1024  # longer side in pixels
PREVIEW_FRAMES = 120


def preview_scale(width: int, height: int, longest: int = PREVIEW_SIZE) -> tuple[float, tuple[int, int]]:
    """Returns by how much pictures are made smaller for a preview, and their width and height then."""
    scale = min(1.0, longest / max(width, height))
    return scale, (max(1, round(width * scale)), max(1, round(height * scale)))


def preview_step(frames: int, fps: float) -> int:
    """Returns the frame step of a preview: previews stay small, and browsers slow down above 50 frames a second."""
    return max(-(-frames // PREVIEW_FRAMES), math.ceil(fps / 50))


def save_animation(path: Path, pictures: torch.Tensor, fps: float) -> None:
    """Writes uint8 pictures (F, H, W, 3) as an animated WebP that repeats forever."""
    frames = [Image.fromarray(picture.numpy()) for picture in pictures]
    for frame in frames:
        frame.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    options = {"duration": round(1000 / fps), "loop": 0, "quality": 80, "method": 0}
    with whole(path) as made:
        frames[0].save(made, "WEBP", save_all=True, append_images=frames[1:], **options)


def still(image: torch.Tensor, cls: type[io.ComfyNode]) -> ui.PreviewImage | None:
    """Makes a node's preview of an IMAGE; failures are handled as in `animated`."""
    try:
        return ui.PreviewImage(image, cls=cls)
    except OSError as error:
        warn(f"There is no preview: {not_saved(Path(folder_paths.get_temp_directory(), 'It'), error)}")
        return None


def animated(pictures: torch.Tensor, fps: float) -> dict:
    """Makes a node's preview of a clip (F, H, W, 3) uint8."""
    step = preview_step(len(pictures), fps)
    return animated_part(pictures[::step], fps, step, len(pictures))


def animated_part(pictures: torch.Tensor, fps: float, step: int, frames: int, **about: Any) -> dict:
    """Makes a node's preview of every `step`-th frame of a clip of so many `frames`, as uint8 pictures (F, H, W, 3). It
    is kept in ComfyUI's temporary folder, with what the page's player needs and `about` the clip.

    The node's results do not depend on it: if it cannot be written, the user gets a warning instead."""
    path = Path(folder_paths.get_temp_directory(), f"champ_{uuid.uuid4().hex}.webp")
    try:
        save_animation(path, pictures, fps / step)
    except ValueError as error:
        warn(f"There is no preview: {error}")
        return {}
    kept = ui.SavedImages([ui.SavedResult(path.name, "", io.FolderType.temp)], is_animated=True)
    return {**kept.as_dict(), "champ_clip": [{"fps": fps, "step": step, "frames": frames, **about}]}
