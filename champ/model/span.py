"""The part of the sampling during which a map or a reference acts."""

from typing import Any


def check_span(start: float, end: float, what: str) -> None:
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"{what} is to act from {start:g} to {end:g} of the sampling, which is no part of it; choose a start "
            "below the end, both from 0 to 1, or take it away."
        )


class Span:
    """From `start` to `end` as fractions of the sampling, in sigmas of the model."""

    def __init__(self, start: float, end: float, model_sampling: Any):
        self.first, self.last = (model_sampling.percent_to_sigma(p) for p in (start, end))

    def holds(self, sigma: float | None) -> bool:
        return sigma is None or self.first >= sigma >= self.last
