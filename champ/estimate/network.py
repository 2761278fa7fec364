"""Reads the networks of DWPose from files of any of their formats. A file is data: nothing in it is run, no path in it
is opened."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..files.errors import DamagedError, reading
from ..files.tensors import mapped
from ..files.torch_files import TorchArchive
from .architectures import read_checkpoint
from .graph import Graph
from .onnx import read_onnx
from .torchscript import read_torchscript

EXTENSIONS = {".onnx", ".pt", ".pth"}
MAX_BATCH = 64  # largest batch that a network may be made for; the community's files have 1 and 5
ALIKE = 0.05  # relative to the difference between two pictures: allowed difference between two ways to compute the same


class Network(nn.Module):
    """Maps pictures (N, 3, H, W) to tensors (N, ...), whose order is not defined."""

    def __init__(self, name: str, graph: Graph, batch: int | None):
        """`batch` is the number of pictures that the graph was made for; None means any number."""
        super().__init__()
        if batch is not None and not 1 <= batch <= MAX_BATCH:
            raise DamagedError(f"it was made for {batch} pictures at once")
        self.name, self.graph, self.batch = name, graph, batch or 1
        self.takes_any = True if batch is None else None  # None: not tried yet
        self.checked: set[tuple[int, ...]] = set()

    def check(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Returns the output shapes for one picture of this size; raises a ValueError if the network refuses it."""
        try:
            shapes = self.graph.check((self.batch, 3, height, width))
            if any(not shape or shape[0] != self.batch for shape in shapes):
                raise DamagedError("its output is not made for each picture")
        except DamagedError as error:
            raise ValueError(
                f"{self.name} does not take pictures of {width}x{height} pixels: {error}; choose the right file, or "
                "download it again."
            ) from None
        self.checked.add((self.batch, 3, height, width))
        return [(1, *shape[1:]) for shape in shapes]

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> list[Tensor]:
        if len(pictures) != self.batch and self._takes_any(pictures):
            return self._run(pictures)
        return self._padded(pictures)

    def _run(self, pictures: Tensor) -> list[Tensor]:
        """Runs the network; a new shape is checked first."""
        shape = tuple(pictures.shape)
        if shape not in self.checked:
            self.graph.check(shape)
            self.checked.add(shape)
        return list(self.graph(pictures))

    def _padded(self, pictures: Tensor) -> list[Tensor]:
        """Runs batches of the size that the network was made for; the last one is padded."""
        padding = pictures.new_zeros(-len(pictures) % self.batch, *pictures.shape[1:])
        parts = [self._run(part) for part in torch.cat([pictures, padding]).split(self.batch)]
        return [torch.cat(same)[: len(pictures)] for same in zip(*parts)]

    def _takes_any(self, pictures: Tensor) -> bool:
        """Tells whether the network also works with other batch sizes; tested once, with coloured clouds."""
        if self.takes_any is None:
            noise = torch.rand((3 if self.batch == 2 else 2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
            clouds = functional.interpolate(noise, pictures.shape[2:], mode="bilinear").to(pictures)
            tried = pictures.min() + (pictures.max() - pictures.min()).clamp(min=1) * clouds
            expected = self._padded(tried)
            try:
                found = self._run(tried)
            except DamagedError:
                found = []
            self.takes_any = len(found) == len(expected) and all(map(_alike, found, expected))
        return self.takes_any


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Compares results relative to the difference between the first two pictures, which must not vanish."""
    if found.shape != expected.shape:
        return False
    apart = (expected[0] - expected[1]).abs().max()
    return bool((found - expected).abs().max() < ALIKE * apart)


def read_network(file: Path) -> Network:
    """Reads a network; its content shows the format: ONNX, a TorchScript archive, or a training checkpoint."""
    with reading(file, "a network of DWPose", "download it again"):
        with file.open("rb") as content:
            head = content.read(4)
        if head == b"PK\3\4" and TorchArchive(mapped(file)).names("code/"):
            return Network(file.name, *read_torchscript(file))
        if head == b"PK\3\4" or file.suffix.lower() != ".onnx":
            return Network(file.name, read_checkpoint(file), None)
        graph, batch = read_onnx(file)
        return Network(file.name, graph, batch or 1)
