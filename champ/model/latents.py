"""The latents of the tiny codec, whose previews need colours of their own."""

import json
from pathlib import Path

import comfy.latent_formats

COLOURS = Path(__file__).parents[1] / "assets" / "latent_colours.json"  # made by tools/latent_colours.py
SD15_CHANNELS = 320  # of the first level


class TinyLatents(comfy.latent_formats.SD15):
    """As large as SD1.5's, and scaled alike."""

    def __init__(self):
        super().__init__()
        colours = json.loads(COLOURS.read_text())
        self.latent_rgb_factors, self.latent_rgb_factors_bias = colours["factors"], colours["bias"]
        self.taesd_decoder_name = None  # it is for the latents of SD1.5's VAE


def latents_of(channels: int) -> comfy.latent_formats.LatentFormat:
    """The latents that a UNet of so many channels was trained with: training from scratch uses the tiny codec."""
    return TinyLatents() if channels < SD15_CHANNELS else comfy.latent_formats.SD15()
