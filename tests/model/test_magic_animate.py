"""MagicAnimate against its official code: single forward passes."""

import pytest
import torch
from golden import evaluate_noise, frames_first, relative


def latents(family) -> torch.Tensor:
    return frames_first(family.data("denoise")["latents"])


def pair(family, positive, negative):
    """The conditioning with the two texts of the single passes, whose ControlNet saw the positive one in both."""
    negative_text, text = family.data("reference")["text"].split(1)
    negative = {**negative[0][1], "cross_attn_controlnet": text}
    return [[text, positive[0][1]]], [[negative_text, negative]]


@pytest.mark.parametrize(
    ("kind", "t"), [("pred", 961), ("pred", 1), ("pred_without_motion", 481), ("pred_8_frames", 481)]
)
def test_predictions(magic_animate, kind, t):
    model = magic_animate.still_model if kind == "pred_without_motion" else magic_animate.model
    frames = 8 if kind == "pred_8_frames" else 16
    positive, negative = pair(magic_animate, *magic_animate.conditioning(frames))
    cond, uncond = evaluate_noise(model, positive, negative, latents(magic_animate)[:frames], t)
    wanted = magic_animate.data("denoise")[f"{kind}/t{t}"].movedim(2, 1)
    assert relative(torch.stack([uncond, cond]), wanted) < 1e-5
    for a, b in zip((uncond, cond), wanted):
        assert relative(a, b) < 5e-5
