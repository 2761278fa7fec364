"""Batches of a training step, drawn from packs of prepared samples whose pictures are encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..model.families import ENCODED_MAPS
from ..output import save_tensors
from ..progress import advance
from .latents import ImageCodec
from .prepare import SURFACES, Pack, packs, read_pack


@dataclass(frozen=True)
class Batch:
    """B clips of F frames; single pictures are clips of one."""

    latents: Tensor  # (B, F, 4, h, w), scaled
    maps: dict[str, Tensor]  # uint8 (B, F, 8h, 8w, 3)
    reference: Tensor  # (B, 4, h, w), scaled
    person: Tensor | None = None  # (B, F, h, w), the share of each latent pixel that the person covers
    clip_embeds: Tensor | None = None  # (B, D) of the reference pictures
    surface: Tensor | None = None  # (B, F, h, w, 4), where on the figure each latent pixel is, as draw_surface has it
    reference_surface: Tensor | None = None  # (B, h, w, 4)


class Samples(Protocol):
    """A source of training data. `read` runs ahead in its own thread; `batch` runs where the networks are."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int], generator: torch.Generator) -> Any: ...

    def batch(self, read: Any) -> Batch: ...


def encode_packs(files: Sequence[Path], codec: ImageCodec) -> None:
    """Writes the latents of pictures and references beside each pack; latents that this codec has made are kept."""
    for done, file in enumerate(files, 1):
        latents = file.with_suffix(".latents")
        if _maker(latents) != codec.digest:
            pack, _ = read_pack(file)
            pictures, reference = pack["pictures"], pack["reference"]
            encoded = torch.cat([codec.encode(part) for part in pictures.flatten(0, 1).split(16)])
            reference = torch.cat([codec.encode(part) for part in reference.split(16)])
            tensors = {"pictures": encoded.unflatten(0, pictures.shape[:2]), "reference": reference}
            tensors = {name: value.half() for name, value in tensors.items()}
            save_tensors(latents, tensors, {"codec": codec.digest}, replace=True)
        advance(done, len(files))


def _maker(latents: Path) -> str | None:
    return read_pack(latents)[1].get("codec") if latents.exists() else None


class PreparedSamples:
    """Samples of encoded packs; their maps are read from the files on request."""

    def __init__(self, folder: Path, split: str, frames: int):
        self.packs: list[Pack] = []
        self.latents: list[dict[str, Tensor]] = []
        self.where: list[tuple[int, int]] = []  # pack and row of each sample
        for file in packs(folder, split, frames):
            if not (latents := file.with_suffix(".latents")).exists():
                continue
            self.latents.append(read_pack(latents)[0])
            rows = len(self.latents[-1]["reference"])
            self.where += [(len(self.packs), row) for row in range(rows)]
            self.packs.append(read_pack(file)[0])
        if not self.where:
            raise ValueError(f"No samples in {folder} are encoded; run `encode` on this folder first.")
        self.names = set.intersection(*(set(pack) for pack in self.packs))

    def __len__(self) -> int:
        return len(self.where)

    def read(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        where = [self.where[i] for i in indices]

        def read(name: str) -> Tensor:
            return torch.stack([self.packs[pack][name][row] for pack, row in where])

        def encoded(name: str) -> Tensor:
            return torch.stack([self.latents[pack][name][row] for pack, row in where]).float()

        person = avg_pool2d((read("masks") > 0).float(), 8)
        maps = {name: read(name) for name in ENCODED_MAPS}
        surfaces = {name: read(name) for name in SURFACES if name in self.names}
        return Batch(encoded("pictures"), maps, encoded("reference"), person, **surfaces)

    def batch(self, read: Batch) -> Batch:
        return read
