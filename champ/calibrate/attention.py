"""Self-attention over [self | reference | calibrated reference]: every frame reads its own warp of the reference."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.ldm.modules.attention import CrossAttention
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..model.attention import HIDDEN, KeySource, Source
from ..model.config import Place
from ..model.reference import ChangingTokens, Reference, ReferenceRun, Tokens, tensors_of
from ..model.span import ALWAYS, Span

SHOWN = 0.5  # a token is read from this share of its pixels inside the picture
COVERED = 0.001  # a token belongs to the person from this share of its pixels


@dataclass(frozen=True, eq=False)
class Warp:
    """ReferenceNet's features of one warped reference; shares are per latent pixel."""

    tokens: Tokens | ChangingTokens
    valid: Tensor  # (h, w) share that is inside the reference picture
    person: Tensor | None = None  # (h, w) share that its person covers

    @property
    def nbytes(self) -> int:
        """The bytes of main memory that the features take."""
        return sum(tensor.nbytes for tensor in tensors_of(self.tokens))


@dataclass(frozen=True)
class Reading:
    """How frames read their warps: in each step, up to `group` consecutive frames of a shot read the warp of one of
    them, drawn by `seed`; with strength and range of the sampling."""

    group: int = 4
    seed: int = 0
    shot: Sequence[int] | None = None  # the shot number of each frame
    strength: float = 1.0
    span: Span = ALWAYS


USUAL = Reading()


@dataclass(frozen=True, eq=False)
class Calibration:
    """The warps that the frames of one clip read, with strength and range (fractions of the sampling).

    With `people`, pixels of the person read themselves and the calibrated reference; all others read themselves and the
    background of the reference. Without `people`, all pixels read everything.
    """

    warps: tuple[Warp, ...]
    warp_of: tuple[int, ...]  # for every frame
    groups: tuple[range, ...]  # for every frame, the group of frames that reads one warp in each step
    seed: int
    strength: float = 1.0
    span: Span = ALWAYS
    people: Tensor | None = None  # (F, h, w) share of each latent pixel that the person covers
    person: Tensor | None = None  # (h, w) the same in the unmoved reference

    def warps_at(self, sigma: float | None, frames: Sequence[int]) -> list[int]:
        """Returns the warps that frames read in the step of this noise level: for each group, the warp of a random
        member. The draw depends only on seed, noise level and group, so windows, positive and negative, and later runs
        agree."""
        draw = {
            group: group[random.Random(f"{self.seed} {sigma} {group.start}").randrange(len(group))]
            for group in {self.groups[frame] for frame in frames}
        }
        return [self.warp_of[draw[self.groups[frame]]] for frame in frames]


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibratedReference(Reference):
    """A reference that each frame of one clip also reads as warped onto its person."""

    calibration: Calibration
    width: int  # pixels of the clip
    height: int

    @property
    def clip(self) -> tuple[int, int, int]:
        return len(self.calibration.warp_of), self.width, self.height

    def run(self, model_sampling: Any, keep: bool, context: Tensor | None = None) -> "CalibratedRun":
        return CalibratedRun(self, model_sampling, keep, context)


class CalibratedRun(ReferenceRun):
    """A calibrated reference in one sampling run."""

    def __init__(self, reference: CalibratedReference, model_sampling: Any, keep: bool, context: Tensor | None = None):
        super().__init__(reference, model_sampling, keep, context)
        self.calibration = reference.calibration
        self.calibrated_span = self.calibration.span.in_sigmas(model_sampling)

    def at(self, sigma: float | None, frames: Sequence[int] | None) -> list[Source]:
        sources = super().at(sigma, frames)
        calibration = self.calibration
        if calibration.strength == 0 or not self.calibrated_span.holds(sigma):
            return sources
        frames = range(len(calibration.warp_of)) if frames is None else frames
        numbers = calibration.warps_at(sigma, frames)
        now = {i: self.in_step(calibration.warps[i], sigma) for i in set(numbers)}
        warps = [now[i] for i in numbers]
        people = None if calibration.people is None else calibration.people[list(frames)]
        if people is not None and calibration.person is not None:
            sources = [Background(source, calibration.person, people) for source in sources]
        return [*sources, Calibrated(warps, calibration.strength, people)]

    def in_step(self, warp: Warp, sigma: float | None) -> Warp:
        """Returns the warp with the tokens of the present step."""
        tokens = self.step.of(warp.tokens, sigma)
        return warp if tokens is warp.tokens else replace(warp, tokens=tokens)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The calibrated references of a window's frames as a source of keys; with `people`, only for the person."""

    warps: list[Warp]  # for every frame
    strength: float
    people: Tensor | None  # (frames, h, w)

    def keys(self, block: Place, attention: CrossAttention, like: Tensor) -> KeySource | None:
        read = list(dict.fromkeys(self.warps))  # each is moved and projected once
        seen = [warp.tokens[block] for warp in read if isinstance(warp.tokens, dict) and block in warp.tokens]
        if not seen:
            return None
        rows = torch.tensor([read.index(warp) for warp in self.warps], device=like.device)
        tokens = torch.cat(seen).to(like)
        count = tokens.shape[1]
        shown = torch.stack([at_tokens(warp.valid, count) >= SHOWN for warp in read])
        if self.people is not None:
            shown &= torch.stack([at_tokens(warp.person, count) > COVERED for warp in read if warp.person is not None])
        bias = None
        if self.strength != 1 or not shown.all():
            bias = torch.where(shown, math.log(self.strength), HIDDEN)[:, None].to(like)[rows]
        readers = None
        if self.people is not None:
            readers = (at_tokens(self.people, like.shape[1]) > COVERED).to(like.device)
        return KeySource(attention.to_k(tokens)[rows], attention.to_v(tokens)[rows], bias, readers)


@dataclass(frozen=True, eq=False)
class Background:
    """The background of a source of keys, for the background pixels of each frame."""

    source: Source
    person: Tensor  # (h, w)
    people: Tensor  # (frames, h, w)

    def keys(self, block: Place, attention: CrossAttention, like: Tensor) -> KeySource | None:
        source = self.source.keys(block, attention, like)
        if source is None:
            return None
        bias = torch.where(at_tokens(self.person, source.k.shape[1]) > COVERED, HIDDEN, 0)[None, None].to(like)
        readers = (at_tokens(self.people, like.shape[1]) <= COVERED).to(like.device)
        return replace(source, bias=bias if source.bias is None else source.bias + bias, readers=readers)


def at_tokens(shares: Tensor, tokens: int) -> Tensor:
    """Resamples shares per latent pixel (..., h, w) to shares per token of a transformer (..., tokens)."""
    height, width = shares.shape[-2:]
    while height * width > tokens:
        height, width = (height + 1) // 2, (width + 1) // 2  # as the UNet halves
    return adaptive_avg_pool2d(shares.float().reshape(-1, 1, *shares.shape[-2:]), (height, width)).reshape(
        *shares.shape[:-2], tokens
    )


def groups_of(shot: Sequence[int], size: int) -> tuple[range, ...]:
    """Returns, for every frame, its group of up to `size` consecutive frames of the same shot."""
    groups: list[range] = []
    while len(groups) < len(shot):
        first = len(groups)
        last = next((i for i in range(first, len(shot)) if shot[i] != shot[first]), len(shot))
        group = range(first, min(first + size, last))
        groups += [group] * len(group)
    return tuple(groups)
