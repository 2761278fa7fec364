"""Noise of a clip."""

import pytest
import torch

from champ.sampling.noise import FrameNoise, OfficialNoise, SameNoise


def latent(frames: int, **values) -> dict:
    return {"samples": torch.zeros(frames, 4, 8, 12), **values}


def test_official_noise_is_one_tensor_with_the_frames_inside():
    found = OfficialNoise(42).generate_noise(latent(5))
    generator = torch.Generator().manual_seed(42)
    assert torch.equal(found, torch.randn(1, 4, 5, 8, 12, generator=generator)[0].transpose(0, 1))


def test_frames_are_independent_of_the_clips_length():
    whole = FrameNoise(7).generate_noise(latent(12))
    assert torch.equal(FrameNoise(7).generate_noise(latent(5)), whole[:5])
    assert torch.equal(FrameNoise(7).generate_noise(latent(3, batch_index=[4, 9, 0])), whole[[4, 9, 0]])


def test_frames_and_seeds_differ():
    """No frame of one seed is a frame of the seeds around it."""
    frames = torch.cat([FrameNoise(seed).generate_noise(latent(8)) for seed in (0, 1, 2, 2**64 - 1)])
    assert len({tuple(frame.flatten().tolist()) for frame in frames}) == 32


def test_the_same_noise_is_that_of_the_first_frame():
    found = SameNoise(7).generate_noise(latent(5, batch_index=[4, 9, 0, 1, 2]))
    assert torch.equal(found, FrameNoise(7).generate_noise(latent(1)).expand_as(found))


@pytest.mark.parametrize("kind", [OfficialNoise, FrameNoise])
def test_noise_is_normal(kind):
    found = kind(1).generate_noise({"samples": torch.zeros(16, 4, 64, 64)})
    assert found.mean().abs() < 0.01 and (found.std() - 1).abs() < 0.01
