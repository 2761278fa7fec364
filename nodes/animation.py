"""Moving previews inside nodes."""

import uuid
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

PREVIEW_SIZE = 1024  # longer side in pixels
PREVIEW_FRAMES = 120


def save_animation(path: Path, pictures: torch.Tensor, fps: float) -> None:
    """Writes uint8 pictures (F, H, W, 3) as an animated WebP that repeats for ever; long clips skip frames."""
    step = -(-len(pictures) // PREVIEW_FRAMES)
    frames = [Image.fromarray(picture.numpy()) for picture in pictures[::step]]
    for frame in frames:
        frame.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=round(1000 * step / fps), loop=0, quality=80, method=0
    )


def animated(pictures: torch.Tensor, fps: float) -> ui.SavedImages:
    """A node's preview of uint8 pictures (F, H, W, 3), kept in ComfyUI's temporary folder."""
    name = f"champ_{uuid.uuid4().hex}.webp"
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    save_animation(folder / name, pictures, fps)
    return ui.SavedImages([ui.SavedResult(name, "", io.FolderType.temp)], is_animated=True)
