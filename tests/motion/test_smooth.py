"""The official smoothing to the last bit that Blender keeps, and a better one that must earn its place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from champ.motion.camera import from_sight, to_sight
from champ.motion.formats import load_motion
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.motion.rotation import from_axis_angle, rot_y
from champ.motion.smooth import outliers, smooth

DATA = Path(__file__).parents[1] / "data" / "motion"


def test_official_smoothing_is_blenders(body):
    """Of a quaternion q that is shorter than 1 Blender makes the matrix I + |q|^2 (R - I); we make R."""
    motion = load_motion(DATA / "smpls_group.npz", body)
    result = smooth(motion, "official")
    with np.load(DATA / "smoothed.npz") as file:
        matrices, camera = (torch.from_numpy(file[name]) for name in ("rotations", "camera"))
    ours, theirs = result.rotations - torch.eye(3), matrices - torch.eye(3)
    square = (ours * theirs).sum((2, 3), keepdim=True) / ours.square().sum((2, 3), keepdim=True)
    assert 0.97 < square.min() < 0.99 and square.max() < 1 + 1e-5
    torch.testing.assert_close(square * ours, theirs, atol=1e-5, rtol=0)
    mirrored = camera.float() * torch.tensor([1.0, -1.0, 1.0])  # the script leaves y with the wrong sign
    torch.testing.assert_close(result.cam_t, mirrored, atol=2e-5, rtol=0)
    assert torch.equal(smooth(motion, "official", 0).cam_t, motion.cam_t)
    twice = smooth(motion, "official", 2)
    torch.testing.assert_close(twice.cam_t, smooth(result, "official").cam_t, atol=1e-5, rtol=0)


def trembling(motion: Motion, degrees: float = 3.0, seed: int = 0) -> Motion:
    """What an estimator adds that sees every frame for itself: joints turned, 2 % of the depth, a pixel or two."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.deg2rad(torch.randn(len(motion), 24, 3, generator=draw) * degrees / 3**0.5)
    sight = to_sight(motion.cam_t) + torch.randn(len(motion), 3, generator=draw) * torch.tensor([2e-4, 2e-4, 0.02])
    return replace(motion, rotations=motion.rotations @ from_axis_angle(turn), cam_t=from_sight(sight))


def joints(motion: Motion, body) -> torch.Tensor:
    """Relative to the pelvis."""
    posed = motion.posed(body).joints
    return posed - posed[:, :1]


def jitter(motion: Motion, truth: Motion, body) -> float:
    error = joints(motion, body) - joints(truth, body)
    return error.diff(n=2, dim=0).norm(dim=-1).mean().item()


@pytest.fixture(scope="module", params=["dance", "jumping jacks", "wave"])
def truth(request, body):
    return make_motion(request.param, body, 60, fps=30, loop=False)


def test_steady_trembles_less_than_the_official_way_and_is_nearer_to_the_truth(truth, body):
    noisy = trembling(truth)
    ours, official = smooth(noisy), smooth(noisy, "official")
    assert jitter(ours, truth, body) < 0.06 * jitter(noisy, truth, body)
    assert jitter(ours, truth, body) < 0.4 * jitter(official, truth, body)

    def error(motion: Motion) -> float:
        return (joints(motion, body) - joints(truth, body)).norm(dim=-1).mean().item()

    assert error(ours) < 0.65 * error(noisy) and error(ours) < error(official)
    depth = [m.cam_t[:, 2].log() - truth.cam_t[:, 2].log() for m in (ours, official, noisy)]
    bumps = [d.diff(n=2).abs().mean() for d in depth]
    assert bumps[0] < 0.4 * bumps[1] and bumps[0] < 0.1 * bumps[2]


def test_steady_leaves_a_fast_move_its_height(truth, body):
    """The fastest frames of wrists and ankles lose less than 2 % of their speed; Blender's kernel takes 4 to 20 %."""

    def fast(motion: Motion) -> torch.Tensor:
        return joints(motion, body).diff(dim=0)[:, [7, 8, 20, 21]].norm(dim=-1).quantile(0.95, dim=0)

    lost = 1 - fast(smooth(truth)) / fast(truth)
    assert lost.max() < 0.02
    assert (joints(smooth(truth), body) - joints(truth, body)).norm(dim=-1).max() < 0.005
    assert (1 - fast(smooth(truth, "official")) / fast(truth)).max() > 0.04


