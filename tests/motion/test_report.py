"""What the report says and draws, from motions of which everything is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.motion.motion import Motion
from champ.motion.report import (
    DOUBTFUL,
    FILLED,
    GOOD,
    HEIGHT,
    OLD,
    OUTSIDE,
    SEEN,
    SPEED,
    WIDTH,
    describe,
    jitter,
    look_over,
    outside,
    plot,
    speed,
    worst,
)
from champ.motion.rotation import rot_y


def turning(degrees: torch.Tensor, **change) -> Motion:
    """Every joint stands at these angles (F,)."""
    frames = len(degrees)
    motion = Motion(
        rotations=rot_y(degrees)[:, None].repeat(1, 24, 1, 1),
        betas=torch.zeros(10),
        cam_t=torch.tensor([0.0, 0.0, 40.0]).repeat(frames, 1),
        focal=10000.0,
        width=512,
        height=768,
        fps=25.0,
        confidence=torch.ones(frames),
        source="test",
    )
    return replace(motion, **change)


def test_what_was_filled_and_where_the_cuts_are_is_said():
    confidence = torch.full((120,), 0.8)
    confidence[[17, 18, 19, 63]] = 0
    confidence[5] = 0.3
    motion = turning(torch.arange(120.0), confidence=confidence, shot=(torch.arange(120) >= 60).long())
    text = describe(motion)
    assert "120 frames of 512x768 at 25 fps (4.8 s)" in text and "4 filled: 17-19, 63." in text
    assert "2 shots: 0-59, 60-119." in text and "0.80 on average, 0.30 at least" in text
    assert "No frame was filled" in describe(turning(torch.arange(3.0)))


def test_speed_and_trembling_are_degrees():
    steady = turning(3 * torch.arange(20.0))
    torch.testing.assert_close(speed(steady), torch.full((19,), 75.0), atol=0.01, rtol=0)
    assert jitter(steady) < 0.01
    zigzag = turning(torch.tensor([0.0, 2.0] * 10))  # each frame is 2 degrees off the middle of its neighbours
    assert jitter(zigzag) == pytest.approx(2.0, abs=1e-3)
    assert "Jitter: 0.00 degrees a frame, 2.00 before." in describe(steady, zigzag)
    other = describe(steady, zigzag[:10])
    assert "has 10 frames, so it is another motion" in other and "Jitter: 0.00 degrees a frame." in other


def test_a_cut_is_no_turn():
    motion = turning(torch.tensor([0.0, 0, 0, 90, 90, 90]), shot=torch.tensor([0, 0, 0, 1, 1, 1]))
    assert speed(motion).max() < 0.01 and jitter(motion) < 0.01


def count(picture: np.ndarray, color: tuple[int, int, int], rows: tuple[int, int]) -> int:
    return int((picture[rows[0] : rows[1]] == color).all(2).sum())


def test_the_plot_shows_filled_frames_and_the_motion_before():
    confidence = torch.ones(40).index_fill(0, torch.tensor([10, 11]), 0.0)
    motion = turning(torch.arange(40.0), confidence=confidence, shot=(torch.arange(40) >= 20).long())
    picture = plot(motion).numpy()
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    filled, seen = count(picture, FILLED, SEEN), count(picture, GOOD, SEEN)
    assert filled / (filled + seen) == pytest.approx(2 / 40, abs=0.005)
    assert count(picture, OLD, SPEED) == 0
    assert count(plot(motion, turning(torch.tensor([0.0, 2.0] * 20))).numpy(), OLD, SPEED) > 1000


@pytest.mark.parametrize("frames", [1, 2, 1000])
def test_motions_of_any_length_are_drawn(frames):
    motion = turning(torch.arange(float(frames)))
    assert plot(motion, motion).shape == (HEIGHT, WIDTH, 3) and describe(motion, motion)


def test_what_is_not_good_is_said_and_drawn():
    angles = torch.zeros(40)
    angles[30:] = 80  # 2000 degrees a second, of the whole body
    doubt = torch.zeros(40).index_fill(0, torch.tensor([4, 5]), 0.9)
    misfit = torch.full((40,), 0.01).index_fill(0, torch.tensor([20]), 0.05)
    confidence = torch.ones(40).index_fill(0, torch.tensor([10]), 0.0)
    motion = turning(angles, doubt=doubt, misfit=misfit, confidence=confidence)
    text = describe(motion)
    assert "85 % of the frames are good." in text  # 34 of 40
    assert "2 doubtful" in text and ": 4-5." in text
    assert "1 off" in text and ": 20." in text and "2 turned faster than people do: 29-30." in text
    assert [int(kind.sum()) for kind in look_over(motion)] == [1, 2, 1, 2]
    assert worst(motion, 4) == [4, 10, 20, 29] or worst(motion, 4) == [5, 10, 20, 29]
    assert len(worst(turning(torch.zeros(40)), 4)) == 4
    assert count(plot(motion).numpy(), DOUBTFUL, SEEN) > 0
    assert motion[3:6].doubt.tolist() == doubt[3:6].tolist()


def test_frames_outside_the_picture_are_said_and_drawn():
    body = load_free_body()
    motion = turning(torch.zeros(20), betas=body.betas)
    motion.cam_t[15:, 0] = 1.5  # to the right edge and beyond
    gone = outside(motion, body)
    assert gone.nonzero().flatten().tolist() == [15, 16, 17, 18, 19]
    assert "5 with a hand, a foot or the head outside the picture: 15-19." in describe(motion, body=body)
    below = (SEEN[1] + 1, SEEN[1] + 9)
    drawn = count(plot(motion, body=body).numpy(), OUTSIDE, below)
    assert drawn > 0 and count(plot(motion[:15], body=body).numpy(), OUTSIDE, below) == 0
    assert count(plot(motion).numpy(), OUTSIDE, below) == 0
