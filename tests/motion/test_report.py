"""What the report says and draws, from motions of which everything is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from champ.motion.motion import Motion
from champ.motion.report import FILLED, GOOD, HEIGHT, OLD, SEEN, SPEED, WIDTH, describe, jitter, plot, speed
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
