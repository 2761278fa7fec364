from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.body.skeleton import JOINTS
from champ.keypoints.pose import Pose
from champ.keypoints.pose_keypoint import from_pose_keypoint, to_pose_keypoint
from champ.motion.camera import View, frame_person
from champ.motion.presets import make_motion
from champ.motion.rotation import rot_y, rot_z
from champ.render.maps import motion_hits
from champ.render.skeleton import HIDDEN, attach_hands_and_face, draw_skeleton, project_poses

DATA = Path(__file__).parents[1] / "data" / "dwpose_draw"
CASES = ("one_full", "missing", "threshold", "two_people", "out_of_frame", "small")
LAYERS = {
    "": {},
    "_body": {"hands": False, "face": False},
    "_hands": {"body": False, "face": False},
    "_face": {"body": False, "hands": False},
}
NOSE, NECK, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST = range(8)
R_EYE, L_EYE, R_EAR, L_EAR = range(14, 18)


def golden(case: str) -> list[Pose]:
    with np.load(DATA / "keypoints.npz") as data:
        return [Pose.from_whole_body(*person) for person in zip(data[f"{case}.keypoints"], data[f"{case}.scores"])]


def golden_picture(name: str) -> np.ndarray:
    return cv2.imread(str(DATA / f"{name}.png"))[..., ::-1]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("case", CASES)
def test_drawing_is_dwposes_to_the_pixel(case, layer):
    expected = golden_picture(case + layer)
    height, width = expected.shape[:2]
    np.testing.assert_array_equal(draw_skeleton(golden(case), width, height, **LAYERS[layer]), expected)


@pytest.mark.parametrize("case", CASES)
def test_drawing_from_pose_keypoint_is_the_same(case):
    expected = golden_picture(case)
    height, width = expected.shape[:2]
    [people] = from_pose_keypoint(to_pose_keypoint([golden(case)], width, height), width, height)
    np.testing.assert_array_equal(draw_skeleton(people, width, height), expected)


def test_hand_and_face_points_on_the_first_row_or_column_are_not_drawn():
    hand, face = np.zeros((21, 3), dtype=np.float32), np.zeros((68, 3), dtype=np.float32)
    hand[:2], face[:2] = (0.9, 10, 1), (10, 0.9, 1)
    assert not draw_skeleton([Pose(np.zeros((18, 3)), left_hand=hand, face=face)], 20, 20).any()
    hand[0], face[0] = (1, 10, 1), (10, 1, 1)
    drawn = draw_skeleton([Pose(np.zeros((18, 3)), left_hand=hand, face=face)], 20, 20)
    assert drawn[10, 1].tolist() == [0, 0, 255] and drawn[1, 10].tolist() == [255, 255, 255]


def test_nobody_is_black_and_far_points_are_clipped():
    assert not draw_skeleton([], 33, 20).any()
    body = np.zeros((18, 3), dtype=np.float32)
    body[[2, 3]] = (-9e5, 10, 1), (9e5, 10, 1)
    far = draw_skeleton([Pose(body)], 64, 20)
    assert (far[10] == far[10, 0]).all() and far[10, 0].any()
    assert not far[0].any() and not far[19].any()


# --- the motion's own skeleton ---


def motion_poses(body, motion) -> list[Pose]:
    return [pose for run in motion_hits(body, motion) for pose in project_poses(body, *run)]


@pytest.fixture(scope="module")
def body():
    return load_free_body()


@pytest.fixture(scope="module")
def standing(body):
    """Arms hanging, seen from all around in steps of 7.5 degrees; the camera walks to the person's left."""
    motion = make_motion("turntable", body, 1, width=256, height=384)[torch.zeros(48, dtype=torch.long)]
    return frame_person(motion, body, 256, 384, View(azimuth=torch.arange(48) * 7.5))


@pytest.fixture(scope="module")
def around(body, standing):
    return np.stack([pose.body for pose in motion_poses(body, standing)])


def seen(around, azimuth, *points):
    return [bool(around[int(azimuth / 7.5), point, 2]) for point in points]


