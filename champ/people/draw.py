"""Repeatable random draws, which keep training and held-out samples apart."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SPLITS = ("train", "held_out")
PARTS = 8  # parts of the range of a quantity that separates training from held-out samples
HELD_OUT = (2, 5)  # parts that training never draws from


class Draw:
    """One stream of random numbers, named by integers and independent of all other streams."""

    def __init__(self, split: str, *name: int):
        if split not in SPLITS:
            raise ValueError(f"There is no split called {split!r}; choose one of {', '.join(SPLITS)}.")
        self.split = split
        self.rng = np.random.default_rng([SPLITS.index(split), *name])
        self.parts = [i for i in range(PARTS) if (i in HELD_OUT) == (split == "held_out")]

    def between(self, low: float, high: float) -> float:
        """Draws uniformly, the same for both splits."""
        return float(self.rng.uniform(low, high))

    def own(self, low: float, high: float) -> float:
        """Draws uniformly from the eighths of the range that belong to this split."""
        part = self.choice(self.parts) + self.rng.random()
        return float(low + (high - low) * part / PARTS)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choice(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if weights is None:
            return options[int(self.rng.integers(len(options)))]
        share = np.cumsum(weights) / np.sum(weights)
        return options[int(np.searchsorted(share, self.rng.random(), side="right"))]
