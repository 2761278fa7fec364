"""Frames between frames."""

import pytest
import torch
from golden import relative

from champ.sampling.interpolate import interpolate, slerp_latents


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_given_frames_stay_and_others_come_between(method):
    latents = torch.randn(5, 4, 8, 12)
    for factor in 1, 2, 3:
        found = interpolate(latents, factor, method)
        assert len(found) == 4 * factor + 1
        assert torch.equal(found[::factor], latents)
    assert len(interpolate(latents[:1], 3, method)) == 1


def test_straight_lines():
    latents = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(interpolate(latents, 4, "linear")[1], 0.75 * latents[0] + 0.25 * latents[1])


def test_arcs_turn_evenly_and_keep_the_length():
    a, b = torch.randn(2, 4, 8, 12, dtype=torch.float64)
    b *= a.norm() / b.norm()
    points = [slerp_latents(a, b, t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    angles = [torch.arccos((p * q).sum() / a.norm() ** 2) for p, q in zip(points, points[1:])]
    assert all(abs(p.norm() / a.norm() - 1) < 1e-9 for p in points)
    assert max(angles) - min(angles) < 1e-6
    assert relative(points[0], a) < 1e-9 and relative(points[-1], b) < 1e-9


def test_nearly_parallel_and_empty_frames_take_the_straight_line():
    a = torch.randn(4, 8, 12)
    torch.testing.assert_close(slerp_latents(a, 3 * a, 0.5), 2 * a)
    torch.testing.assert_close(slerp_latents(torch.zeros_like(a), a, 0.5), a / 2)


def test_bad_input():
    with pytest.raises(ValueError, match="factor of 0 is not possible; use 1 to keep the clip as it is"):
        interpolate(torch.zeros(2, 1), 0)
    with pytest.raises(ValueError, match="no interpolation called 'cubic'; choose from slerp, linear"):
        interpolate(torch.zeros(2, 1), 2, "cubic")


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        interpolate(torch.zeros(0, 4, 8, 8), 2)


def test_latents_in_16_bits():
    """As ComfyUI keeps them with --fp16-intermediates; large ones, whose squares do not fit."""
    latents = 4 * torch.randn(2, 4, 96, 64)
    found = interpolate(latents.half(), 2)
    assert found.dtype == torch.float32 and relative(found, interpolate(latents, 2)) < 1e-3
