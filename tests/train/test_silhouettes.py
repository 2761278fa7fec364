"""The network that finds the person in pictures of drawn people, by which `evaluate` measures silhouettes."""

from dataclasses import replace

import pytest
import torch

from champ.metrics.images import iou
from champ.people.samples import SyntheticPeople, draw_pictures, draw_room
from champ.train.codec import Codec, block_basis, picture_batches
from champ.train.prepare import packs, prepare
from champ.train.silhouettes import Silhouettes, find, jaccard_loss, train_silhouettes


@pytest.fixture(scope="module")
def clips():
    people = SyntheticPeople(256, "held_out", 4)
    return [people.sample(i) for i in range(5)]


def mean(values) -> float:
    return float(torch.cat(list(values)).mean())


def halves(pictures: torch.Tensor) -> torch.Tensor:
    smaller = torch.nn.functional.interpolate(pictures.movedim(-1, 1).float(), scale_factor=0.5, mode="area")
    return (smaller.movedim(1, -1) + 0.5).byte()


def test_people_whom_it_has_never_seen_are_found(clips):
    assert mean(iou(find(c.pictures), c.masks > 0) for c in clips) > 0.93
    assert mean(iou(find(halves(c.pictures)), c.masks[:, ::2, ::2] > 0) for c in clips) > 0.85


def test_a_room_has_no_person(clips):
    """Nor has one whose furniture is elsewhere."""
    rooms = torch.cat([draw_room(c.actor, c.motion, c.up)[:1] for c in clips])
    moved = rooms.roll(40, 2)
    moved[:, :, :40] = moved[:, :, 40:41]
    assert find(rooms).float().mean() < 0.01 and find(moved).float().mean() < 0.01


def test_a_wrong_silhouette_costs_what_it_is_wrong_by(clips):
    """People who are drawn elsewhere or larger: their IoU with the right masks, found and true."""
    for clip in clips:
        right, cam_t = clip.masks > 0, clip.motion.cam_t
        for wrong in (cam_t + torch.tensor([0.06, 0.0, 0.0]), 0.9 * cam_t):
            pictures, masks = draw_pictures(clip.actor, replace(clip.motion, cam_t=wrong), clip.up)
            true = float(iou(masks > 0, right).mean())
            assert 0.4 < true < 0.8
            assert float(iou(find(pictures), right).mean()) == pytest.approx(true, abs=0.04)


def test_jaccard_loss_is_one_minus_iou():
    found, true = torch.zeros(1, 40, 40, dtype=torch.bool), torch.zeros(1, 40, 40, dtype=torch.bool)
    found[:, :, :30], true[:, :, 10:] = True, True
    assert jaccard_loss(found.float(), true.float()) == pytest.approx(1 - float(iou(found, true)), abs=1e-3)
    assert jaccard_loss(true.float(), true.float()) == 0


def test_it_learns(tmp_path):
    """Thirty steps find more of the person than nothing known, and the same four give the same network."""
    from champ.train.latents import ImageCodec

    people = SyntheticPeople(64)
    prepare(people, tmp_path, 0, 16)
    pictures = torch.cat([people.sample(i).pictures for i in range(4)])
    torch.save(Codec.of(*block_basis(pictures), 0).state_dict(), tmp_path / "codec.pt")
    codec = ImageCodec(tmp_path / "codec.pt")

    def train(steps: int) -> tuple[Silhouettes, list[float]]:
        torch.manual_seed(0)
        network, seen = Silhouettes(), []
        batches = picture_batches(packs(tmp_path, "train", 1), 4, 0)
        train_silhouettes(network, codec, batches, steps, on_step=lambda step, loss, iou: seen.append(iou))
        return network, seen

    _, seen = train(30)
    assert sum(seen[-5:]) > 1.5 * sum(seen[:5])
    (network, _), (again, _) = train(4), train(4)
    assert all(torch.equal(x, y) for x, y in zip(network.state_dict().values(), again.state_dict().values()))
