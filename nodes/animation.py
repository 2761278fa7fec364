"""Moving previews inside nodes."""

import math
import uuid
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

PREVIEW_SIZE = 1024  # longer side in pixels
PREVIEW_FRAMES = 120


def preview_step(frames: int, fps: float) -> int:
    """Every how many frames a preview of a clip shows: it stays small, and browsers slow down above 50 a second."""
    return max(-(-frames // PREVIEW_FRAMES), math.ceil(fps / 50))


def save_animation(path: Path, pictures: torch.Tensor, fps: float) -> None:
    """Writes uint8 pictures (F, H, W, 3) as an animated WebP that repeats for ever."""
    frames = [Image.fromarray(picture.numpy()) for picture in pictures]
    for frame in frames:
        frame.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, quality=80, method=0
    )


def animated(pictures: torch.Tensor, fps: float) -> ui.SavedImages:
    """A node's preview of uint8 pictures (F, H, W, 3), kept in ComfyUI's temporary folder."""
    name = f"champ_{uuid.uuid4().hex}.webp"
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    step = preview_step(len(pictures), fps)
    save_animation(folder / name, pictures[::step], fps / step)
    return ui.SavedImages([ui.SavedResult(name, "", io.FolderType.temp)], is_animated=True)
