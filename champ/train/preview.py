"""A contact sheet of what the networks make of held-out samples, by the sampler and the conditioning of the nodes."""

from collections.abc import Mapping, Sequence

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ..model.conditioning import conditioning
from ..model.guidance import GuidanceMap, encode_guidance
from ..model.reference import Reference, encode_reference
from ..sampling.noise import NOISES
from ..sampling.sampler import ddim
from ..sampling.schedule import trailing_sigmas, with_betas
from .batches import Batch
from .latents import LATENT_FORMAT, ImageCodec
from .networks import Networks


@torch.no_grad()
def sample_clip(
    networks: Networks,
    maps: Mapping[str, Tensor],
    references: Sequence[Reference],
    steps: int,
    cfg: float,
    betas: str = "linear",
    sampler: str = "champ",
    noise: str = "per frame",
    seed: int = 0,
    clip_embeds: Tensor | None = None,
) -> Tensor:
    """The scaled latents (F, 4, h, w) that the networks make of references and uint8 maps (F, 8h, 8w, 3); `sampler` is
    the pack's own with the official timesteps, or the name of one of ComfyUI's, with its simple ones; `noise` is one of
    NOISES."""
    model = with_betas(networks.denoiser, betas)
    height, width = next(iter(maps.values())).shape[1:3]
    guidance = encode_guidance(
        networks.encoders, {name: GuidanceMap(x.float() / 255) for name, x in maps.items()}, width, height
    )
    positive, negative = conditioning(networks.net.context_dim, guidance, references, clip_embeds)
    latent = {"samples": guidance.empty_latent()}
    sampling = model.get_model_object("model_sampling")
    if sampler == "champ":
        method, sigmas = ddim(), trailing_sigmas(sampling, steps)
    else:
        method = comfy.samplers.sampler_object(sampler)
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    drawn = NOISES[noise](seed).generate_noise(latent)
    samples = comfy.sample.sample_custom(
        model, drawn, cfg, method, sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=seed
    )
    return LATENT_FORMAT.process_in(samples)


def sample_batch(networks: Networks, batch: Batch, betas: str, steps: int, cfg: float, seed: int = 0) -> Tensor:
    """The scaled latents (B, F, 4, h, w) that the networks make of references and maps."""
    out = []
    for row in range(len(batch.latents)):
        maps = {name: x[row] for name, x in batch.maps.items()}
        embeds = None if batch.clip_embeds is None else batch.clip_embeds[row : row + 1]
        references = encode_reference(networks.net, LATENT_FORMAT.process_out(batch.reference[row : row + 1]), embeds)
        out.append(sample_clip(networks, maps, references, steps, cfg, betas, seed=seed, clip_embeds=embeds))
    return torch.stack(out)


def contact_sheet(networks: Networks, batch: Batch, codec: ImageCodec, betas: str, steps: int, cfg: float) -> Tensor:
    """uint8 (H, W, 3): a column for every sample with its reference, the normal map, the result and the true picture,
    or of every second frame of a clip the maps, results and true pictures."""
    made = sample_batch(networks, batch, betas, steps, cfg)
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