def test_face_points_appear_as_the_face_turns_to_the_camera(around):
    face = NOSE, R_EYE, L_EYE, R_EAR, L_EAR
    assert all(seen(around, 0, *face))
    assert seen(around, 90, *face) == [True, False, True, False, True]
    assert seen(around, 270, *face) == [True, True, False, True, False]
    for behind in range(150, 211, 15):
        assert not any(seen(around, behind, *face))


def test_each_face_point_is_seen_in_one_unbroken_arc(around):
    degrees = {NOSE: 232, R_EYE: 185, L_EYE: 185, R_EAR: 165, L_EAR: 165}
    for point, arc in degrees.items():
        visible = around[:, point, 2] > 0
        assert (visible != np.roll(visible, 1)).sum() == 2
        assert abs(7.5 * visible.sum() - arc) <= 20


def test_a_small_turn_of_the_head_keeps_both_ears(around):
    for azimuth in (0, 15, 345):
        assert all(seen(around, azimuth, R_EAR, L_EAR))


def test_the_body_is_drawn_even_where_it_is_hidden(around):
    limbs = np.delete(around, [NOSE, R_EYE, L_EYE, R_EAR, L_EAR], axis=1)
    assert set(np.unique(limbs[..., 2])) == {HIDDEN, 1}
    assert (around[0, :14, 2] == 1).all()
    assert around[12, [R_WRIST, L_WRIST], 2].tolist() == [HIDDEN, 1]  # from the left the trunk hides the right one
    assert around[36, [R_WRIST, L_WRIST], 2].tolist() == [1, HIDDEN]
    assert (around[:, NECK, 2] == 1).all()


def test_positions_are_the_projected_keypoints(body, standing, around):
    points = standing.project(body.keypoints(standing.posed(body))).numpy()
    np.testing.assert_allclose(around[:, [L_SHOULDER, R_WRIST, 13], :2], points[:, [5, 10, 15]], atol=1e-3)
    np.testing.assert_allclose(around[:, NECK, :2], points[:, [5, 6]].mean(1), atol=1e-3)


def test_face_outside_the_picture_is_missing_and_the_body_is_not(body, standing):
    low = standing[:1]
    low = replace(low, cam_t=low.cam_t - torch.tensor([0.0, 0.75, 0.0]))
    [pose] = motion_poses(body, low)
    assert pose.body[L_EAR, 1] < 0 and not pose.body[[NOSE, R_EYE, L_EYE, R_EAR, L_EAR], 2].any()
    assert (pose.body[1:14, 2] == 1).all()


def test_points_behind_the_camera_are_dropped(body, standing):
    inside = standing[:1]
    inside = replace(inside, cam_t=inside.cam_t * torch.tensor([1.0, 1.0, 0.0]))  # the camera is in the trunk
    [pose] = motion_poses(body, inside)
    z = body.keypoints(inside.posed(body))[0, [5, 13, 15], 2]
    assert (pose.body[[5, 12, 13], 2] > 0).tolist() == (z > 0.05).tolist()
    assert np.isfinite(pose.body).all()
    [pose] = motion_poses(body, replace(inside, cam_t=-standing.cam_t[:1]))
    assert not pose.body.any()
    assert not draw_skeleton([pose], 256, 384).any()


def test_an_arm_before_the_face_hides_it(body, standing):
    """Seen from the right, an arm held out to the right is raised until it passes before the ear."""
    angles = torch.arange(0.0, 60.0, 2.5)
    rotations = torch.eye(3).repeat(len(angles), 24, 1, 1)
    rotations[:, 0] = standing.rotations[36, 0]
    rotations[:, JOINTS.index("right_shoulder")] = rot_y(8.0) @ rot_z(-angles)
    raised = replace(standing[torch.full((len(angles),), 36)], rotations=rotations)
    score = np.stack([pose.body[:, 2] for pose in motion_poses(body, raised)])
    np.testing.assert_array_equal(score[:, R_EAR], angles < 20)
    assert score[:, NOSE].all()


# --- hands and face from a detection ---


def moved(pose: Pose, scale: float, degrees: float, shift: complex) -> Pose:
    factor = scale * np.exp(1j * np.radians(degrees))

    def move(points):
        z = factor * (points[:, 0] + 1j * points[:, 1]) + shift
        return np.stack([z.real, z.imag, points[:, 2]], axis=1)

    return Pose(move(pose.body), move(pose.left_hand), move(pose.right_hand), move(pose.face))


