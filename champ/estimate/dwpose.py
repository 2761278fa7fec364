"""Finds 133 keypoints of every person in a clip: DWPose with the conventions of its own tool."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ..keypoints.pose import Pose
from .detect import Detector, find_people

WIDTH, HEIGHT = 288, 384  # of the crop that the network takes
PADDING = 1.25  # how much larger than the box the crop is
POINTS = 133  # COCO-WholeBody
BINS = 2  # of the network's two axes, for each pixel of the crop
MEAN = np.array([123.675, 116.28, 103.53])  # of ImageNet's RGB, 0..255
STD = np.array([58.395, 57.12, 57.375])


class PoseNetwork(Protocol):
    name: str

    @property
    def batch(self) -> int:
        """The preferred number of crops at once."""

    def __call__(self, crops: np.ndarray) -> list[np.ndarray]:
        """Returns (N, 133, 576) and (N, 133, 768), in any order, for (N, 3, 384, 288)."""


class _Frame(NamedTuple):
    picture: np.ndarray
    people: list[Pose]
    boxes: np.ndarray  # (N, 5); those of people not yet in the list are waiting


def find_poses(
    pictures: Iterable[np.ndarray], detector: Detector, pose_network: PoseNetwork
) -> Iterator[tuple[np.ndarray, list[Pose]]]:
    """Yields each RGB picture (H, W, 3) uint8 with its people, best box first; an empty list if nobody is found.

    Several pictures go through the detector at once, and people of several pictures through the pose network. Only a
    few pictures wait in memory for that.
    """
    source = iter(pictures)
    frames: deque[_Frame] = deque()
    waiting: deque[tuple[_Frame, np.ndarray, np.ndarray]] = deque()  # with the box and the crop
    while taken := list(islice(source, detector.batch)):
        for picture, boxes in zip(taken, find_people(taken, detector)):
            frames.append(frame := _Frame(picture, [], boxes))
            waiting.extend((frame, box, crop_person(picture, box)) for box in boxes)
        while len(waiting) >= pose_network.batch or (waiting and len(frames) >= pose_network.batch):
            _estimate([waiting.popleft() for _ in range(min(pose_network.batch, len(waiting)))], pose_network)
        while frames and len(frames[0].people) == len(frames[0].boxes):
            yield frames[0].picture, frames[0].people
            frames.popleft()
    while waiting:
        _estimate([waiting.popleft() for _ in range(min(pose_network.batch, len(waiting)))], pose_network)
    yield from ((frame.picture, frame.people) for frame in frames)


def _estimate(people: list[tuple[_Frame, np.ndarray, np.ndarray]], pose_network: PoseNetwork) -> None:
    frames, boxes, crops = zip(*people)
    found = decode_keypoints(pose_network(np.stack(crops)), np.stack(boxes), pose_network.name)
    for frame, box, keypoints, scores in zip(frames, boxes, *found):
        frame.people.append(Pose.from_whole_body(keypoints, scores, box.astype(np.float32)))


def pose_window(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre and size (..., 2) of the crop in pixels: the padded box, extended to the crop's aspect ratio."""
    centre = (boxes[..., :2] + boxes[..., 2:4]) / 2
    width, height = np.moveaxis((boxes[..., 2:4] - boxes[..., :2]) * PADDING, -1, 0)
    width = np.maximum(width, height * WIDTH / HEIGHT)
    return centre, np.stack([width, width * HEIGHT / WIDTH], axis=-1)


def crop_person(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the normalised crop (3, 384, 288) float32, black outside the picture. The channels stay RGB, as in the
    network's training; DWPose's own tool passes BGR."""
    centre, size = pose_window(box)
    scale = WIDTH / size[0]
    left, top = np.array([WIDTH, HEIGHT]) / 2 - centre * scale
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    pixels = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return ((pixels - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)


def decode_keypoints(
    outputs: list[np.ndarray], boxes: np.ndarray, name: str = "The network"
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes keypoints (N, 133, 2) in pixels and scores (N, 133) from SimCC outputs: each point's likelihood along x,
    (N, 133, 576), and along y, (N, 133, 768), with two bins per pixel of the crop.

    A point lies at the maxima, and its score is the smaller of them; a point with score 0 or less is at -1.
    """
    check_pose_network([output.shape for output in outputs], name)
    outputs = sorted(outputs, key=lambda output: output.shape[-1])
    scores = np.minimum(outputs[0].max(axis=-1), outputs[1].max(axis=-1))
    bins = np.stack([output.argmax(axis=-1) for output in outputs], axis=-1)
    bins[scores <= 0] = -1
    centre, size = pose_window(boxes[:, None])
    return bins / BINS / (WIDTH, HEIGHT) * size + centre - size / 2, scores


def check_pose_network(shapes: Sequence[tuple[int, ...]], name: str) -> None:
    """Checks that a network's output has DWPose's shapes."""
    expected = [(shapes[0][0], POINTS, BINS * length) for length in (WIDTH, HEIGHT)]
    found = sorted(map(tuple, shapes), key=lambda shape: shape[-1])
    if found != expected:
        given = " and ".join(map(str, found))
        raise ValueError(
            f"{name} gives values of shape {given}, but DWPose gives {expected[0]} and {expected[1]}; choose "
            "dw-ll_ucoco_384."
        )
