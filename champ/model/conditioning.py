"""How guidance and references travel: as values of a CONDITIONING, until the denoiser reads them.

The positive is {CLIP embedding, references, guidance} and the negative {zeros, guidance}, so that the official
asymmetry - the negative reads no reference - is in the graph and does not depend on the order of evaluation.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
from comfy.ldm.modules.attention import CrossAttention
from torch import Tensor

from .attention import KeySource
from .config import Place
from .guidance import Guidance
from .reference import Reference
from .span import Span

GUIDANCE, REFERENCES = "champ_guidance", "champ_references"

Conditioning = list[list[Any]]


def conditioning(
    context_dim: int, guidance: Guidance, references: Sequence[Reference], clip_embeds: Tensor | None = None
) -> tuple[Conditioning, Conditioning]:
    """The official positive and negative; `clip_embeds` (N, D) are CLIP vision's projected embeddings, or None."""
    zeros = torch.zeros(1, 1, context_dim)
    tokens = zeros if clip_embeds is None else clip_embeds.reshape(1, -1, clip_embeds.shape[-1]).float().cpu()
    if tokens.shape[-1] != context_dim:
        raise ValueError(
            f"The CLIP vision embedding has {tokens.shape[-1]} values but the denoising UNet reads {context_dim}; "
            "use the CLIP vision model that belongs to the set (ViT-L/14 for the official ones)."
        )
    positive = [[tokens, {GUIDANCE: guidance, REFERENCES: tuple(references)}]]
    return positive, [[zeros, {GUIDANCE: guidance}]]


class Rows(comfy.conds.CONDRegular):
    """A value read whole by every row of its conditioning; a batch of several has a list, one entry per part."""

    def process_cond(self, batch_size, area=None, **kwargs):
        if area is not None and self.cond:
            raise ValueError(
                "Champ's guidance and references belong to the whole picture; take the area out of the conditioning, "
                "or use a mask instead."
            )
        return self

    def can_concat(self, other):
        return True

    def concat(self, others):
        return [self.cond, *(other.cond for other in others)]

    def size(self):
        return [1]


class GuidanceRun:
    """The guidance of one sampling run."""

    def __init__(self, guidance: Guidance, model_sampling: Any):
        self.guidance = guidance
        self.layers = [(layer.features, Span(layer.start, layer.end, model_sampling)) for layer in guidance.layers]

    def at(self, sigma: float | None, frames: Sequence[int] | None) -> Tensor | None:
        """The sum of the features that act at this noise level, for the frames of a window (None: all frames)."""
        active = [features for features, span in self.layers if span.holds(sigma)]
        if not active:
            return None
        return functools.reduce(torch.add, (f if frames is None else f[frames] for f in active))


class ReferenceRun:
    """A reference in one sampling run: its keys and values by this model's projections, made once if `keep`."""

    def __init__(self, reference: Reference, model_sampling: Any, keep: bool):
        self.reference = reference
        self.span = Span(reference.start, reference.end, model_sampling)
        self.keep = keep
        self.kept: dict[Any, KeySource] = {}

    def keys(self, block: Place, attention: CrossAttention, like: Tensor) -> KeySource:
        name = (block, like.device, like.dtype)
        if name in self.kept:
            return self.kept[name]
        tokens = self.reference.tokens[block].to(like)
        bias = None
        if self.reference.strength != 1:  # multiplies the reference's weights in the softmax
            bias = like.new_full((1, 1, tokens.shape[1]), math.log(self.reference.strength))
        source = KeySource(attention.to_k(tokens), attention.to_v(tokens), bias)
        if self.keep:
            self.kept[name] = source
        return source
