"""Self-attention over [self | reference | calibrated reference]: every frame reads its own warp of the reference."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import CrossAttention
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..model.attention import HIDDEN, KeptSource, KeySource, Source, Split
from ..model.config import Place
from ..model.reference import Reference, ReferenceRun
from ..model.residence import ClipRows, Evaluation, moved
from ..model.span import ALWAYS, Span

SHOWN = 0.5  # a token is read from this share of its pixels inside the picture
COVERED = 0.001  # a token belongs to the person from this share of its pixels


@dataclass(frozen=True, eq=False)
class Warp:
    """ReferenceNet's features of one warped reference, on the CPU; shares are per latent pixel."""

    tokens: dict[Place, Tensor]  # (1, tokens, channels)
    valid: Tensor  # (h, w) share that is inside the reference picture
    person: Tensor | None = None  # (h, w) share that its person covers


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

    def run(self, model_sampling: Any, keep: bool) -> "CalibratedRun":
        return CalibratedRun(self, model_sampling, keep)

    def numbers(self, frames: int) -> int:
        """Counts, beside the reference's, the tokens of the warps that a window reads."""
        warps = min(frames, len(self.calibration.warps))
        return super().numbers(frames) + warps * sum(tokens.numel() for tokens in self.tokens.values())


class CalibratedRun(ReferenceRun):
    """A calibrated reference in one sampling run."""

    def __init__(self, reference: CalibratedReference, model_sampling: Any, keep: bool):
        super().__init__(reference, model_sampling, keep)
        self.calibration = reference.calibration
        self.calibrated_span = self.calibration.span.in_sigmas(model_sampling)
        self.drawn = any(len(group) > 1 for group in self.calibration.groups)
        self.shown = {place: self.shown_keys(tokens.shape[1]) for place, tokens in reference.tokens.items()}
        self.queries = Queries(self.calibration.people) if self.calibration.people is not None else None
        self.kept: dict[Any, Mapping[Place, KeySource] | None] = {}  # of all warps
        self.known: dict[Any, Tensor] = {}

    def shown_keys(self, count: int) -> "Shown":
        """Returns which of a transformer's tokens are read of each warp."""
        warps, apart = self.calibration.warps, self.calibration.people is not None
        read = torch.stack([at_tokens(warp.valid, count) >= SHOWN for warp in warps])
        if apart:
            read &= torch.stack([at_tokens(warp.person, count) > COVERED for warp in warps if warp.person is not None])
        return Shown.of(read)

    def at(self, now: Evaluation) -> list[Source]:
        calibration = self.calibration
        if calibration.strength == 0 or not self.calibrated_span.holds(now.level):
            return super().at(now)
        frames = range(len(calibration.warp_of)) if now.frames is None else now.frames
        splits = None if self.queries is None else self.queries.splits(now, frames, self.shown)
        own = super().at(now) if splits is None or calibration.person is None else self.background(now, splits)
        sigma = now.level.sigma if self.drawn and now.level is not None else None
        warps = calibration.warps_at(sigma, frames)
        return [*own, self.warps(now, warps, splits)]

    def background(self, now: Evaluation, splits: "Splits") -> list[Source]:
        """Returns what the background of each frame reads of the reference: its background."""
        person = self.calibration.person
        if person is None or self.reference.strength == 0 or not self.span.holds(now.level):
            return []
        name = ("background", now.device, now.dtype)
        if name not in self.ready:
            behind = {count: at_tokens(person, count) <= COVERED for count in splits}
            tokens = {place: x[:, behind[x.shape[1]]] for place, x in self.reference.tokens.items()}
            self.ready[name] = self.source(tokens, now)
        return [ForGroup(self.ready[name], {place: splits[keys.tokens] for place, keys in self.shown.items()}, False)]

    def warps(self, now: Evaluation, warps: Sequence[int], splits: "Splits | None") -> "Calibrated":
        """Returns the warps that the frames of a window read: out of all that are kept, or only these."""
        name = (now.device, now.dtype)
        if name not in self.kept:
            values = sum(keys.order.numel() * self.channels(place) for place, keys in self.shown.items())
            fits = self.keep and now.fits(2 * values * now.dtype.itemsize)
            self.kept[name] = self.projected(now, range(len(self.calibration.warps))) if fits else None
        kept = self.kept[name]
        read = list(range(len(self.calibration.warps))) if kept else sorted(set(warps))
        rows = self.rows(tuple(read.index(warp) for warp in warps), now.device)
        source: Source = KeptSource(kept) if kept else self.tokens(now, read)
        each = None if splits is None else {place: splits[keys.tokens] for place, keys in self.shown.items()}
        return Calibrated(source, rows, each)

    def rows(self, warps: tuple[int, ...], device: torch.device) -> Tensor:
        """Returns what each frame reads, on the device; without draws it is the same in every step."""
        if (warps, device) in self.known:
            return self.known[warps, device]
        rows = moved([torch.tensor(warps)], device, torch.int64)
        if not self.drawn:
            self.known[warps, device] = rows
        return rows

    def channels(self, place: Place) -> int:
        return self.reference.tokens[place].shape[2]

    def projected(self, now: Evaluation, warps: Sequence[int]) -> Mapping[Place, KeySource]:
        return KeptSource.of(self.tokens(now, warps), now.attentions).kept

    def tokens(self, now: Evaluation, warps: Sequence[int]) -> "WarpTokens":
        """Moves the tokens of some warps to the device, and leaves there those that are read."""
        tokens, biases = {}, {}
        for place, keys in self.shown.items():
            x = moved([self.calibration.warps[i].tokens[place] for i in warps], now.device, now.dtype)
            order = moved([keys.order[i : i + 1] for i in warps], now.device, torch.int64)
            tokens[place] = x.gather(1, order[..., None].expand(-1, -1, x.shape[2])) if keys.some else x
            bias = keys.bias(self.calibration.strength)
            if bias is not None:
                biases[place] = moved([bias[i : i + 1] for i in warps], now.device, now.dtype)
        return WarpTokens(tokens, biases)


