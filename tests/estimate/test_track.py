"""One person's way through a clip: bodies that walk past each other, and boxes with all that goes wrong with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.estimate.track import choose_person, link, one_person, person_box, track
from champ.keypoints.pose import Pose, body_from_coco
from champ.motion.camera import transform
from champ.motion.presets import make_motion
from champ.motion.rotation import rot_y

WIDTH, HEIGHT, FRAMES = 640, 480, 48
FEW = 30  # frames of the clips of boxes


@pytest.fixture(scope="module")
def body():
    return load_free_body()


def walker(body, yaw: float, x, z: float, start: int, name="walk") -> tuple[np.ndarray, float]:
    """OpenPose's points (F, 18, 3) and depth of somebody at the places x (F,) and z, turned by yaw."""
    motion = make_motion(name, body, FRAMES + start, loop=False, width=WIDTH, height=HEIGHT)[start:]
    motion = transform(replace(motion, focal=600.0), body, rot_y(yaw), torch.zeros(3))
    path = torch.stack([torch.as_tensor(x, dtype=torch.float32), torch.zeros(FRAMES), torch.full((FRAMES,), z)], dim=1)
    motion = replace(motion, cam_t=motion.cam_t - motion.cam_t.mean(0) + path)
    points = motion.project(body.keypoints(motion.posed(body)))[:, :17].numpy()
    return body_from_coco(np.concatenate([points, np.full((FRAMES, 17, 1), 0.9)], axis=2).astype(np.float32)), z


def detected(walkers, missed: float, seed: int = 0) -> tuple[list[list[Pose]], list[list[int]]]:
    """Their poses with 2 px of noise, in any order, without those hidden by half and some missed; who is who."""
    rng = np.random.default_rng(seed)
    people, names = [], []
    for f in range(FRAMES):
        found = []
        for i, (points, z) in enumerate(walkers):
            box = person_box(Pose(points[f]))
            others = [person_box(Pose(p[f])) for p, depth in walkers if depth < z]
            if all(covered(box, other) < 0.5 for other in others) and rng.random() >= missed:
                noise = np.pad(rng.normal(0, 2, (18, 2)), ((0, 0), (0, 1)))
                found.append((Pose((points[f] + noise).astype(np.float32)), i))
        order = rng.permutation(len(found))
        people.append([found[o][0] for o in order])
        names.append([found[o][1] for o in order])
    return people, names


def covered(box, other) -> float:
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:4], other[2:4])
    return np.prod(np.clip(high - low, 0, None)) / np.prod(box[2:4] - box[:2])


@pytest.mark.parametrize("scene", ["past each other", "meet and turn back", "step aside and face us"])
def test_two_bodies_keep_their_names_when_one_hides_the_other(body, scene):
    u = np.linspace(-1, 1, FRAMES)
    walkers = {
        "past each other": [walker(body, -90, 2 * u, 4, 0), walker(body, 90, -2 * u, 5, 7)],
        "meet and turn back": [
            walker(body, -90, -1.5 * abs(u) - 0.15, 4, 0),
            walker(body, 90, 1.5 * abs(u) + 0.15, 4.4, 7),
        ],
        "step aside and face us": [walker(body, 0, u, 4, 0, "dance"), walker(body, 0, -u, 4.6, 5)],
    }[scene]
    for missed in (0.0, 0.15):
        people, names = detected(walkers, missed)
        tracks = track(people, np.zeros(FRAMES))
        assert len(tracks) == 2 and tracks[0].weight > tracks[1].weight
        for t in tracks:
            assert len({names[f][t.member[f]] for f in t.seen}) == 1
        assert sum(len(t.seen) for t in tracks) == sum(map(len, people))


def boxed(x: float, y: float = 200, height: float = 200, score: float = 0.9) -> Pose:
    """Somebody of whom only the box is known: its middle, and its height, which is twice its width."""
    w, h = height / 4, height / 2
    return Pose(np.zeros((18, 3), np.float32), box=np.array([x - w, y - h, x + w, y + h, score], np.float32))


def members(t, people) -> list[float | None]:
    """The middles of the boxes of a track."""
    return [float(people[f][i].box[[0, 2]].mean()) if i >= 0 else None for f, i in enumerate(t.member)]


def test_missed_frames_are_bridged_and_the_boxes_are_those_of_the_person():
    people = [[boxed(100 + 5 * f), boxed(500 - 2 * f)][:: 1 if f % 3 else -1] for f in range(FEW)]
    people[7], people[8] = [], people[8][:1]
    tracks = track(people, np.zeros(FEW))
    assert len(tracks) == 2
    for t, (start, step) in zip(sorted(tracks, key=lambda t: t.boxes[0, 0]), ((100, 5), (500, -2))):
        expected = [start + step * f for f in t.seen]
        assert [x for x in members(t, people) if x is not None] == expected and len(t.seen) in (28, 29)
        assert not t.boxes[7].any() and t.boxes[6, 4] == np.float32(0.9)


def test_somebody_who_leaves_ends_and_does_not_take_who_stays():
    people = [[boxed(300)] + ([boxed(400 + 20 * f)] if f < 12 else []) for f in range(FEW)]
    stays, leaves = track(people, np.zeros(FEW))
    assert members(stays, people) == [300.0] * FEW
    assert leaves.seen.tolist() == list(range(12))


