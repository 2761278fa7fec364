"""The reference picture moved as the alignments say, and which of the moves are worth telling apart."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..model.images import fit_boxes
from .procrustes import IDENTITY, transformed

# Pixels by which a warp may be off: half a cell of the latents, whose eight pixels the finest attention sees as one.
TOLERANCE = 4.0


class Warped(NamedTuple):
    picture: np.ndarray  # (H, W, 3) uint8; beyond its edges the reference goes on with the pixels of the edge
    valid: np.ndarray  # (H, W) uint8, 255 where the reference picture is
    person: np.ndarray | None  # (H, W) uint8, 255 where its person is


def fit_matrix(columns: int, rows: int, width: int, height: int, fit: str) -> np.ndarray:
    """(2, 3) from the pixels of a picture to those of `champ.model.images.fit` of it."""
    shown, place = fit_boxes(columns, rows, width, height, fit)
    x, y = place.width / shown.width, place.height / shown.height
    return np.array([[x, 0, place.left - x * shown.left], [0, y, place.top - y * shown.top]])


def after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The transform (2, 3) of `first`, then `second`."""
    return second @ np.concatenate([first, [[0, 0, 1]]])


def warp(picture: np.ndarray, matrix: np.ndarray, width: int, height: int, person: np.ndarray | None = None) -> Warped:
    """A uint8 picture (h, w, 3), and its person's mask (h, w), in width x height pixels after the transform."""
    rows, columns = picture.shape[:2]
    valid = np.full((rows, columns), 255, np.uint8)

    def drawn(pixels: np.ndarray, method: int, border: int) -> np.ndarray:
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        to_target = matrix
        if scale < 1:  # averaged first, because the warp itself takes single pixels
            w, h = max(1, round(columns * scale)), max(1, round(rows * scale))
            pixels = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
            to_target = matrix * (columns / w, rows / h, 1)
        # OpenCV counts from the centre of the first pixel.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5]])
        to_target = after(half * (1, 1, -1), after(to_target, half))
        return cv2.warpAffine(pixels, to_target, (width, height), flags=method, borderMode=border)

    return Warped(
        drawn(picture, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE),
        drawn(valid, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT),
        None if person is None else drawn(person, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT),
    )


def distinct(
    matrices: Sequence[np.ndarray], corners: np.ndarray, most: int, tolerance: float = TOLERANCE
) -> tuple[list[np.ndarray], np.ndarray, float]:
    """A few transforms that stand for all, the number (F,) of the one that stands for each frame's, and by how many
    pixels it moves the corners (N, 2) away from where they should be, at most.

    The first is the identity, which costs nothing. Then, as long as a transform is off by more than the tolerance and
    there are fewer than 1 + `most`, the one that is furthest off stands for itself (Gonzalez 1985)."""
    places = np.stack([transformed(matrix, corners) for matrix in matrices])

    def distances(matrix: np.ndarray) -> np.ndarray:
        return np.linalg.norm(places - transformed(matrix, corners), axis=2).max(1)

    chosen = [IDENTITY]
    off = distances(IDENTITY)[None]
    while off.min(0).max() > tolerance and len(chosen) <= most:
        chosen.append(matrices[off.min(0).argmax()])
        off = np.concatenate([off, distances(chosen[-1])[None]])
    return chosen, off.argmin(0), float(off.min(0).max())
