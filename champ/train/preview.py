"""A contact sheet of what the networks make of held-out samples, by the sampler and the conditioning of the nodes."""

import comfy.latent_formats
import comfy.sample
import torch
from torch import Tensor

from ..model.conditioning import conditioning
from ..model.guidance import GuidanceMap, encode_guidance
from ..model.reference import encode_reference
from ..sampling.noise import FrameNoise
from ..sampling.sampler import ddim
from ..sampling.schedule import trailing_sigmas, with_betas
from .batches import Batch
from .latents import ImageCodec
from .networks import Networks

FORMAT = comfy.latent_formats.SD15()


@torch.no_grad()
def sample_batch(networks: Networks, batch: Batch, betas: str, steps: int, cfg: float, seed: int = 0) -> Tensor:
    """The scaled latents (B, F, 4, h, w) that the networks make of references and maps."""
    model = with_betas(networks.denoiser, betas)
    out = []
    for row in range(len(batch.latents)):
        height, width = (8 * n for n in batch.latents.shape[-2:])
        maps = {name: GuidanceMap(x[row].float() / 255) for name, x in batch.maps.items()}
        guidance = encode_guidance(networks.encoders, maps, width, height)
        embeds = None if batch.clip_embeds is None else batch.clip_embeds[row : row + 1]
        references = encode_reference(networks.net, FORMAT.process_out(batch.reference[row : row + 1]), embeds)
        positive, negative = conditioning(networks.net.context_dim, guidance, references, embeds)
        latent = {"samples": guidance.empty_latent()}
        sigmas = trailing_sigmas(model.get_model_object("model_sampling"), steps)
        noise = FrameNoise(seed).generate_noise(latent)
        samples = comfy.sample.sample_custom(
            model, noise, cfg, ddim(), sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=seed
        )
        out.append(FORMAT.process_in(samples))
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
