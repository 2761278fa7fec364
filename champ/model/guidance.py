"""Guidance: maps of the moving person, encoded to features that are added after the denoiser's first convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import FeedForward
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..progress import advance
from .attention import softmax_attention
from .config import GROUPS, HEADS, Shapes
from .families import DENSEPOSE, FAMILIES
from .finite import all_finite, network_cause
from .images import check_images, check_size, resize
from .memory import loaded
from .span import ALWAYS, Span


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of a pyramid of convolutions, pairs of (c -> c) and (c -> next, stride 2); Champ's ends in attention."""

    channels: tuple[int, ...]  # (16, 32, 96, 256) in the official encoders
    out_channels: int
    attention: bool

    @classmethod
    def read(cls, shapes: Shapes) -> "EncoderSizes":
        try:
            channels = [shapes["conv_in.weight"][0]]
            while (name := f"blocks.{2 * len(channels) - 1}.weight") in shapes:
                channels.append(shapes[name][0])
            attention = f"attentions.{2 * len(channels) - 3}.proj_in.weight" in shapes
            return cls(tuple(channels), shapes["conv_out.weight"][0], attention)
        except KeyError as missing:
            raise ValueError(f"it has no tensor called {missing.args[0]}") from None


class GuidanceAttention(nn.Module):
    """Self-attention and feed-forward over the pixels of a feature map, between two 1x1 convolutions."""

    def __init__(self, channels: int, dtype: Any, device: Any, operations: Any):
        super().__init__()
        kind = dict(dtype=dtype, device=device)
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **kind)
        self.proj_in = operations.Conv2d(channels, channels, 1, **kind)
        block = nn.Module()
        block.norm1 = operations.LayerNorm(channels, **kind)
        block.attn1 = nn.Module()
        block.attn1.to_q = operations.Linear(channels, channels, bias=False, **kind)
        block.attn1.to_k = operations.Linear(channels, channels, bias=False, **kind)
        block.attn1.to_v = operations.Linear(channels, channels, bias=False, **kind)
        block.attn1.to_out = nn.ModuleList([operations.Linear(channels, channels, **kind)])
        block.norm3 = operations.LayerNorm(channels, **kind)
        block.ff = FeedForward(channels, glu=True, operations=operations, **kind)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Conv2d(channels, channels, 1, **kind)

    def forward(self, x: Tensor) -> Tensor:
        block = self.transformer_blocks[0]
        attention = block.attn1
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        n = block.norm1(tokens)
        n = softmax_attention(attention.to_q(n), attention.to_k(n), attention.to_v(n), HEADS)
        tokens = tokens + attention.to_out[0](n)
        tokens = tokens + block.ff(block.norm3(tokens))
        return x + self.proj_out(tokens.transpose(1, 2).reshape(x.shape))


class MapEncoder(nn.Module):
    """Champ's guidance encoder, or Animate Anyone's pose guider: pictures (F, 3, H, W) to (F, C, H/8, W/8)."""

    def __init__(self, sizes: EncoderSizes, dtype: Any = None, device: Any = None, operations: Any = nn):
        super().__init__()
        kind = dict(dtype=dtype, device=device)
        first, *rest = sizes.channels
        self.conv_in = operations.Conv2d(3, first, 3, padding=1, **kind)
        self.blocks = nn.ModuleList()
        for last, width in zip(sizes.channels, rest):
            self.blocks.append(operations.Conv2d(last, last, 3, padding=1, **kind))
            self.blocks.append(operations.Conv2d(last, width, 3, padding=1, stride=2, **kind))
        # The checkpoints have an attention for every convolution, but only the last one is used.
        self.attentions = nn.ModuleDict()
        if sizes.attention:
            last = GuidanceAttention(sizes.channels[-1], operations=operations, **kind)
            self.attentions[str(len(self.blocks) - 1)] = last
        self.conv_out = operations.Conv2d(sizes.channels[-1], sizes.out_channels, 3, padding=1, **kind)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv_in(x))
        for block in self.blocks:
            x = F.silu(block(x))
        for attention in self.attentions.values():
            x = attention(x)
        return self.conv_out(x)


@dataclass(frozen=True, eq=False)
class GuidanceEncoders:
    """The encoders of a checkpoint set, by the name of the map that each one reads."""

    patcher: ModelPatcher  # of an nn.ModuleDict
    family: str
    dtype: torch.dtype  # of the computation

    @property
    def networks(self) -> dict[str, nn.Module]:
        return dict(self.patcher.model.items())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.networks)


@dataclass(frozen=True, eq=False)
class GuidingControlNet(GuidanceEncoders):
    """A ControlNet in the place of encoders: it sees the maps and the noisy latents in every step of the sampling."""

    control: comfy.controlnet.ControlNet

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {DENSEPOSE: self.patcher.model}


