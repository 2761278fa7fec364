import time

import pytest
import torch
from smplx.lbs import batch_rodrigues, lbs

from champ.body.free import load_free_body
from champ.body.skeleton import JOINTS, PARENTS
from champ.keypoints.layouts import KEYPOINTS


@pytest.fixture(scope="module")
def body():
    betas = torch.tensor([1.0, -0.5, 0.3, 1.2])
    return load_free_body().with_betas(betas)


def random_pose(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotations = batch_rodrigues(0.5 * torch.randn(frames * 24, 3, generator=generator)).view(frames, 24, 3, 3)
    return rotations, torch.randn(frames, 3, generator=generator)


def reference(body, rotations, transl):
    """smplx's own skinning, with the pose correctives set to zero."""
    frames = len(rotations)
    vertices, joints = lbs(
        body.betas.expand(frames, -1), rotations, body.template.expand(frames, -1, -1), body.shapedirs,
        torch.zeros(207, body.template.numel()), body.joint_regressor, torch.tensor(PARENTS), body.weights,
        pose2rot=False,
    )  # fmt: skip
    return vertices + transl[:, None], joints + transl[:, None]


def test_fast_skinning_is_smplx_skinning(body):
    rotations, transl = random_pose(5)
    posed = body.pose(rotations, transl)
    vertices, joints = reference(body, rotations, transl)
    torch.testing.assert_close(posed.vertices, vertices, atol=2e-6, rtol=0)
    torch.testing.assert_close(posed.joints, joints, atol=2e-6, rtol=0)


def test_gradients_are_those_of_smplx(body):
    rotations, transl = random_pose(2)
    target = torch.randn(2, len(body.template), 3, generator=torch.Generator().manual_seed(1))

    def gradients(pose):
        leaves = [t.clone().requires_grad_() for t in (body.betas, rotations, transl)]
        vertices, joints = pose(body.with_betas(leaves[0]), *leaves[1:])
        loss = (vertices * target).mean() + joints.square().mean()
        return torch.autograd.grad(loss, leaves)

    ours, theirs = gradients(lambda b, r, t: b.pose(r, t)), gradients(reference)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_frames_do_not_see_each_other(body):
    rotations, transl = random_pose(4)
    posed = body.pose(rotations, transl)
    for i in range(4):
        alone = body.pose(rotations[i : i + 1], transl[i : i + 1])
        torch.testing.assert_close(posed.vertices[i : i + 1], alone.vertices, atol=2e-6, rtol=0)
        torch.testing.assert_close(posed.joints[i : i + 1], alone.joints, atol=2e-6, rtol=0)


def test_no_rotation_gives_the_rest_shape(body):
    posed, rest = body.pose(torch.eye(3).expand(1, 24, 3, 3)), body.rest()
    torch.testing.assert_close(posed.vertices, rest.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(posed.joints, rest.joints, atol=1e-6, rtol=0)


def test_with_betas_fills_and_drops_components(body):
    short, long = body.with_betas(torch.tensor([2.0])), body.with_betas(torch.arange(40.0))
    assert short.betas.tolist() == [2.0] + [0.0] * 15
    assert long.betas.tolist() == list(range(16))
    assert (short.rest().vertices - body.rest().vertices).abs().max() > 0.05


def test_keypoints_move_with_the_body(body):
    rotations, transl = random_pose(3)
    points = body.keypoints(body.pose(rotations, transl))
    assert points.shape == (3, 23, 3)
    still = body.keypoints(body.pose(rotations))
    torch.testing.assert_close(points, still + transl[:, None], atol=2e-6, rtol=0)


def test_keypoints_lie_at_their_joints(body):
    rest = body.rest()
    points = dict(zip(KEYPOINTS, body.keypoints(rest)[0], strict=True))
    joints = dict(zip(JOINTS, rest.joints[0], strict=True))
    for name in set(KEYPOINTS) & set(JOINTS):
        assert (points[name] - joints[name]).norm() < 0.06, name
    assert points["nose"][2] > points["left_eye"][2] > points["left_ear"][2]
    assert points["left_eye"][0] > 0 > points["right_eye"][0]
    assert points["left_big_toe"][0] < points["left_small_toe"][0]
    assert points["left_big_toe"][2] > joints["left_ankle"][2] + 0.1 > points["left_heel"][2] + 0.1


def test_every_tensor_moves_with_the_body(body):
    # The meta device exists everywhere and refuses to mix with the CPU.
    posed = body.to("meta").pose(*(t.to("meta") for t in random_pose(2)))
    assert posed.vertices.device.type == posed.joints.device.type == "meta"
    assert body.to("meta").keypoints(posed).shape == (2, 23, 3)


def test_64_frames_take_under_60_ms_on_one_thread(body):
    rotations, transl = random_pose(64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        body.pose(rotations, transl)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    assert min(times) < 0.060
