from dataclasses import replace

import pytest
import torch

from champ.motion.motion import Motion


def still(frames: int = 4) -> Motion:
    return Motion(
        rotations=torch.eye(3).expand(frames, 24, 3, 3).clone(),
        betas=torch.zeros(10),
        cam_t=torch.tensor([0.0, 0.0, 40.0]).repeat(frames, 1),
        focal=10000.0,
        width=512,
        height=768,
        fps=24.0,
        confidence=torch.ones(frames),
        source="test",
    )


def test_projection_puts_the_optical_axis_in_the_middle_and_scales_with_focal_over_depth():
    points = torch.tensor([[0.0, 0.0, 40.0], [1.0, 0.5, 40.0], [1.0, 0.5, 20.0]])
    expected = torch.tensor([[256.0, 384.0], [506.0, 509.0], [756.0, 634.0]])
    torch.testing.assert_close(still().project(points), expected)


def test_a_slice_keeps_all_fields_in_step():
    motion = replace(still(), confidence=torch.tensor([1.0, 0.5, 0.2, 0.0]))
    part = motion[torch.tensor([3, 1])]
    assert len(part) == 2 and part.confidence.tolist() == [0.0, 0.5] and part.cam_t.shape == (2, 3)


def test_shots_are_runs_of_the_same_number_and_follow_the_frames():
    assert still().shot.tolist() == [0, 0, 0, 0] and still().shots() == [slice(0, 4)]
    motion = replace(still(6), shot=torch.tensor([0, 0, 3, 3, 0, 0], dtype=torch.int32))
    assert motion.shot.dtype == torch.int64 and motion.shots() == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert motion[1:4].shot.tolist() == [0, 3, 3] and motion.to("cpu").shot.tolist() == motion.shot.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cam_t": torch.zeros(3, 3)}, r"cam_t have shape \(3, 3\), but \(4, 3\)"),
        ({"rotations": torch.zeros(4, 24, 3)}, r"rotations have shape"),
        ({"shot": torch.zeros(3)}, r"shot have shape \(3,\), but \(4,\)"),
        ({"focal": 0.0}, "focal length is 0.0"),
        ({"focal": float("nan")}, "focal length is nan"),
        ({"fps": -1.0}, "frame rate is -1.0"),
        ({"width": 0}, "0x768"),
        ({"betas": torch.tensor([float("inf")])}, "betas are not numbers"),
    ],
)
def test_a_broken_motion_is_refused_with_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        replace(still(), **change)


def test_nan_rotations_name_their_frames():
    rotations = still(6).rotations
    rotations[2, 5, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"rotations are not numbers.*\[2\]"):
        replace(still(6), rotations=rotations)


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        still()[:0]
