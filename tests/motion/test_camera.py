import math

import pytest
import torch

from champ.motion.camera import FOCAL_PER_PIXEL, FOV, View, angle_path, frame_person, transform
from champ.motion.presets import make_motion
from champ.motion.rotation import from_axis_angle


@pytest.fixture(scope="module")
def dance(body):
    return make_motion("dance", body, 24, fps=8)


def test_transform_moves_the_posed_body_as_a_rigid_thing(dance, body):
    rotation = from_axis_angle(torch.randn(24, 3, generator=torch.Generator().manual_seed(0)))
    shift = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    before, after = dance.posed(body), transform(dance, body, rotation, shift).posed(body)
    expected = before.vertices @ rotation.mT + shift[:, None]
    torch.testing.assert_close(after.vertices, expected, atol=5e-5, rtol=0)


def test_the_default_lens_is_the_one_of_4d_humans(dance, body):
    assert math.isclose(FOV, 2.932, abs_tol=1e-3)
    assert math.isclose(frame_person(dance, body, 640, 384).focal, FOCAL_PER_PIXEL * 640, rel_tol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (512, 768), (768, 320)])
@pytest.mark.parametrize(("azimuth", "elevation", "fov"), [(0, 0, FOV), (90, 20, 40), (200, -35, 70)])
def test_the_whole_movement_fills_the_chosen_part_of_the_picture(body, dance, width, height, azimuth, elevation, fov):
    seen = frame_person(dance, body, width, height, View(azimuth, elevation, fill=0.8, fov=fov))
    pixels = seen.project(seen.posed(body).vertices) / torch.tensor([width, height]) - 0.5
    assert pixels.abs().max().item() == pytest.approx(0.4, abs=1e-3)


def test_azimuth_90_shows_the_left_side_and_elevation_looks_down(body):
    turntable = make_motion("turntable", body, 1)
    left = frame_person(turntable, body, 512, 512, View(azimuth=90)).posed(body).joints[0]
    names = {"left_shoulder": 16, "right_shoulder": 17, "head": 15, "pelvis": 0}
    assert left[names["left_shoulder"], 2] < left[names["right_shoulder"], 2] - 0.2  # nearer to the camera
    above = frame_person(turntable, body, 512, 512, View(elevation=30)).posed(body).joints[0]
    front = frame_person(turntable, body, 512, 512).posed(body).joints[0]
    tilt = (above - front)[:, 2] - (above - front)[0, 2]
    assert tilt[names["head"]] < -0.2  # seen from above, the head comes nearer than the pelvis


def test_orbiting_never_changes_the_pose(dance, body):
    orbit = frame_person(dance, body, 512, 512, View(azimuth=angle_path([0, 360], 24)))
    assert torch.equal(orbit.rotations[:, 1:], dance.rotations[:, 1:])

    def distances(motion):
        joints = motion.posed(body).joints
        return torch.cdist(joints, joints)

    torch.testing.assert_close(distances(orbit), distances(dance), atol=1e-4, rtol=0)


def test_follow_keeps_a_walking_person_in_the_middle(body):
    walk = make_motion("walk", body, 48, travel=True)
    seen = frame_person(walk, body, 512, 768, View(azimuth=90, follow=True))
    pelvis = seen.project(seen.posed(body).joints[:, 0])[:, 0]
    assert pelvis.max() - pelvis.min() < 1e-2
    standing = frame_person(walk, body, 512, 768, View(azimuth=90))
    pelvis = standing.project(standing.posed(body).joints[:, 0])[:, 0]
    assert pelvis.max() - pelvis.min() > 100


def test_angle_paths_spread_their_points_and_close_the_loop():
    assert angle_path([30], 3).tolist() == [30, 30, 30]
    assert angle_path([0, 90], 4).tolist() == [0, 30, 60, 90]
    assert angle_path([0, 360], 4).tolist() == [0, 90, 180, 270]
    assert angle_path([0, 90, 0], 4).tolist() == [0, 45, 90, 45]
    assert angle_path([0, 90], 1).tolist() == [0]
