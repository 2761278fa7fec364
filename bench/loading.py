"""Memory while the networks of a checkpoint set are loaded, beside what they keep and the largest file.

    python dev.py bench loading

A set of random weights in the shapes of the official .pth files, float32, is written to a temporary folder (8.8 GB).
Each line is a process of its own. Only Linux tells what is measured here."""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from _memory import GB, peak
from _random_models import randomise  # noqa: F401 - finds ComfyUI
from torch import Tensor

from champ.model.checkpoint import CheckpointSet, find_set
from champ.model.loading import load_denoiser, load_encoders, load_reference_net

ROOT = Path(__file__).parents[1]
SHAPES = ROOT / "tests" / "data" / "champ" / "sd15_shapes.json"
ENCODERS = ("depth", "normal", "semantic_map", "dwpose")
TYPES = {"16 bits": torch.float16, "32 bits": torch.float32}


def write_set(place: Path) -> None:
    """Writes files with the tensors of the official ones, whose numbers are random and repeat."""
    drawn = torch.empty(1 << 25).normal_()
    shapes = json.loads(SHAPES.read_text())
    encoder = shapes.pop("guidance_encoder_X")
    for name, tensors in (shapes | {f"guidance_encoder_{name}": encoder for name in ENCODERS}).items():
        torch.save(
            {key: drawn[: math.prod(shape)].reshape(shape).clone() for key, shape in tensors.items()},
            place / f"{name}.pth",
        )


def loaders() -> dict[str, Callable[[CheckpointSet, torch.dtype], list[Any]]]:
    """What Load Champ Model loads, one by one and all together."""
    single: dict[str, Callable[[CheckpointSet, torch.dtype], Any]] = {
        "encoders": load_encoders,
        "denoiser": lambda files, dtype: load_denoiser(files, "set", dtype),
        "ReferenceNet": load_reference_net,
    }
    each = {name: lambda files, dtype, load=load: [load(files, dtype)] for name, load in single.items()}
    return each | {"the whole set": lambda files, dtype: [load(files, dtype) for load in single.values()]}


def weights(loaded: Any) -> Iterator[Tensor]:
    model = loaded.model if hasattr(loaded, "model") else loaded.patcher.model
    return chain(model.parameters(), model.buffers())


def load(place: Path, what: str, kind: str) -> None:
    """Prints the line of one load."""
    files = find_set(place)
    with peak() as used:
        loaded = loaders()[what](files, TYPES[kind])
    kept = sum(tensor.nbytes for one in loaded for tensor in weights(one))
    largest = max(file.stat().st_size for file in place.iterdir())
    cells = [f"{size / GB:.2f}" for size in (kept, used.own, used.all, kept + largest)]
    print(f"| {what} | {kind} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for the files; default: the system's for temporary files")
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS, metavar=("PLACE", "WHAT", "TYPE"))
    options = parser.parse_args()
    if options.load:
        place, what, kind = options.load
        return load(Path(place), what, kind)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_set(Path(folder))
        largest = max(file.stat().st_size for file in Path(folder).iterdir())
        print(f"torch {torch.__version__}, largest file {largest / GB:.2f} GB; all in GB")
        print("| what | kept in | kept | peak, own memory | peak, with mapped files | kept and the largest file |")
        print("|---|---|---|---|---|---|", flush=True)
        for what in loaders():
            for kind in TYPES:
                subprocess.run([sys.executable, __file__, "--load", folder, what, kind], check=True)


if __name__ == "__main__":
    main()
