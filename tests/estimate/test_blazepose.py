"""BlazePose: its networks against MediaPipe's own files, its parts one by one, and a clip of two drawn people."""

import math

import av
import blazepose_data
import numpy as np
import pytest

from champ.estimate.blazepose import detect, follow, parts
from champ.estimate.blazepose.body import L_EAR, L_EYE, NOSE, R_EAR, R_EYE, SeenPerson, behind_head, refine
from champ.estimate.blazepose.crops import TurnedSquare, cut, upright
from champ.estimate.blazepose.networks import BODY, read_networks
from champ.estimate.blazepose.poses import find_poses
from champ.estimate.track import link, track
from champ.keypoints.layouts import COCO_FROM_OPENPOSE
from champ.keypoints.pose import THRESHOLD
from champ.keypoints.pose_keypoint import from_pose_keypoint, to_pose_keypoint
from tests.threads import one_thread  # noqa: F401

SIZE = 320  # pixels from head to foot of the people in the clip, about


@pytest.fixture(scope="module")
def networks():
    return read_networks()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    with av.open(str(blazepose_data.CLIP)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def found(networks, pictures):
    return [poses for _, poses in find_poses(networks, pictures)]


@pytest.mark.parametrize("name", blazepose_data.FILES)
def test_each_network_agrees_with_mediapipes(networks, name):
    oracle = np.load(blazepose_data.ORACLE)
    said = networks.see(name, [oracle[f"{name}.crop"]])
    if name == "person":
        best = oracle["person.best"]
        ours = {"boxes": said[0][0, best], "logits": said[1][0, best]}
        assert set(np.argsort(-said[1][0])[: len(best)]) == set(best)
    else:
        ours = dict(zip(("points", "presence", "heat", "world"), said))
    for part, values in ours.items():
        values, theirs = values.squeeze(), oracle[f"{name}.{part}"].squeeze()
        values = values[:, :: blazepose_data.COARSE, :: blazepose_data.COARSE] if part == "heat" else values
        np.testing.assert_allclose(values, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max(), err_msg=part)
    if name in ("body", "hand", "face"):
        assert oracle[f"{name}.presence"] > 0.9, "the crop shows what the network knows"


def test_crops_beside_each_other_do_not_change_what_is_seen(networks):
    crop = np.load(blazepose_data.ORACLE)["hand.crop"]
    many = networks.see("hand", [np.roll(crop, shift, axis=0) for shift in range(18)])
    [alone] = networks.see("hand", [np.roll(crop, 17, axis=0)])[0]
    np.testing.assert_allclose(many[0][17], alone, atol=0.05)
    assert len(many[0]) == len(many[1]) == 18


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0, math.pi])
def test_a_point_of_a_crop_is_where_the_picture_has_it(angle):
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[118:123, 158:163] = 255  # its middle is at (160, 120)
    square = TurnedSquare(140, 110, 120, angle)
    crop = cut(picture, square, 60)[..., 0].astype(float)
    y, x = np.indices(crop.shape)
    middle = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(square.to_picture(middle, 60), (160, 120), atol=0.4)


def test_the_second_point_is_above_the_first_in_the_crop():
    start, end = np.array([50.0, 60.0]), np.array([80.0, 20.0])
    square = upright(start, end, 1.25)
    assert square.size == pytest.approx(2 * 1.25 * 50)
    np.testing.assert_allclose(square.to_picture(np.array([[128, 128], [128, 128 - 256 / 2.5]]), 256), [start, end])


def test_points_move_to_where_the_heat_is_near_them():
    heat = np.full((1, 39, 64, 64), -20.0)
    heat[0, 0, 30:32, 20] = 5.0  # two cells below each other
    heat[0, 1, 30, 20] = -1.0  # never sure
    heat[0, 2, 40, 40] = 5.0  # too far away
    heat[0, 3, 0, 0] = 5.0
    points = np.tile([82.0, 121.0], (1, 39, 1))
    points[0, 3], points[0, 4] = (5, 6), (-9, 300)
    moved = refine(points, heat)[0]
    np.testing.assert_allclose(moved[0], (20 * 4, 30.5 * 4), atol=1e-3)
    np.testing.assert_allclose(moved[1:3], points[0, 1:3])
    np.testing.assert_allclose(moved[3], (0, 0), atol=1e-3)
    np.testing.assert_allclose(moved[4], points[0, 4])


