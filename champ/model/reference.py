"""ReferenceNet: a second UNet encodes the reference image once, and the denoiser attends to its features."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.model_management
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, forward_timestep_embed, timestep_embedding
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..progress import advance
from .attention import KeptSource, Source, TokenSource, replace_attention
from .config import Place
from .families import FAMILIES
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

    def tokens(self, latents: Tensor, context: Tensor, timestep: int = 0) -> dict[Place, Tensor]:
        """Returns norm1 of every transformer block (B, tokens, channels) at a timestep, for scaled latents (B, 4, h,
        w)."""
        seen: dict[Place, Tensor] = {}

        def record(n, context, value, options):
            seen[options["block"]] = n
            return n, context, value

        options: dict[str, Any] = {"patches": {"attn1_patch": [record]}}

        def run(block, place, x, output_shape=None):
            options["block"] = place
            return forward_timestep_embed(block, x, emb, context, options, output_shape)

        timesteps = torch.full((len(latents),), float(timestep), device=latents.device)
        time = timestep_embedding(timesteps, self.model_channels)
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


def transformers(unet: UNetModel) -> dict[Place, SpatialTransformer]:
    """Returns every transformer of a UNet."""
    places = {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}
    found = {(part, i): _transformer(block) for part, blocks in places.items() for i, block in enumerate(blocks)}
    return {place: transformer for place, transformer in found.items() if transformer is not None}


def transformer_channels(unet: UNetModel) -> dict[Place, int]:
    return {place: transformer.in_channels for place, transformer in transformers(unet).items()}


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


Tokens = dict[Place, Tensor]  # (1, tokens, channels) for every transformer that is read, on the CPU


@dataclass(frozen=True, eq=False)
class ChangingTokens:
    """The tokens of an image that change with the timestep: ReferenceNet looks at it in every step."""

    net: ReferenceNet
    latents: Tensor  # (1, 4, h, w), scaled

    def at(self, timestep: int, context: Tensor) -> Tokens:
        """Returns the tokens on the device of the network, which has to be loaded."""
        device, dtype = self.net.patcher.load_device, self.net.dtype
        found = self.net.patcher.model.tokens(self.latents.to(device, dtype), context.to(device, dtype), timestep)
        return {place: x for place, x in found.items() if FAMILIES[self.net.family].read_from(place)}


def tensors_of(tokens: Tokens | ChangingTokens) -> list[Tensor]:
    """Returns what is in memory before the sampling."""
    return list(tokens.values()) if isinstance(tokens, dict) else [tokens.latents]


class TokensInStep:
    """The tokens of all images that a sampling run reads, in its present step."""

    def __init__(self, model_sampling: Any, context: Tensor | None):
        self.model_sampling, self.context = model_sampling, context
        self.forget()

    def forget(self) -> None:
        """Lets go of the tokens of the present step."""
        self.timestep = -1
        self.seen: dict[ChangingTokens, Tokens] = {}

    def of(self, tokens: Tokens | ChangingTokens, sigma: float | None) -> Tokens:
        """Returns the tokens at a noise level; ReferenceNet sees each image once in a step, whatever the windows."""
        if isinstance(tokens, dict):
            return tokens
        if self.context is None:
            raise ValueError("ReferenceNet reads text in this model, but the conditioning has none; use Apply Champ's.")
        timestep = 0 if sigma is None else int(self.model_sampling.timestep(torch.tensor(sigma)))
        if timestep != self.timestep:
            self.timestep, self.seen = timestep, {}
        if tokens not in self.seen:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.seen[tokens] = tokens.at(timestep, self.context)
        return self.seen[tokens]


@dataclass(frozen=True, eq=False)
class Reference:
    """ReferenceNet's features of one image, with strength and range."""

    tokens: Tokens | ChangingTokens
    family: str
    strength: float = 1.0
    span: Span = ALWAYS

    def channels(self) -> dict[Place, int]:
        """Returns the channels of the tokens at every place where they are read."""
        if isinstance(self.tokens, dict):
            return {place: tokens.shape[-1] for place, tokens in self.tokens.items()}
        known = transformer_channels(self.tokens.net.patcher.model)
        return {place: channels for place, channels in known.items() if FAMILIES[self.family].read_from(place)}

    def networks(self) -> list[ModelPatcher]:
        """Returns the networks that the sampling needs beside the denoiser."""
        return [] if isinstance(self.tokens, dict) else [self.tokens.net.patcher]

    @property
    def clip(self) -> tuple[int, int, int] | None:
        """Frames, width and height in pixels of the only video that it fits; None if it fits all."""
        return None

    def run(self, model_sampling: Any, keep: bool, context: Tensor | None = None) -> "ReferenceRun":
        return ReferenceRun(self, model_sampling, keep, context)

    def numbers(self, frames: int) -> int:
        """Counts the numbers that a run holds on the device for windows of so many frames: its keys and values."""
        if isinstance(self.tokens, dict):
            return 2 * sum(tokens.numel() for tokens in self.tokens.values())
        channels, pixels = self.channels(), self.tokens.latents[0, 0].numel()
        finest = min(channels.values())  # each coarser level has twice the channels and a quarter of the tokens
        return 2 * sum(c * pixels // (c // finest) ** 2 for c in channels.values())


class ReferenceRun:
    """A reference in one sampling run: its keys and values by this model's projections, computed once if `keep`, or
    once in a step if the tokens change."""

    def __init__(self, reference: Reference, model_sampling: Any, keep: bool, context: Tensor | None = None):
        self.reference = reference
        self.step = TokensInStep(model_sampling, context)
        self.span = reference.span.in_sigmas(model_sampling)
        self.keep = keep
        self.forget()

    def forget(self) -> None:
        """Lets go of what is on the device; another evaluation would make it anew."""
        self.step.forget()
        self.tokens: Tokens = {}
        self.ready: dict[Any, Source] = {}

    def at(self, now: Evaluation) -> list[Source]:
        """Returns the sources that the frames of a window read at this noise level."""
        if self.reference.strength == 0 or not self.span.holds(now.level):
            return []
        tokens = self.present(now)
        name = (now.device, now.dtype)
        if name not in self.ready:
            self.ready[name] = self.source(tokens, now)
        return [self.ready[name]]

    def present(self, now: Evaluation) -> Tokens:
        """Returns the tokens of the present step, and forgets what was made of those of another one."""
        tokens = self.step.of(self.reference.tokens, self.sigma(now))
        if tokens is not self.tokens:
            self.tokens, self.ready = tokens, {}
        return tokens

    def sigma(self, now: Evaluation) -> float | None:
        """Returns the noise level if tokens change with it."""
        return None if isinstance(self.reference.tokens, dict) or now.level is None else now.level.sigma

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
    """Encodes one reference for each of the latents (N, 4, h, w) from ComfyUI's VAE, or prepares it, if ReferenceNet
    looks at it in every step of the sampling.

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
    latents = comfy.latent_formats.SD15().process_in(samples)
    if FAMILIES[net.family].every_step:
        return tuple(Reference(ChangingTokens(net, row[None]), net.family, strength, span) for row in latents.cpu())
    context = _context(net, len(samples), clip_embeds)
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
