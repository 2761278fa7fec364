"""Crops the square around a person for HMR2, exactly as 4D-Humans' ViTDetDataset does, and converts its camera back."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .hmr2 import CROP

# Of the colours, in 0..255.
MEAN = 255 * np.array([0.485, 0.456, 0.406])
STD = 255 * np.array([0.229, 0.224, 0.225])
FOCAL = 5000.0  # pixels, in the crop
STEPS = 32  # OpenCV 4 reads a picture at 32nds of a pixel


@dataclass(frozen=True)
class Square:
    """Centre and side in pixels of the picture."""

    x: float
    y: float
    size: float

    @classmethod
    def around(cls, box: np.ndarray) -> "Square":
        """Returns the square whose middle three quarters hold the box (x0, y0, x1, y1, ...)."""
        x0, y0, x1, y1 = (np.float32(value) for value in box[:4])
        # In the official order of operations, because float32 rounding depends on it: sizes pass through 200ths.
        width, height = ((side / np.float32(200)) * np.float32(200) for side in (x1 - x0, y1 - y0))
        size = max(height, width * np.float32(4) / np.float32(3))
        return cls(float((x0 + x1) / 2), float((y0 + y1) / 2), float(size))


def crop_square(picture: np.ndarray, square: Square) -> Tensor:
    """Returns the normalised crop (3, 256, 256) of a uint8 RGB picture (H, W, 3), black outside the picture.

    Squares of more than 563 pixels are blurred first. Without blur, the crop has whole grey levels.
    """
    shrink = square.size / CROP / 2
    blurred = shrink > 1.1
    (top, rows), (left, columns) = _samples(square)
    sigma = (shrink - 1) / 2
    # Only this part of the picture is read; outside the picture, the blur repeats its border.
    margin = _radius(sigma) if blurred else 0
    height, width = picture.shape[:2]
    y0, y1 = max(0, top[0] - margin), min(height, top[-1] + 2 + margin)
    x0, x1 = max(0, left[0] - margin), min(width, left[-1] + 2 + margin)
    if y0 >= y1 or x0 >= x1:
        values = np.zeros((CROP, CROP, 3), np.float32)
    else:
        part = picture[y0:y1, x0:x1].astype(np.float32)
        part = _blur(part, sigma) if blurred else part
        values = _between(_between(part, top - y0, rows, 0), left - x0, columns, 1)
    if not blurred:
        values = np.floor(values + 0.5)
    return torch.from_numpy(((values - MEAN) / STD).astype(np.float32).transpose(2, 0, 1).copy())


def _samples(square: Square) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns, for every row and column of the crop, the pixel before it and the fraction towards the next one.

    src = (dst - 128) * size / 256 + centre between pixel indices, in 1024ths, rounded to 32nds (half up). OpenCV rounds
    the place of a row; of a column, it rounds the distance from the first one and the place of that. Its transform
    comes from three points in float32. Half of a 1024th often occurs exactly, so every rounding matters.
    """
    centre, half, target = np.array([square.x, square.y]), square.size / 2, CROP // 2
    points = np.array([centre, centre + (0, half), centre + (half, 0)], dtype=np.float32)
    targets = np.array([[target, target], [target, CROP], [CROP, target]], dtype=np.float32)
    (a, b, c), (d, e, f) = cv2.getAffineTransform(points, targets)  # b and d are almost 0
    ratio = 1 / (a * e - b * d)
    to_x, to_y = e * ratio, a * ratio
    left, top = -to_x * c + b * ratio * f, d * ratio * c - to_y * f
    at = np.arange(CROP)
    columns = np.rint(to_x * at * 1024) + np.rint(left * 1024)
    rows = np.rint((to_y * at + top) * 1024)

    def split(fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.floor((fine + 1024 / STEPS / 2) * STEPS / 1024).astype(np.int64)
        return steps // STEPS, (steps % STEPS / STEPS).astype(np.float32)

    return split(rows), split(columns)


def _between(values: np.ndarray, index: np.ndarray, fraction: np.ndarray, axis: int) -> np.ndarray:
    """Interpolates linearly along an axis, with zeros outside."""
    last = values.shape[axis] - 1
    shape = [1, 1, 1]
    shape[axis] = -1

    def weighted(i: np.ndarray, weight: np.ndarray) -> np.ndarray:
        inside = np.where((i >= 0) & (i <= last), weight, np.float32(0))
        return inside.reshape(shape) * values.take(i.clip(0, last), axis)

    return weighted(index, 1 - fraction) + weighted(index + 1, fraction)


def _radius(sigma: float) -> int:
    return int(4 * sigma + 0.5)


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs with a Gaussian truncated at four sigmas, like scipy.ndimage."""
    at = np.arange(-_radius(sigma), _radius(sigma) + 1)
    kernel = np.exp(-0.5 * (at / sigma) ** 2)
    kernel /= kernel.sum()
    return cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def cam_in_picture(camera: Tensor, squares: list[Square], width: int, height: int) -> tuple[Tensor, float]:
    """Converts the camera of crops to places (N, 3) of the bodies in the picture's camera, and its focal length in
    pixels.

    camera (s, tx, ty) is of the crop: a body there has s times its size in its own square.
    """
    focal = FOCAL / CROP * max(width, height)
    x, y, size = torch.tensor([(s.x, s.y, s.size) for s in squares], dtype=torch.float32).unbind(-1)
    scale, tx, ty = camera.unbind(-1)
    side = size * scale + 1e-9
    tx = tx + 2 * (x - width / 2) / side
    ty = ty + 2 * (y - height / 2) / side
    return torch.stack([tx, ty, 2 * focal / side], dim=-1), focal
