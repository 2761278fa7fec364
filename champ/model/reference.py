"""ReferenceNet: a second UNet encodes the reference image once, and the denoiser attends to its features."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, forward_timestep_embed, timestep_embedding
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..progress import advance
from .attention import KeptSource, Source, TokenSource, replace_attention
from .config import Place
from .finite import all_finite, network_cause
from .memory import loaded
from .residence import Evaluation
from .span import ALWAYS, Span


class ReferenceUNet(UNetModel):
    """An SD1.5 UNet without an output layer, read at the first norm of each transformer block.

    The layers after the last of those norms have no effect, although the checkpoints contain them.
    """

    def __init__(self, *args, operations: Any = nn, **kwargs):
        super().__init__(*args, operations=operations, **kwargs)
        replace_attention(self, operations)
        self.out = nn.Identity()

    def tokens(self, latents: Tensor, context: Tensor) -> dict[Place, Tensor]:
        """Returns norm1 of every transformer block (B, tokens, channels) at timestep 0, for scaled latents (B, 4, h,
        w)."""
        seen: dict[Place, Tensor] = {}

        def record(n, context, value, options):
            seen[options["block"]] = n
            return n, context, value

        options: dict[str, Any] = {"patches": {"attn1_patch": [record]}}

        def run(block, place, x, output_shape=None):
            options["block"] = place
            return forward_timestep_embed(block, x, emb, context, options, output_shape)

        time = timestep_embedding(torch.zeros(len(latents), device=latents.device), self.model_channels)
        emb = self.time_embed(time.to(latents))
        x, skips = latents, []
        for i, block in enumerate(self.input_blocks):
            x = run(block, ("input", i), x)
            skips.append(x)
        x = run(self.middle_block, ("middle", 0), x)
        last = max(i for i, block in enumerate(self.output_blocks) if _transformer(block))  # nothing is read after it
        for i, block in enumerate(self.output_blocks[:last]):
            x = torch.cat([x, skips.pop()], 1)
            x = run(block, ("output", i), x, skips[-1].shape)
        block = self.output_blocks[last]
        seen["output", last] = first_norm(_transformer(block), block[0](torch.cat([x, skips.pop()], 1), emb))
        return seen


def _transformer(block: Iterable[nn.Module]) -> SpatialTransformer | None:
    """Returns the transformer of a block of the UNet; some levels have none."""
    return next((layer for layer in block if isinstance(layer, SpatialTransformer)), None)


def first_norm(transformer: SpatialTransformer, x: Tensor) -> Tensor:
    """Returns the input of the transformer's self-attention."""
    tokens = transformer.norm(x)
    if not transformer.use_linear:
        tokens = transformer.proj_in(tokens)
    tokens = tokens.flatten(2).transpose(1, 2)
    if transformer.use_linear:
        tokens = transformer.proj_in(tokens)
    return transformer.transformer_blocks[0].norm1(tokens)


@dataclass(frozen=True, eq=False)
class ReferenceNet:
    """The reference UNet of a checkpoint set."""

    patcher: ModelPatcher  # of a ReferenceUNet
    family: str
    dtype: torch.dtype  # of the computation
    context_dim: int


@dataclass(frozen=True, eq=False)
class Reference:
    """ReferenceNet's features of one image, with strength and range."""

    tokens: dict[Place, Tensor]  # (1, tokens, channels) for every transformer, on the CPU
    family: str
    strength: float = 1.0
    span: Span = ALWAYS

    @property
    def clip(self) -> tuple[int, int, int] | None:
        """Frames, width and height in pixels of the only video that it fits; None if it fits all."""
        return None

    def run(self, model_sampling: Any, keep: bool) -> "ReferenceRun":
        return ReferenceRun(self, model_sampling, keep)

    def numbers(self, frames: int) -> int:
        """Counts the numbers that a run holds on the device for windows of so many frames: its keys and values."""
        return 2 * sum(tokens.numel() for tokens in self.tokens.values())


