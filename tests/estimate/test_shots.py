"""Cuts among all that looks like one: rendered dances over backgrounds that pan, shake, flash and change colour."""

import cv2
import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.estimate.shots import find_shots
from champ.motion.camera import View, frame_person
from champ.motion.presets import make_motion
from champ.render.preview import preview

WIDTH, HEIGHT = 96, 128
FRAMES = 16


def room(seed: int) -> np.ndarray:
    """A wall with soft colours and furniture, larger than the picture."""
    rng = np.random.default_rng(seed)
    wall = sum(cv2.resize(rng.random((n, n, 3)), (600, 600), interpolation=cv2.INTER_CUBIC) for n in (6, 20)) / 2
    wall = np.clip(0.7 * wall + 0.4 * rng.random(3), 0, 1)
    for x, y, w, h in rng.integers(20, 130, (25, 4)) * (4, 4, 1, 1):
        wall[y : y + h, x : x + w] = rng.random(3)
    return (255 * wall).astype(np.uint8)


def view(wall: np.ndarray, x: float, y: float = 40) -> np.ndarray:
    return wall[int(y) : int(y) + HEIGHT, int(x) : int(x) + WIDTH]


ROOM, OTHER = room(1), room(2)
STILL = [view(ROOM, 60)] * FRAMES


@pytest.fixture(scope="module")
def film():
    body = load_free_body()

    def film(behind, name="dance", fps=24.0, fill=0.85, azimuth=0.0) -> list[np.ndarray]:
        motion = make_motion(name, body, len(behind), fps=fps, loop=False, width=WIDTH, height=HEIGHT)
        motion = frame_person(motion, body, WIDTH, HEIGHT, View(azimuth, fill=fill))
        return list(preview(body, motion, torch.from_numpy(np.stack(behind))).numpy())

    return film


def cuts(pictures: list[np.ndarray]) -> list[int]:
    """Found in an iterable that gives each picture once."""
    shot = find_shots(iter(pictures))
    assert shot.shape == (len(pictures),) and shot[0] == 0 and set(np.diff(shot)) <= {0, 1}
    return (np.flatnonzero(np.diff(shot)) + 1).tolist()


def noisy(pictures: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.clip(p + rng.normal(0, 8, p.shape), 0, 255).astype(np.uint8) for p in pictures]


def lit(pictures: list[np.ndarray], light) -> list[np.ndarray]:
    return [np.clip(p * np.asarray(light(i)), 0, 255).astype(np.uint8) for i, p in enumerate(pictures)]


def test_cuts_to_another_room_another_side_and_a_close_up(film):
    wide, aside = film(STILL), film([view(ROOM, 260, 90)] * FRAMES, azimuth=-60)
    close = film(STILL, fill=2.2, azimuth=30)
    other = film([view(OTHER, 100)] * FRAMES, "walk")
    assert cuts(noisy(wide + other + aside + close)) == [16, 32, 48]
    assert cuts(lit(wide + other, lambda i: 0.12)) == [16]
    assert cuts(wide[:6] + other[:5] + aside[:3] + close) == [6, 11, 14]
    plain = [np.full((HEIGHT, WIDTH, 3), 60, np.uint8)] * FRAMES
    assert cuts(film(plain) + film(plain, fill=1.8, azimuth=45)) == [16]


def test_a_cut_within_fast_movement(film):
    one = film(STILL, "jumping jacks", 8, 2.5)
    assert cuts(one) == []
    assert cuts(one + film([view(OTHER, 100)] * FRAMES, "jumping jacks", 8, 2.5)) == [16]


@pytest.mark.parametrize("way", ["slow", "fast", "whip", "shake"])
def test_a_moving_camera_is_no_cut(film, way):
    rng = np.random.default_rng(3)
    steps = {
        "slow": [2] * FRAMES,
        "fast": [10] * FRAMES,
        "whip": [0] * 5 + [6, 20, 32, 34, 22, 8] + [0] * 5,
        "shake": np.diff(rng.integers(0, 14, FRAMES + 1)),
    }[way]
    assert cuts(film([view(ROOM, 60 + x) for x in np.cumsum(steps)])) == []


def test_light_is_no_cut(film):
    dance = film(STILL)
    colors = [(1, 0.3, 0.3), (0.3, 1, 0.4), (0.4, 0.4, 1)]
    assert cuts(lit(dance, lambda i: colors[i // 4 % 3])) == []
    assert cuts(lit(dance, lambda i: 0.4 if i < 7 else 1.0)) == []
    assert cuts(lit(dance, lambda i: min(1, i / 8))) == []


def test_a_flash_is_no_cut_and_hides_none(film):
    dance, other = film(STILL), film([view(OTHER, 100)] * FRAMES)
    white, black = np.full_like(dance[0], 255), np.zeros_like(dance[0])
    assert cuts([*dance[:7], white, white, *dance[7:]]) == []
    assert cuts([*dance[:7], other[0], other[1], *dance[7:]]) == []
    assert cuts([*dance, black, black, *other]) == [18]


def test_one_picture_and_the_same_one_again():
    assert find_shots(iter([ROOM])).tolist() == [0]
    assert find_shots(iter([ROOM] * 3)).tolist() == [0, 0, 0]
    assert find_shots(iter([])).tolist() == []
