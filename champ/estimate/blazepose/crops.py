"""The turned squares of a picture that BlazePose's networks look at, and the way back, as MediaPipe has them: places
count from the middle of the first pixel."""

import math
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class TurnedSquare:
    """Centre and side in pixels of the picture, and the angle in radians by which it is turned clockwise."""

    x: float
    y: float
    size: float
    angle: float = 0.0

    @property
    def axes(self) -> np.ndarray:
        """Returns the directions of the crop's x and y in the picture, as rows."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        return np.array([[c, s], [-s, c]])

    def to_picture(self, points: np.ndarray, crop: int) -> np.ndarray:
        """Converts points (..., 2) in a crop of `crop` pixels to points of the picture."""
        return (points / crop - 0.5) * self.size @ self.axes + (self.x, self.y)


def upright(start: np.ndarray, end: np.ndarray, scale: float) -> TurnedSquare:
    """Returns the square around the circle about the first of two points through the second, `scale` times as large and
    turned so that the second is above the first."""
    x, y = (end - start).tolist()
    return TurnedSquare(float(start[0]), float(start[1]), 2 * scale * math.hypot(x, y), math.atan2(x, -y))


def cut(picture: np.ndarray, square: TurnedSquare, size: int, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Cuts a square out of a picture (H, W, 3) as (size, size, 3) uint8; outside the picture its edge is repeated, or
    what OpenCV's `border` says."""
    if square.size >= 2 * size:
        picture, square = shrunk(picture, square, int(square.size // size))
    axes = square.axes * (square.size / size)
    corner = np.array([square.x, square.y]) - axes.sum(0) * size / 2
    matrix = np.concatenate([axes.T, corner[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=border)


def shrunk(picture: np.ndarray, square: TurnedSquare, times: int) -> tuple[np.ndarray, TurnedSquare]:
    """Shrinks the picture around a square by averaging whole pixels, so that none is skipped; returns it with the
    square.

    MediaPipe skips pixels, which adds jitter to its points."""
    reach = square.size * math.sqrt(0.5)
    (x0, x1), (y0, y1) = (
        (int(max(0, middle - reach)), int(min(length, middle + reach + times)))
        for middle, length in ((square.x, picture.shape[1]), (square.y, picture.shape[0]))
    )
    columns, rows = (x1 - x0) // times, (y1 - y0) // times
    if columns < 1 or rows < 1:
        return picture, square
    part = picture[y0 : y0 + rows * times, x0 : x0 + columns * times]
    first = (times - 1) / 2  # the middle of the first pixel, in pixels of before
    place = (square.x - x0 - first) / times, (square.y - y0 - first) / times
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return small, TurnedSquare(*place, square.size / times, square.angle)
