from dataclasses import replace

import pytest
import torch

from champ.motion.camera import from_sight, to_sight
from champ.motion.gaps import fill_gaps
from champ.motion.motion import Motion
from champ.motion.rotation import rot_y


def turning(frames: int, seen: list[int], shot: list[int] | None = None) -> Motion:
    """Turns by 10 degrees a frame and goes away by 10 % a frame; frames that are not seen hold nonsense."""
    motion = Motion(
        rotations=rot_y(10 * torch.arange(frames))[:, None].repeat(1, 24, 1, 1),
        betas=torch.zeros(10),
        cam_t=torch.tensor([0.5, -0.2, 1.0]) * (20 * 1.1 ** torch.arange(frames))[:, None],
        focal=10000.0,
        width=512,
        height=768,
        fps=24.0,
        confidence=torch.zeros(frames).index_fill(0, torch.tensor(seen, dtype=torch.long), 0.8),
        source="test",
        shot=None if shot is None else torch.tensor(shot),
    )
    gap = motion.confidence == 0
    motion.rotations[gap], motion.cam_t[gap] = torch.eye(3), torch.tensor([9.0, 9.0, -9.0])
    return motion


def check(filled: Motion, source: list[float]) -> None:
    """Frame i is what steady turning and going would be at the (fractional) frame source[i]."""
    at = torch.tensor(source)
    torch.testing.assert_close(filled.rotations, rot_y(10 * at)[:, None].repeat(1, 24, 1, 1), atol=2e-6, rtol=0)
    expected = torch.tensor([0.5, -0.2, 1.0]) * (20 * 1.1**at)[:, None]
    torch.testing.assert_close(filled.cam_t, expected, atol=0, rtol=3e-6)


def test_a_gap_is_a_steady_turn_and_a_steady_way_and_the_ends_are_held():
    motion = turning(9, [2, 3, 6])
    filled = fill_gaps(motion)
    check(filled, [2, 2, 2, 3, 4, 5, 6, 6, 6])
    assert torch.equal(filled.confidence, motion.confidence)
    assert torch.equal(filled.rotations[[2, 3, 6]], motion.rotations[[2, 3, 6]])
    assert torch.equal(filled.cam_t[[2, 3, 6]], motion.cam_t[[2, 3, 6]])


def test_nothing_is_carried_over_a_cut():
    check(fill_gaps(turning(8, [1, 6], [0, 0, 0, 0, 1, 1, 1, 1])), [1, 1, 1, 1, 6, 6, 6, 6])


def test_a_shot_in_which_nobody_was_seen_holds_the_nearest_frame_that_was():
    check(fill_gaps(turning(9, [0, 1, 7, 8], [0, 0, 1, 1, 1, 2, 2, 2, 2])), [0, 1, 1, 1, 1, 7, 7, 7, 8])


def test_the_same_number_after_another_shot_is_another_shot():
    check(fill_gaps(turning(6, [0, 3, 5], [0, 0, 1, 1, 0, 0])), [0, 0, 3, 3, 5, 5])


def test_nobody_at_all_is_refused():
    with pytest.raises(ValueError, match="Nobody was seen in any frame.*choose another person"):
        fill_gaps(turning(3, []))


def test_a_person_behind_the_camera_is_refused_and_places_come_back():
    place = torch.tensor([[0.5, -0.2, 20.0], [1.0, 0.3, 0.1]])
    torch.testing.assert_close(from_sight(to_sight(place)), place)
    motion = replace(turning(3, [0, 2]), cam_t=torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 5.0], [0.0, 0.0, -5.0]]))
    with pytest.raises(ValueError, match="behind the camera"):
        fill_gaps(motion)
