"""Averages of metrics over clips."""

from collections.abc import Mapping, Sequence

import numpy as np


def mean_of_clips(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns each metric's mean over the clips that have it."""
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: float(np.nanmean([one.get(name, np.nan) for one in scores])) for name in names}
