"""The part of the sampling during which a map or a reference acts."""

from typing import Any, NamedTuple


class SigmaSpan(NamedTuple):
    """A range in sigmas of a model, which decrease."""

    first: float
    last: float

    def holds(self, sigma: float | None) -> bool:
        return sigma is None or self.first >= sigma >= self.last


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
        return SigmaSpan(*(model_sampling.percent_to_sigma(fraction) for fraction in self))


ALWAYS = Span()
