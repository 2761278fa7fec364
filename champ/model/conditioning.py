"""Guidance and references as values of a CONDITIONING, until the denoiser reads them.

The positive is {CLIP embedding, references, guidance} and the negative {zeros, guidance}. The official asymmetry - the
negative reads no reference - is thus in the graph and does not depend on the order of evaluation. A family that reads
text has the same text in both.
"""

import functools
from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from .families import FAMILIES
from .guidance import Guidance, chained
from .reference import Reference
from .residence import ClipRows, Evaluation

GUIDANCE, REFERENCES = "champ_guidance", "champ_references"

Conditioning = list[list[Any]]


def conditioning(
    context_dim: int,
    guidance: Guidance,
    references: Sequence[Reference],
    clip_embeds: Tensor | None = None,
    text: Tensor | None = None,
) -> tuple[Conditioning, Conditioning]:
    """Returns the official positive and negative; `clip_embeds` (N, D) are projected CLIP embeddings, or None, `text`
    (1, T, D) the tokens of a text, for families that read one."""
    negative_tokens = torch.zeros(1, 1, context_dim)
    tokens = negative_tokens
    if FAMILIES[guidance.family].text:
        negative_tokens = tokens = _text_tokens(guidance.family, context_dim, text)
    elif clip_embeds is not None:
        tokens = clip_embeds.reshape(1, -1, clip_embeds.shape[-1]).float().cpu()
    if tokens.shape[-1] != context_dim:
        raise ValueError(
            f"The CLIP vision embedding has {tokens.shape[-1]} values but the denoising UNet reads {context_dim}; use "
            "the CLIP vision model of the set (ViT-L/14 for the official ones)."
        )
    shared: dict[str, Any] = {GUIDANCE: guidance}
    if guidance.controls:
        shared |= {"control": chained(guidance.controls), "control_apply_to_uncond": False}
    positive = {**shared, REFERENCES: tuple(references)}
    # ComfyUI loads these with the denoiser.
    networks = dict.fromkeys(network for reference in references for network in reference.networks())
    if networks:
        positive["additional_models"] = list(networks)
    return [[tokens, positive]], [[negative_tokens, shared]]


def _text_tokens(family: str, context_dim: int, text: Tensor | None) -> Tensor:
    if text is None:
        raise ValueError(
            f"{family} reads text, but none is connected; connect CLIP Text Encode with an empty prompt to text, with "
            "the CLIP of Stable Diffusion 1.5 (Load CLIP, type stable_diffusion)."
        )
    if text.shape[-1] != context_dim:
        raise ValueError(
            f"The text has {text.shape[-1]} values per token but the denoising UNet reads {context_dim}; use the CLIP "
            "of Stable Diffusion 1.5."
        )
    return text[:1]


class Rows(comfy.conds.CONDRegular):
    """A value that every row of its conditioning reads whole; a batch of several has a list, one entry per part."""

    def process_cond(self, batch_size, area=None, **kwargs):
        if area is not None and self.cond:
            raise ValueError(
                "The conditioning has an area, but Champ's guidance and references belong to the whole picture; take "
                "the area out of the conditioning, or use a mask instead."
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
        self.layers = [(ClipRows(layer.features), layer.span.in_sigmas(model_sampling)) for layer in guidance.layers]

    def forget(self) -> None:
        """Lets go of the features on the device."""
        for rows, _ in self.layers:
            rows.forget()

    def at(self, now: Evaluation) -> Tensor | None:
        """Sums the features that act at this noise level, for the frames of a window."""
        active = [rows for rows, span in self.layers if span.holds(now.level)]
        if not active:
            return None
        return functools.reduce(torch.add, (rows.at(now.frames, now.device, now.dtype, now.fits) for rows in active))
