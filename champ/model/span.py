"""The part of the sampling during which a map or a reference acts."""

from typing import Any, NamedTuple

from torch import Tensor

LEVEL = "champ_level"  # key in transformer_options: the NoiseLevel of this evaluation, from a sampler or a window


class NoiseLevel:
    """The sigma of one evaluation, and whether the evaluation belongs to the first step of a run.

    A sigma on the device is read once, when somebody asks for it, because reading waits for the device.
    """

    def __init__(self, sigma: float | Tensor, first: bool):
        self._sigma, self.first = sigma, first

    @property
    def is_known(self) -> bool:
        """Whether the sigma is no longer on the device only."""
        return isinstance(self._sigma, float)

    @property
    def sigma(self) -> float:
        self._sigma = float(self._sigma)
        return self._sigma


class SigmaSpan(NamedTuple):
    """A range in sigmas of a model, which decrease."""

    first: float
    last: float

    def holds(self, level: NoiseLevel | None) -> bool:
        return level is None or self == EVERY_SIGMA or self.first >= level.sigma >= self.last


EVERY_SIGMA = SigmaSpan(float("inf"), 0.0)


class Span(NamedTuple):
    """A range in fractions of the sampling."""

    start: float = 0.0
    end: float = 1.0

    def check(self, what: str) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"{what} has start {self.start:g} and end {self.end:g}, which is not a part of the sampling; choose a "
                "start below the end, both from 0 to 1, or disconnect it."
            )

    def in_sigmas(self, model_sampling: Any) -> SigmaSpan:
        if self == ALWAYS:
            return EVERY_SIGMA
        return SigmaSpan(*(model_sampling.percent_to_sigma(fraction) for fraction in self))


ALWAYS = Span()
