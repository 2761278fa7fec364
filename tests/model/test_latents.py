"""Previews have the right colours, which depend on the codec of the latents."""

import comfy.model_management
import comfy.sd
import pytest
import torch
from safetensors.torch import load_file

import dev
from champ.model.checkpoint import find_set
from champ.model.latents import latents_of
from champ.model.loading import load_denoiser
from tools.latent_colours import error, shipped_codec


def test_the_tiny_codec_has_colours_of_its_own():
    tiny, usual = latents_of(32), latents_of(320)
    codec = shipped_codec()
    assert error(codec, tiny.latent_rgb_factors, tiny.latent_rgb_factors_bias) < 0.06
    assert error(codec, usual.latent_rgb_factors, [0.0, 0.0, 0.0]) > 0.2
    assert tiny.scale_factor == usual.scale_factor == 0.18215


def test_champ_tiny_is_shown_in_them():
    model = load_denoiser(find_set(dev.ROOT / "champ" / "assets" / "models" / "champ" / "champ_tiny"))
    assert model.model.latent_format.latent_rgb_factors == latents_of(32).latent_rgb_factors


@pytest.mark.parametrize("what", ["encode", "decode"])
def test_a_long_clip_goes_through_the_vae_in_pieces(what, monkeypatch):
    """ComfyUI takes as many frames at once as find room, so that memory does not grow with the clip."""
    vae = comfy.sd.VAE(sd=load_file(dev.ROOT / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"))
    given = torch.rand(5, 32, 48, 3) if what == "encode" else torch.randn(5, 4, 4, 6)
    pieces, inner = [], getattr(vae.first_stage_model, what)

    def counted(x, *args, **kwargs):
        pieces.append(len(x))
        return inner(x, *args, **kwargs)

    monkeypatch.setattr(vae.first_stage_model, what, counted)
    at_once = getattr(vae, what)(given)
    room = comfy.model_management.get_free_memory(vae.device)
    monkeypatch.setattr(vae, f"memory_used_{what}", lambda shape, dtype: room / 2.5)
    torch.testing.assert_close(getattr(vae, what)(given), at_once, rtol=0, atol=1e-4)
    assert pieces == [5, 2, 2, 1]
