"""The networks of DWPose from files of any of their formats. A file is data: nothing in it is run, no path in it is
opened."""

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
MAX_BATCH = 64  # pictures that a network may have been made for; the community's take 1 and 5
ALIKE = 0.05  # of the difference between two pictures, that between two ways to compute what is made of one


class Network(nn.Module):
    """Pictures (N, 3, H, W) in, tensors (N, ...) out, which are in no certain order."""

    def __init__(self, name: str, graph: Graph, batch: int | None):
        """`batch` is how many pictures the graph was made for; None: any number."""
        super().__init__()
        if batch is not None and not 1 <= batch <= MAX_BATCH:
            raise DamagedError(f"it was made for {batch} pictures at once")
        self.name, self.graph, self.batch = name, graph, batch or 1
        self.takes_any = True if batch is None else None  # None: not tried yet
        self.checked: set[tuple[int, ...]] = set()

    def check(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes of what it makes of one picture of this size; a ValueError for a network that takes none."""
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
        """Nothing is run for a shape for which it was not looked at what it takes."""
        shape = tuple(pictures.shape)
        if shape not in self.checked:
            self.graph.check(shape)
            self.checked.add(shape)
        return list(self.graph(pictures))

    def _padded(self, pictures: Tensor) -> list[Tensor]:
        """In batches of the size that the network was made for, of which the last is filled up."""
        padding = pictures.new_zeros(-len(pictures) % self.batch, *pictures.shape[1:])
        parts = [self._run(part) for part in torch.cat([pictures, padding]).split(self.batch)]
        return [torch.cat(same)[: len(pictures)] for same in zip(*parts)]

    def _takes_any(self, pictures: Tensor) -> bool:
        """Whether several pictures at once give what each of them gives in a batch of the right size. Tried once, with
        coloured clouds."""
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
    """By the difference between the first two pictures, which must not vanish."""
    if found.shape != expected.shape:
        return False
    apart = (expected[0] - expected[1]).abs().max()
    return bool((found - expected).abs().max() < ALIKE * apart)


def read_network(file: Path) -> Network:
    """Told apart by what is in the file: ONNX, a TorchScript archive, or a checkpoint of the training."""
    with reading(file, "a network of DWPose", "download it again"):
        with file.open("rb") as content:
            head = content.read(4)
        if head == b"PK\3\4" and TorchArchive(mapped(file)).names("code/"):
            return Network(file.name, *read_torchscript(file))
        if head == b"PK\3\4" or file.suffix.lower() != ".onnx":
            return Network(file.name, read_checkpoint(file), None)
        graph, batch = read_onnx(file)
        return Network(file.name, graph, batch or 1)
