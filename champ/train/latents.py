"""Converts pictures to latents and back, with ComfyUI's VAE or the tiny codec."""

import hashlib
from pathlib import Path

import comfy.latent_formats
import comfy.sd
import torch
from torch import Tensor

from ..files.tensors import read_tensors
from .codec import Codec, from_taesd

LATENT_FORMAT = comfy.latent_formats.SD15()


class ImageCodec:
    """A VAE of Stable Diffusion 1.5 (or TAESD) as ComfyUI loads it, or a Codec's own weights."""

    def __init__(self, file: Path):
        state = read_tensors(file, ("state_dict",), what="a VAE", advice="choose one that ComfyUI loads")
        self.digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if "encoder.0.weight" in state:
            self.codec: Codec | None = Codec()
            self.codec.load_state_dict(state)
        else:
            self.codec = from_taesd(state)
        if self.codec is not None:
            self.codec.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        else:
            self.vae = comfy.sd.VAE(sd=state)
            self.vae.throw_exception_if_invalid()

    def tiny(self) -> Codec:
        """Returns the codec itself, if it is one of ours."""
        if self.codec is None:
            raise ValueError("This VAE was not made by `codec`, so it cannot be trained further; use one that was.")
        return self.codec

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Encodes uint8 pictures (N, 8h, 8w, 3) to scaled latents (N, 4, h, w) on the CPU."""
        colours = pictures.float() / 255
        if self.codec is None:
            return LATENT_FORMAT.process_in(self.vae.encode(colours)).cpu().float()
        return self.codec.encode(colours.permute(0, 3, 1, 2)).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decodes scaled latents to uint8 pictures."""
        if self.codec is None:
            colours = self.vae.decode(LATENT_FORMAT.process_out(latents)).cpu()
        else:
            colours = self.codec.decode(latents).permute(0, 2, 3, 1)
        return (colours.float().clamp(0, 1) * 255 + 0.5).byte()
