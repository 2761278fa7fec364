"""Contact sheets of held-out samples, made with the sampler and the conditioning of the nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ..model.conditioning import conditioning
from ..model.guidance import GuidanceMap, encode_guidance
from ..model.reference import Reference, encode_reference
from ..sampling.noise import NOISES
from ..sampling.sampler import ddim
from ..sampling.schedule import official_sigmas, with_betas
from .batches import Batch
from .latents import LATENT_FORMAT, ImageCodec
from .networks import Networks


@dataclass(frozen=True)
class Sampling:
    """Settings of the sampling."""

    steps: int = 20
    cfg: float = 2.0
    betas: str = "linear"
    sampler: str = "champ"  # the pack's DDIM with the official timesteps, or one of ComfyUI's with its simple ones
    noise: str = "per frame"  # one of NOISES
    seed: int = 0


@torch.no_grad()
def sample_clip(
    networks: Networks,
    maps: Mapping[str, Tensor],
    references: Sequence[Reference],
    how: Sampling,
    clip_embeds: Tensor | None = None,
) -> Tensor:
    """Returns the scaled latents (F, 4, h, w) that the networks make of references and uint8 maps (F, 8h, 8w, 3)."""
    model = with_betas(networks.denoiser, how.betas)
    height, width = next(iter(maps.values())).shape[1:3]
    guidance = encode_guidance(
        networks.encoders, {name: GuidanceMap(x.float() / 255) for name, x in maps.items()}, width, height
    )
    positive, negative = conditioning(networks.net.context_dim, guidance, references, clip_embeds)
    latent = {"samples": guidance.empty_latent()}
    sampling = model.get_model_object("model_sampling")
    if how.sampler == "champ":
        method, sigmas = ddim(), official_sigmas(sampling, how.steps)
    else:
        method = comfy.samplers.sampler_object(how.sampler)
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", how.steps)
    drawn = NOISES[how.noise](how.seed).generate_noise(latent)
    samples = comfy.sample.sample_custom(
        model, drawn, how.cfg, method, sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=how.seed
    )
    return LATENT_FORMAT.process_in(samples)


def sample_batch(networks: Networks, batch: Batch, how: Sampling) -> Tensor:
    """Returns the scaled latents (B, F, 4, h, w) that the networks make of references and maps."""
    out = []
    for row in range(len(batch.latents)):
        maps = {name: x[row] for name, x in batch.maps.items()}
        embeds = None if batch.clip_embeds is None else batch.clip_embeds[row : row + 1]
        references = encode_reference(networks.net, LATENT_FORMAT.process_out(batch.reference[row : row + 1]), embeds)
        out.append(sample_clip(networks, maps, references, how, embeds))
    return torch.stack(out)


def contact_sheet(networks: Networks, batch: Batch, codec: ImageCodec, how: Sampling) -> Tensor:
    """Draws uint8 (H, W, 3): a column for every sample with its reference, the normal map, the result and the true
    picture, or of every second frame of a clip the maps, results and true pictures."""
    made = sample_batch(networks, batch, how)
    columns = []
    for row in range(len(made)):
        shown = slice(None, None, 2)
        column = [
            codec.decode(batch.reference[row : row + 1]),
            *zip(
                batch.maps["normal"][row][shown].split(1),
                codec.decode(made[row][shown]).split(1),
                codec.decode(batch.latents[row][shown]).split(1),
            ),
        ]
        pictures = [column[0], *(picture for frame in column[1:] for picture in frame)]
        columns.append(torch.cat(pictures, 1)[0])
    return torch.cat(columns, 1)
