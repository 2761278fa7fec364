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
from ..model.reference import ChangingTokens, Reference, ReferenceRun, Tokens, tensors_of
from ..model.residence import ClipRows, Evaluation, on_device
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

    def numbers(self, frames: int) -> int:
        """Counts, beside the reference's, the tokens of the warps that a window reads."""
        warps = min(frames, len(self.calibration.warps))  # tokens are half as many as keys and values
        return super().numbers(frames) * (2 + warps) // 2


class CalibratedRun(ReferenceRun):
    """A calibrated reference in one sampling run."""

    def __init__(self, reference: CalibratedReference, model_sampling: Any, keep: bool, context: Tensor | None = None):
        self.calibration = reference.calibration
        self.calibrated_span = self.calibration.span.in_sigmas(model_sampling)
        self.drawn = any(len(group) > 1 for group in self.calibration.groups)
        super().__init__(reference, model_sampling, keep, context)

    def forget(self) -> None:
        super().forget()
        self.shown_of: dict[int, Shown] = {}  # by the number of tokens
        self.queries = Queries(self.calibration.people) if self.calibration.people is not None else None
        self.kept: dict[Any, KeptSource | None] = {}  # of all warps
        self.known: dict[Any, Tensor] = {}  # rows on a device

    def at(self, now: Evaluation) -> list[Source]:
        calibration = self.calibration
        if calibration.strength == 0 or not self.calibrated_span.holds(now.level):
            return super().at(now)
        frames = range(len(calibration.warp_of)) if now.frames is None else now.frames
        drawn = now.level.sigma if self.drawn and now.level is not None else None
        warps = calibration.warps_at(drawn, frames)
        counts = {place: x.shape[1] for place, x in self.tokens_of(warps[0], now).items()}
        splits = None if self.queries is None else self.queries.splits(now, frames, counts)
        own = super().at(now) if splits is None or calibration.person is None else self.background(now, splits)
        return [*own, self.warps(now, warps, splits)]

    def tokens_of(self, warp: int, now: Evaluation) -> Tokens:
        return self.step.of(self.calibration.warps[warp].tokens, self.sigma(now))

    def background(self, now: Evaluation, splits: "Splits") -> list[Source]:
        """Returns what the background of each frame reads of the reference: its background."""
        person = self.calibration.person
        if person is None or self.reference.strength == 0 or not self.span.holds(now.level):
            return []
        tokens, name = self.present(now), ("background", now.device, now.dtype)
        if name not in self.ready:
            behind = {
                place: x.index_select(1, self.behind(person, x.shape[1], x.device)) for place, x in tokens.items()
            }
            self.ready[name] = self.source(behind, now)
        return [ForGroup(self.ready[name], splits, False)]

    def behind(self, person: Tensor, count: int, device: torch.device) -> Tensor:
        """Returns which of so many tokens show the reference's background, on the device."""
        if (count, device) not in self.known:
            rows = (at_tokens(person, count) <= COVERED).nonzero()[:, 0]
            self.known[count, device] = on_device([rows], device, torch.int64)
        return self.known[count, device]

    def warps(self, now: Evaluation, warps: Sequence[int], splits: "Splits | None") -> "Calibrated":
        """Returns the warps that the frames of a window read: out of all that are kept, or only these."""
        name = (now.device, now.dtype)
        if name not in self.kept:
            self.kept[name] = self.projected(now)
        kept = self.kept[name]
        read = list(range(len(self.calibration.warps))) if kept else sorted(set(warps))
        rows = self.rows(tuple(read.index(warp) for warp in warps), now.device)
        return Calibrated(kept or self.warp_tokens(now, read), rows, splits)

    def rows(self, warps: tuple[int, ...], device: torch.device) -> Tensor:
        """Returns what each frame reads, on the device; without draws it is the same in every step."""
        if (warps, device) in self.known:
            return self.known[warps, device]
        rows = on_device([torch.tensor(warps)], device, torch.int64)
        if not self.drawn:
            self.known[warps, device] = rows
        return rows

    def projected(self, now: Evaluation) -> KeptSource | None:
        """Returns the keys and values of all warps; None if they change from step to step, or do not fit."""
        if not self.keep or not isinstance(self.reference.tokens, dict):
            return None
        tokens = self.reference.tokens.values()
        values = sum(self.shown(x.shape[1]).order.numel() * x.shape[2] for x in tokens)
        if not now.fits(2 * values * now.dtype.itemsize):
            return None
        return KeptSource.of(self.warp_tokens(now, range(len(self.calibration.warps))), now.attentions)

    def warp_tokens(self, now: Evaluation, warps: Sequence[int]) -> "WarpTokens":
        """Moves the tokens of some warps to the device, and leaves there those that are read."""
        given = [self.tokens_of(warp, now) for warp in warps]
        tokens, biases = {}, {}
        for place, first in given[0].items():
            shown = self.shown(first.shape[1])
            x = on_device([each[place] for each in given], now.device, now.dtype)
            order = on_device([shown.order[i : i + 1] for i in warps], now.device, torch.int64)
            tokens[place] = x.gather(1, order[..., None].expand(-1, -1, x.shape[2])) if shown.some else x
            bias = shown.bias(self.calibration.strength)
            if bias is not None:
                biases[place] = on_device([bias[i : i + 1] for i in warps], now.device, now.dtype)
        return WarpTokens(tokens, biases)

    def shown(self, count: int) -> "Shown":
        """Returns which tokens of each warp are read by transformers with so many."""
        if count not in self.shown_of:
            warps, apart = self.calibration.warps, self.calibration.people is not None
            read = torch.stack([at_tokens(warp.valid, count) >= SHOWN for warp in warps])
            if apart:
                people = [warp.person for warp in warps if warp.person is not None]
                read &= torch.stack([at_tokens(person, count) > COVERED for person in people])
            self.shown_of[count] = Shown.of(read)
        return self.shown_of[count]


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


