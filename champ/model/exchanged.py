"""Detects swapped files of a set's guidance encoders, as far as possible.

All encoders have the same architecture and run on any map, so a wrong one is not noticed before the video. The tensors
do not show it. Two signs are checked: the name under which a file was first saved, and two files with the same weights.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import torch
from torch import nn

from ..files.tensors import mapped, read_safetensors
from ..files.zips import Archive
from .checkpoint import ENCODER_FILES, NetworkFile

NETWORK = "network"  # in the metadata of what this pack exports


def encoder_doubts(files: Mapping[str, NetworkFile], encoders: Mapping[str, nn.Module]) -> list[str]:
    """Returns a sentence for each file that seems to belong to another map; both mappings are by the map's name."""
    doubts = []
    for name, file in files.items():
        first = _first_name(file.file)[:100]
        meant = [other for stem, other in ENCODER_FILES.items() if stem in first]
        if meant and name not in meant:
            doubts.append(
                f"{file.name} is used for {name} maps but was first saved as {first}, for {meant[0]} maps; if the "
                "files have been swapped, swap them back or get them again."
            )
    for a, b in combinations(files, 2):
        weights, others = encoders[a].state_dict(), encoders[b].state_dict()
        if weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights):
            doubts.append(
                f"{files[a].name} and {files[b].name} hold the same weights, so either {a} or {b} maps are misread; "
                "get both again."
            )
    return doubts


def _first_name(file: Path) -> str:
    """Returns the name under which a file was first saved: torch puts it into the file, this pack into the metadata."""
    if file.suffix.lower() == ".safetensors":
        return read_safetensors(file)[1].get(NETWORK, "")
    data = mapped(file)
    return next(iter(Archive(data).members), "").partition("/")[0] if data[:2] == b"PK" else ""
