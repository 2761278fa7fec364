"""Points and silhouettes of a person, from a motion and from keypoints."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.calibrate.correspondences import People, covered, people_of_motion, people_of_poses
from champ.keypoints.layouts import KEYPOINTS
from champ.keypoints.pose import Pose, body_from_coco
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance

ROW = {name: i for i, name in enumerate(KEYPOINTS[:17])}


@pytest.fixture(scope="module")
def turning():
    """A person who turns around in 8 frames, and the motion."""
    body = load_free_body()
    motion = make_motion("turntable", body, 8, 8.0, width=96, height=144)
    return body, motion, people_of_motion(body, motion, (36, 24))


def test_points_of_a_motion_are_its_keypoints_as_far_as_they_are_seen(turning):
    body, motion, people = turning
    projected = motion.project(body.keypoints(motion.posed(body))[:, :17]).numpy()
    seen = people.points[..., 2] > 0
    np.testing.assert_allclose(people.points[..., :2][seen], projected[seen], atol=1e-3)
    assert seen[0].all(), "from the front everything is seen"
    behind = 4
    assert not seen[behind, [ROW[name] for name in ("nose", "left_eye", "right_eye")]].any()
    assert seen[behind, [ROW[name] for name in ("left_shoulder", "right_shoulder", "left_ankle", "right_ankle")]].all()
    left, right = (people.points[[0, behind], ROW[f"{side}_shoulder"], 0] for side in ("left", "right"))
    assert left[0] > right[0] and left[1] < right[1]


def test_points_outside_the_picture_do_not_count(turning):
    body, motion, _ = turning
    near = people_of_motion(body, replace(motion[:1], focal=motion.focal * 2))
    x, y, score = near.points[0].T
    inside = (x >= 0) & (x < 96) & (y >= 0) & (y < 144)
    assert not score[~inside].any() and (~inside).sum() > 4 and score[inside].any()


def test_shares_are_the_mean_of_the_mask(turning):
    body, motion, people = turning
    mask = render_guidance(body, motion).mask.float() / 255
    torch.testing.assert_close(people.shares, mask.view(8, 36, 4, 24, 4).mean((2, 4)))
    assert people_of_motion(body, motion[:1]).shares is None
    odd = covered(mask[:1], 10, 7)
    assert odd.shape == (1, 10, 7) and abs(float(odd.mean() - mask[0].mean())) < 0.01


def test_points_of_keypoints_come_in_the_order_of_coco():
    coco = np.column_stack([np.arange(17) + 10.0, np.arange(17) + 20.0, np.full(17, 0.9)])
    coco[3, 2] = 0.1  # uncertain
    coco[4, 0] = 1000  # outside
    people = people_of_poses([[Pose(body_from_coco(coco))], []], np.zeros(2, int), 64, 128)
    expected = coco.copy()
    expected[[3, 4], 2] = 0
    np.testing.assert_allclose(people.points[0], expected)
    assert not people.points[1].any()


def test_of_several_people_the_largest_is_followed():
    large = np.column_stack([np.arange(17) * 3 + 5.0, np.arange(17) * 6 + 5.0, np.ones(17)])
    small = large * (0.5, 0.5, 1) + (30, 0, 0)
    frames = [
        [Pose(body_from_coco(points)) for points in people] for people in ([small, large], [large], [large, small])
    ]
    people = people_of_poses(frames, np.zeros(3, int), 128, 128)
    assert people.crowded == (0, 2)
    for points in people.points:
        np.testing.assert_allclose(points, large)


def test_stretching_to_another_picture():
    people = People(np.array([[[10.0, 20, 0.5]]]), 100, 50).stretched(200, 25)
    assert people.points.tolist() == [[[20, 10, 0.5]]] and (people.width, people.height) == (200, 25)
