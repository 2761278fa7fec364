"""Estimates everybody's keypoints in a clip with BlazePose, in DWPose's format."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from ...keypoints.pose import Pose, body_from_coco
from .body import SEEN, SeenPerson
from .follow import follow
from .networks import BlazePoseNetworks
from .parts import Parts, see_parts

TOGETHER = 8  # pictures whose hands and faces are looked at at once
# Rows of the 33 points: COCO's 17, and its feet (big toe, small toe, heel of the left foot and of the right one).
COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FEET = (31, 31, 29, 32, 32, 30)
SMALL_TOES = (1, 4)  # of those six: not among the points


def find_poses(
    networks: BlazePoseNetworks, pictures: Iterable[np.ndarray], hands_and_face: bool = True
) -> Iterator[tuple[np.ndarray, list[Pose]]]:
    """Yields each RGB picture (H, W, 3) uint8 with its people; none where nobody is found."""
    source = follow(networks, pictures)
    while taken := list(islice(source, TOGETHER)):
        seen, people = zip(*taken)
        parts = see_parts(networks, seen, people) if hands_and_face else [[Parts() for _ in who] for who in people]
        for picture, persons, theirs in zip(seen, people, parts):
            yield picture, [as_pose(person, part) for person, part in zip(persons, theirs)]


def as_pose(person: SeenPerson, parts: Parts) -> Pose:
    score = person.score[:, None]
    flat = np.concatenate([person.points[:SEEN], score], axis=1).astype(np.float32)
    solid = np.concatenate([person.world, score], axis=1).astype(np.float32)
    feet, feet_world = flat[FEET, :], solid[FEET, :]
    feet[SMALL_TOES, :] = feet_world[SMALL_TOES, :] = 0
    world = np.concatenate([body_from_coco(solid[COCO, :]), feet_world])
    left, right, face = (None if part is None else part.astype(np.float32) for part in parts)
    return Pose(body_from_coco(flat[COCO, :]), left, right, face, feet=feet, world=world)