Splits = Mapping[Place, Split]


class Queries:
    """Which queries of each frame belong to its person, for transformers of every size."""

    def __init__(self, people: Tensor):
        self.people = people  # (F, h, w)
        self.known: dict[int, tuple[ClipRows, list[int]]] = {}

    def splits(self, now: Evaluation, frames: Sequence[int], counts: Mapping[Place, int]) -> Splits:
        """Splits the queries of a window's frames, of which each place has a count."""
        found = {}
        for count in set(counts.values()):
            if count not in self.known:
                covered = at_tokens(self.people, count) > COVERED
                self.known[count] = ClipRows(covered), covered.sum(1).tolist()
            rows, persons = self.known[count]
            first = rows.at(frames, now.device, torch.bool, now.fits)
            found[count] = Split.of(first, [persons[i] for i in frames])
        return {place: found[count] for place, count in counts.items()}


@dataclass(frozen=True, eq=False)
class WarpTokens:
    """The tokens of several warps, with a row for each."""

    tokens: Mapping[Place, Tensor]
    biases: Mapping[Place, Tensor]

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None:
        if block not in self.tokens:
            return None
        tokens = self.tokens[block]
        return KeySource(attention.to_k(tokens), attention.to_v(tokens), self.biases.get(block))


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The warps of a window's frames as a source of keys; with splits, for the pixels of the person."""

    warps: Source  # a row for each warp
    rows: Tensor  # (frames,) the row that each frame reads
    splits: Mapping[Place, Split] | None

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None:
        source = self.warps.keys(block, attention)
        if source is None:
            return None
        bias = None if source.bias is None else source.bias[self.rows]
        split = None if self.splits is None else self.splits[block]
        return KeySource(source.k[self.rows], source.v[self.rows], bias, split)


@dataclass(frozen=True, eq=False)
class ForGroup:
    """A source of keys for one group of the queries."""

    source: Source
    splits: Mapping[Place, Split]
    group: bool

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None:
        source = self.source.keys(block, attention)
        if source is None:
            return None
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