def test_boxes_of_one_head_become_their_mean():
    boxes, logits = np.zeros((2254, 12)), np.full(2254, -100.0)
    boxes[:, 2:4] = 20
    logits[[0, 1, 2, 1000]] = 1.0, 0.0, -1.0, 3.0
    boxes[1, :2] += 4  # both are in the first cell
    scores, points = detect.merge(*detect.decode_people(boxes, logits, 0.4))
    assert scores.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    weight = 0.5 / (0.5 + scores[1])
    np.testing.assert_allclose(points[1, :2], np.array([[-6, -6], [14, 14]]) + 4 * weight, atol=1e-6)


def test_there_is_an_anchor_for_every_box():
    assert detect.ANCHORS.shape == (2254, 2)
    assert (detect.ANCHORS[0] == 4).all() and (detect.ANCHORS[-1] == 208).all()


def test_tiles_cover_the_picture():
    seen = np.zeros((90, 160), int)
    for square in detect.tiles(160, 90, 1.0):
        assert square.size == 90
        seen[:, round(square.x - 45) : round(square.x + 45)] += 1
    assert seen.min() >= 1
    assert detect.tiles(100, 100, 1.0) == [] and len(detect.tiles(100, 100, 0.6)) == 9


@pytest.mark.parametrize(
    ("turn", "hidden"),
    [
        (0, []),
        (40, []),
        (65, [L_EAR]),
        (90, [L_EAR, *range(1, 4)]),
        (-90, [R_EAR, *range(4, 7)]),
        (180, [NOSE, *range(1, 7), 9, 10]),
    ],
)
def test_the_head_hides_what_is_behind_it(turn, hidden):
    """By how many degrees the head is turned to the person's right, so that the left ear goes away from the camera."""
    head = np.zeros((33, 3))
    head[[L_EAR, R_EAR]] = (0.08, 0, 0), (-0.08, 0, 0)
    head[NOSE] = (0, 0, -0.1)
    head[L_EYE], head[R_EYE] = (0.03, 0, -0.08), (-0.03, 0, -0.08)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    found = behind_head(head @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))
    assert np.flatnonzero(found).tolist() == sorted(hidden)


def person(x: float = 100.0, size: float = 100.0) -> SeenPerson:
    """Standing, hips at (x, 100)."""
    points = np.zeros((39, 2))
    points[:, 0] = x
    points[:33, 1] = np.linspace(100 - size / 2, 100 + size / 2, 33)
    points[33:35] = (x, 100), (x, 100 - 0.55 * size)
    return SeenPerson(points, np.ones(33), np.zeros((33, 3)), 1.0)


def test_of_two_people_in_the_same_place_one_stays():
    first, second, third = person(100), person(104), person(300)
    assert follow.distinct_people([first, second, third], [], follow.GHOST) == [first, third]
    assert follow.distinct_people([second], [first], follow.GHOST) == []


def test_who_is_seen_in_somebody_elses_body_is_a_ghost():
    small = person(100, 40)
    assert follow.ghostliness(small, person(100, 100)) == 1.0
    assert follow.distinct_people([small], [person(100, 100)], follow.NEW_GHOST) == []
    assert follow.distinct_people([small], [person(200, 100)], follow.NEW_GHOST) == [small]


def test_both_people_are_found_and_the_later_one_soon(found):
    count = [len(poses) for poses in found]
    assert len(found) == blazepose_data.FRAMES
    assert set(count[: blazepose_data.COMES]) == {1}
    assert set(count[blazepose_data.COMES + follow.EVERY :]) == {2}


def test_the_points_are_where_the_drawn_joints_are(found):
    truth = np.load(blazepose_data.TRUTH)["points"]
    tracks = link(track(found, np.zeros(len(found), int)))
    assert len(tracks) == 2
    for way in tracks:
        frames = way.seen
        body = np.stack([found[f][way.member[f]].body[COCO_FROM_OPENPOSE, :] for f in frames])
        which = int(np.nanmedian(body[:, 11, 0]) > blazepose_data.WIDTH / 2)
        away = np.linalg.norm(body[..., :2] - truth[frames, which], axis=-1)
        seen = body[..., 2] >= THRESHOLD
        assert seen[:, 5:].mean() > 0.85
        assert np.median(away[seen]) < 0.02 * SIZE
        assert np.quantile(away[seen], 0.95) < 0.08 * SIZE


