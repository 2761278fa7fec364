"""What is seen of a video while it is sampled: a few of its frames, side by side."""

import sys
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from server import PromptServer
from torch import Tensor

from ..champ.progress import advance

FRAMES = 4


def declined() -> bool:
    """Whether the user has asked for no previews, when ComfyUI was started or for the run that is going on."""
    running, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    at_start = any(word.startswith("--preview-m") for word in sys.argv)  # also with =, or not written out
    return at_start or any(about[3].get("preview_method") == "none" for about in running)


def previewer_for(model: ModelPatcher) -> latent_preview.LatentPreviewer | None:
    """ComfyUI's previewer. Without a word from the user it has none, and a video takes too long to see nothing."""
    latents = model.model.latent_format
    made = latent_preview.get_previewer(model.load_device, latents)
    if made is None and not declined():
        return latent_preview.Latent2RGBPreviewer(latents.latent_rgb_factors, latents.latent_rgb_factors_bias)
    return made


def strip(frames: Tensor) -> Tensor:
    """Some of the latents (F, C, h, w), the first and the last among them, as one (1, C, h, n w)."""
    chosen = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long().tolist()
    return torch.cat([frames[i] for i in chosen], dim=-1)[None]


def live_callback(model: ModelPatcher, steps: int, windows: int) -> Callable:
    """Returns a sampler's callback, which moves the bar, shows the strip, and reports the windows that are done."""
    previewer = previewer_for(model)
    bar = comfy.utils.ProgressBar(steps)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        shown = previewer.decode_latent_to_preview_image("JPEG", strip(x0)) if previewer else None
        bar.update_absolute(step + 1, total, shown)
        advance((step + 1) * windows, total * windows)

    return callback
