import math

import pytest
import torch

from champ.motion.rotation import from_axis_angle, from_quaternion, rot_x, rot_y, rot_z, slerp, to_quaternion


def random_rotations(count: int, seed: int = 0) -> torch.Tensor:
    return from_axis_angle(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * 2)


def test_axis_angle_is_the_matrix_exponential():
    vector = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    generator = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    torch.testing.assert_close(from_axis_angle(vector), torch.linalg.matrix_exp(generator), atol=1e-12, rtol=0)


def test_a_zero_vector_is_the_identity_and_keeps_its_gradient_finite():
    vector = torch.zeros(2, 3, requires_grad=True)
    matrix = from_axis_angle(vector)
    assert torch.equal(matrix.detach(), torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize(
    ("turn", "start", "end"),
    [(rot_x, (0, 1, 0), (0, 0, 1)), (rot_y, (0, 0, 1), (1, 0, 0)), (rot_z, (1, 0, 0), (0, 1, 0))],
)
def test_axes_turn_as_their_docstrings_say(turn, start, end):
    turned = turn(90.0) @ torch.tensor(start, dtype=torch.float32)
    torch.testing.assert_close(turned, torch.tensor(end, dtype=torch.float32), atol=1e-6, rtol=0)


def test_quaternions_round_trip_also_at_half_turns():
    half_turns = from_axis_angle(math.pi * torch.eye(3))
    matrices = torch.cat([random_rotations(500), half_turns, torch.eye(3)[None]])
    torch.testing.assert_close(from_quaternion(to_quaternion(matrices)), matrices, atol=2e-6, rtol=0)


def test_slerp_turns_at_constant_speed_the_short_way():
    start, end = random_rotations(200, 1), random_rotations(200, 2)

    def angle(a, b):
        trace = (a.double().mT @ b.double()).diagonal(dim1=-2, dim2=-1).sum(-1)
        return ((trace - 1) / 2).clamp(-1, 1).acos()

    for fraction in (0.0, 0.25, 0.5, 1.0):
        middle = slerp(start, end, torch.full((200,), fraction))
        torch.testing.assert_close(angle(start, middle), fraction * angle(start, end), atol=2e-3, rtol=0)
    torch.testing.assert_close(slerp(start, start, torch.full((200,), 0.3)), start, atol=2e-6, rtol=0)
