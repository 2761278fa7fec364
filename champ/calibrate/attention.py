"""Self-attention to [self | reference | calibrated reference]: every frame reads the reference as warped for it."""

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
from ..model.reference import Reference, ReferenceRun
from ..model.span import ALWAYS, Span

SHOWN = 0.5  # share of a token's pixels inside the picture from which on it is read
COVERED = 0.001  # share of a token's pixels on the person from which on it is the person's


@dataclass(frozen=True, eq=False)
class Warp:
    """What ReferenceNet saw in one warped reference, on the CPU; shares are those of the latents' cells."""

    tokens: dict[Place, Tensor]  # (1, tokens, channels)
    valid: Tensor  # (h, w) share that is inside the reference picture
    person: Tensor | None = None  # (h, w) share that its person covers


@dataclass(frozen=True)
class Reading:
    """How frames read their warps: in each step, up to `group` consecutive ones of a shot read that of one of them,
    drawn by `seed`; and how much and when it counts."""

    group: int = 4
    seed: int = 0
    shot: Sequence[int] | None = None  # the number of each frame's
    strength: float = 1.0
    span: Span = ALWAYS


USUAL = Reading()


@dataclass(frozen=True, eq=False)
class Calibration:
    """The warps that the frames of one clip read, how much and when they count.

    With `people`, pixels of the person read themselves and the calibrated reference, all others themselves and what the
    reference shows beside its person; without, all pixels read everything."""

    warps: tuple[Warp, ...]
    warp_of: tuple[int, ...]  # for every frame
    groups: tuple[range, ...]  # for every frame, the frames that read one warp in each step
    seed: int
    strength: float = 1.0
    span: Span = ALWAYS
    people: Tensor | None = None  # (F, h, w) share of the latents' cells that the person covers
    person: Tensor | None = None  # (h, w) the same in the reference picture as it is

    def warps_at(self, sigma: float | None, frames: Sequence[int]) -> list[int]:
        """The warps that frames read in the step of this noise level: in each group that of one member, drawn at
        random from seed, noise level and group alone, so that windows, positive and negative and later runs agree."""
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

    def run(self, model_sampling: Any, keep: bool) -> "CalibratedRun":
        return CalibratedRun(self, model_sampling, keep)


class CalibratedRun(ReferenceRun):
    """A calibrated reference in one sampling run."""

    def __init__(self, reference: CalibratedReference, model_sampling: Any, keep: bool):
        super().__init__(reference, model_sampling, keep)
        self.calibration = reference.calibration
        self.calibrated_span = self.calibration.span.in_sigmas(model_sampling)

    def at(self, sigma: float | None, frames: Sequence[int] | None) -> list[Source]:
        sources = super().at(sigma, frames)
        calibration = self.calibration
        if calibration.strength == 0 or not self.calibrated_span.holds(sigma):
            return sources
        frames = range(len(calibration.warp_of)) if frames is None else frames
        warps = [calibration.warps[i] for i in calibration.warps_at(sigma, frames)]
        people = None if calibration.people is None else calibration.people[list(frames)]
        if people is not None and calibration.person is not None:
            sources = [Background(source, calibration.person, people) for source in sources]
        return [*sources, Calibrated(warps, calibration.strength, people)]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The calibrated references of a window's frames as a source of keys; with `people` for the person's pixels."""

    warps: list[Warp]  # for every frame
    strength: float
    people: Tensor | None  # (frames, h, w)

    def keys(self, block: Place, attention: CrossAttention, like: Tensor) -> KeySource:
        read = list(dict.fromkeys(self.warps))  # each is moved and projected once
        rows = torch.tensor([read.index(warp) for warp in self.warps], device=like.device)
        tokens = torch.cat([warp.tokens[block] for warp in read]).to(like)
        count = tokens.shape[1]
        seen = torch.stack([at_tokens(warp.valid, count) >= SHOWN for warp in read])
        if self.people is not None:
            seen &= torch.stack([at_tokens(warp.person, count) > COVERED for warp in read if warp.person is not None])
        bias = None
        if self.strength != 1 or not seen.all():
            bias = torch.where(seen, math.log(self.strength), HIDDEN)[:, None].to(like)[rows]
        readers = None
        if self.people is not None:
            readers = (at_tokens(self.people, like.shape[1]) > COVERED).to(like.device)
        return KeySource(attention.to_k(tokens)[rows], attention.to_v(tokens)[rows], bias, readers)


@dataclass(frozen=True, eq=False)
class Background:
    """What a source shows beside its person, for the pixels beside the person of each frame."""

    source: Source
    person: Tensor  # (h, w)
    people: Tensor  # (frames, h, w)

    def keys(self, block: Place, attention: CrossAttention, like: Tensor) -> KeySource:
        source = self.source.keys(block, attention, like)
        bias = torch.where(at_tokens(self.person, source.k.shape[1]) > COVERED, HIDDEN, 0)[None, None].to(like)
        readers = (at_tokens(self.people, like.shape[1]) <= COVERED).to(like.device)
        return replace(source, bias=bias if source.bias is None else source.bias + bias, readers=readers)


def at_tokens(shares: Tensor, tokens: int) -> Tensor:
    """Shares (..., h, w) of the latents' cells as those of a transformer's tokens (..., tokens)."""
    height, width = shares.shape[-2:]
    while height * width > tokens:
        height, width = (height + 1) // 2, (width + 1) // 2  # as the UNet halves
    return adaptive_avg_pool2d(shares.float().reshape(-1, 1, *shares.shape[-2:]), (height, width)).reshape(
        *shares.shape[:-2], tokens
    )


def groups_of(shot: Sequence[int], size: int) -> tuple[range, ...]:
    """For every frame the group of up to `size` consecutive frames of its shot that it is in."""
    groups: list[range] = []
    while len(groups) < len(shot):
        first = len(groups)
        last = next((i for i in range(first, len(shot)) if shot[i] != shot[first]), len(shot))
        group = range(first, min(first + size, last))
        groups += [group] * len(group)
    return tuple(groups)
