from pathlib import Path

import pytest
import torch

from champ.body.free import free_body_betas
from champ.body.skeleton import JOINTS
from champ.body.smpl import load_smpl
from champ.motion.presets import FEET, POSES, PRESETS, make_motion, perform, rotations_at
from champ.progress import listening

SMPL = Path(__file__).parents[1] / "data" / "smpl" / "SMPL_small_synth.npz"


@pytest.mark.parametrize("name", PRESETS)
def test_rotations_are_rotations(name, body):
    rotations = make_motion(name, body, 17, fps=8).rotations
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=2e-5, rtol=0)
    assert (torch.linalg.det(rotations) > 0.99).all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_loop_is_as_smooth_at_its_seam_as_elsewhere(name, body):
    motion = make_motion(name, body, 48, fps=24, loop=True)
    vertices = motion.posed(body).vertices[:, ::50]
    steps = (vertices.roll(-1, 0) - vertices).norm(dim=-1).amax(1)
    assert steps[-1] <= 1.3 * steps[:-1].max()


@pytest.mark.parametrize("name", ["walk", "wave", "dance", "turntable"])
@pytest.mark.parametrize("travel", [False, True])
def test_the_lowest_point_stays_on_the_floor(name, travel, body):
    lowest = make_motion(name, body, 40, fps=20, travel=travel).posed(body).vertices[..., 1].amax(1)
    assert lowest.max() - lowest.min() < 2e-3


def test_jumping_jacks_leave_the_floor_and_come_back(body):
    lowest = make_motion("jumping jacks", body, 44, fps=40).posed(body).vertices[..., 1].amax(1)
    assert 0.1 < lowest.max() - lowest.min() < 0.25


@pytest.mark.parametrize("shape", [(0.0, 30, 0.8, 0.5, 1.90, 0.5), (1.0, 60, 0.3, 0.8, 1.50, 0.5)])
@pytest.mark.parametrize("fps", [12, 30])
def test_the_supporting_foot_does_not_slide_while_walking(body, shape, fps):
    """From one frame to the next the lowest point of the skin stays nearly where it is, while the body moves on."""
    person = body.with_betas(free_body_betas(*shape))
    vertices = make_motion("walk", person, 2 * fps, fps=fps, travel=True).posed(person).vertices
    lowest = vertices[:-1, :, 1].argmax(1)
    steps = (vertices[1:] - vertices[:-1])[..., [0, 2]].norm(dim=-1)
    way = (vertices[-1] - vertices[0]).mean(0)[[0, 2]].norm() / (len(vertices) - 1)
    assert steps.gather(1, lowest[:, None]).median() < 0.1 * way


def test_a_walk_travels_forward_and_stays_in_place_without_travel(body):
    """A cycle of two steps takes a body of 1.70 m about 1.2 m towards the camera, or nowhere."""
    gone = make_motion("walk", body, 25, fps=24, loop=False, travel=True).posed(body).joints[:, 0]
    assert -1.4 < (gone[24] - gone[0])[2] < -1.05
    here = make_motion("walk", body, 25, fps=24, loop=False).posed(body).joints[:, 0]
    assert (here[24] - here[0])[[0, 2]].norm() < 0.02


def test_length_and_frame_rate_are_as_asked_and_speed_is_real_without_loop(body):
    slow, fast = (make_motion("dance", body, n, fps=fps, loop=False) for n, fps in ((10, 10), (30, 30)))
    assert (len(slow), slow.fps, len(fast), fast.fps) == (10, 10, 30, 30)
    torch.testing.assert_close(slow.rotations, fast.rotations[::3], atol=1e-5, rtol=0)


def test_the_turntable_turns_once(body):
    motion = make_motion("turntable", body, 96, fps=24)
    facing = motion.rotations[:, 0] @ torch.tensor([0.0, 0.0, 1.0])
    assert facing[0, 2] < -0.99 and facing[48, 2] > 0.99


def test_left_and_right_are_not_exchanged(body):
    """The wave lifts the right hand, which a person facing the camera shows on the picture's left."""
    motion = make_motion("wave", body, 30, fps=10)
    joints = motion.posed(body).joints[15]
    left, right = joints[JOINTS.index("left_wrist")], joints[JOINTS.index("right_wrist")]
    assert right[1] < left[1] - 0.4 and motion.project(joints)[JOINTS.index("right_wrist"), 0] < motion.width / 2


@pytest.mark.parametrize("smpl", [False, True])
def test_feet_alone_move_as_those_of_the_whole_body(body, smpl):
    if smpl:
        body = load_smpl(SMPL).with_betas(torch.tensor([1.5, -1.0, 0.5]))
    chosen = torch.isin(body.part_labels, FEET)
    feet = body.only(chosen)
    rotations = rotations_at(PRESETS["dance"], torch.rand(5, generator=torch.Generator().manual_seed(0)))
    posed, alone = body.pose(rotations), feet.pose(rotations)
    whole = torch.cat([posed.vertices[:, chosen], posed.joints], dim=1)
    torch.testing.assert_close(alone.vertices, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.joints, posed.joints, atol=1e-6, rtol=0)


def test_progress_and_cancel(body):
    heard = []
    with listening(lambda *count: heard.append(count)):
        perform("dance", body, 200, fps=24, loop=False)
    assert list(dict.fromkeys(heard)) == [(min(done, 601), 601) for done in range(POSES, 601 + POSES, POSES)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with listening(cancel):
            perform("dance", body, 100)


def test_an_hour_at_most(body):
    for frames, fps, minutes in ((100_000, 24.0, 69), (3601, 1.0, 60)):
        with pytest.raises(ValueError, match=f"last {minutes} minutes, but a built-in motion may last 60; make"):
            perform("walk", body, frames, fps)


def test_bad_requests_are_refused(body):
    with pytest.raises(ValueError, match="no built-in motion called 'moonwalk'"):
        make_motion("moonwalk", body, 10)
    with pytest.raises(ValueError, match="0 frames"):
        make_motion("walk", body, 0)
