"""Synthetic samples kept in files, so that training can go through them more than once without drawing them again."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..files.errors import reading
from ..files.tensors import read_safetensors
from ..model.families import ENCODED_MAPS
from ..output import save_tensors
from ..people.samples import Sample, SyntheticPeople, draw_surface
from ..progress import advance, portion

PACK = 256  # single frames in a file; clips fill a file with as many frames
SURFACES = ("surface", "reference_surface")
BLOCK = 8  # pixels of a picture that become one of its latents

# uint8: pictures (N, F, H, W, 3), the maps likewise, masks, reference (N, H, W, 3), its mask; float16: surface
# (N, F, H / 8, W / 8, 4) and that of the reference (N, H / 8, W / 8, 4), as draw_surface has them.
Pack = dict[str, Tensor]


def prepare(people: SyntheticPeople, folder: Path, first: int, count: int) -> None:
    """Writes samples first .. first + count - 1 in packs; those that are complete stay, so that an interrupted run
    goes on, and a longer one adds to a shorter."""
    folder.mkdir(parents=True, exist_ok=True)
    size = max(1, PACK // people.frames)
    for start in range(first, first + count, size):
        file = folder / f"{people.split}_{people.frames}_{start:07}.safetensors"
        stop = min(start + size, first + count)
        if _rows(file, people) < stop - start:
            with portion(start - first, 0, count):  # the maps of a sample are not samples
                pack = _pack(people, range(start, stop))
            file.with_suffix(".latents").unlink(missing_ok=True)  # they are of other samples
            save_tensors(file, pack, _about(people), replace=True)
        advance(stop - first, count)


def packs(folder: Path, split: str, frames: int) -> list[Path]:
    """Returns the files of a folder in the order of their samples."""
    files = sorted(folder.glob(f"{split}_{frames}_*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no {split} samples of {frames} frames; make some with `prepare` first.")
    return files


def read_packs(files: list[Path], names: tuple[str, ...]) -> Iterator[Pack]:
    """Yields the named tensors of one file after the other."""
    for file in files:
        pack, _ = read_pack(file)
        yield {name: pack[name] for name in names}


def read_pack(file: Path) -> tuple[Pack, dict[str, str]]:
    """Reads what is in a file of samples or of their latents, where it stays until it is used, and what the file says
    about itself."""
    with reading(file, "a file of samples", "take it away and run the command that made it again"):
        return read_safetensors(file)


def _about(people: SyntheticPeople) -> dict[str, str]:
    shares = {"close": people.close, "photographic": people.photographic}
    given = {name: str(share) for name, share in shares.items() if share}
    return {"size": str(people.size), "seed": str(people.seed)} | given


def _rows(file: Path, people: SyntheticPeople) -> int:
    """Returns how many samples a file holds, 0 if it is not there."""
    if not file.exists():
        return 0
    pack, about = read_pack(file)
    if about != _about(people):
        raise ValueError(
            f"{file} holds samples of another size, seed, or share of close or photographic ones; give these a "
            "folder of their own."
        )
    return len(pack["reference"])


def _pack(people: SyntheticPeople, indices: range) -> Pack:
    samples = [people.sample(i) for i in indices]
    pack = {name: torch.stack([getattr(s, name) for s in samples]) for name in ("pictures", "masks")}
    pack |= {name: torch.stack([getattr(s, name) for s in samples]) for name in ("reference", "reference_mask")}
    surfaces = [_surfaces(s) for s in samples]
    pack |= {name: torch.stack([one[name] for one in surfaces]) for name in SURFACES}
    return pack | {name: torch.stack([s.maps[name] for s in samples]) for name in ENCODED_MAPS}


def _surfaces(sample: Sample) -> Pack:
    """Draws which point of the person each block of the pictures and of the reference shows."""
    motions = (sample.motion, sample.reference_motion)
    surfaces = [draw_surface(sample.actor, motion, BLOCK).half() for motion in motions]
    return {"surface": surfaces[0], "reference_surface": surfaces[1][0]}