def with_scores(pose: Pose, scores: dict[int, float]) -> Pose:
    body = pose.body.copy()
    for point, score in scores.items():
        body[point, 2] = score
    return replace(pose, body=body)


@pytest.mark.parametrize("scale, degrees, shift", [(1, 0, 0), (0.6, 30, 250 + 40j), (2.5, -140, -30 + 900j)])
def test_a_similarity_of_the_body_is_one_of_hands_and_face(scale, degrees, shift):
    [detected] = golden("one_full")
    expected = moved(detected, scale, degrees, shift)
    attached = attach_hands_and_face(Pose(expected.body), detected)
    for name in ("body", "left_hand", "right_hand", "face"):
        np.testing.assert_allclose(getattr(attached, name), getattr(expected, name), atol=2e-3)


def test_each_hand_follows_its_own_forearm():
    [detected] = golden("one_full")
    body = detected.body.copy()
    elbow, wrist = detected.body[[L_ELBOW, L_WRIST], :2]
    body[L_WRIST, :2] = elbow + 1.2 * (wrist - elbow)[::-1] * (-1, 1)  # a quarter turn and a little longer
    attached = attach_hands_and_face(Pose(body), detected)
    offset = detected.left_hand[:, :2] - wrist
    np.testing.assert_allclose(
        attached.left_hand[:, :2], body[L_WRIST, :2] + 1.2 * offset[:, ::-1] * (-1, 1), atol=1e-3
    )
    np.testing.assert_allclose(attached.right_hand, detected.right_hand, atol=1e-3)


def test_hands_named_the_wrong_way_round_find_their_wrists():
    [detected] = golden("one_full")
    exchanged = replace(detected, left_hand=detected.right_hand, right_hand=detected.left_hand)
    attached = attach_hands_and_face(Pose(detected.body), exchanged)
    np.testing.assert_allclose(attached.left_hand, detected.left_hand, atol=1e-3)
    only = attach_hands_and_face(Pose(detected.body), replace(exchanged, right_hand=None))
    assert only.left_hand is None
    np.testing.assert_allclose(only.right_hand, detected.right_hand, atol=1e-3)


def test_parts_that_are_not_there_are_left_out():
    [detected] = golden("one_full")
    target = Pose(detected.body)
    unsure = attach_hands_and_face(target, with_scores(detected, {L_WRIST: 0.29, R_ELBOW: 0.1}))
    assert unsure.left_hand is None and unsure.right_hand is None and unsure.face is not None
    hidden = attach_hands_and_face(with_scores(target, {R_WRIST: HIDDEN}), detected)
    assert hidden.left_hand is not None and hidden.right_hand is None
    faceless = with_scores(detected, dict.fromkeys((NOSE, R_EYE, L_EYE, R_EAR), 0.0))
    assert attach_hands_and_face(target, faceless).face is None
    ears = dict.fromkeys((NOSE, R_EYE, L_EYE), 0.0)
    assert attach_hands_and_face(with_scores(target, ears), detected).face is None
    profile = {L_EYE: 0.0, L_EAR: 0.0}
    assert attach_hands_and_face(with_scores(target, profile), detected).face is not None
    bare = attach_hands_and_face(target, Pose(detected.body))
    assert bare.left_hand is None and bare.right_hand is None and bare.face is None


def test_a_forearm_that_points_at_the_camera_does_not_inflate_the_hand():
    [detected] = golden("one_full")
    body = detected.body.copy()
    body[L_ELBOW, :2] = body[L_WRIST, :2] + (0, -3)
    attached = attach_hands_and_face(Pose(detected.body), replace(detected, body=body))
    extent = np.ptp(attached.left_hand[:, :2], axis=0) / np.ptp(detected.left_hand[:, :2], axis=0)
    assert (extent < 1.7).all() and (extent > 1.2).all()


def test_a_forearm_of_no_length_leaves_the_hand_out():
    [detected] = golden("one_full")
    body = detected.body.copy()
    body[L_ELBOW, :2] = body[L_WRIST, :2]
    assert attach_hands_and_face(Pose(body), detected).left_hand is None
    assert attach_hands_and_face(Pose(detected.body), replace(detected, body=body)).left_hand is None
