"""Warps the reference image, and groups the frames' transforms so that few warps are needed."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..model.images import fit_boxes
from .procrustes import IDENTITY, transformed

# Tolerance of a warp in pixels: half a latent pixel, which covers 8x8 pixels and is one position of the finest
# attention.
TOLERANCE = 4.0


class Warped(NamedTuple):
    picture: np.ndarray  # (H, W, 3) uint8; beyond the borders of the reference, its border pixels are repeated
    valid: np.ndarray  # (H, W) uint8, 255 inside the reference image
    person: np.ndarray | None  # (H, W) uint8, 255 on its person


def fit_matrix(columns: int, rows: int, width: int, height: int, fit: str) -> np.ndarray:
    """Returns the transform (2, 3) from the pixels of a picture to those after `champ.model.images.fit`."""
    shown, place = fit_boxes(columns, rows, width, height, fit)
    x, y = place.width / shown.width, place.height / shown.height
    return np.array([[x, 0, place.left - x * shown.left], [0, y, place.top - y * shown.top]])


def after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Composes two transforms (2, 3): `first`, then `second`."""
    return second @ np.concatenate([first, [[0, 0, 1]]])


def warp(picture: np.ndarray, matrix: np.ndarray, width: int, height: int, person: np.ndarray | None = None) -> Warped:
    """Warps a uint8 picture (h, w, 3), and its person's mask (h, w), to width x height pixels."""
    rows, columns = picture.shape[:2]
    valid = np.full((rows, columns), 255, np.uint8)

    def drawn(pixels: np.ndarray, method: int, border: int) -> np.ndarray:
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        to_target = matrix
        if scale < 1:  # averaged first, because the warp itself samples single pixels
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
    """Chooses a few transforms for all frames. Returns them, the index (F,) of each frame's transform, and the largest
    distance in pixels by which the corners (N, 2) miss their place.

    The first transform is the identity, which costs nothing. While a frame's error is above the tolerance and there are
    fewer than 1 + `most` transforms, the transform with the largest error is added (farthest-point clustering, Gonzalez
    1985).
    """
    places = np.stack([transformed(matrix, corners) for matrix in matrices])

    def distances(matrix: np.ndarray) -> np.ndarray:
        return np.linalg.norm(places - transformed(matrix, corners), axis=2).max(1)

    chosen = [IDENTITY]
    off = distances(IDENTITY)[None]
    while off.min(0).max() > tolerance and len(chosen) <= most:
        chosen.append(matrices[off.min(0).argmax()])
        off = np.concatenate([off, distances(chosen[-1])[None]])
    return chosen, off.argmin(0), float(off.min(0).max())
