"""Reuses deep features of the denoiser between steps, after DeepCache (Ma et al., CVPR 2024).

What the coarse blocks of a UNet compute changes slowly during the sampling. In every few steps the whole UNet is
evaluated, and what enters one of its last blocks is kept; in the steps between, only its first and its last blocks are.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .residence import Evaluation, on_device, rows_of
from .span import SigmaSpan, Span

CACHE = "champ_deep_cache"  # key in transformer_options: the DeepCache of a run

Frames = tuple[int, ...] | None  # of the clip, in a window; None means all


@dataclass(frozen=True)
class Deep:
    """What an evaluation of the UNet does about deep features: it uses those that are given, or keeps its own."""

    blocks: int  # that are evaluated in any case, at the UNet's beginning and as many at its end
    features: Tensor | None  # (rows, C, h, w), of an earlier step
    parts: Sequence[Hashable]  # names of the equal parts of the batch
    seen: list[Tensor] = field(default_factory=list)  # of this step, without `features`


@dataclass(frozen=True, eq=False)
class _Kept:
    """The deep features of some frames of the clip."""

    frames: Frames
    features: Tensor


def _is_same(step: Any, other: Any) -> bool:
    return step is other or (isinstance(step, float) and isinstance(other, float) and step == other)


def _frames_of(now: Evaluation) -> Frames:
    return None if now.frames is None else tuple(now.frames)


class DeepCache:
    """The deep features of a sampling run, for each conditioning and window.

    Windows may move: a frame's features come from whichever window held the frame when they were kept. All windows of a
    step do the same, because a step is known by its noise level, not by a count of evaluations.

    A conditioning may be evaluated several times in a step, each time differently, as PAG and SAG do; each time has
    features of its own.
    """

    def __init__(self, every: int, blocks: int, span: Span):
        self.every, self.blocks, self.span = every, blocks, span
        self.kept: dict[Hashable, list[_Kept]] = {}
        self._sigmas: SigmaSpan | None = None
        self._step: Any = None
        self._since = 0  # steps since the last whole one
        self._times: Counter[Hashable] = Counter()  # evaluations of each conditioning and window in this step

    def fresh(self) -> "DeepCache":
        """Returns an empty one of these settings, for one run."""
        return DeepCache(self.every, self.blocks, self.span)

    def plan(self, now: Evaluation, step: Any, parts: Sequence[Hashable], model_sampling: Any) -> Deep | None:
        """Decides for an evaluation in `step`, which is one object for all of its evaluations, or one number; None
        leaves it as it is."""
        self._sigmas = self._sigmas or self.span.in_sigmas(model_sampling)
        inside = self._sigmas.holds(now.level)
        if not _is_same(step, self._step):
            self._step, self._times = step, Counter()
            self._since = self._since + 1 if inside and self.kept and self._since + 1 < self.every else 0
            if not self._since:
                self.kept = {}
        if not inside:
            return None
        named = self._named(parts, _frames_of(now))
        found = [self._at(part, now) for part in named] if self._since else []
        known = [features for features in found if features is not None]
        return Deep(self.blocks, torch.cat(known) if known and len(known) == len(found) else None, named)

    def keep(self, now: Evaluation, deep: Deep) -> None:
        """Keeps the deep features of an evaluation on the device where they fit, else in main memory."""
        (seen,) = deep.seen
        features = seen if now.fits(seen.nbytes) else seen.cpu()
        for part, own in zip(deep.parts, features.chunk(len(deep.parts))):
            self.kept.setdefault(part, []).append(_Kept(_frames_of(now), own))

    def _named(self, parts: Sequence[Hashable], frames: Frames) -> list[Hashable]:
        """Returns each conditioning with the number of its evaluations for this window before, in this step."""
        named: list[Hashable] = []
        for part in parts:
            named.append((part, self._times[part, frames]))
            self._times[part, frames] += 1
        return named

    def _at(self, part: Hashable, now: Evaluation) -> Tensor | None:
        """Returns the features of this part's frames that were kept last; None if some are missing."""
        wanted = _frames_of(now)
        kept = self.kept.get(part, [])[::-1]
        whole = next((one.features for one in kept if one.frames == wanted), None)
        if whole is not None:
            return on_device([whole], now.device, now.dtype)
        rows = []
        for frame in wanted or ():
            one = next((one for one in kept if one.frames is not None and frame in one.frames), None)
            if one is None or one.frames is None:
                return None
            rows.append(rows_of(one.features, [one.frames.index(frame)]))
        return torch.cat([on_device([row], now.device, now.dtype) for row in rows]) if rows else None
