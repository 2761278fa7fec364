"""Clips of held-out drawn people that Champ-Tiny makes again and again, timed. Who imports this has found ComfyUI."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.sample
import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from champ.model.conditioning import conditioning
from champ.model.guidance import Guidance, GuidanceMap, encode_guidance
from champ.model.reference import Reference, encode_reference
from champ.people.samples import Sample
from champ.sampling.noise import NOISES
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas
from champ.train.evaluate import held_out
from champ.train.latents import LATENT_FORMAT, ImageCodec
from champ.train.start import load_networks

ASSETS = Path(__file__).parents[1] / "champ" / "assets" / "models"
DDIM = "official DDIM"

Change = Callable[[ModelPatcher], ModelPatcher]


@dataclass
class Clip:
    """What the sampling of a clip starts from."""

    model: ModelPatcher
    guidance: Guidance
    reference: Reference

    def sample(
        self, change: Change, steps: int, cfg: float, sampler: str = DDIM, reference: Reference | None = None
    ) -> tuple[float, Tensor]:
        """Seconds of the processor, and the latents, with a changed model and perhaps another reference."""
        given = conditioning(self.model.model.context_dim, self.guidance, [reference or self.reference])
        model, latent = change(self.model), self.guidance.empty_latent()
        noise = NOISES["per frame"](0).generate_noise({"samples": latent})
        sigmas = official_sigmas(model.get_model_object("model_sampling"), steps)
        method = ddim() if sampler == DDIM else comfy.samplers.sampler_object(sampler)
        start = time.process_time()
        found = comfy.sample.sample_custom(model, noise, cfg, method, sigmas, *given, latent, disable_pbar=True, seed=0)
        return time.process_time() - start, found


def people(size: int, frames: int, clips: int) -> tuple[list[Sample], list[Clip], ImageCodec]:
    networks = load_networks(ASSETS / "champ" / "champ_tiny", "set")
    codec = ImageCodec(ASSETS / "vae" / "champ_tiny_vae.safetensors")
    samples, made = held_out(size, frames, clips), []
    for sample in samples:
        maps = {name: GuidanceMap(x.float() / 255) for name, x in sample.maps.items()}
        guidance = encode_guidance(networks.encoders, maps, size, size)
        (reference,) = encode_reference(networks.net, LATENT_FORMAT.process_out(codec.encode(sample.reference[None])))
        made.append(Clip(networks.denoiser, guidance, reference))
    return samples, made, codec
