"""Measures a row's clip against the true clip, as Measure Result does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..metrics.measure import NETWORKS, Table, by_frames, by_network
from ..metrics.perceptual import check_length
from .clips import frames
from .jobs import Measure

ROOM = 6e9  # bytes of a graphics card's free memory with which the networks run there


def scores(job: Measure, weights: Path) -> dict[str, float]:
    """Computes each measure for each part of the picture; ValueError says what does not fit. `weights` is
    models/champ_metrics."""
    files = {name: [_weights(weights, name, file) for file in NETWORKS[name][1]] for name in job.networks}
    made, true = clip(job.made), clip([job.truth])
    person = None
    if job.truth_mask is not None:
        person = clip([job.truth_mask])[..., 0] > 127
        person = person.expand(len(made), -1, -1) if len(person) == 1 else person
    if {"FID-VID", "FVD"} & set(job.networks):
        check_length(len(made))
    table = by_frames(made, true, person, job.protocol)
    for name, paths in files.items():
        network: nn.Module = NETWORKS[name][0](*paths).to(device())
        table[name] = by_network(name, network, made, true, person, job.protocol)
    return flat(table)


def clip(files: Sequence[Path]) -> Tensor:
    """Reads a clip as uint8 (F, H, W, 3)."""
    pictures = list(frames(files))
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) != 1:
        what = f"pictures of {len(sizes)} sizes" if sizes else "no pictures"
        raise ValueError(f"{files[0].name if files else 'the row'} has {what}; a clip has pictures of one size")
    return torch.from_numpy(np.stack(pictures))


def flat(table: Table) -> dict[str, float]:
    """Names the measures: of the whole picture as they are, of a part with its name appended."""
    return {
        name if part == "whole" else f"{name} {part}": value
        for name, values in table.items()
        for part, value in values.items()
    }


def device() -> torch.device:
    """Returns the graphics card if the server leaves enough of its memory, else the CPU."""
    roomy = torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM
    return torch.device("cuda" if roomy else "cpu")


def _weights(folder: Path, measure: str, name: str) -> Path:
    if not (folder / name).is_file():
        raise ValueError(f"{measure} needs {name}: put it into models/champ_metrics")
    return folder / name
