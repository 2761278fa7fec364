"""Where people are in a picture: BlazePose's detector."""

from dataclasses import dataclass

import cv2
import numpy as np

from .crops import Square, between, cut
from .networks import PERSON

SCORE = 0.5  # of a person
OVERLAP = 0.3  # intersection over union from which two boxes are of the same head
LARGER = 1.25  # the crop than the circle around a person
# For each grid of anchors the pixels of a cell and the anchors in it.
ANCHORS = ((8, 2), (16, 2), (32, 6))


@dataclass(frozen=True)
class Found:
    score: float
    square: Square  # for the body's points
    

def anchors() -> np.ndarray:
    """(2254, 2) x, y in pixels of the crop: the middles of the cells."""
    grids = []
    for stride, count in ANCHORS:
        line = (np.arange(PERSON // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        grids.append(grid.repeat(count, axis=0))
    return np.concatenate(grids)


def whole(width: int, height: int) -> Square:
    return Square(width / 2, height / 2, max(width, height))


def crop(picture: np.ndarray, square: Square) -> np.ndarray:
    return cut(picture, square, PERSON, cv2.BORDER_CONSTANT)


def decode(boxes: np.ndarray, logits: np.ndarray, score: float = SCORE) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) and boxes with points (N, 6, 2) in pixels of the crop, best first: the box's upper left and lower
    right, the middle of the hips, a point on the circle around the body, the same of the upper body."""
    scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
    good = np.flatnonzero(scores >= score)
    good = good[np.argsort(-scores[good], kind="stable")]
    values = boxes[good].reshape(-1, 6, 2)
    centre = anchors()[good, None]
    half = values[:, 1:2] / 2
    corners = centre + values[:, :1]
    points = np.concatenate([corners - half, corners + half, centre + values[:, 2:]], axis=1)
    return scores[good], points


def merge(scores: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One for each head: the mean of those that overlap the best, by their scores."""
    out = []
    waiting = np.arange(len(scores))
    while len(waiting):
        best = points[waiting[0]]
        low = np.maximum(points[waiting, 0], best[0])
        high = np.minimum(points[waiting, 1], best[1])
        shared = (high - low).clip(0).prod(1)
        area = (points[waiting, 1] - points[waiting, 0]).prod(1)
        same = shared / (area + area[0] - shared) > OVERLAP
        same[0] = True
        group = waiting[same]
        out.append((scores[group[0]], np.average(points[group], axis=0, weights=scores[group])))
        waiting = waiting[~same]
    if not out:
        return np.zeros(0), np.zeros((0, 6, 2))
    return np.array([s for s, _ in out]), np.stack([p for _, p in out])
