"""Pictures are resized exactly as the official pipelines do it."""

import comfy.clip_vision
import pytest
import torch

from champ.model.images import BICUBIC, LANCZOS, check_images, check_size, clip_vision_input, fit_images, resize


def test_maps_as_the_official_inference_resizes_them(family):
    data = family.data("preprocess")
    method = LANCZOS if family.name == "animate_anyone" else BICUBIC
    names = [key.removeprefix("guidance_in/") for key in data if key.startswith("guidance_in/")]
    assert names
    for name in names:
        resized = resize(data[f"guidance_in/{name}"].float() / 255, 96, 64, method)
        assert torch.equal(resized, data[f"guidance_tensor/{name}"][0].movedim(0, -1).float() / 255), name


def test_reference_for_clip_vision_and_vae(champ):
    data = champ.data("preprocess")
    picture = data["ref_image"][None].float() / 255
    seen = comfy.clip_vision.clip_preprocess(clip_vision_input(picture), crop=False)
    torch.testing.assert_close(seen, data["clip_pixel_values"], rtol=0, atol=1e-6)
    vae = fit_images(picture, 96, 64, "stretch")
    torch.testing.assert_close(vae.movedim(-1, 1) * 2 - 1, data["vae_input"], rtol=0, atol=1e-6)


def test_same_size_is_left_alone():
    picture = torch.randint(0, 256, (2, 16, 24, 3)).float() / 255
    for how in "stretch", "crop", "pad":
        assert torch.equal(fit_images(picture, 24, 16, how), picture)


def test_crop_and_pad_keep_the_aspect_ratio():
    disc = torch.zeros(1, 60, 120, 3)
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(120.0), indexing="ij")
    disc[0, (x - 59.5) ** 2 + (y - 29.5) ** 2 < 15**2] = 1

    def extent(picture):
        rows, columns = (picture[0, ..., 0] > 0.5).nonzero().T
        return int(columns.max() - columns.min()) + 1, int(rows.max() - rows.min()) + 1

    assert extent(fit_images(disc, 64, 64, "stretch")) == (16, 32)
    assert extent(fit_images(disc, 64, 64, "crop")) == (32, 32)
    padded = fit_images(disc, 64, 64, "pad")
    assert extent(padded) == (16, 16)
    assert padded[0, :16].max() == 0 and padded[0, 48:].max() == 0


def test_bad_input():
    with pytest.raises(ValueError, match="513x512 pixels are not multiples of 8; use 512x512"):
        check_size(513, 512)
    with pytest.raises(ValueError, match="not multiples of 8; use 16x16"):
        check_size(3, 0)
    for size in ((8, 64), (64, 8)):
        with pytest.raises(ValueError, match="pixels, which is too small for the networks; use 16x16 or more"):
            check_size(*size)
    with pytest.raises(ValueError, match="no fit called 'zoom'; choose from stretch, crop, pad"):
        fit_images(torch.zeros(1, 8, 8, 3), 8, 8, "zoom")
    with pytest.raises(ValueError, match="has no pictures; connect at least one"):
        check_images(torch.zeros(0, 8, 8, 3), "It")
    with pytest.raises(ValueError, match=r"has shape \(8, 8, 3\), but pictures"):
        check_images(torch.zeros(8, 8, 3), "It")