def test_more_strength_trembles_less(body):
    still = make_motion("wave", body, 1)[torch.zeros(60, dtype=torch.long)]
    noisy = trembling(still)
    amounts = [jitter(smooth(noisy, strength=s), still, body) for s in (0.25, 0.5, 1, 2)]
    assert amounts == sorted(amounts, reverse=True) and amounts[0] > 3 * amounts[2]


def turned_round(motion: Motion, frames: list[int]) -> Motion:
    rotations = motion.rotations.clone()
    rotations[frames, 0] = rotations[frames, 0] @ rot_y(180)
    return replace(motion, rotations=rotations)


def test_frames_that_are_turned_round_or_thrown_away_are_filled(truth, body):
    noisy = turned_round(trembling(truth), [7, 20, 21, 40])
    cam_t = noisy.cam_t.clone()
    cam_t[33] *= 0.4
    cam_t[50, 2] *= -1
    noisy = replace(noisy, cam_t=cam_t)
    assert outliers(noisy).nonzero().flatten().tolist() == [7, 20, 21, 33, 40, 50]
    result = smooth(noisy)
    assert (result.confidence == 0).nonzero().flatten().tolist() == [7, 20, 21, 33, 40, 50]
    assert jitter(result, truth, body) < 0.08 * jitter(trembling(truth), truth, body)
    assert (result.cam_t / truth.cam_t - 1)[:, 2].abs().max() < 0.05


@pytest.mark.parametrize("name", ["walk", "dance", "jumping jacks", "turntable"])
def test_movement_is_no_outlier(name, body):
    for fps in (8, 30):
        motion = make_motion(name, body, 32, fps=fps, loop=False, travel=True)
        assert not outliers(motion).any() and not outliers(trembling(motion)).any()
    assert not outliers(turned_round(make_motion(name, body, 32), list(range(12, 32)))).any()


def test_a_cut_is_neither_smoothed_nor_an_outlier(body):
    walk = trembling(make_motion("walk", body, 40))
    far = walk.cam_t.clone()
    far[20:] *= 0.3
    cut = replace(turned_round(walk, list(range(20, 40))), cam_t=far, shot=torch.arange(40) // 20)
    for method in ("steady", "official"):
        whole = smooth(cut, method)
        for part in (slice(0, 20), slice(20, 40)):
            alone = smooth(cut[part], method)
            torch.testing.assert_close(whole.rotations[part], alone.rotations, atol=1e-5, rtol=0)
            torch.testing.assert_close(whole.cam_t[part], alone.cam_t, atol=1e-4, rtol=0)


def test_an_uncertain_frame_counts_less(body):
    truth = make_motion("wave", body, 30)
    confidence = torch.ones(30).index_fill(0, torch.tensor(15), 0.0)
    wrong = truth.rotations.clone()
    wrong[15, 16] = wrong[15, 16] @ rot_y(60)
    errors = []
    for weight in (torch.ones(30), confidence):
        result = smooth(replace(truth, rotations=wrong, confidence=weight))
        errors.append((result.rotations - smooth(truth).rotations).abs().max())
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_motions_stay_what_they_are(frames, body):
    motion = make_motion("walk", body, 40)[:frames]
    torch.testing.assert_close(smooth(motion).rotations, motion.rotations, atol=0.03, rtol=0)
    torch.testing.assert_close(smooth(motion).cam_t, motion.cam_t, atol=0.01, rtol=0)
    assert len(smooth(motion, "official")) == frames


def test_off_is_off_and_nonsense_is_refused(body):
    motion = trembling(make_motion("walk", body, 8))
    assert smooth(motion, "off") is motion
    with pytest.raises(ValueError, match="called 'kalman'; choose from steady, official, off"):
        smooth(motion, "kalman")
    with pytest.raises(ValueError, match="strength of smoothing is -1"):
        smooth(motion, strength=-1)
