"""Training data without pictures, for minute networks."""

import torch
from torch import Tensor

from champ.model.families import ENCODED_MAPS
from champ.train.batches import Batch


class RandomSamples:
    """Latents and maps of noise, 32 pixels wide."""

    def __init__(self, frames: int):
        self.frames = frames

    def __len__(self) -> int:
        return 3

    def read(self, indices, generator):
        def draw(number: int, *shape: int) -> Tensor:
            return torch.randn(shape, generator=torch.Generator().manual_seed(number))

        pixels = {
            name: torch.stack([(draw(10 * i + j, self.frames, 32, 32, 3) * 60 + 120).clamp(0, 255) for i in indices])
            for j, name in enumerate(ENCODED_MAPS)
        }
        return Batch(
            torch.stack([draw(10 * i + 5, self.frames, 4, 4, 4) for i in indices]),
            {name: x.byte() for name, x in pixels.items()},
            torch.stack([draw(10 * i + 6, 4, 4, 4) for i in indices]),
            torch.stack([draw(10 * i + 7, self.frames, 4, 4).sigmoid() for i in indices]),
        )

    def batch(self, read):
        return read
