"""Steps in which every direction of a matrix is as long as the others."""

import pytest
import torch

from champ.train.muon import SCALE, Muon, is_matrix, orthogonalized
from champ.train.trainer import Settings, make_optimizer


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(48, 48), (32, 200), (200, 32)])
def test_singular_values_become_about_one(shape):
    u, s, vh = torch.linalg.svd(draw(*shape), full_matrices=False)
    spread = torch.logspace(0, -1.5, len(s))
    step = orthogonalized(u * spread @ vh)
    turned = u.T @ step @ vh.T  # the same directions, other lengths
    assert 0.6 < turned.diagonal().min() and turned.diagonal().max() < 1.3
    assert (turned - turned.diagonal().diag()).abs().max() < 0.05


def test_first_and_last_layers_vectors_and_norms_are_no_matrices():
    assert is_matrix(draw(64, 32, 3, 3)) and is_matrix(draw(32, 100))
    assert not any(map(is_matrix, (draw(64), draw(4, 64, 3, 3), draw(64, 3, 3, 3))))


def test_a_step_is_as_long_as_adams_and_forgets_how_steep_it_was():
    steps = []
    for factor in (1.0, 1e-4):
        weight = torch.nn.Parameter(torch.zeros(64, 32, 3, 3))
        optimizer = Muon([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0)
        weight.grad = factor * draw(64, 32, 3, 3)
        optimizer.step()
        steps.append(weight.detach())
    assert float((steps[1] - steps[0]).norm() / steps[0].norm()) < 0.05  # in bfloat16, where that is fast
    assert float(steps[0].square().mean().sqrt()) == pytest.approx(0.1 * SCALE, rel=0.25)


def test_what_is_no_matrix_goes_as_with_adamw():
    start, options = draw(20), dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    one, other = Muon([ours], **options), torch.optim.AdamW([theirs], **options)
    for seed in range(5):
        ours.grad = theirs.grad = draw(20, seed=seed)
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_it_finds_a_linear_map():
    true, x = draw(32, 48), draw(256, 48, seed=1)
    weight = torch.nn.Parameter(torch.zeros(32, 48))
    optimizer = Muon([weight], lr=0.2, betas=(0.9, 0.99), weight_decay=0)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 100)
        loss = (x @ (weight - true).T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01 * float((x @ true.T).square().mean())


def test_an_unknown_optimiser_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="adamw or muon"):
        make_optimizer([torch.nn.Parameter(draw(3))], Settings(steps=1, optimizer="sgd"))
