"""Where the attention is taught to look."""

import pytest
import torch

from champ.people.samples import SyntheticPeople, draw_surface
from champ.train.matching import DRAWS, Matching, Surfaces, cross_entropy, shares
from champ.train.networks import Champ


@pytest.fixture(scope="module")
def sample():
    return SyntheticPeople(128).sample(4)


@pytest.fixture(scope="module")
def surfaces(sample) -> Surfaces:
    both = (sample.motion, sample.reference_motion)
    target, reference = (draw_surface(sample.actor, motion, 8) for motion in both)
    return Surfaces(target, reference)


def test_a_surface_covers_what_the_mask_does(sample, surfaces):
    cover = torch.nn.functional.avg_pool2d((sample.masks > 0).float(), 8)
    assert (surfaces.target[..., 3] - cover).abs().mean() < 0.03
    pixels = draw_surface(sample.actor, sample.motion, 1)
    assert ((pixels[..., 3] >= 0.5) == (sample.masks > 0)).float().mean() > 0.99
    figure = sample.actor.figure.canonical
    shown = pixels[..., :3][pixels[..., 3] > 0.9]
    assert (shown >= figure.amin(0) - 1e-3).all() and (shown <= figure.amax(0) + 1e-3).all()


def test_blocks_look_at_the_same_place_of_the_person_and_of_the_room(surfaces):
    wanted, counts = shares(surfaces)
    torch.testing.assert_close(wanted.sum(2), torch.ones_like(counts))
    target, reference = surfaces.target.flatten(1, 2)[0], surfaces.reference.flatten(1, 2)[0]
    person, room = target[:, 3] > 0.5, target[:, 3] == 0
    looked = wanted[0] @ reference
    taught = person & (counts[0] > 0)
    assert taught.sum() > 0.5 * person.sum()
    assert (looked[taught, :3] - target[taught, :3]).norm(dim=1).max() < 0.12
    assert looked[room, 3].max() < 0.1  # never at the reference's person
    free = (room & (reference[:, 3] == 0)).nonzero()[:, 0]
    assert torch.equal(wanted[0, free].argmax(1), free)


def test_half_the_size_keeps_what_is_shown_and_where(surfaces):
    coarse = surfaces.coarser(2)
    assert coarse.target.shape == (1, 8, 8, 4)
    total = surfaces.target[..., 3:].sum() / 4
    torch.testing.assert_close(coarse.target[..., 3:].sum(), total)
    mean = (surfaces.target[..., :3] * surfaces.target[..., 3:]).sum((0, 1, 2)) / surfaces.target[..., 3].sum()
    again = (coarse.target[..., :3] * coarse.target[..., 3:]).sum((0, 1, 2)) / coarse.target[..., 3].sum()
    torch.testing.assert_close(mean, again)


def test_a_crop_looks_where_the_whole_picture_looks(surfaces):
    corner = torch.tensor([[4, 6]])
    cut = Surfaces(surfaces.target[:, 4:12, 6:14], surfaces.reference, corner)
    for whole, part, rows, columns in (
        (surfaces, cut, slice(4, 12), slice(6, 14)),
        (surfaces.coarser(2), cut.coarser(2), slice(2, 6), slice(3, 7)),
    ):
        side = whole.target.shape[1]
        for of_whole, of_part in zip(shares(whole), shares(part)):
            of_whole = of_whole.unflatten(1, (side, side))[:, rows, columns].flatten(1, 2)
            torch.testing.assert_close(of_part, of_whole)


def test_the_loss_is_least_where_half_of_the_heads_look_right():
    wanted = torch.eye(5)[None]
    right = 20 * torch.eye(5).repeat(1, 4)[None]  # 4 heads of 5 channels
    wrong = right.roll(1, 1)
    half = torch.cat([right[..., :10], wrong[..., 10:]], 2)
    losses = [float(cross_entropy(q[:, None], right, 4, wanted, torch.ones(1, 5))) for q in (right, half, wrong)]
    assert losses[0] == losses[1] < 0.01 and losses[2] > 10


def test_it_teaches_the_denoiser_and_reference_net(sizes, random_networks, surfaces):
    model = Champ(random_networks(sizes))
    matching = Matching(model)
    both = Surfaces(*(x.expand(2, -1, -1, -1) for x in (surfaces.target, surfaces.reference)))
    maps = {name: torch.rand(2, 1, 3, 128, 128) for name in model.encoders}
    noisy, timesteps = torch.randn(2, DRAWS + 1, 4, 16, 16), torch.full((2, DRAWS + 1), 500)
    inputs = noisy, timesteps, maps, torch.randn(2, 4, 16, 16), torch.zeros(2, 32)

    matching.listen(both)
    model(*inputs)
    assert len(matching.losses) == 4  # two transformers at each of two levels
    matching.loss().backward()
    to_q = model.denoiser.output_blocks[3][1].transformer_blocks[0].attn1.to_q.weight
    assert to_q.grad.abs().max() > 0
    assert max(p.grad.abs().max() for p in model.reference.parameters() if p.grad is not None) > 0

    model(*inputs)
    assert not matching.losses  # not for previews
