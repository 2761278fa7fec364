"""The clip's solver beside a dense one, and one step from anywhere to the least of a sum of linear errors."""

import pytest
import torch

from champ.estimate.least_squares import Quadratic, solve_clip

SIZE, BETAS = 4, 2


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
def test_the_solver_is_a_dense_one(frames):
    half = random(frames * SIZE, frames * SIZE)
    row = torch.arange(frames * SIZE) // SIZE
    matrix = torch.where((row[:, None] - row).abs() <= 2, half + half.T, 0) + 20 * SIZE * torch.eye(frames * SIZE)
    blocks = matrix.view(frames, SIZE, frames, SIZE).transpose(1, 2)
    near, next_, after = (
        torch.stack([blocks[t, t + k] if t + k < frames else random(SIZE, SIZE) for t in range(frames)])
        for k in range(3)
    )
    right = random(frames, SIZE, 3, seed=1)
    expected = torch.linalg.solve(matrix, right.flatten(0, 1)).view_as(right)
    torch.testing.assert_close(solve_clip(near, next_, after, right), expected)


def test_there_may_be_no_least_place():
    zero = torch.zeros(3, SIZE, SIZE, dtype=torch.float64)
    assert solve_clip(zero, zero, zero, random(3, SIZE, 1)) is None


@pytest.mark.parametrize("count", [BETAS, 0])
def test_linear_errors_are_least_after_one_step(count):
    frames = 6
    rows, over_betas = random(frames, 5, 2, SIZE), random(frames, 5, 2, count, seed=1)
    change, change_betas = random(frames, 7, SIZE, seed=2), random(frames, 7, count, seed=3)
    target, weight = random(frames, 5, 2, seed=4), random(frames, 5, seed=5).abs()
    joined = torch.tensor([True, False, True, True])
    steps = random(frames - 1, 7, seed=8).abs()
    none, some = torch.zeros(frames, dtype=torch.bool), torch.arange(frames) < 2

    def around(state: torch.Tensor, betas: torch.Tensor) -> Quadratic:
        energy = Quadratic.zeros(frames, SIZE, count)
        error = (rows @ state[:, None, :, None])[..., 0] + over_betas @ betas - target
        energy.add(error, rows, over_betas, weight, float("inf"))
        energy.add_own(2 * state[:, :1] - 1, 2.0, [0])
        values = (change @ state[..., None])[..., 0] + change_betas @ betas
        energy.add_change(values, change, change_betas, joined)
        energy.add_steps(values.diff(dim=0), change, change_betas, steps)
        energy.add_own_change(state[:, :3], 0.7, joined)
        return energy

    state, betas = random(frames, SIZE, seed=6).requires_grad_(), random(count, seed=7).requires_grad_()
    energy = around(state, betas)
    gradient, betas_gradient = torch.autograd.grad(energy.value / 2, (state, betas))
    torch.testing.assert_close(energy.gradient, gradient)
    torch.testing.assert_close(energy.betas_gradient, betas_gradient)
    step, betas_step = around(state.detach(), betas.detach()).step(0.0, none)
    least = around(state.detach() + step, betas.detach() + betas_step)
    torch.testing.assert_close(least.gradient, torch.zeros_like(step), atol=1e-9, rtol=0)
    torch.testing.assert_close(least.betas_gradient, torch.zeros_like(betas_step), atol=1e-9, rtol=0)
    held, _ = around(state.detach(), betas.detach()).step(0.0, some)
    assert held[:2].abs().max() < 1e-6 < held[2:].abs().max()


def test_a_robust_error_pulls_as_its_slope():
    error = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    energy = Quadratic.zeros(1, 2, 1)
    rows, none = torch.eye(2, dtype=torch.float64)[None, None], torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    energy.add(error, rows, none, torch.ones(1, 1), 10.0)
    assert energy.value.item() == pytest.approx(25 / 3.5)
    torch.testing.assert_close(energy.gradient[0], torch.autograd.grad(energy.value / 2, error)[0][0, 0])
