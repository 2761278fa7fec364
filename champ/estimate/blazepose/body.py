"""Reads the points of one person with BlazePose's body network, from a square around them."""

from dataclasses import dataclass

import numpy as np

from .crops import TurnedSquare, cut, upright
from .detect import LARGER, logistic
from .networks import BODY, BlazePoseNetworks

# Rows of the points that are used by name.
NOSE, L_EAR, R_EAR = 0, 7, 8
HEAD = slice(0, 11)  # nose, eyes, ears and the corners of the mouth
L_EYE, R_EYE = slice(1, 4), slice(4, 7)  # three points each
L_SHOULDER, R_SHOULDER, L_HIP, R_HIP = 11, 12, 23, 24
LIMBS = (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # shoulders, elbows, wrists, hips, knees, ankles
SEEN = 33  # points of the person
CENTRE, CIRCLE = 33, 34  # and two of the circle around them
REFINED = 3  # cells of the heat map on each side of a point that can move it
CELL = 4  # pixels of the crop
SURE = 0.5  # of the best cell, from which it does, and of a point's being in the crop
# How far the line between the ears points away from the camera when the far ear or the far eye is behind the head.
EAR_TURN, EYE_TURN = 0.75, 0.95
BEHIND = 0.2  # of the distance of the ears: how far behind them the nose is in the back of a head


@dataclass(frozen=True, eq=False)
class SeenPerson:
    points: np.ndarray  # (39, 2) pixels of the picture
    score: np.ndarray  # (33,) of being there to see, 0 outside the picture
    world: np.ndarray  # (33, 3) metres from the middle of the hips: x right, y down, z away from the camera
    presence: float  # of anybody in the square that was looked at

    @property
    def square(self) -> TurnedSquare:
        """The square in which to look for this person in the next frame."""
        return upright(self.points[CENTRE], self.points[CIRCLE], LARGER)


def see_people(networks: BlazePoseNetworks, picture: np.ndarray, squares: list[TurnedSquare]) -> list[SeenPerson]:
    """Estimates the person in each square."""
    if not squares:
        return []
    crops = [cut(picture, square, BODY) for square in squares]
    values, presence, heat, world = networks.see("body", crops)
    points = refine(values[..., :2], heat)
    visible, present = logistic(values[:, :SEEN, 3:]).transpose(2, 0, 1)
    certain = visible * present * (present >= SURE)
    people = []
    for square, place, score, metres, there in zip(squares, points, certain, world[:, :SEEN], presence):
        place = square.to_picture(place, BODY)
        inside = is_inside(place[:SEEN], picture)
        metres = np.concatenate([metres[:, :2] @ square.axes, metres[:, 2:]], axis=1)
        score = score * inside * ~behind_head(metres)
        people.append(SeenPerson(place, score, metres, float(there)))
    return people


def is_inside(points: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Returns whether points (N, 2) are inside a picture (H, W, 3)."""
    return np.all((points >= 0) & (points < picture.shape[1::-1]), axis=1)


def refine(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Moves points (N, 39, 2) of crops to the centre of mass of the heat maps (N, 39, 64, 64) around them."""
    size = heat.shape[-1]
    column, row = np.moveaxis(np.floor(points / CELL).astype(int), -1, 0)
    known = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    around = np.arange(-REFINED, REFINED + 1)
    rows, columns = row[..., None] + around, column[..., None] + around
    inside = ((rows >= 0) & (rows < size))[..., :, None] & ((columns >= 0) & (columns < size))[..., None, :]
    number, point = np.indices(column.shape)[..., None, None]
    weight = heat[number, point, rows.clip(0, size - 1)[..., :, None], columns.clip(0, size - 1)[..., None, :]]
    weight = logistic(weight) * inside
    total = weight.sum((-2, -1)) + 1e-9
    x = (weight.sum(-2) * columns).sum(-1) / total
    y = (weight.sum(-1) * rows).sum(-1) / total
    sure = known & (weight.max((-2, -1)) >= SURE)
    return np.where(sure[..., None], np.stack([x, y], axis=-1) * CELL, points)


def behind_head(world: np.ndarray) -> np.ndarray:
    """Returns which of the 33 points are hidden by the head itself; the network calls all of them visible."""
    hidden = np.zeros(SEEN, dtype=bool)
    across = world[L_EAR] - world[R_EAR]
    width = np.linalg.norm(across) + 1e-9
    if world[NOSE, 2] - world[[L_EAR, R_EAR], 2].mean() > BEHIND * width:
        hidden[HEAD] = True
        hidden[[L_EAR, R_EAR]] = False
    turn = across[2] / width  # how far the left ear is behind the right one
    hidden[L_EAR if turn > 0 else R_EAR] |= abs(turn) > EAR_TURN
    hidden[L_EYE if turn > 0 else R_EYE] |= abs(turn) > EYE_TURN
    return hidden


def apart(a: SeenPerson, b: SeenPerson) -> float:
    """Returns the distance between two people's limbs, relative to the smaller square."""
    distance = np.linalg.norm(a.points[LIMBS, :] - b.points[LIMBS, :], axis=1)
    return float(np.median(distance)) / max(min(a.square.size, b.square.size), 1e-6)
