"""The scene that the page draws is the motion: same figure, floor under the feet, camera where it films."""

import pytest
import torch

from champ.body.free import free_body_betas, load_free_body
from champ.motion.camera import View, frame_person
from champ.motion.presets import make_motion
from champ.render.stage import MOST_FRAMES, skin, stage


@pytest.fixture(scope="module")
def walk():
    body = load_free_body().with_betas(free_body_betas(height=1.8))
    motion = make_motion("walk", body, 12, fps=12, width=64, height=96)
    return body, frame_person(motion, body, 64, 96, View(azimuth=40, elevation=25, fov=30))


def posed(body, made) -> torch.Tensor:
    """The figure as the page skins it, (N, V, 3)."""
    joints, weights = skin(body)
    points = torch.cat([made["vertices"], torch.ones(len(made["vertices"]), 1)], 1)
    moved = torch.einsum("nvkij,vj->nvki", made["matrices"][:, joints.long()], points)
    return (moved * (weights.float() / 255)[None, :, :, None]).sum(2)


def test_the_figure_stands_on_the_floor_and_is_the_motions(walk):
    body, motion = walk
    made = stage(body, motion)
    figure = posed(body, made)
    assert abs(figure[..., 1].amin()) < 0.01 and 1.75 < figure[..., 1].amax() < 1.85
    truth = motion.posed(body).vertices @ made["camera"][:, :3].T + made["camera"][:, 3]
    assert (figure - truth).norm(dim=-1).amax() < 0.02  # four joints for each vertex


def test_up_is_up_from_whichever_side_it_is_seen(walk):
    body, motion = walk
    camera = stage(body, motion)["camera"]
    assert torch.allclose(camera[:, :3] @ camera[:, :3].T, torch.eye(3), atol=1e-5)
    assert torch.linalg.det(camera[:, :3]) > 0
    eye = camera[:, 3]  # the camera, 25 degrees above the person
    assert abs(torch.rad2deg(torch.atan2(eye[1] - 0.95, eye[[0, 2]].norm())) - 25) < 4


def test_a_long_motion_is_thinned_out(walk):
    body, motion = walk
    long = motion[torch.arange(1000) % len(motion)]
    made = stage(body, long)
    assert len(made["numbers"]) <= MOST_FRAMES and made["numbers"][1] == 4
    assert len(made["matrices"]) == len(made["confidence"]) == len(made["numbers"])