def test_hands_begin_at_their_own_wrists(found):
    own, other, hands = [], [], 0
    for pose in (pose for poses in found for pose in poses):
        for hand, wrist, across in ((pose.left_hand, 7, 4), (pose.right_hand, 4, 7)):
            if hand is not None:
                hands += 1
                own.append(np.linalg.norm(hand[0, :2] - pose.body[wrist, :2]))
                other.append(np.linalg.norm(hand[0, :2] - pose.body[across, :2]))
    assert hands > 0.4 * 2 * sum(map(len, found))
    assert np.median(own) < 0.03 * SIZE < np.median(other)


def test_faces_are_around_the_nose(found):
    faces = [pose for poses in found for pose in poses if pose.face is not None]
    assert len(faces) >= 12
    for pose in faces:
        jaw, nose, eyes, lips = pose.face[:17], pose.face[30], pose.face[36:48], pose.face[48:68]
        assert np.linalg.norm(nose[:2] - pose.body[0, :2]) < 0.03 * SIZE
        assert eyes[:, 1].mean() < nose[1] < lips[:, 1].mean() < jaw[:, 1].max()
        if nose[0] < blazepose_data.WIDTH / 2:  # who faces the camera: the right side of the face is on the left
            assert jaw[0, 0] < nose[0] < jaw[16, 0]


def test_feet_and_points_in_space_travel_in_pose_keypoint(found):
    value = to_pose_keypoint(found, blazepose_data.WIDTH, blazepose_data.HEIGHT)
    read = from_pose_keypoint(value, 2 * blazepose_data.WIDTH, 2 * blazepose_data.HEIGHT)
    for written, again in zip(found[-1], read[-1]):
        seen = written.feet[:, 2] >= THRESHOLD
        np.testing.assert_allclose(again.feet[seen, :2], 2 * written.feet[seen, :2], rtol=1e-5)
        assert not again.feet[[1, 4]].any()
        np.testing.assert_allclose(again.world, written.world, atol=1e-6)
        # The person stands, and the camera's y points down.
        assert written.world[0, 1] < written.world[8, 1] < written.world[10, 1]
        assert np.abs(written.world[[8, 11], :3].mean(0)).max() < 0.05
        assert 1.2 < written.world[[10, 13], 1].mean() - written.world[0, 1] < 1.9


def test_nobody_is_found_where_nobody_is(networks):
    noise = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), dtype=np.uint8)
    plain = np.full((2, 120, 160, 3), 130, np.uint8)
    for clip in (noise, plain, plain[:, :1, :7]):
        assert [poses for _, poses in find_poses(networks, list(clip))] == [[], []]


def test_after_a_cut_those_of_the_shot_before_are_gone(networks, pictures):
    empty = pictures[0][:, blazepose_data.WIDTH // 2 :]
    clip = [pictures[3][:, : blazepose_data.WIDTH // 2]] * 2 + [np.ascontiguousarray(empty)] * 2
    assert [len(poses) for _, poses in find_poses(networks, clip, hands_and_face=False)] == [1, 1, 0, 0]


def test_one_hand_in_both_squares_is_that_of_the_nearer_wrist():
    who = person()
    who.points[15], who.points[16] = (50, 50), (80, 50)
    hand = np.concatenate([np.random.default_rng(0).uniform(60, 90, (21, 2)), np.ones((21, 1))], axis=1)
    hand[0, :2] = 78, 52
    assert parts.hands_apart(who, hand, hand + (1, 1, 0))[0] is None
    left, right = parts.hands_apart(who, hand - (60, 0, 0), hand)
    assert left is not None and right is not None


def test_a_picture_is_not_painted_over_in_place():
    picture = np.zeros((200, 300, 3), np.uint8)
    painted = follow.painted_over(picture, [person()])
    assert not picture.any() and painted[100, 100].all() and not painted[100, 250].any()
    assert follow.painted_over(picture, []) is picture


def test_squares_out_of_sight_are_not_looked_at():
    picture = np.zeros((200, 300, 3), np.uint8)
    assert follow.fits(person(), picture)
    assert not follow.fits(person(x=1000), picture)
    assert not follow.fits(person(size=5), picture)
    assert BODY > follow.LEAST
