"""HMR2's network beside the official one."""

import pytest
import torch
from hmr2_data import DATA, HEADS, box, expected, picture, weights

from champ.body.smpl import load_smpl
from champ.estimate.crops import Square, crop_square
from champ.estimate.hmr2 import HMR2Net, HMR2Sizes, rotation_from_6d


def shapes() -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in weights().items()}


@pytest.fixture(scope="module")
def network() -> HMR2Net:
    net = HMR2Net(HMR2Sizes.read(shapes(), **HEADS))
    net.load_state_dict(weights())
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.stack([crop_square(picture(), Square.around(box(i))) for i in range(3)])


def test_features(network, crops):
    found = network.backbone(crops).transpose(1, 2).unflatten(2, (16, 12))
    assert (found[..., ::5, ::5] - expected()["features"]).abs().max() < 1e-5


def test_rotations_betas_and_camera(network, crops):
    found = network(crops)
    for name in ("rotations", "betas", "camera"):
        assert (getattr(found, name) - expected()[name]).abs().max() < 1e-5, name


def test_vertices(network, crops):
    """Of the made-up body that the official class posed; the file holds 16 of its vertices, and its joints."""
    body, found = load_smpl(DATA / "body.safetensors"), network(crops)
    for i, vertices in enumerate(expected()["vertices"]):
        posed = body.with_betas(found.betas[i]).pose(found.rotations[i : i + 1])
        assert (posed.vertices[0, :16] - vertices).abs().max() < 2e-5


def test_there_is_nothing_random(network, crops):
    network.train()
    first, second = network(crops[:1]), network(crops[:1])
    assert torch.equal(first.rotations, second.rotations)


def test_columns_beside_the_middle_do_not_count(network, crops):
    other = crops[:1].clone()
    other[..., :32] = other[..., -32:] = 5
    assert torch.equal(network(other).betas, network(crops[:1]).betas)
    other[..., 32] += 5
    assert not torch.equal(network(other).betas, network(crops[:1]).betas)


def test_official_sizes_and_names():
    sizes = HMR2Sizes(1280, 32, 5120, 16, 1024, 6, 1024, 512, 8)
    state = HMR2Net(sizes, device="meta").state_dict()
    assert len(state) == 503 and sum(value.numel() for value in state.values()) == 630_912_000 + 39_547_037 + 157
    assert HMR2Sizes.read({key: tuple(value.shape) for key, value in state.items()}) == sizes
    assert state["smpl_head.transformer.transformer.layers.5.0.fn.to_qkv.weight"].shape == (1536, 1024)


def test_rotations_are_rotations_in_the_order_of_hmr2():
    values = torch.randn(5, 24, 6)
    found = rotation_from_6d(values)
    assert torch.allclose(found @ found.mT, torch.eye(3).expand_as(found), atol=1e-5)
    assert torch.allclose(torch.linalg.det(found), torch.ones(5, 24), atol=1e-5)
    first = values[..., :3] / values[..., :3].norm(dim=-1, keepdim=True)
    assert torch.allclose(found[..., 0], first, atol=1e-6)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="widths 64 and 24 cannot be split over 5 and 3 heads"):
        HMR2Sizes.read(shapes(), 5, 3)
    with pytest.raises(ValueError, match="no tensor called backbone.blocks.0.mlp.fc1.weight"):
        HMR2Sizes.read({})
