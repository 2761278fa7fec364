"""Motions from their own keypoints: other bodies, noise, cuts, gaps, people who are half in the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.fit import film as filmed
from bench.fit import measure, seen_by_network
from champ.body.free import free_body_betas, load_free_body
from champ.estimate import fit as module
from champ.estimate.doubt import doubt_of
from champ.estimate.fit import fit_motion
from champ.estimate.floor import FOOT_POINTS, slope_under
from champ.estimate.mirror import LIMBS, mirrored, stretches_around
from champ.estimate.observed import ANKLES, HIPS, KNEES, Observed, lower_knees, standing, straight_legs
from champ.estimate.points import SEEN, PointBody
from champ.keypoints.pose import Pose, body_from_coco
from champ.motion.camera import CAMERA_FROM_WORLD, View, frame_person
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.motion.rotation import rot_x, rot_y, to_axis_angle
from champ.progress import listening

SIZE = 512
FREE = load_free_body()
BODIES = {
    "average": FREE,
    "woman": FREE.with_betas(free_body_betas(gender=1, age=40, muscle=0.3, weight=0.7, height=1.6)),
    "man": FREE.with_betas(free_body_betas(gender=0, muscle=0.9, height=1.95, proportions=0.3)),
}


def film(name: str, azimuth: float, who: str, frames: int = 20) -> Motion:
    motion = make_motion(name, BODIES[who], frames, 24.0, SIZE, SIZE, loop=False, travel=True)
    return frame_person(motion, BODIES[who], SIZE, SIZE, View(azimuth))


def keypoints(motion: Motion, noise: float = 2.0, seed: int = 0) -> list[Pose]:
    """With noise in pixels, the face and the far ear missing where the head hides them."""
    points = FREE.keypoints(motion.posed(FREE))[:, :17]
    pixels = motion.project(points)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    score = torch.ones(len(motion), 17)
    left = torch.nn.functional.normalize(points[:, 3] - points[:, 4], dim=-1)
    forward = torch.nn.functional.normalize(points[:, 0] - points[:, 3:5].mean(1), dim=-1)
    score[forward[:, 2] > 0.35, :3] = 0
    score[left[:, 2] > 0.5, 3] = 0
    score[left[:, 2] < -0.5, 4] = 0
    return [Pose(body) for body in body_from_coco(torch.cat([pixels, score[..., None]], dim=2).numpy())]


def aligned_error(found: Motion, true: Motion) -> float:
    """PA-MPJPE in millimetres: mean distance of the joints after the best similarity of each frame."""
    a, b = (motion.posed(FREE).joints for motion in (found, true))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    u, s, v = torch.linalg.svd(a.mT @ b)
    s[:, 2] *= torch.det(u @ v).sign()
    flip = torch.diag_embed(torch.stack([*torch.ones(2, len(a)), torch.det(u @ v).sign()], dim=1))
    scale = s.sum(1) / a.square().sum((1, 2))
    return 1000 * float((scale[:, None, None] * (a @ u @ flip @ v) - b).norm(dim=-1).mean())


def reprojection(found: Motion, true: Motion) -> float:
    """Median distance in pixels from where the keypoints really are."""
    a, b = (motion.project(FREE.keypoints(motion.posed(FREE))[:, :17]) for motion in (found, true))
    return float((a - b).norm(dim=-1).median())


def lean(motion: Motion) -> float:
    """Degrees by which the person leans away from the camera, mean over the frames."""
    joints = motion.posed(FREE).joints
    up = joints[:, 15] - joints[:, 0]
    return float(torch.rad2deg(torch.atan2(up[:, 2], -up[:, 1])).mean())


@pytest.mark.parametrize(
    ("name", "azimuth", "who"),
    [
        ("walk", 0, "average"),
        ("walk", 40, "woman"),
        ("walk", 180, "average"),
        ("dance", -40, "man"),
    ],
)
def test_a_motion_comes_back_from_its_keypoints(name, azimuth, who):
    true = film(name, azimuth, who)
    found = fit_motion(keypoints(true), FREE, SIZE, SIZE, 24.0)
    assert reprojection(found, true) < 1.7
    assert aligned_error(found, true) < 45
    assert abs(lean(found) - lean(true)) < 5
    assert found.confidence.min() > 0.9 and len(found) == len(true)


@pytest.mark.parametrize("azimuth", [0, 90, 180, -120])  # from the front, the side, behind
def test_one_picture_is_enough(azimuth):
    true = film("turntable", azimuth, "woman", 1)
    found = fit_motion(keypoints(true), FREE, SIZE, SIZE)
    facing = [-(motion.rotations[0, 0] @ motion.rotations.new_tensor([0.0, 0, 1]))[[0, 2]] for motion in (found, true)]
    assert torch.nn.functional.cosine_similarity(*facing, dim=0) > np.cos(np.radians(15))
    assert aligned_error(found, true) < 65


def test_the_size_of_the_picture_does_not_matter():
    true = film("dance", 30, "man", 8)
    poses = keypoints(true)
    small, large = (
        fit_motion([Pose((p.body * (k, k, 1)).astype(np.float32)) for p in poses], FREE, int(SIZE * k), int(SIZE * k))
        for k in (0.25, 8)
    )
    torch.testing.assert_close(small.rotations, large.rotations, atol=1e-3, rtol=0)
    torch.testing.assert_close(small.cam_t, large.cam_t, atol=1e-3, rtol=1e-4)


def test_wrong_and_missing_points_count_little():
    true = film("walk", 40, "average")
    rng = np.random.default_rng(0)
    poses = keypoints(true)
    for pose in poses:
        pose.body[rng.random(18) < 0.1, 2] = 0
        wrong = rng.random(18) < 0.04
        pose.body[wrong, :2] += rng.normal(0, 60, (wrong.sum(), 2))
        if rng.random() < 0.2:  # left and right leg exchanged
            pose.body[[8, 9, 10, 11, 12, 13]] = pose.body[[11, 12, 13, 8, 9, 10]]
    found = fit_motion(poses, FREE, SIZE, SIZE, 24.0)
    assert reprojection(found, true) < 1.8 and aligned_error(found, true) < 45


def test_legs_that_are_not_seen_stand():
    true = film("dance", 20, "average", 12)
    poses = keypoints(true)
    for pose in poses:
        pose.body[[9, 10, 12, 13], 2] = 0
    found = fit_motion(poses, FREE, SIZE, SIZE, 24.0)
    joints = found.posed(FREE).joints
    legs = joints[:, [7, 8], 1].mean(1) - joints[:, 0, 1]
    standing = FREE.with_betas(found.betas).rest().joints[0, :, 1]
    assert (legs > 0.97 * (standing[0] - standing[7])).all()
    assert found.confidence.max() < 0.7
    assert joints[:, [7, 8]].sub(joints[:, :1]).diff(dim=0).norm(dim=-1).max() < 0.03  # and hang still
    upper = [0, 3, 6, 9, 12, 15, 16, 17, 18, 19, 20, 21]
    pixels, expected = (motion.project(motion.posed(FREE).joints[:, upper]) for motion in (found, true))
    assert (pixels - expected).norm(dim=-1).median() < 4


def test_frames_without_a_person_are_filled_inside_their_shot():
    true = film("walk", 0, "average", 12)
    other = replace(film("walk", 180, "average", 12), shot=torch.ones(12))
    poses = keypoints(true) + keypoints(other)
    poses[5] = poses[11] = None
    found = fit_motion(poses, FREE, SIZE, SIZE, 24.0, np.repeat([0, 1], 12))
    assert (found.confidence == 0).nonzero().flatten().tolist() == [5, 11]
    assert found.shots() == [slice(0, 12), slice(12, 24)]
    torch.testing.assert_close(found.rotations[11], found.rotations[10], atol=1e-5, rtol=0)
    assert aligned_error(found[:11], true[:11]) < 60 and aligned_error(found[12:], other) < 60


def test_a_long_clip_is_solved_in_chunks_that_join(monkeypatch):
    true = film("dance", 30, "average", 40)
    poses = keypoints(true, noise=0.5)
    whole = fit_motion(poses, FREE, SIZE, SIZE, 24.0)
    monkeypatch.setattr(module, "CHUNK", 22)
    told = []
    with listening(lambda done, total: told.append((done, total))):
        parts = fit_motion(poses, FREE, SIZE, SIZE, 24.0)
    assert told == sorted(told) and told[-1] == (40, 40)
    joints, same = (motion.posed(FREE).joints for motion in (parts, whole))
    assert (joints - joints[:, :1] - same + same[:, :1]).norm(dim=-1).mean() < 0.03
    jump = (joints - joints[:, :1]).diff(n=2, dim=0).norm(dim=-1).mean(1)
    assert jump.max() < 1.5 * (same - same[:, :1]).diff(n=2, dim=0).norm(dim=-1).mean(1).max()


def with_depth(poses: list[Pose], motion: Motion, noise: float = 0.03) -> list[Pose]:
    """With points in space as BlazePose gives them, in metres of a body that is a fifth smaller."""
    points = FREE.keypoints(motion.posed(FREE))
    points = 0.8 * (points - points[:, 11:13].mean(1, keepdim=True))
    points = points + noise * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    space = torch.cat([points, torch.ones(*points.shape[:2], 1)], dim=2).numpy()
    space = np.concatenate([body_from_coco(space[:, :17]), space[:, 17:]], axis=1)
    return [replace(pose, world=own.astype(np.float32)) for pose, own in zip(poses, space)]


@pytest.mark.parametrize("degrees", [-40, 40])  # the picture is the same
def test_a_networks_depth_decides_between_front_and_back(degrees):
    true = film("turntable", 0, "average", 1)
    rotations = true.rotations.clone()
    rotations[:, 2] = rotations[:, 2] @ rot_x(degrees)
    true = replace(true, rotations=rotations)
    found = fit_motion(with_depth(keypoints(true, noise=0.5), true), FREE, SIZE, SIZE)
    ankle, expected = ((j := motion.posed(FREE).joints)[0, 8, 2] - j[0, 2, 2] for motion in (found, true))
    assert abs(expected) > 0.4 and abs(ankle - expected) < 0.15
    assert found.doubt.max() < 0.5


def test_a_gap_is_bridged_and_still_said_to_be_one():
    true = film("dance", 30, "average", 26)
    poses = with_depth(keypoints(true), true)
    poses[10] = poses[11] = poses[12] = None
    found = fit_motion(poses, FREE, SIZE, SIZE, 24.0)
    assert (found.confidence == 0).nonzero().flatten().tolist() == [10, 11, 12]
    size = found.posed(FREE).joints[:, 0, 2].log()
    assert size[8:15].diff().abs().max() < 1e-3
    assert aligned_error(found[9:14], true[9:14]) < 60
    assert found.misfit[11] == 0 < found.misfit[9] < 0.02


def test_feet_that_rest_in_the_picture_rest_in_the_world():
    true = film("wave", 25, "average", 26)
    found = fit_motion(keypoints(true), FREE, SIZE, SIZE, 24.0)
    ankles = found.posed(FREE).joints[:, [7, 8]]
    assert (ankles[..., 2].diff(dim=0).abs() * 24).median() < 0.05
    assert (ankles[:, 0, 1] - ankles[:, 1, 1]).abs().max() < 0.06  # on one floor


def test_a_wide_lens_is_taken_as_told():
    true = film("turntable", 30, "average", 1)
    near = frame_person(true, FREE, SIZE, SIZE, View(30, fov=50))
    found = fit_motion(keypoints(near, noise=0.5), FREE, SIZE, SIZE, focal=near.focal)
    assert found.focal == near.focal and aligned_error(found, near) < 65
    assert found.cam_t[0, 2] == pytest.approx(float(near.cam_t[0, 2]), rel=0.08)


def posed(pose: torch.Tensor) -> torch.Tensor:
    """Points of the body in a pose (F, 24, 3)."""
    facing = CAMERA_FROM_WORLD.double().repeat(len(pose), 1, 1)
    return PointBody.of(FREE).pose(pose, facing, torch.zeros(len(pose), 3).double(), FREE.betas.double()).points


def observed(points: torch.Tensor) -> Observed:
    """What a camera far away sees of points, a thousand pixels a metre."""
    depth = points[:, : len(SEEN), 2] - points[:, HIPS, 2].mean(1, keepdim=True)
    every = torch.ones_like(depth)
    return Observed(1000 * points[:, : len(SEEN), :2], every, depth, every)


def test_what_is_doubtful_is_said():
    pose = standing().repeat(12, 1, 1)
    pose[5:, 1, 0] = 0.7  # from one frame to the next the left leg is in front ...
    pose[:5, 1, 0] = -0.7  # ... that was behind
    points = posed(pose)
    seen = observed(points)
    seen.depth[9] *= -1  # another says the network
    straight = torch.zeros(12, 2).double()
    doubt = doubt_of(points, seen, straight, torch.ones(11, dtype=torch.bool), 12.0)
    assert (doubt > 0.5).nonzero().flatten().tolist() == [3, 4, 5, 6, 9]
    pose[11, 5, 0], straight[10:, 1] = 0.9, 1  # the right knee bends, and looks straight
    doubt = doubt_of(posed(pose), seen, straight, torch.ones(11, dtype=torch.bool), 12.0)
    assert (doubt > 0.5).nonzero().flatten().tolist() == [3, 4, 5, 6, 9, 11]


@pytest.mark.parametrize(("azimuth", "doubtful"), [(90, True), (0, False)])
def test_a_leg_that_goes_aside_is_doubtful_from_the_side(azimuth, doubtful):
    pose = standing().repeat(8, 1, 1)
    pose[4:, 1, 2] = 0.5  # the left leg, by 29 degrees
    facing = (CAMERA_FROM_WORLD @ rot_y(azimuth)).double().repeat(8, 1, 1)
    points = PointBody.of(FREE).pose(pose, facing, torch.zeros(8, 3).double(), FREE.betas.double()).points
    straight = torch.zeros(8, 2).double()
    doubt = doubt_of(points, observed(points), straight, torch.ones(7, dtype=torch.bool), 24.0)
    assert (doubt > 0.5).tolist() == [False] * 4 + [doubtful] * 4


def test_limbs_the_other_way_round_look_the_same():
    pose = standing().repeat(3, 1, 1)
    pose[:, 1, 0], pose[:, 17, 1] = -0.6, 0.5
    facing = CAMERA_FROM_WORLD.double().repeat(3, 1, 1)
    points = posed(pose)
    chosen = torch.tensor([[True, False, False, True], [False] * 4, [False, True, False, False]])
    turned = posed(mirrored(pose, facing, points, chosen))
    for i, (_, start, end) in enumerate(LIMBS):
        before, after = (x[:, end] - x[:, start] for x in (points, turned))
        torch.testing.assert_close(after[:, :2], before[:, :2], atol=0.02, rtol=0)
        sign = torch.where(chosen[:, i], -1.0, 1.0)
        torch.testing.assert_close(after[:, 2], sign * before[:, 2], atol=0.02, rtol=0)
    assert abs(points[0, ANKLES[0], 2] - points[0, HIPS[0], 2]) > 0.3


def test_stretches_stay_in_their_runs():
    wrong = torch.zeros(60)
    wrong[[20, 24, 48]] = 1
    assert stretches_around(wrong, [slice(0, 26), slice(26, 60)], 100) == [slice(14, 26), slice(42, 55)]
    assert stretches_around(wrong, [slice(0, 60)], 10) == [slice(14, 24), slice(24, 31), slice(42, 52), slice(52, 55)]


def knees(motion: Motion) -> torch.Tensor:
    """Degrees (F, 2)."""
    return to_axis_angle(motion.rotations[:, [4, 5]]).norm(dim=-1).rad2deg()


def test_who_stands_before_a_near_camera_has_straight_knees():
    true = make_motion("idle", FREE, 12, 24.0, SIZE, SIZE, loop=False)
    true = frame_person(true, FREE, SIZE, SIZE, View(10, fov=60))  # sees the feet from above
    found = fit_motion(seen_by_network(true, 3), FREE, SIZE, SIZE, 24.0)
    assert knees(found).median() < knees(true).median() + 12
    ankles = found.posed(FREE).joints[:, [7, 8], 1]
    toes = found.posed(FREE).joints[:, [10, 11], 1]
    drop = FREE.rest().joints[0, 7, 1] - FREE.rest().joints[0, 10, 1]
    assert (toes - ankles - drop).abs().median() < 0.03  # and flat soles


def test_what_the_legs_of_a_picture_show():
    pose = standing().repeat(3, 1, 1)
    pose[2, 4, 0] = pose[2, 5, 0] = 1.2
    pose[2, 1, 0] = pose[2, 2, 0] = -0.6
    points = posed(pose)
    rest = posed(torch.zeros(1, 24, 3).double())[0] * torch.tensor([1.0, -1, -1])
    seen, size = observed(points), torch.full((3,), 1000.0).double()
    straight = straight_legs(seen, size, [slice(0, 3)], rest)
    assert (straight[:2] > 0.7).all() and (straight[2] == 0).all()
    assert abs(lower_knees(seen, size, rest)) < 0.01
    seen.points[:, KNEES, 1] += 30
    assert lower_knees(seen, size, rest) == pytest.approx(0.03, abs=0.01)
    body = PointBody.of(FREE)
    still = torch.zeros(1, 24, 3).double(), torch.eye(3).double()[None], torch.zeros(1, 3).double(), FREE.betas.double()
    moved = body.with_knees(0.03).pose(*still).points[0] - body.pose(*still).points[0]
    assert moved[KNEES, 1].mean() == pytest.approx(-0.03, abs=0.002) and not moved[HIPS].any()
    turn = CAMERA_FROM_WORLD.double().repeat(3, 1, 1)
    flat = slope_under(seen, size, [slice(0, 2), slice(2, 3)], turn, rest)
    assert flat[0].abs() < 0.05
    toes = FOOT_POINTS[1]
    seen.points[:2, toes, 1] -= 0.3 * 1000 * (points[:2, toes, 2] - points[:2, ANKLES, 2])
    steep = slope_under(seen, size, [slice(0, 2), slice(2, 3)], turn, rest)
    assert steep[0] < flat[0] - 0.1 and steep[0] == steep[1]


def test_a_networks_errors_are_borne():
    results = []
    for i, (name, azimuth, who) in enumerate((("walk", 40, "woman"), ("dance", 0, "man"), ("boxing", -40, "average"))):
        true = filmed(name, azimuth, BODIES[who], 24)
        results.append(measure(true, seen_by_network(true, i)))
    assert np.mean([got.aligned for got in results]) < 60 and np.mean([got.placed for got in results]) < 90
    assert np.mean([got.swaps for got in results]) < 0.01


def test_nobody_is_said_so():
    with pytest.raises(ValueError, match="any of the 2 frames"):
        fit_motion([None, Pose(np.zeros((18, 3), np.float32))], FREE, SIZE, SIZE)


def test_it_can_be_stopped():
    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        with listening(stop):
            fit_motion(keypoints(film("walk", 0, "average", 2)), FREE, SIZE, SIZE)
