"""Keypoints without vertices are those of the whole body, and their derivatives are autograd's."""

import lzma

import pytest
import torch

import dev
from champ.body.body import Body
from champ.body.free import load_free_body
from champ.body.smpl import load_smpl
from champ.estimate.points import MOVING, POINTS, PointBody
from champ.motion.rotation import from_axis_angle

FRAMES = 3


@pytest.fixture(scope="module", params=["free", "smpl"])
def body(request, tmp_path_factory) -> Body:
    if request.param == "free":
        return load_free_body()
    path = tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.pkl"
    path.write_bytes(lzma.decompress((dev.ROOT / "tests" / "data" / "smpl" / "SMPL_plain_proto4.pkl.xz").read_bytes()))
    return load_smpl(path)


@pytest.fixture(scope="module")
def state(body) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return (
        0.5 * random(FRAMES, 24, 3),
        from_axis_angle(2 * random(FRAMES, 3)),
        random(FRAMES, 3),
        random(len(body.betas)),
    )


def test_points_are_those_of_the_skin(body, state):
    pose, facing, pelvis, betas = state
    points = PointBody.of(body).pose(*state).points
    shaped = body.with_betas(betas.float())
    rotations = from_axis_angle(pose)
    rotations[:, 0] = facing @ rotations[:, 0]
    posed = shaped.pose(rotations.float(), pelvis.float() - shaped.rest().joints[0, 0])
    skin = shaped.keypoints(posed)[:, [*range(17), 17, 19, 20, 22]]  # of the feet: big toes and heels
    expected = torch.cat([skin, posed.joints[:, [22, 23, 10, 11, 0]]], dim=1).double()
    torch.testing.assert_close(points[:, :-1], expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(points[:, -1] - points[:, -2], rotations[:, 0, :, 1])


def test_derivatives_are_those_of_autograd(body, state):
    pose, facing, pelvis, betas = state
    points = PointBody.of(body)
    for frame in range(FRAMES):
        one = slice(frame, frame + 1)

        def place(pose, pelvis, betas, one=one):
            return points.pose(pose[None], facing[one], pelvis[None], betas).points[0]

        by_pose, by_pelvis, by_betas = torch.autograd.functional.jacobian(place, (pose[frame], pelvis[frame], betas))
        posed = points.pose(pose[one], facing[one], pelvis[one], betas)
        by_motion = torch.cat([by_pose[:, :, list(MOVING)].flatten(2), by_pelvis], dim=2)
        torch.testing.assert_close(posed.by_motion[0], by_motion, atol=1e-6, rtol=0)
        torch.testing.assert_close(posed.by_betas[0], by_betas, atol=1e-9, rtol=0)
        assert posed.by_motion.shape == (1, len(POINTS), 3, 3 * len(MOVING) + 3)