class ReferenceRun:
    """A reference in one sampling run: its keys and values by this model's projections, computed once if `keep`."""

    def __init__(self, reference: Reference, model_sampling: Any, keep: bool):
        self.reference = reference
        self.span = reference.span.in_sigmas(model_sampling)
        self.keep = keep
        self.ready: dict[Any, Source] = {}

    def at(self, now: Evaluation) -> list[Source]:
        """Returns the sources that the frames of a window read at this noise level."""
        if self.reference.strength == 0 or not self.span.holds(now.level):
            return []
        name = (now.device, now.dtype)
        if name not in self.ready:
            self.ready[name] = self.source(self.reference.tokens, now)
        return [self.ready[name]]

    def source(self, tokens: Mapping[Place, Tensor], now: Evaluation) -> Source:
        there = {place: x.to(now.device, now.dtype) for place, x in tokens.items()}
        source = TokenSource(there, self.reference.strength)
        return KeptSource.of(source, now.attentions) if self.keep else source


@torch.no_grad()
def encode_reference(
    net: ReferenceNet,
    samples: Tensor,
    clip_embeds: Tensor | None = None,
    *,
    strength: float = 1.0,
    span: Span = ALWAYS,
    dtype: torch.dtype | None = None,
) -> tuple[Reference, ...]:
    """Encodes one reference for each of the latents (N, 4, h, w) from ComfyUI's VAE.

    `clip_embeds` (1 or N, D) are CLIP vision's projected embeddings; None stands for zeros. `dtype` is the storage type
    of the tokens: the official pipeline rounds them to float16, None keeps the computed type.
    """
    if samples.ndim != 4 or samples.shape[1] != 4:
        raise ValueError(
            f"The reference latents have shape {tuple(samples.shape)}, but (pictures, 4, height, width) is needed; "
            "encode the reference image with the VAE of Stable Diffusion 1.5."
        )
    if not len(samples):
        raise ValueError("There is no reference image in the latents; encode at least one.")
    if not samples.isfinite().all():
        raise ValueError(
            "The VAE gave NaN or infinite values for the reference image; start ComfyUI with --fp32-vae, or load "
            "another VAE of Stable Diffusion 1.5."
        )
    span.check("The reference")
    context = _context(net, len(samples), clip_embeds)
    latents = comfy.latent_formats.SD15().process_in(samples)
    device = net.patcher.load_device
    working = latents[0, 0].numel() * 0.15 * 1024**2  # ComfyUI's own estimate for an SD1.5 UNet
    references = []
    with loaded(net.patcher, memory=working):
        for i in range(len(latents)):
            row = latents[i : i + 1].to(device, net.dtype)
            seen = net.patcher.model.tokens(row, context[i : i + 1].to(device, net.dtype))
            seen = {place: x.to(dtype or x.dtype) for place, x in seen.items()}
            finite = all_finite(seen.values())
            tokens = {place: x.cpu() for place, x in seen.items()}
            if not finite:
                raise ValueError(
                    f"ReferenceNet gave NaN or infinite values for reference image {i}: "
                    f"{network_cause(net.patcher.model, net.dtype)}."
                )
            references.append(Reference(tokens, net.family, strength, span))
            advance(i + 1, len(latents))
    return tuple(references)


def _context(net: ReferenceNet, pictures: int, clip_embeds: Tensor | None) -> Tensor:
    """Returns the CLIP embeddings as tokens (pictures, 1, D)."""
    if clip_embeds is None:
        return torch.zeros(pictures, 1, net.context_dim)
    if clip_embeds.shape[-1] != net.context_dim:
        raise ValueError(
            f"The CLIP vision embedding has {clip_embeds.shape[-1]} values but ReferenceNet reads {net.context_dim}; "
            "use the CLIP vision model of the set (ViT-L/14 for the official ones)."
        )
    if not clip_embeds.isfinite().all():
        raise ValueError(
            "The CLIP vision embedding of the reference image holds NaN or infinite values; get the CLIP vision file "
            "again."
        )
    embeds = clip_embeds.reshape(-1, 1, net.context_dim)
    if len(embeds) not in (1, pictures):
        raise ValueError(
            f"There are {len(embeds)} CLIP vision embeddings for {pictures} reference images; encode the same images "
            "with CLIP vision, or only one."
        )
    return embeds.expand(pictures, -1, -1)
