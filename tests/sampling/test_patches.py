"""Nodes of ComfyUI that patch a MODEL, with references."""

from dataclasses import fields

import comfy.sample
import pytest
import torch
from comfy_extras import nodes_hypertile, nodes_model_downscale, nodes_pag, nodes_sag, nodes_tomesd
from comfyui_nodes import patched
from golden import relative
from two_levels import a_reference, clip_of, two_levels

from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.model.reference import Reference
from champ.sampling.aggregation import with_windows
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas

FRAMES, SIZE = 4, 64
HERE = torch.ones(SIZE // 8, SIZE // 8)


@pytest.fixture(scope="module")
def small():
    return two_levels()


def sample(model, conds, frames: int = FRAMES):
    noise = torch.randn(frames, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(0))
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 2)
    return comfy.sample.sample_custom(
        model, noise, 3.5, ddim(), sigmas, *conds, torch.zeros_like(noise), disable_pbar=True, seed=0
    )


def calibrated(masked: bool) -> CalibratedReference:
    """Two warps, read in turn; with masks, the person is the upper half."""
    plain = a_reference(SIZE)
    own = {field.name: getattr(plain, field.name) for field in fields(Reference)}
    upper = (torch.arange(SIZE // 8) < SIZE // 16).float()[:, None] * HERE
    warps = [
        Warp({place: x.roll(i, 1) for place, x in plain.tokens.items()}, HERE, upper if masked else None)
        for i in range(2)
    ]
    people = {"people": upper.expand(FRAMES, -1, -1), "person": upper} if masked else {}
    warp_of, groups = tuple(i % 2 for i in range(FRAMES)), groups_of([0] * FRAMES, 1)
    calibration = Calibration(tuple(warps), warp_of, groups, 0, **people)
    return CalibratedReference(**own, calibration=calibration, width=SIZE, height=SIZE)


@pytest.fixture(scope="module")
def conds():
    return {
        "plain": clip_of(FRAMES, SIZE),
        "calibrated": clip_of(FRAMES, SIZE, [calibrated(False)]),
        "masked": clip_of(FRAMES, SIZE, [calibrated(True)]),
    }


def tome(model):
    return patched(nodes_tomesd.TomePatchModel, model, ratio=0.3)


def deep_shrink(model):
    return patched(
        nodes_model_downscale.PatchModelAddDownscale,
        model,
        block_number=1,
        downscale_factor=2.0,
        start_percent=0.0,
        end_percent=0.35,
        downscale_after_skip=True,
        downscale_method="bicubic",
        upscale_method="bicubic",
    )


def hypertile(model):
    return patched(nodes_hypertile.HyperTile, model, tile_size=32, swap_size=2, max_depth=0, scale_depth=False)


@pytest.mark.parametrize("patch", [tome, deep_shrink])
def test_fewer_queries(small, conds, patch):
    """Where all pixels read the same; person and background are told apart by the pixel."""
    windows = with_windows(small, 3, 2, "open", "ramps")
    for name in "plain", "calibrated":
        found = sample(patch(windows), conds[name])
        assert found.isfinite().all() and relative(found, sample(windows, conds[name])) > 1e-3
    with pytest.raises(
        ValueError, match=r"gives self-attention \d+ pixels .* instead of \d+, .*; bypass that node, or"
    ):
        sample(patch(windows), conds["masked"])


@pytest.mark.parametrize("name", ["plain", "calibrated", "masked"])
def test_tiles_are_refused(small, conds, name):
    with pytest.raises(ValueError, match="HyperTile.* into tiles, which cannot read the reference; bypass that node"):
        sample(hypertile(small), conds[name])


def test_sag_looks_at_the_whole_clip_and_is_refused_in_windows(small, conds):
    """PAG replaces the same attention, in an evaluation of its own."""
    sag = patched(nodes_sag.SelfAttentionGuidance, small, scale=0.5, blur_sigma=2.0)
    for model in sag, with_windows(sag, FRAMES, 0):
        assert relative(sample(model, conds["plain"]), sample(small, conds["plain"])) > 1e-3
    with pytest.raises(ValueError, match=r"\(SAG\) looks at the attention of the last window only.*; bypass that node"):
        sample(with_windows(sag, 3, 2, "open", "ramps"), conds["plain"])
    windows = with_windows(small, 3, 2, "open", "ramps")
    pag = patched(nodes_pag.PerturbedAttentionGuidance, windows, scale=3.0)
    assert relative(sample(pag, conds["plain"]), sample(windows, conds["plain"])) > 1e-3
