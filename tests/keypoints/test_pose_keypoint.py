import numpy as np
import pytest

from champ.keypoints.pose import Pose
from champ.keypoints.pose_keypoint import canvas_size, from_pose_keypoint, shots_of, to_pose_keypoint


def points(count, reach=100.0, seed=0):
    """Random rows x, y, 1 inside 3 pixels and `reach`."""
    xy = np.random.default_rng(seed).uniform(3, reach, (count, 2))
    return np.concatenate([xy, np.ones((count, 1))], axis=1)


def frame(width=200, height=100, **parts):
    names = {"body": "pose_keypoints_2d", "left": "hand_left_keypoints_2d", "right": "hand_right_keypoints_2d",
             "face": "face_keypoints_2d"}  # fmt: skip
    person = {names[k]: v.ravel().tolist() if isinstance(v, np.ndarray) else v for k, v in parts.items()}
    return {"people": [person], "canvas_width": width, "canvas_height": height}


def boxed(box):
    value = frame(body=points(18))
    value["people"][0]["box_2d"] = box
    return value


def test_whole_body_goes_to_openpose_order():
    number = np.arange(133, dtype=np.float32)
    pose = Pose.from_whole_body(np.stack([number, number + 1000], axis=1), np.full(133, 0.8, dtype=np.float32))
    order = [0, 5.5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    np.testing.assert_array_equal(pose.body[:, 0], order)
    np.testing.assert_array_equal(pose.body[:, 1], np.array(order) + 1000)
    np.testing.assert_array_equal(pose.body[:, 2], np.where(np.arange(18) == 1, 1, np.float32(0.8)))
    assert (pose.face[0, 0], pose.face[-1, 0]) == (23, 90)
    assert (pose.left_hand[0, 0], pose.left_hand[-1, 0]) == (91, 111)
    assert (pose.right_hand[0, 0], pose.right_hand[-1, 0]) == (112, 132)


def test_neck_needs_both_shoulders():
    scores = np.ones(133, dtype=np.float32)
    scores[6] = 0.3
    assert Pose.from_whole_body(np.ones((133, 2)), scores).body[1, 2] == 0


def test_pixels_are_stretched_to_the_picture():
    body, hand = points(18), points(21, seed=1)
    [[pose]] = from_pose_keypoint([frame(200, 100, body=body, left=hand, right=[], face=None)], 400, 50)
    np.testing.assert_allclose(pose.body, body * (2, 0.5, 1), rtol=1e-6)
    np.testing.assert_allclose(pose.left_hand, hand * (2, 0.5, 1), rtol=1e-6)
    assert pose.right_hand is None and pose.face is None


def test_body_25_loses_middle_hip_and_feet():
    body = points(25)
    [[pose]] = from_pose_keypoint([frame(100, 100, body=body)], 100, 100)
    np.testing.assert_allclose(pose.body, np.delete(body, [8, 19, 20, 21, 22, 23, 24], axis=0), rtol=1e-6)


def test_rows_of_three_are_read_like_a_flat_list():
    body = points(18)
    [[nested]] = from_pose_keypoint([frame(body=body.tolist())], 200, 100)
    np.testing.assert_allclose(nested.body, body, rtol=1e-6)


def test_fractions_are_recognised_over_the_whole_clip_and_for_each_part():
    body = points(18) / (200, 100, 1)
    body[3, 1] = 1.13  # below the picture
    hand = points(21, seed=1)
    clip = [frame(body=body * (0, 0, 1)), frame(body=body, left=hand)]
    _, [pose] = from_pose_keypoint(clip, 200, 100)
    np.testing.assert_allclose(pose.body, body * (200, 100, 1), rtol=1e-6)
    np.testing.assert_allclose(pose.left_hand, hand, rtol=1e-6)


def test_one_frame_in_a_corner_does_not_make_pixels_fractions():
    corner = points(18, reach=3.0) / (3, 3, 1)
    [pose], _ = from_pose_keypoint([frame(body=corner), frame(body=points(18))], 200, 100)
    np.testing.assert_allclose(pose.body, corner, rtol=1e-6)


def test_a_person_may_be_a_hand_and_a_frame_may_be_empty():
    empty = {"people": [], "canvas_width": 200, "canvas_height": 100}
    first, [pose] = from_pose_keypoint([empty, frame(right=points(21))], 200, 100)
    assert first == []
    assert not pose.body.any() and pose.right_hand.shape == (21, 3)


def test_written_form_reads_back_and_has_every_part():
    body = points(18).astype(np.float32)
    body[4, 2], body[5, 2] = 0.29, 0.5
    pose = Pose(body, right_hand=points(21).astype(np.float32), face=points(68).astype(np.float32))
    [written] = to_pose_keypoint([[pose]], 200, 100)
    person = written["people"][0]
    lengths = {key: len(value) // 3 for key, value in person.items()}
    assert lengths == {"pose_keypoints_2d": 18, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21,
                       "face_keypoints_2d": 70}  # fmt: skip
    assert person["pose_keypoints_2d"][12:18] == [0, 0, 0, *body[5, :2].tolist(), 1]
    assert not any(person["hand_left_keypoints_2d"])
    [[back]] = from_pose_keypoint([written], 200, 100)
    np.testing.assert_array_equal(back.right_hand, pose.right_hand)
    np.testing.assert_array_equal(back.face[:68], pose.face)
    np.testing.assert_array_equal(back.face[68:, :2], body[14:16, :2])


def test_the_detectors_box_travels_with_its_person():
    body, box = points(18).astype(np.float32), np.array([-4, 10, 150, 90, 0.75], dtype=np.float32)
    written = to_pose_keypoint([[Pose(body, box=box), Pose(body)]], 200, 100)
    assert written[0]["people"][0]["box_2d"] == box.tolist() and "box_2d" not in written[0]["people"][1]
    [[first, second]] = from_pose_keypoint(written, 400, 50)
    np.testing.assert_allclose(first.box, box * (2, 0.5, 2, 0.5, 1), rtol=1e-6)
    assert second.box is None


def test_a_box_without_seen_points_is_in_pixels_and_one_of_fractions_in_fractions():
    unseen = frame(body=points(18) * (1, 1, 0))
    unseen["people"][0]["box_2d"] = [20, 10, 60, 90, 0.5]
    fractions = frame(body=points(18) / (200, 100, 1))
    fractions["people"][0]["box_2d"] = [0.1, 0.1, 0.3, 0.9, 0.5]
    for value in (unseen, fractions):
        [[pose]] = from_pose_keypoint([value], 200, 100)
        np.testing.assert_allclose(pose.box, [20, 10, 60, 90, 0.5], rtol=1e-6)


def test_shots_are_written_and_read_and_default_to_one():
    people = [[Pose(points(18))], [], [Pose(points(18))]]
    shots = np.array([0, 1, 1])
    np.testing.assert_array_equal(shots_of(to_pose_keypoint(people, 200, 100, shots)), shots)
    plain = to_pose_keypoint(people, 200, 100)
    assert "shot" not in plain[0]
    np.testing.assert_array_equal(shots_of(plain), [0, 0, 0])
    with pytest.raises(ValueError, match="frame 0 has shot 'first'"):
        shots_of([frame(body=points(18)) | {"shot": "first"}])


NAN = points(18)
NAN[0, 0] = np.nan


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "is of type NoneType"),
        ({"people": []}, "is of type dict"),
        ([], "POSE_KEYPOINT is empty"),
        (["x"], "frame 0 has no list of 'people'"),
        ([{"animals": [], "canvas_width": 8, "canvas_height": 8}], "frame 0 has no list of 'people'"),
        ([{"people": []}], "frame 0 has canvas_width None"),
        ([frame(height=0)], "canvas_height 0"),
        ([frame(width=float("nan"))], "canvas_width nan"),
        ([frame(), {"people": [7], "canvas_width": 8, "canvas_height": 8}], "frame 1, person 0 is of type int"),
        ([frame(body=[1.0] * 17 * 3)], "person 0, pose_keypoints_2d has 51 numbers; expected x, y, score of 18 or 25"),
        ([frame(left=[1.0] * 20 * 3)], "hand_left_keypoints_2d has 60 numbers; expected x, y, score of 21"),
        ([frame(face=[[1, 2, 3], [4]])], "face_keypoints_2d is not a list of numbers"),
        ([frame(body="many")], "pose_keypoints_2d is not a list of numbers"),
        ([frame(body=7)], "pose_keypoints_2d has 1 numbers"),
        ([frame(body=NAN)], "holds NaN"),
        ([frame(body=np.full((18, 3), 1e9))], "far outside"),
        ([boxed([1, 2, 3, 4])], "person 0, box_2d has 4 numbers; expected x0, y0, x1, y1, score"),
        ([boxed("large")], "box_2d is not a list of numbers"),
    ],
)
def test_malformed_values_are_refused_in_one_sentence(value, message):
    with pytest.raises(ValueError, match=message) as error:
        from_pose_keypoint(value, 64, 64)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_the_canvas_is_that_of_the_first_frame():
    assert canvas_size([frame(640, 360, body=points(18)), frame(64, 36, body=points(18))]) == (640, 360)
    with pytest.raises(ValueError, match="canvas_width"):
        canvas_size([{"people": []}])
