"""133 keypoints of every person in a clip: DWPose with the conventions of its own tool."""

from collections.abc import Callable, Iterable, Sized
from typing import Protocol

import cv2
import numpy as np

from ..render.pose import Pose
from .detect import find_people
from .network import FrozenNetwork

WIDTH, HEIGHT = 288, 384  # of the crop that the network takes
PADDING = 1.25  # how much larger than the box the crop is
POINTS = 133  # COCO-WholeBody
BINS = 2  # of the network's two axes, for each pixel of the crop
MEAN = np.array([123.675, 116.28, 103.53])  # of ImageNet's RGB, 0..255
STD = np.array([58.395, 57.12, 57.375])


class Clip(Iterable[np.ndarray], Sized, Protocol):
    """RGB pictures (H, W, 3) uint8, as many as it says."""


def estimate_poses(
    pictures: Clip,
    detector: FrozenNetwork,
    pose_net: FrozenNetwork,
    on_frame: Callable[[int, int], None] | None = None,
) -> list[list[Pose]]:
    """The people of every picture, best box first; none where nobody is found."""
    poses: list[list[Pose]] = []
    waiting: list[tuple[list[Pose], np.ndarray, np.ndarray]] = []  # where the pose goes, its box, the crop

    def flush() -> None:
        crops = np.stack([picture for _, _, picture in waiting])
        found = decode(pose_net(crops), np.stack([box for _, box, _ in waiting]), pose_net.name)
        for (people, box, _), keypoints, scores in zip(waiting, *found):
            people.append(Pose.from_whole_body(keypoints, scores, box.astype(np.float32)))
        waiting.clear()

    for picture in pictures:
        people: list[Pose] = []
        poses.append(people)
        for box in find_people(picture, detector):
            waiting.append((people, box, crop(picture, box)))
            if len(waiting) == pose_net.batch:  # people of several pictures share a run of the network
                flush()
        if on_frame:
            on_frame(len(poses), len(pictures))
    if waiting:
        flush()
    return poses


def window(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size (..., 2) in pixels of what the crop shows: the box, padded and extended to the crop's shape."""
    centre = (boxes[..., :2] + boxes[..., 2:4]) / 2
    width, height = np.moveaxis((boxes[..., 2:4] - boxes[..., :2]) * PADDING, -1, 0)
    width = np.maximum(width, height * WIDTH / HEIGHT)
    return centre, np.stack([width, width * HEIGHT / WIDTH], axis=-1)


def crop(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(3, 384, 288) float32, normalised, black where the picture ends. The channels stay RGB, as in the network's
    training; DWPose's own tool hands over BGR."""
    centre, size = window(box)
    scale = WIDTH / size[0]
    left, top = np.array([WIDTH, HEIGHT]) / 2 - centre * scale
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    pixels = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return ((pixels - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)


def decode(outputs: list[np.ndarray], boxes: np.ndarray, name: str = "The network") -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, 133, 2) in pixels and scores (N, 133) of SimCC outputs: for each point its likelihood along x,
    (N, 133, 576), and along y, (N, 133, 768), with two bins for each pixel of the crop.

    A point is at the maxima and as certain as the smaller of them; one without certainty is at -1."""
    outputs = sorted(outputs, key=lambda output: output.shape[-1])
    expected = [(len(boxes), POINTS, BINS * length) for length in (WIDTH, HEIGHT)]
    if [output.shape for output in outputs] != expected:
        found = " and ".join(str(output.shape) for output in outputs)
        raise ValueError(
            f"{name} gives values of shape {found} where DWPose gives {expected[0]} and {expected[1]}; choose "
            "dw-ll_ucoco_384."
        )
    scores = np.minimum(outputs[0].max(axis=-1), outputs[1].max(axis=-1))
    bins = np.stack([output.argmax(axis=-1) for output in outputs], axis=-1)
    bins[scores <= 0] = -1
    centre, size = window(boxes[:, None])
    return bins / BINS / (WIDTH, HEIGHT) * size + centre - size / 2, scores
