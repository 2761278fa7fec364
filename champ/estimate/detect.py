"""Detects people in a picture: YOLOX with the conventions of DWPose's own tool."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torchvision.ops import nms

SIZE = 640  # pixels, of the square that the network takes
GREY = 114  # of the part of the square that the picture does not cover
STRIDES = (8, 16, 32)
PERSON = 0  # of COCO's 80 classes
CANDIDATE = 0.1  # score from which a box takes part in the suppression of overlapping ones
OVERLAP = 0.45  # intersection over union from which the lower-scored of two boxes goes
SCORE = 0.3  # least score of a detected person
MOST = 50  # people in a picture, which bounds the work if a file detects people everywhere


class Detector(Protocol):
    name: str

    @property
    def batch(self) -> int:
        """The preferred number of pictures at once."""

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Returns (N, 8400, 85) for (N, 3, 640, 640)."""


def find_people(pictures: Sequence[np.ndarray], detector: Detector) -> list[np.ndarray]:
    """Returns, for each of several RGB pictures, boxes (N, 5) x0, y0, x1, y1, score in its pixels, best first; N is 0
    for nobody.

    DWPose's tool takes the whole picture when it finds nobody. A gap is better: it can be filled from its neighbours,
    while an invented person cannot be distinguished from a real one.
    """
    squares, scales = zip(*map(letterbox, pictures))
    outputs = detector(np.stack(squares))
    check_detector([output.shape for output in outputs], detector.name)
    found = []
    for output, scale in zip(outputs[0], scales):
        boxes, scores = decode_boxes(output)
        kept = suppress(boxes, scores)
        kept = kept[scores[kept] > SCORE][:MOST]
        found.append(np.concatenate([boxes[kept] / scale, scores[kept, None]], axis=1))
    return found


def check_detector(shapes: Sequence[tuple[int, ...]], name: str) -> None:
    """Checks that a network's output has YOLOX's shape."""
    cells = sum((SIZE // stride) ** 2 for stride in STRIDES)
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][1] != cells or shapes[0][2] <= 5 + PERSON:
        given = " and ".join(map(str, shapes))
        raise ValueError(f"{name} gives values of shape {given}, but YOLOX gives (1, {cells}, 85); choose yolox_l.")


def letterbox(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Scales the picture into the upper left of (3, 640, 640) float32 0..255; also returns the scale. The channels are
    BGR, as in the training of YOLOX."""
    height, width = picture.shape[:2]
    scale = min(SIZE / height, SIZE / width)
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    square = np.full((SIZE, SIZE, 3), GREY, dtype=np.uint8)
    square[:rows, :columns] = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square[..., ::-1].transpose(2, 0, 1), dtype=np.float32), scale


def decode_boxes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decodes boxes (8400, 4) x0, y0, x1, y1 and the person's scores (8400,) from the network's (8400, 85).

    In the raw form xy is the centre's offset from its cell, in cells, and wh is the logarithm of the size, in cells:
    centre = (xy + cell) stride, size = exp(wh) stride. Some files already contain this step.
    """
    cells = [np.stack(np.meshgrid(np.arange(SIZE // s), np.arange(SIZE // s)), axis=-1).reshape(-1, 2) for s in STRIDES]
    strides = np.repeat(STRIDES, [len(cell) for cell in cells])[:, None]
    values = values.astype(np.float64)
    centre, size = values[:, :2], values[:, 2:4]
    if centre.max() <= SIZE // STRIDES[0]:  # a raw offset is a few cells, at most the whole grid
        centre, size = (centre + np.concatenate(cells)) * strides, np.exp(size) * strides
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), values[:, 4] * values[:, 5 + PERSON]


def suppress(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Numbers of the boxes that stay, best first: each takes those away that overlap it and score less. Widths and
    heights are those of whole pixels, one more than the difference."""
    waiting = np.flatnonzero(scores > CANDIDATE)
    pixels = torch.from_numpy(boxes[waiting] + (0, 0, 1, 1))
    return waiting[nms(pixels, torch.from_numpy(scores[waiting]), OVERLAP).numpy()]
