"""Batches of a training step, drawn from packs of prepared samples whose pictures are encoded once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..model.families import ENCODED_MAPS
from ..output import save_tensors
from ..progress import advance
from .latents import ImageCodec
from .prepare import BLOCK, SURFACES, Pack, packs, read_pack

ROOM_SHARE = 0.2  # of the crops whose middle may be anywhere; the others' is on the person
GRID = 2  # latent pixels to which crops are aligned, so that blocks of coarser levels are those of whole pictures


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
    corner: Tensor | None = None  # (B, 2), row and column of the pictures' corners in the reference, if they are crops

    def cropped(self, side: int, generator: torch.Generator) -> "Batch":
        """Cuts a square of `side` latent pixels out of each clip, mostly around a part of the person. The reference
        stays whole."""
        assert self.person is not None
        corner = crop_corners(self.person[:, 0], side, generator)

        def cut(x: Tensor, scale: int = 1) -> Tensor:
            rows = [
                one[..., scale * y : scale * (y + side), scale * left : scale * (left + side)]
                for one, (y, left) in zip(x, corner.tolist())
            ]
            return torch.stack(rows)

        return replace(
            self,
            latents=cut(self.latents),
            maps={name: cut(x.movedim(-1, -3), BLOCK).movedim(-3, -1) for name, x in self.maps.items()},
            person=cut(self.person),
            surface=None if self.surface is None else cut(self.surface.movedim(-1, -3)).movedim(-3, -1),
            corner=corner,
        )


def crop_corners(person: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Draws the corners (B, 2) of squares of `side` pixels around random pixels that the person (B, h, w) covers, or
    sometimes anywhere."""
    samples, height, width = person.shape
    shown = person.flatten(1).double()
    chance = (1 - ROOM_SHARE) * shown / shown.sum(1, keepdim=True).clamp_min(1e-9) + ROOM_SHARE / (height * width)
    chosen = torch.multinomial(chance, 1, generator=generator)[:, 0]
    middle = torch.stack([chosen // width, chosen % width], 1)
    moved = middle - torch.randint(side // 4, side - side // 4, (samples, 2), generator=generator)
    limit = torch.tensor([height - side, width - side])
    return moved.clamp_min(0).minimum(limit) // GRID * GRID


class Samples(Protocol):
    """A source of training data. `read` runs ahead in its own thread; `batch` runs where the networks are."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int], generator: torch.Generator) -> Any: ...

    def batch(self, read: Any) -> Batch: ...


def encode_packs(files: Sequence[Path], codec: ImageCodec) -> None:
    """Writes the latents of pictures and references beside each pack; latents that this codec has made of the same
    pictures are kept."""
    for done, file in enumerate(files, 1):
        latents = file.with_suffix(".latents")
        pack, _ = read_pack(file)
        about = {"codec": codec.digest, "pack": fingerprint(pack)}
        if not latents.exists() or read_pack(latents)[1] != about:
            pictures, reference = pack["pictures"], pack["reference"]
            encoded = torch.cat([codec.encode(part) for part in pictures.flatten(0, 1).split(16)])
            reference = torch.cat([codec.encode(part) for part in reference.split(16)])
            tensors = {"pictures": encoded.unflatten(0, pictures.shape[:2]), "reference": reference}
            tensors = {name: value.half() for name, value in tensors.items()}
            save_tensors(latents, tensors, about, replace=True)
        advance(done, len(files))


def fingerprint(pack: Pack) -> str:
    """Computes the SHA-256 of what is encoded of a pack."""
    digest = hashlib.sha256()
    for name in ("pictures", "reference"):
        digest.update(str(tuple(pack[name].shape)).encode())
        for row in pack[name]:
            digest.update(row.contiguous().numpy())
    return digest.hexdigest()


class PreparedSamples:
    """Samples of encoded packs; their maps are read from the files on request."""

    def __init__(self, folder: Path, split: str, frames: int, crop: int = 0):
        self.crop = crop  # side of the crops in pixels; 0: whole pictures
        self.packs: list[Pack] = []
        self.latents: list[dict[str, Tensor]] = []
        self.where: list[tuple[int, int]] = []  # pack and row of each sample
        files = packs(folder, split, frames)
        self.first, self.vae = files[0].stem, self._read(folder, files)
        self.names = set.intersection(*(set(pack) for pack in self.packs))
        step, smallest = GRID * BLOCK, min(min(pack["reference"].shape[1:3]) for pack in self.packs)
        if crop % step or not 0 <= crop <= smallest:
            raise ValueError(f"Crops of {crop} pixels were asked for; choose a multiple of {step} up to {smallest}.")

    def _read(self, folder: Path, files: Sequence[Path]) -> str:
        """Reads packs and their latents; returns the digest of the VAE that has made these."""
        if plain := [file.name for file in files if not file.with_suffix(".latents").exists()]:
            raise ValueError(
                f"{len(plain)} of {len(files)} packs in {folder} are not encoded ({plain[0]} is the first); run "
                "`encode` on this folder."
            )
        vaes = set()
        for file in files:
            latents, about = read_pack(file.with_suffix(".latents"))
            pack, rows = read_pack(file)[0], len(latents["reference"])
            if rows != len(pack["reference"]):
                raise ValueError(
                    f"{file.stem}.latents has {rows} samples, but {file.name} has {len(pack['reference'])}; run "
                    f"`encode` on {folder} again."
                )
            vaes.add(about.get("codec", ""))
            self.where += [(len(self.packs), row) for row in range(rows)]
            self.packs.append(pack)
            self.latents.append(latents)
        if len(vaes) > 1:
            raise ValueError(
                f"The packs in {folder} were encoded by different VAEs; run `encode` on this folder again."
            )
        return vaes.pop()

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
        batch = Batch(encoded("pictures"), maps, encoded("reference"), person, **surfaces)
        return batch.cropped(self.crop // BLOCK, generator) if self.crop else batch

    def batch(self, read: Batch) -> Batch:
        return read
