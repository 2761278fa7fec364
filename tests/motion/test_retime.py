from dataclasses import replace

import pytest
import torch

from champ.motion.presets import make_motion
from champ.motion.retime import repeat, resample, sample, trim


@pytest.fixture(scope="module")
def walk(body):
    return make_motion("walk", body, 48, fps=24)


def test_trim_keeps_exactly_the_chosen_frames(walk):
    part = trim(walk, 10, 5)
    assert torch.equal(part.rotations, walk.rotations[10:15]) and torch.equal(part.cam_t, walk.cam_t[10:15])
    assert len(trim(walk, 40)) == 8
    with pytest.raises(ValueError, match="48 frames.*start at frame 48"):
        trim(walk, 48)


def test_whole_positions_give_the_frames_themselves(walk):
    again = sample(walk, torch.arange(48.0))
    torch.testing.assert_close(again.rotations, walk.rotations, atol=2e-6, rtol=0)
    assert torch.equal(again.cam_t, walk.cam_t)


def test_resampling_follows_the_movement_between_the_frames(walk, body):
    """24 -> 48 frames/s must land where the same walk generated at 48 frames/s is."""
    fine = make_motion("walk", body, 96, fps=48)
    twice = resample(walk, 48)
    assert len(twice) == 95 and twice.fps == 48
    error = (twice.posed(body).joints - fine[:95].posed(body).joints).norm(dim=-1)
    assert error.max() < 0.02 and error[::2].max() < 1e-3


def test_a_loop_stays_smooth_at_its_seam_at_another_rate(walk, body):
    for fps, count in ((48, 96), (30, 60), (17, 34)):
        twice = resample(walk, fps, loop=True)
        assert len(twice) == count
        joints = repeat(twice, 2 * count).posed(body).joints
        steps = (joints[1:] - joints[:-1]).norm(dim=-1).amax(1)
        assert steps[count - 1] <= 1.2 * steps.max() and steps[count - 1] <= 1.6 * steps.median()


def test_speed_divides_the_length_and_keeps_the_frame_rate(walk):
    fast = resample(walk, 24, speed=2)
    assert len(fast) == 24 and fast.fps == 24
    torch.testing.assert_close(fast.rotations, walk.rotations[::2], atol=2e-6, rtol=0)


def test_a_loop_starts_over_and_ping_pong_turns_round_without_standing_still(walk):
    short = walk[:4]
    assert torch.equal(repeat(short, 10).cam_t, walk.cam_t[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]])
    assert torch.equal(repeat(short, 8, ping_pong=True).cam_t, walk.cam_t[[0, 1, 2, 3, 2, 1, 0, 1]])
    assert len(repeat(walk[:1], 5, ping_pong=True)) == 5


def test_a_filled_frame_makes_the_frames_around_it_uncertain(walk):
    unsure = replace(walk[:3], confidence=torch.tensor([1.0, 0.0, 1.0]))
    assert sample(unsure, torch.tensor([0.5, 1.5])).confidence.tolist() == [0.0, 0.0]


def test_between_two_shots_the_nearer_frame_counts(walk):
    cut = replace(walk[:4], shot=torch.tensor([0, 0, 1, 1]), confidence=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    between = sample(cut, torch.tensor([0.5, 1.25, 1.5, 1.75]))
    torch.testing.assert_close(between.rotations[1:], walk.rotations[[1, 2, 2]], atol=2e-6, rtol=0)
    assert torch.equal(between.cam_t[1:], walk.cam_t[[1, 2, 2]])
    assert between.shot.tolist() == [0, 0, 1, 1] and between.confidence.tolist() == [1.0, 1.0, 0.0, 0.0]
