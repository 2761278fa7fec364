from dataclasses import replace

import pytest
import torch

from champ.body.free import free_body_betas
from champ.motion.camera import View, frame_person
from champ.motion.presets import make_motion
from champ.motion.report import outside
from champ.motion.rotation import rot_x
from champ.motion.transfer import ByHand, extent, keep_inside, lowest, reposition, stature, transfer


@pytest.fixture(scope="module")
def people(body):
    """A tall man who walks past the camera, and a short woman in a picture."""
    man = body.with_betas(free_body_betas(gender=0.0, height=1.95))
    woman = body.with_betas(free_body_betas(gender=1.0, height=1.55))
    walk = make_motion("walk", man, 24, fps=12, travel=True)
    picture = make_motion("turntable", woman, 1, width=640, height=480)
    return frame_person(walk, man, 512, 512, View(azimuth=90)), frame_person(picture, woman, 640, 480, View(fill=0.6))


def pelvis(motion, body):
    return motion.posed(body).joints[:, 0]


@pytest.mark.parametrize("placement", ["follow", "pin", "keep"])
def test_poses_are_the_drivings_and_the_shape_is_the_references(body, people, placement):
    driving, reference = people
    moved = transfer(driving, reference, body, placement)
    assert torch.equal(moved.rotations, driving.rotations) and torch.equal(moved.betas, reference.betas)
    assert len(moved) == len(driving) and moved.fps == driving.fps
    bones = (moved.posed(body).joints[:, 4] - moved.posed(body).joints[:, 1]).norm(dim=-1)
    own = (reference.posed(body).joints[:, 4] - reference.posed(body).joints[:, 1]).norm(dim=-1)
    torch.testing.assert_close(bones, own.expand_as(bones), atol=1e-4, rtol=0)


def test_follow_begins_at_the_references_place_and_goes_the_way_in_its_own_size(body, people):
    driving, reference = people
    moved = transfer(driving, reference, body, match="pelvis")
    path, way = pelvis(moved, body), pelvis(driving, body)
    torch.testing.assert_close(path[0], pelvis(reference, body)[0], atol=1e-4, rtol=0)
    ratio = stature(body, reference.betas) / stature(body, driving.betas)
    assert 0.75 < ratio < 0.85
    torch.testing.assert_close(path - path[0], (way - way[0]) * ratio, atol=1e-3, rtol=0)
    assert (moved.focal, moved.width, moved.height) == (reference.focal, 640, 480)


def test_pin_stays_and_keep_keeps(body, people):
    driving, reference = people
    pinned = pelvis(transfer(driving, reference, body, "pin", match="pelvis"), body)
    torch.testing.assert_close(pinned, pelvis(reference, body).expand_as(pinned), atol=1e-4, rtol=0)
    kept = transfer(driving, reference, body, "keep")
    torch.testing.assert_close(pelvis(kept, body), pelvis(driving, body), atol=1e-4, rtol=0)
    assert (kept.focal, kept.width, kept.height) == (driving.focal, 512, 512)


def test_the_same_person_at_the_same_place_changes_nothing(body, people):
    driving, _ = people
    again = transfer(driving, driving[:1], body)
    torch.testing.assert_close(again.posed(body).vertices, driving.posed(body).vertices, atol=2e-4, rtol=0)


def test_a_longer_lens_moves_depth_as_far_as_the_person(body, people):
    """Filmed with twice the focal length from twice as far, a step towards the camera is twice as long."""
    driving, reference = people
    towards = frame_person(make_motion("walk", body, 24, fps=12, travel=True), body, 512, 512)
    far = replace(towards, focal=towards.focal * 2, cam_t=towards.cam_t * torch.tensor([1.0, 1.0, 2.0]))
    near_way, far_way = (
        (path := pelvis(transfer(motion, reference, body), body)) - path[0] for motion in (towards, far)
    )
    torch.testing.assert_close(far_way, near_way, atol=2e-3, rtol=0)


def test_figure_scale_makes_slimmer_but_not_smaller(body, people):
    driving, reference = people
    plain, slim = (transfer(driving, reference, body, figure_scale=scale) for scale in (0.0, 2.0))
    hips = [body.with_betas(m.betas).rest().vertices[0, body.part_labels == 0, 0] for m in (plain, slim)]
    assert slim.betas[1] == plain.betas[1] + 2
    assert abs(stature(body, slim.betas) - stature(body, plain.betas)) < 0.05
    assert hips[1].max() - hips[1].min() < hips[0].max() - hips[0].min() - 0.01


def test_unknown_placements_are_refused(body, people):
    with pytest.raises(ValueError, match="nothing to match called 'hands'; choose from floor, pelvis"):
        transfer(*people, body, match="hands")
    with pytest.raises(ValueError, match="no placement called 'float'; choose from follow, pin, keep"):
        transfer(*people, body, "float")


def test_who_dances_where_the_reference_crouches_stands_on_the_same_floor(body, people):
    driving, standing = people
    low = standing.rotations.clone()
    low[:, [1, 2]] = rot_x(-100)  # thighs forward, shins back
    low[:, [4, 5]] = rot_x(120)
    crouching = replace(standing, rotations=low)
    floor = lowest(crouching, body)
    moved = transfer(driving, crouching, body)
    torch.testing.assert_close(lowest(moved[:13], body), floor, atol=1e-3, rtol=0)
    assert lowest(transfer(driving, crouching, body, match="pelvis")[:13], body) > floor + 0.15


def test_a_motion_is_kept_inside_the_picture(body, people):
    driving, reference = people
    close = replace(reference, cam_t=reference.cam_t * 0.6)  # a tight picture: the way leads out of it
    moved = transfer(driving, close, body)
    assert outside(moved, body).any()
    inside, told = keep_inside(moved, body)
    low, high = extent(inside, body)
    assert (low > 0).all() and (high < torch.tensor([640, 480])).all()
    assert told.scale < 1 and "% of its size" in str(told)
    again, nothing = keep_inside(inside, body)
    assert str(nothing) == "as it was" and torch.equal(again.cam_t, inside.cam_t)


def test_a_motion_is_moved_and_scaled_by_hand_in_its_picture(body, people):
    driving, reference = people
    usual = transfer(driving, reference, body)
    assert reposition(usual, body, ByHand()) is usual
    low, high = extent(usual[:1], body)
    moved_low, moved_high = extent(transfer(driving, reference, body, by_hand=ByHand(0.1, -0.05))[:1], body)
    way = low.new_tensor([0.1 * usual.width, -0.05 * usual.height])
    # A point a little nearer or farther than the pelvis moves a little more or less.
    assert torch.allclose(moved_low - low, way, atol=0.5) and torch.allclose(moved_high - high, way, atol=0.5)
    small_low, small_high = extent(reposition(usual, body, ByHand(size=0.5))[:1], body)
    assert torch.allclose(small_high - small_low, (high - low) / 2, atol=0.02 * float(high[1] - low[1]))
    assert float(small_high[1] - high[1]) == pytest.approx(0, abs=0.5)  # it stands where it stood
    kept = transfer(driving, reference, body, "keep", by_hand=ByHand(0.1))
    assert torch.allclose(kept.cam_t[:, 1:], transfer(driving, reference, body, "keep").cam_t[:, 1:])