@dataclass(frozen=True, eq=False)
class GuidanceMap:
    """One kind of map: its pictures, its strength, and its part of the sampling."""

    images: Tensor  # (F, H, W, 3) in 0..1
    strength: float = 1.0
    span: Span = ALWAYS
    mask: Tensor | None = None  # (F, H, W), where it is 0, the pictures are taken as black

    def part(self, first: int, count: int) -> Tensor:
        """Returns some of the pictures, from the first on."""
        pictures = self.images[first : first + count]
        return pictures if self.mask is None else pictures * (self.mask[first : first + count] > 0)[..., None]


@dataclass(frozen=True, eq=False)
class Layer:
    """Features that act during a part of the sampling."""

    features: Tensor  # (F, C, h, w), on the CPU
    span: Span = ALWAYS


@dataclass(frozen=True, eq=False)
class Control:
    """A clip of maps for a ControlNet, with their strength and their part of the sampling."""

    net: GuidingControlNet
    pictures: Tensor  # (F, H, W, 3) in 0..1, in the size of the clip
    strength: float
    span: Span


def chained(controls: Sequence[Control]) -> comfy.controlnet.ControlNet:
    """Returns ComfyUI's ControlNet for a conditioning: one after the other, their residuals are added."""
    last = None
    for control in controls:
        net = control.net.control.copy()
        net.set_cond_hint(control.pictures.movedim(-1, 1), control.strength, tuple(control.span))
        net.set_previous_controlnet(last)
        last = net
    return last


@dataclass(frozen=True, eq=False)
class Guidance:
    """The encoded maps of a clip; maps that act during the same part of the sampling are summed."""

    layers: tuple[Layer, ...]
    frames: int
    width: int  # pixels
    height: int
    family: str
    controls: tuple[Control, ...] = ()

    def empty_latent(self, device: str = "cpu") -> Tensor:
        """Returns zeros (F, 4, height / 8, width / 8): an empty latent for this clip."""
        return torch.zeros(self.frames, 4, self.height // 8, self.width // 8, device=device)


@torch.no_grad()
def encode_guidance(
    encoders: GuidanceEncoders,
    maps: Mapping[str, GuidanceMap],
    width: int,
    height: int,
    *,
    chunk: int | None = None,
) -> Guidance:
    """Encodes the guidance of a clip of width x height pixels: strength * encoder(map), summed over the maps.

    Maps of another size are stretched, as in the family's official inference. `chunk` frames are encoded at once (None:
    as many as are fastest).
    """
    frames = _check_maps(encoders, maps, width, height)
    device = encoders.patcher.load_device
    chunk = chunk or (1 if device.type == "cpu" else 8)
    resampling = FAMILIES[encoders.family].map_filter
    if isinstance(encoders, GuidingControlNet):
        [given] = maps.values()
        pictures = resize(given.part(0, frames), width, height, resampling)
        controls = (Control(encoders, pictures, given.strength, given.span),) if given.strength else ()
        return Guidance((), frames, width, height, encoders.family, controls)
    working = chunk * width * height * 16 * encoders.dtype.itemsize * 4  # a few full-size maps of 16 channels
    sums: dict[Span, Tensor] = {}
    with loaded(encoders.patcher, memory=working):
        for first in range(0, frames, chunk):
            for name, given in maps.items():
                comfy.model_management.throw_exception_if_processing_interrupted()
                if given.strength == 0:
                    continue
                pictures = resize(given.part(first, chunk), width, height, resampling)
                pictures = pictures.permute(0, 3, 1, 2).to(device, encoders.dtype)
                features = encoders.patcher.model[name](pictures).mul_(given.strength)
                finite = all_finite([features])
                features = features.cpu()
                if not finite:
                    raise ValueError(
                        f"The {name} encoder gave NaN or infinite values for the maps from frame {first} on: "
                        f"{network_cause(encoders.patcher.model[name], encoders.dtype)}."
                    )
                if given.span not in sums:
                    sums[given.span] = features.new_zeros(frames, *features.shape[1:])
                sums[given.span][first : first + chunk] += features
            advance(min(first + chunk, frames), frames)
    layers = tuple(Layer(features, span) for span, features in sums.items())
    return Guidance(layers, frames, width, height, encoders.family)


def _check_maps(encoders: GuidanceEncoders, maps: Mapping[str, GuidanceMap], width: int, height: int) -> int:
    """Checks the maps, and returns their common number of frames."""
    check_size(width, height)
    if not maps:
        raise ValueError(f"There are no guidance maps; connect at least one of {', '.join(encoders.names)}.")
    for name, given in maps.items():
        if name not in encoders.names:
            raise ValueError(
                f"This {encoders.family} checkpoint set has no encoder for {name} maps, "
                f"only for {', '.join(encoders.names)}; disconnect that map or choose another set."
            )
        check_images(given.images, f"The {name} map")
        given.span.check(f"The {name} map")
    counts = {name: len(given.images) for name, given in maps.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            f"The guidance maps differ in their number of frames ({listed}); trim them to the same length."
        )
    return next(iter(counts.values()))
