"""Follows everybody in a clip: found by the detector, then looked for where their own points say."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ..shots import CHANGED, change, look
from .body import L_HIP, L_SHOULDER, NOSE, R_HIP, R_SHOULDER, SEEN, SeenPerson, apart, see_people
from .crops import TurnedSquare
from .detect import Found, detect, tiles, whole_picture
from .networks import BlazePoseNetworks

EVERY = 4  # frames after which others are looked for, each time in another part of the picture
PRESENT = 0.5  # of a person who is followed
CLEAR = 0.3  # score of a point that counts
NEW = 0.99  # of one who is not yet
SCORE, SMALL_SCORE = 0.5, 0.7  # of the detector; in small views it also sees what is not there
SMALL = 0.6  # side of the small views, of the picture's shorter one
SAME = 0.11  # of a square: people who are nearer to each other are one
JUMP = 0.15  # of a square: nobody's way through a cut is longer
SETTLED = (0.1, 1.25)  # shift and growth of a new person's square at the second look, at most
MOST = 8  # people who are looked at at once
LEAST = 16  # pixels of a square
GREY = 128
# Between which points a person is painted over.
BONES = (
    (11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (11, 23), (12, 24), (11, 24), (12, 23), (23, 24),
    (23, 25), (25, 27), (24, 26), (26, 28), (27, 31), (28, 32), (0, 11), (0, 12),
)  # fmt: skip
THICK = 0.1  # of the square
# Share of the points that lie on another person from which one is a ghost of theirs: of a new one, of a followed one.
NEW_GHOST, GHOST = 0.6, 0.85


def follow(
    networks: BlazePoseNetworks, pictures: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, list[SeenPerson]]]:
    """Yields each picture of a clip with the people in it."""
    people: list[SeenPerson] = []
    last = None  # picture that was not plain
    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        views = [whole_picture(width, height), *tiles(width, height, 1.0)]
        now = look(picture)
        changed = last is not None and bool(now.layout.any()) and change(last, now) > CHANGED
        before, people = len(people), continued(networks, picture, people, changed)
        if number == 0 or (changed and not people):
            people = everybody(networks, picture, views)
        elif changed:
            people += newcomers(networks, picture, people, views)
        else:
            if number % EVERY == 0:
                people += newcomers(networks, picture, people, [views[number // EVERY % len(views)]])
            if not people or len(people) < before:
                people += newcomers(networks, picture, people, views[:1])
        last = now if last is None or now.layout.any() else last
        yield picture, people


def everybody(networks: BlazePoseNetworks, picture: np.ndarray, views: list[TurnedSquare]) -> list[SeenPerson]:
    """Finds all people of one picture: the detector runs again, with those it found painted over, until it finds
    nobody."""
    height, width = picture.shape[:2]
    people: list[SeenPerson] = []
    for parts, score in ((views, SCORE), (tiles(width, height, SMALL), SMALL_SCORE)):
        while parts:
            found = newcomers(networks, picture, people, parts, score)
            people += found
            if not found or len(people) >= MOST:
                break
    return people


def continued(
    networks: BlazePoseNetworks, picture: np.ndarray, people: list[SeenPerson], changed: bool = False
) -> list[SeenPerson]:
    """Returns those who are still there; of two who became the same, the one who moved less. After what may be a cut
    (`changed`), they must be where they were."""
    seen = see_people(networks, picture, [person.square for person in people])
    ways = [(apart(now, person), now) for now, person in zip(seen, people) if fits(now, picture)]
    presence, way = (NEW, JUMP) if changed else (PRESENT, np.inf)
    still = [(moved, now) for moved, now in ways if now.presence >= presence and moved <= way]
    return distinct_people([now for _, now in sorted(still, key=lambda one: one[0])], [], GHOST)


def newcomers(
    networks: BlazePoseNetworks,
    picture: np.ndarray,
    known: list[SeenPerson],
    views: list[TurnedSquare],
    score: float = SCORE,
) -> list[SeenPerson]:
    """Finds people besides the known ones. The detector sees a picture in which those are painted over; a person counts
    if two looks at the picture itself, the second from where the first one ended, find them too."""
    found = detect(networks, painted_over(picture, known), views, score)
    candidates = each_once([one for one in found if one.square.size >= LEAST])
    first = [
        person
        for person in see_people(networks, picture, [one.square for one in candidates[:MOST]])
        if person.presence >= PRESENT and fits(person, picture)
    ]
    second = see_people(networks, picture, [person.square for person in first])
    settled = [now for before, now in zip(first, second) if is_clear(before.square, now, picture)]
    return distinct_people(settled, known, NEW_GHOST)


def each_once(found: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for one in found:
        if not any(alike(one.square, other.square) for other in kept):
            kept.append(one)
    return kept


def alike(a: TurnedSquare, b: TurnedSquare) -> bool:
    return np.hypot(a.x - b.x, a.y - b.y) < 0.15 * b.size and 0.7 < a.size / b.size < 1.4


def fits(person: SeenPerson, picture: np.ndarray) -> bool:
    """Returns whether a square can be looked at: neither tiny nor far outside the picture."""
    square, (height, width) = person.square, picture.shape[:2]
    reach = square.size / 2
    return (
        LEAST <= square.size <= 8 * max(width, height)
        and -reach < square.x < width + reach
        and -reach < square.y < height + reach
    )


def is_clear(before: TurnedSquare, person: SeenPerson, picture: np.ndarray) -> bool:
    if person.presence < NEW or not fits(person, picture):
        return False
    after = person.square
    shift = np.hypot(after.x - before.x, after.y - before.y) / before.size
    growth = max(after.size / before.size, before.size / after.size)
    trunk = person.score[[L_SHOULDER, R_SHOULDER, L_HIP, R_HIP]] >= PRESENT
    return bool(shift <= SETTLED[0] and growth <= SETTLED[1] and trunk.sum() >= 2)


def distinct_people(people: list[SeenPerson], known: list[SeenPerson], ghost: float) -> list[SeenPerson]:
    """Drops people who are a known one or an earlier one again, or a ghost on the body of such a one."""
    kept: list[SeenPerson] = []
    for person in people:
        others = known + kept
        if all(apart(person, other) >= SAME and ghostliness(person, other) < ghost for other in others):
            kept.append(person)
    return kept


def ghostliness(person: SeenPerson, other: SeenPerson) -> float:
    """Returns the share of a person's visible points that lie on another person."""
    points = person.points[:SEEN][person.score >= CLEAR]
    start, end = other.points[BONES, :].swapaxes(0, 1)
    along = end - start
    way = ((points[:, None] - start) * along).sum(-1) / (along**2).sum(-1).clip(1e-6)
    away = np.linalg.norm(points[:, None] - start - way.clip(0, 1)[..., None] * along, axis=-1).min(1)
    head = np.linalg.norm(points - other.points[NOSE], axis=1)
    thick = THICK * other.square.size
    return float(((away < thick / 2) | (head < thick)).mean()) if len(points) else 1.0


def painted_over(picture: np.ndarray, people: list[SeenPerson]) -> np.ndarray:
    if not people:
        return picture
    out = picture.copy()
    for person in people:
        places = person.points.round().clip(-1e4, 1e4).astype(int).tolist()
        thick = max(2, round(THICK * person.square.size))
        for a, b in BONES:
            cv2.line(out, places[a], places[b], (GREY,) * 3, thick)
        cv2.circle(out, places[NOSE], thick, (GREY,) * 3, cv2.FILLED)
    return out