@dataclass(frozen=True, eq=False)
class Shown:
    """Which tokens of each warp are read: of all warps as many as of the one that shows most."""

    order: Tensor  # (warps, most) tokens, those that are read before the others
    counts: Tensor  # (warps,) that are read
    tokens: int  # of a warp

    @classmethod
    def of(cls, read: Tensor) -> "Shown":
        counts = read.sum(1)
        order = torch.argsort(~read, dim=1, stable=True)[:, : int(counts.max())]
        return cls(order, counts, read.shape[1])

    @property
    def some(self) -> bool:
        return self.order.shape[1] < self.tokens

    def bias(self, strength: float) -> Tensor | None:
        """Returns log strength for the tokens that are read (warps, 1, most), and no weight for the others; None for 0
        everywhere."""
        read = torch.arange(self.order.shape[1]) < self.counts[:, None]
        if strength == 1 and read.all():
            return None
        return torch.where(read, math.log(strength), HIDDEN)[:, None]


Splits = Mapping[int, Split]  # by the number of queries


class Queries:
    """Which queries of each frame belong to its person, for transformers of every size."""

    def __init__(self, people: Tensor):
        self.people = people  # (F, h, w)
        self.known: dict[int, tuple[ClipRows, list[int]]] = {}

    def splits(self, now: Evaluation, frames: Sequence[int], shown: Mapping[Place, Shown]) -> Splits:
        found = {}
        for count in {keys.tokens for keys in shown.values()}:
            if count not in self.known:
                covered = at_tokens(self.people, count) > COVERED
                self.known[count] = ClipRows(covered), covered.sum(1).tolist()
            rows, counts = self.known[count]
            found[count] = Split.of(rows.at(frames, now.device, torch.bool, now.fits), [counts[i] for i in frames])
        return found


@dataclass(frozen=True, eq=False)
class WarpTokens:
    """The tokens of several warps, with a row for each."""

    tokens: Mapping[Place, Tensor]
    biases: Mapping[Place, Tensor]

    def keys(self, block: Place, attention: CrossAttention) -> KeySource:
        tokens = self.tokens[block]
        return KeySource(attention.to_k(tokens), attention.to_v(tokens), self.biases.get(block))


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The warps of a window's frames as a source of keys; with splits, for the pixels of the person."""

    warps: Source  # a row for each warp
    rows: Tensor  # (frames,) the row that each frame reads
    splits: Mapping[Place, Split] | None

    def keys(self, block: Place, attention: CrossAttention) -> KeySource:
        source = self.warps.keys(block, attention)
        bias = None if source.bias is None else source.bias[self.rows]
        split = None if self.splits is None else self.splits[block]
        return KeySource(source.k[self.rows], source.v[self.rows], bias, split)


@dataclass(frozen=True, eq=False)
class ForGroup:
    """A source of keys for one group of the queries."""

    source: Source
    splits: Mapping[Place, Split]
    group: bool

    def keys(self, block: Place, attention: CrossAttention) -> KeySource:
        source = self.source.keys(block, attention)
        return KeySource(source.k, source.v, source.bias, self.splits[block], self.group)


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
