"""Teaches the denoiser's attention where in the reference it finds what it draws: of drawn people that is known.

What a block of the picture shows, a block of the reference shows too, at the place where the same point of the figure
is; a block of the room shows what the reference has at the same place, or as near as the reference's person allows.
From the loss of diffusion alone a network learns this very slowly. Half of the heads on the way up are taught, on
average: together they shall look there. Nothing of this is left in the trained networks but their weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..model.attention import READS, KeySource
from .networks import Champ

NEAR = 0.06  # metres on the figure over which what is looked for is spread
SAME = 0.12  # metres within which a block of the reference shows the same place at all
PERSON, ROOM = 0.5, 0.1  # a block shows the person from this share on, and the room up to this one
ROOM_COUNTS = 0.3  # how much a block of the room counts beside one of the person
DRAWS = 2  # of each sample are looked at


@dataclass(frozen=True)
class Surfaces:
    """Where on the figure the blocks of targets and references are: (B, h, w, 4), as draw_surface has them. Targets
    may be crops."""

    target: Tensor
    reference: Tensor
    corner: Tensor | None = None  # (B, 2), row and column of the targets' corners in the whole picture

    def coarser(self, times: int) -> "Surfaces":
        corner = None if self.corner is None else self.corner // times
        return Surfaces(_pooled(self.target, times), _pooled(self.reference, times), corner)


def _pooled(surface: Tensor, times: int) -> Tensor:
    points, cover = surface.float().movedim(-1, 1).split((3, 1), 1)
    mean = avg_pool2d(points * cover, times) / avg_pool2d(cover, times).clamp_min(1e-6)
    return torch.cat([mean, avg_pool2d(cover, times)], 1).movedim(1, -1)


def shares(surfaces: Surfaces) -> tuple[Tensor, Tensor]:
    """Returns how much of its attention each block of the target (B, N, M) shall give to the reference's, and how much
    that counts (B, N); 0 where the reference does not show it."""
    target, reference = surfaces.target.float().flatten(1, 2), surfaces.reference.float().flatten(1, 2)
    apart = torch.cdist(target[..., :3], reference[..., :3])
    apart = apart.masked_fill(reference[:, None, :, 3] < PERSON, torch.inf)
    shown = (target[..., 3] >= PERSON) & (apart.amin(2) < SAME)

    place = _places(surfaces.target)
    if surfaces.corner is not None:
        place = place + surfaces.corner[:, None].to(place)
    moved = torch.cdist(place, _places(surfaces.reference)).masked_fill(reference[:, None, :, 3] > ROOM, torch.inf)
    room = (target[..., 3] <= ROOM) & (moved.amin(2) < torch.inf)

    scores = torch.where(shown[..., None], -apart.square() / (2 * NEAR**2), -moved.square() / 2)
    counts = shown.float() + ROOM_COUNTS * room
    return torch.where(counts[..., None] > 0, scores, 0).softmax(2), counts


def _places(surface: Tensor) -> Tensor:
    """Returns the row and column (1, N, 2) of each block."""
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in surface.shape[1:3]), indexing="ij")
    return torch.stack([rows, columns], 2).view(1, -1, 2).to(surface.device, torch.float32)


class Matching:
    """Listens to the attention of a model's blocks on the way up, and says how far off they look."""

    def __init__(self, model: Champ):
        self.samples = 0
        self.surfaces: Surfaces | None = None
        self.losses: list[Tensor] = []
        for block in model.denoiser.output_blocks:
            for layer in block:
                if isinstance(layer, SpatialTransformer):
                    attention = layer.transformer_blocks[0].attn1
                    attention.register_forward_pre_hook(self._listen, with_kwargs=True)

    def listen(self, surfaces: Surfaces | None) -> None:
        """Starts to listen to the denoiser's evaluations of as many samples, until the loss is asked for; None: to
        nothing."""
        self.surfaces, self.losses = surfaces, []
        self._shares: dict[int, tuple[Tensor, Tensor]] = {}

    def loss(self) -> Tensor | float:
        """Returns the mean cross entropy between where it looked and where it should, and stops listening: previews
        look, too."""
        losses = self.losses
        self.listen(None)
        return sum(losses) / len(losses) if losses else 0.0

    def _wanted(self, tokens: int) -> tuple[Tensor, Tensor]:
        assert self.surfaces is not None
        if tokens not in self._shares:
            height, width = self.surfaces.target.shape[1:3]
            times = round((height * width / tokens) ** 0.5)
            self._shares[tokens] = shares(self.surfaces.coarser(times) if times > 1 else self.surfaces)
        return self._shares[tokens]

    def _listen(self, attention: nn.Module, args: tuple, options: dict) -> None:
        reads: Sequence = options.get("transformer_options", {}).get(READS, ())
        if self.surfaces is None or not any(reads):
            return
        x, options = args[0], options["transformer_options"]
        samples = len(self.surfaces.target)
        sources: list[KeySource] = [source.keys(options["block"], attention) for (source,) in reads]
        keys = torch.cat([source.k for source in sources])
        queries = attention.to_q(x.unflatten(0, (samples, -1))[:, :DRAWS])
        wanted, counts = self._wanted(x.shape[1])
        self.losses.append(cross_entropy(queries, keys, attention.heads, wanted, counts))


def cross_entropy(queries: Tensor, keys: Tensor, heads: int, wanted: Tensor, counts: Tensor) -> Tensor:
    """Computes the cross entropy of the mean attention of the first half of the heads, for queries (B, D, N, C) and
    keys (B, M, C), with shares (B, N, M) that count (B, N)."""
    taught = heads // 2
    q = queries.unflatten(3, (heads, -1))[..., :taught, :].transpose(2, 3)  # (B, D, taught, N, c)
    k = keys.unflatten(2, (heads, -1))[:, :, :taught].transpose(1, 2)  # (B, taught, M, c)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT[:, None]
    looked = scores.float().log_softmax(-1).logsumexp(2) - torch.tensor(taught).log()
    missed = -(wanted[:, None] * looked).sum(-1).mean(1)
    return (counts * missed).sum() / counts.sum().clamp_min(1)
