"""Finds people in a picture with BlazePose's detector, which recognises them by their heads."""

from typing import NamedTuple

import cv2
import numpy as np

from .crops import TurnedSquare, cut, upright
from .networks import PERSON, BlazePoseNetworks

OVERLAP = 0.3  # intersection over union from which two boxes are of the same head
LARGER = 1.25  # the square of a person than the circle around them
# For each grid of anchors: pixels between them, and how many are in the same place.
GRIDS = ((8, 2), (16, 2), (32, 6))


class Found(NamedTuple):
    score: float
    square: TurnedSquare  # of the whole person


def anchors() -> np.ndarray:
    """Returns the anchors (2254, 2), x and y in pixels of the crop."""
    grids = []
    for stride, count in GRIDS:
        line = (np.arange(PERSON // stride) + 0.5) * stride
        grids.append(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).repeat(count, axis=0))
    return np.concatenate(grids)


ANCHORS = anchors()


def decode_people(boxes: np.ndarray, logits: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores (N,) of at least `score`, best first, and points (N, 6, 2) in pixels of the crop: the upper left
    and lower right of the head, the middle of the hips, a point on the circle around the person, and the same of the
    upper body."""
    scores = logistic(logits)
    good = np.flatnonzero(scores >= score)
    good = good[np.argsort(-scores[good], kind="stable")]
    values = boxes[good].reshape(-1, 6, 2)
    middle, half = values[:, :1], values[:, 1:2] / 2
    points = np.concatenate([middle - half, middle + half, values[:, 2:]], axis=1)
    return scores[good], points + ANCHORS[good, None]


def merge(scores: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges boxes of the same head, in the order of `decode_people`: their mean, weighted by score."""
    best, means, waiting = [], [], np.arange(len(scores))
    while len(waiting):
        low, high = points[waiting, 0], points[waiting, 1]
        shared = (np.minimum(high, high[0]) - np.maximum(low, low[0])).clip(0).prod(1)
        area = (high - low).prod(1)
        same = shared > OVERLAP * (area + area[0] - shared)
        same[0] = True
        best.append(waiting[0])
        means.append(np.average(points[waiting[same]], axis=0, weights=scores[waiting[same]]))
        waiting = waiting[~same]
    return scores[best], np.array(means).reshape(-1, 6, 2)


def detect(networks: BlazePoseNetworks, picture: np.ndarray, views: list[TurnedSquare], score: float) -> list[Found]:
    """Finds people with at least `score` in any of the views, best first; some may occur twice."""
    crops = [cut(picture, view, PERSON, cv2.BORDER_CONSTANT) for view in views]
    found = []
    for view, boxes, logits in zip(views, *networks.see("person", crops)):
        for certain, points in zip(*merge(*decode_people(boxes, logits, score))):
            hips, end = view.to_picture(points[2:4], PERSON)
            found.append(Found(float(certain), upright(hips, end, LARGER)))
    return sorted(found, key=lambda one: -one.score)


def whole_picture(width: int, height: int) -> TurnedSquare:
    return TurnedSquare(width / 2, height / 2, max(width, height))


def tiles(width: int, height: int, share: float) -> list[TurnedSquare]:
    """Returns overlapping squares that cover a picture, their side a share of the picture's shorter one; none where one
    square would do."""
    side = share * min(width, height)
    if max(width, height) < 1.2 * side:
        return []
    across, down = (
        np.linspace(side / 2, length - side / 2, 1 + int(np.ceil((length - side) / (side / 2)))).tolist()
        for length in (width, height)
    )
    return [TurnedSquare(x, y, side) for y in down for x in across]


def logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.clip(-50, 50)))