def test_a_track_stops_at_a_cut_and_the_same_person_is_found_after_it():
    people = [[boxed(100, height=300), boxed(400)] if f < 15 else [boxed(390), boxed(120)] for f in range(FEW)]
    shot = np.arange(FEW) // 15
    tracks = track(people, shot)
    assert sorted(t.seen[[0, -1]].tolist() for t in tracks) == [[0, 14], [0, 14], [15, 29], [15, 29]]
    first, second = link(tracks)
    assert members(first, people) == [100.0] * 15 + [120.0] * 15
    assert members(second, people) == [400.0] * 15 + [390.0] * 15


def test_somebody_who_comes_back_after_a_long_time_is_the_same_person():
    people = [[boxed(50)] if f < 20 or f > 120 else [] for f in range(140)]
    people = [frame + [boxed(450)] for frame in people]
    tracks = track(people, np.zeros(140))
    assert len(tracks) == 3
    assert [len(t.seen) for t in link(tracks)] == [140, 39]


def test_who_is_chosen():
    """A tall one at the left who leaves, one in the middle, a small one at the right; after the cut two others."""
    people = [
        ([boxed(100, height=260)] if f < 12 else []) + [boxed(330, height=160), boxed(600, height=120)]
        if f < 20
        else [boxed(310, height=120), boxed(500, height=240)]
        for f in range(FEW)
    ]
    tracks = track(people, np.arange(FEW) // 20)
    size = (640, 400)
    assert members(choose_person(tracks), people)[::29] == [330.0, 500.0]  # seen for longer than the tall one
    assert members(choose_person(tracks, "central", size=size), people) == [330.0] * 20 + [310.0] * 10
    everybody = [choose_person(tracks, "number", n) for n in range(3)]
    assert sorted(members(t, people)[0] for t in everybody) == [100.0, 330.0, 600.0]
    assert everybody[0].weight > everybody[1].weight > everybody[2].weight
    mask = np.zeros((400, 640), np.uint8)
    mask[180:220, 590:610] = 255
    assert members(choose_person(tracks, "marked", mask=mask), people)[0] == 600.0
    mask[:, :200] = 1  # most of the mask now lies over the tall one
    assert members(choose_person(tracks, "marked", mask=mask), people)[0] == 100.0
    assert [p is not None for p in one_person(people, np.arange(FEW) // 20)] == [True] * FEW


def test_whoever_is_alone_is_followed_through_gaps_and_cuts():
    rng = np.random.default_rng(0)
    time = np.arange(300)
    x, height = 500 + 300 * np.sin(time / 15) + rng.normal(0, 3, 300), 200 + 80 * np.sin(time / 20)
    x[200:] += 700  # after a cut
    people = [[boxed(*place)] if rng.random() < 0.7 else [] for place in zip(x, 300 + x / 9, height)]
    people[50:150] = [[]] * 100
    for shot in (np.zeros(300, int), np.arange(300) // 200):
        followed = one_person(people, shot)
        assert all(one is (frame[0] if frame else None) for one, frame in zip(followed, people))


def test_a_mask_of_several_frames_belongs_to_them():
    people = [[] if f < 3 else [boxed(100), boxed(400)] for f in range(6)]
    masks = np.zeros((5, 400, 640), bool)
    masks[3, 100:300, 350:450] = True
    masks[4, 100:300, 50:150] = True
    assert members(choose_person(track(people, np.zeros(6)), "marked", mask=masks), people)[3:] == [400.0] * 3


def test_what_cannot_be_chosen_is_said():
    tracks = track([[boxed(100)]] * 3, np.zeros(3))
    with pytest.raises(ValueError, match="There is no number 1 among.*highest is 0,"):
        choose_person(tracks, "number", 1)
    with pytest.raises(ValueError, match="mask is empty or not connected"):
        choose_person(tracks, "marked", mask=np.zeros((400, 640)))
    with pytest.raises(ValueError, match="There is nobody under the mask"):
        choose_person(tracks, "marked", mask=np.pad(np.ones((9, 9)), ((300, 91), (500, 131))))
    with pytest.raises(ValueError, match="called 'tallest'; choose from largest, central, number, marked"):
        choose_person(tracks, "tallest")
    with pytest.raises(ValueError, match="Nobody was found in any frame"):
        choose_person(track([[], []], np.zeros(2)))
    assert one_person([[], []], np.zeros(2)) == [None, None]


def test_a_box_is_the_detectors_or_goes_round_the_points_that_are_seen(body):
    points, _ = walker(body, 0, np.zeros(FRAMES), 4, 0)
    lost = points[0].copy()
    lost[4] = 9000, 9000, 0.1
    box = person_box(Pose(lost))
    motion = make_motion("walk", body, 1, width=WIDTH, height=HEIGHT)
    seen = motion.project(motion.posed(body).vertices)[0].numpy()
    keypoints = motion.project(body.keypoints(motion.posed(body)))[0, :17].numpy()
    around = person_box(Pose(body_from_coco(np.concatenate([keypoints, np.ones((17, 1))], axis=1))))
    height = np.ptp(seen[:, 1])
    assert abs(around[1] - seen[:, 1].min()) < 0.03 * height and abs(around[3] - seen[:, 1].max()) < 0.03 * height
    assert box[2] < WIDTH and 0.8 < box[4] < 1
    assert person_box(boxed(100))[0] == 50
    assert person_box(Pose(np.zeros((18, 3), np.float32))) is None
    one = np.zeros((18, 3), np.float32)
    one[0] = 10, 20, 1
    assert person_box(Pose(one)) is None
