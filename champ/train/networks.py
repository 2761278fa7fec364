"""The networks in training: the ones that the nodes run, with float32 weights, and one forward pass through them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..model.attention import TokenSource
from ..model.compat import managed
from ..model.config import MotionSizes, Place, UNetSizes
from ..model.denoiser import ChampUNet
from ..model.guidance import EncoderSizes, GuidanceEncoders
from ..model.motion_module import MotionModule
from ..model.reference import ReferenceNet, ReferenceUNet


def patcher(model: nn.Module) -> ModelPatcher:
    """Wraps a network in training for ComfyUI; it stays on its device."""
    device = comfy.model_management.get_torch_device()
    return managed(model.to(device), device, device)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a whole set of networks."""

    unet: UNetSizes
    encoder: EncoderSizes
    motion: MotionSizes | None = None


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a set: the denoiser, ReferenceNet and the guidance encoders."""

    sizes: Sizes

    denoiser: ModelPatcher
    net: ReferenceNet
    encoders: GuidanceEncoders


def recompute(model: nn.Module) -> None:
    """Switches gradient checkpointing on: what is inside residual blocks, transformers and motion modules is not kept
    for the gradients but computed again, which takes a third more time and much less memory. A copy made afterwards
    would still run the weights of this model."""

    def wrap(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args):
            if not torch.is_grad_enabled():
                return forward(*args)
            # ComfyUI goes on to change the options while the UNet runs.
            return checkpoint(forward, *({**a} if isinstance(a, dict) else a for a in args), use_reentrant=False)

        return run

    for module in model.modules():
        if isinstance(module, (ResBlock, SpatialTransformer, MotionModule)):
            module.forward = wrap(module.forward)  # type: ignore[method-assign]


class Champ(nn.Module):
    """The networks as one module, so that a step of training is one call of it."""

    denoiser: ChampUNet
    reference: ReferenceUNet
    encoders: nn.ModuleDict

    def __init__(self, networks: Networks):
        super().__init__()
        self.denoiser = networks.denoiser.model.diffusion_model
        self.reference = networks.net.patcher.model
        self.encoders = networks.encoders.patcher.model
        self.networks = networks
        self.context_dim = networks.net.context_dim

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        maps: Mapping[str, Tensor],
        reference: Tensor | None,
        clip_embeds: Tensor,
    ) -> Tensor:
        """Predicts v for noisy latents (B, F, 4, h, w) at timesteps (B, F).

        `maps` are pictures (B, F or 1, 3, 8h, 8w) in 0..1 by name; `reference` the scaled latents (B, 4, h, w) of the
        reference pictures, None in an unconditional step; `clip_embeds` (B, D). Every row reads its own reference."""
        guided, seen = self.guided(maps), self.seen(reference, clip_embeds)
        return self.denoised(noisy, timesteps, guided, seen, clip_embeds)

    def guided(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Encodes maps (B, F or 1, 3, 8h, 8w) to features (B F or B, C, h, w)."""
        return torch.stack([self.encoders[name](pictures.flatten(0, 1)) for name, pictures in maps.items()]).sum(0)

    def seen(self, reference: Tensor | None, clip_embeds: Tensor) -> dict[Place, Tensor]:
        """Returns ReferenceNet's tokens; none without a reference."""
        return {} if reference is None else self.reference.tokens(reference, clip_embeds[:, None])

    def denoised(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        features: Tensor,
        tokens: Mapping[Place, Tensor],
        clip_embeds: Tensor,
        denoiser: ChampUNet | None = None,
    ) -> Tensor:
        """Predicts v as `forward` does, from features of maps and tokens of references, perhaps with another
        denoiser."""
        samples, frames = noisy.shape[:2]
        context = clip_embeds[:, None]
        features = features.repeat_interleave(samples * frames // len(features), 0)
        # Frames of a clip share a reference and the motion modules; single pictures are evaluated as one part.
        parts = samples if frames > 1 else 1
        own = [{place: x.chunk(parts)[i] for place, x in tokens.items()} for i in range(parts)]
        return (denoiser or self.denoiser)(
            noisy.flatten(0, 1),
            timesteps.flatten(),
            context.repeat_interleave(frames, 0),
            transformer_options={"cond_or_uncond": [0] * parts},
            guidance=features.chunk(parts),
            references=[[TokenSource(part)] if part else [] for part in own],
        ).unflatten(0, (samples, frames))
