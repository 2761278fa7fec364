"""Initial noise of a clip, as objects for ComfyUI's NOISE sockets."""

from typing import Any

import torch
from torch import Tensor


class OfficialNoise:
    """Noise as the official pipelines draw it on the CPU: one tensor (1, 4, F, h, w)."""

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        frames, channels, height, width = latent["samples"].shape
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(1, channels, frames, height, width, generator=generator)[0].movedim(1, 0).contiguous()


class RepeatedNoise(OfficialNoise):
    """Noise as MagicAnimate's pipeline has it: that of 16 frames, again and again."""

    PERIOD = 16

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        frames, *shape = latent["samples"].shape
        drawn = super().generate_noise({"samples": torch.empty(self.PERIOD, *shape)})
        return drawn[torch.arange(frames) % self.PERIOD]


class FrameNoise:
    """Independent noise per frame, whatever the clip's length: a part of a clip gets the same noise as in the whole.

    A latent's "batch_index" says which frames of the whole clip it holds.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        samples = latent["samples"]
        numbers = latent.get("batch_index", range(len(samples)))
        return torch.stack([self.frame(number, samples.shape[1:]) for number in numbers])

    def frame(self, number: int, shape: torch.Size) -> Tensor:
        # Generator seeds far apart, so that frame 1 of one seed is not frame 0 of the next.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        return torch.randn(shape, generator=generator)


class SameNoise(FrameNoise):
    """The same noise in every frame: details that the model invents differ less from frame to frame, but may stick to
    the picture while the person moves through them."""

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        frames, *shape = latent["samples"].shape
        return self.frame(0, torch.Size(shape)).expand(frames, *shape).contiguous()


NOISES: dict[str, type[FrameNoise | OfficialNoise]] = {
    "per frame": FrameNoise,
    "official": OfficialNoise,
    "same in every frame": SameNoise,
    "every 16 frames": RepeatedNoise,
}
