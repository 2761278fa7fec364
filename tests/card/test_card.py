"""The denoiser on a card: the official numbers, no waits, rows that arrive whole, memory within the estimate."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.sample
import pytest
import torch
from golden import evaluate, frames_first, relative
from two_levels import clip_of, two_levels

from champ.model.residence import on_device
from champ.sampling.aggregation import with_windows
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def exact() -> Iterator[None]:
    """float32 products that are not rounded to TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        given = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = given


@pytest.mark.parametrize("t", [999, 499])
def test_predictions(champ, t):
    x = frames_first(champ.data("denoise")["latents"]).to(DEVICE)
    with exact():
        found = evaluate(champ.model, *champ.conditioning(16), x, t)
    uncond, cond = champ.data("denoise")[f"pred/bank_fp32/t{t}"].movedim(2, 1)
    assert relative(found[0].cpu(), cond) < 1e-4 and relative(found[1].cpu(), uncond) < 1e-4


def test_no_step_but_the_first_waits():
    """torch raises where a card would be waited for."""
    model = with_windows(two_levels(DEVICE), 4, 2, "open", "ramps")
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 4)
    noise, seen = torch.randn(6, 4, 8, 8), []

    def callback(i, denoised, x, total):
        seen.append(i)
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if i < 3 else "default")

    try:
        given = clip_of(6, 64)
        comfy.sample.sample_custom(
            model, noise, 3.5, ddim(), sigmas, *given, noise * 0, callback=callback, disable_pbar=True, seed=0
        )
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert seen == [0, 1, 2, 3]


def test_rows_arrive_whole_while_the_card_computes():
    values = torch.randn(64, 320, 32, 32).half()
    busy = torch.randn(2048, 2048, device=DEVICE)
    for first in range(0, 48, 8):
        for _ in range(4):
            busy = busy @ busy / 2048**0.5
        there = on_device([values[first : first + 8], values[:8]], DEVICE, torch.float32)
        wanted = torch.cat([values[first : first + 8], values[:8]]).float()
        assert torch.equal(there.cpu(), wanted)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="counts graphics memory")
def test_a_step_stays_within_the_estimate():
    model = two_levels(DEVICE)
    x = torch.randn(16, 4, 64, 64, device=DEVICE)
    model.model.to(DEVICE)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    evaluate(model, *clip_of(16, 512), x, 499)
    assert torch.cuda.max_memory_allocated() - before < model.model.memory_required([32, 4, 64, 64])
