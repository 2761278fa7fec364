"""Hands and faces: BlazePose's networks for them, on squares that the points of the body give."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .body import HEAD, NOSE, SeenPerson, is_inside
from .crops import TurnedSquare, cut, upright
from .networks import FACE, HAND, BlazePoseNetworks

# Rows of the body's points: wrist, knuckle of the little finger, knuckle of the index finger, left and right.
ARMS = ((15, 17, 19), (16, 18, 20))
EYES, MOUTH = (2, 5), (9, 10)  # left and right
PRESENT = 0.5  # of a hand or face
CLEAR = 0.3  # score of a wrist whose hand is looked at
LEAST = 32  # pixels of a square; in a smaller one there is nothing to see
# A hand's square: its side from the length of wrist to knuckles and from the person's square, and how far its middle
# is beyond the knuckles, in that length. Measured with squares around the points that were found.
PALM, REST, BEYOND = 1.4, 0.06, 0.15
AROUND = 2.45  # a face's square, of the longer side of the body's points of the head
ONE_HAND = 0.25  # of a hand's size: two that are nearer to each other are one
# DWPose's 68 points among the 468: jaw from the right ear to the left, brows, nose, eyes, outer and inner lips.
FACE_68 = (
    127, 234, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip


class Parts(NamedTuple):
    """Rows are x, y in pixels of the picture and a score; None is not seen."""

    left_hand: np.ndarray | None = None  # (21, 3)
    right_hand: np.ndarray | None = None
    face: np.ndarray | None = None  # (68, 3)


def see_parts(
    networks: BlazePoseNetworks, pictures: Sequence[np.ndarray], people: Sequence[list[SeenPerson]]
) -> list[list[Parts]]:
    """Estimates hands and faces of the people in several pictures together."""
    there = [(picture, person) for picture, persons in zip(pictures, people) for person in persons]
    hands = _see(networks, "hand", HAND, [(p, hand_square(who, arm)) for p, who in there for arm in ARMS])
    faces = _see(networks, "face", FACE, [(p, face_square(who)) for p, who in there])
    found = []
    for (_, person), one, other, face in zip(there, hands[::2], hands[1::2], faces):
        one, other = hands_apart(person, one, other)
        found.append(Parts(one, other, None if face is None else face[FACE_68, :]))
    every = iter(found)
    return [[next(every) for _ in persons] for persons in people]


def _see(
    networks: BlazePoseNetworks, name: str, size: int, wanted: list[tuple[np.ndarray, TurnedSquare | None]]
) -> list[np.ndarray | None]:
    """Returns points (N, 3) for each square, or None where there is no square or nothing is recognised."""
    found: list[np.ndarray | None] = [None] * len(wanted)
    useful = [(i, picture, s) for i, (picture, s) in enumerate(wanted) if s is not None and s.size >= LEAST]
    if useful:
        values, presence = networks.see(name, [cut(picture, square, size) for _, picture, square in useful])
        for (i, picture, square), points, score in zip(useful, values[..., :2], presence):
            if score >= PRESENT:
                places = square.to_picture(points, size)
                inside = is_inside(places, picture)
                found[i] = np.concatenate([places, score * inside[:, None]], axis=1)
    return found


def hand_square(person: SeenPerson, arm: tuple[int, int, int]) -> TurnedSquare | None:
    """Returns the square around a hand, turned so that the fingers point up."""
    wrist, pinky, index = person.points[arm, :]
    if person.score[arm[0]] < CLEAR:
        return None
    knuckles = (2 * index + pinky) / 3  # of the middle finger
    palm = knuckles - wrist
    length = math.hypot(*palm)
    x, y = knuckles + BEYOND * palm
    return TurnedSquare(x, y, PALM * length + REST * person.square.size, math.atan2(palm[0], -palm[1]))


def face_square(person: SeenPerson) -> TurnedSquare | None:
    """Returns the square around a face, turned so that the eyes are level and above the mouth."""
    if person.score[NOSE] < CLEAR:
        return None
    left, right = person.points[EYES, :]
    # The line of the eyes says little in a profile, that from the mouth to them something always.
    up = person.points[EYES, :].mean(0) - person.points[MOUTH, :].mean(0) + ((left - right) @ ((0, -1), (1, 0)))
    axes = upright(np.zeros(2), up, 1.0).axes
    points = person.points[HEAD] @ axes.T
    low, high = points.min(0), points.max(0)
    x, y = (low + high) / 2 @ axes
    return TurnedSquare(x, y, AROUND * (high - low).max(), math.atan2(up[0], -up[1]))


def hands_apart(
    person: SeenPerson, left: np.ndarray | None, right: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Separates the hands: where both squares show the same hand, it belongs to the nearer wrist."""
    if left is None or right is None:
        return left, right
    size = np.ptp(left[:, :2], axis=0).max()
    if np.linalg.norm((left - right)[:, :2], axis=1).mean() > ONE_HAND * size:
        return left, right
    away = [np.linalg.norm(hand[0, :2] - person.points[arm[0]]) for hand, arm in zip((left, right), ARMS)]
    return (left, None) if away[0] <= away[1] else (None, right)
