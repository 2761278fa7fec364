"""Previews have the right colours, which depend on the codec of the latents."""

import dev
from champ.model.checkpoint import find_set
from champ.model.latents import latents_of
from champ.model.loading import load_denoiser
from tools.latent_colours import error, shipped_codec


def test_the_tiny_codec_has_colours_of_its_own():
    tiny, usual = latents_of(32), latents_of(320)
    codec = shipped_codec()
    assert error(codec, tiny.latent_rgb_factors, tiny.latent_rgb_factors_bias) < 0.04
    assert error(codec, usual.latent_rgb_factors, [0.0, 0.0, 0.0]) > 0.2
    assert tiny.scale_factor == usual.scale_factor == 0.18215


def test_champ_tiny_is_shown_in_them():
    model = load_denoiser(find_set(dev.ROOT / "champ" / "assets" / "models" / "champ" / "champ_tiny"))
    assert model.model.latent_format.latent_rgb_factors == latents_of(32).latent_rgb_factors
