"""NaN and infinity are found in the first step, and told with their cause."""

from dataclasses import replace

import comfy.sample
import comfy.samplers
import pytest
import torch
from golden import HEIGHT, WIDTH

from champ.model.conditioning import conditioning
from champ.model.finite import check_sampled, network_cause
from champ.model.guidance import Guidance, GuidanceMap, Layer, encode_guidance
from champ.model.loading import load_denoiser, load_encoders, load_reference_net
from champ.model.reference import encode_reference
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas

NAN = float("nan")
STEPS = 3


def sample(family, sampler=None, model=None, guidance=None, references=None, embeds=None, noise=None):
    """Two frames of 64x64 pixels, small ones being enough to break."""
    guidance = guidance or Guidance((Layer(torch.zeros(2, 32, 8, 8)),), 2, 64, 64, "Champ")
    embeds = family.clip_embeds if embeds is None else embeds
    positive, negative = conditioning(64, guidance, references or family.references, embeds)
    model = model or family.model
    sigmas = official_sigmas(model.get_model_object("model_sampling"), STEPS)
    noise = torch.randn(2, 4, 8, 8) if noise is None else noise
    options = {"sampler": sampler or ddim(), "disable_pbar": True}
    return comfy.sample.sample_custom(
        model, noise, 2.0, sigmas=sigmas, positive=positive, negative=negative, latent_image=noise * 0, **options
    )


@pytest.fixture
def calls(champ, monkeypatch):
    """How often the denoiser is asked."""
    unet, made = champ.model.model.diffusion_model, []
    forward = unet._forward
    monkeypatch.setattr(unet, "_forward", lambda *a, **k: made.append(1) or forward(*a, **k))
    return made


@pytest.mark.parametrize(
    "sampler, key",
    [
        ("champ", "input_blocks.4.1.proj_in.weight"),
        ("euler", "middle_block.motion.proj_out.bias"),
        ("dpmpp_2m", "input_blocks.4.1.proj_in.weight"),
    ],
)
def test_weights(champ, sampler, key):
    model = load_denoiser(champ.files)
    model.model.diffusion_model.state_dict()[key].view(-1)[3] = NAN
    sampler = ddim() if sampler == "champ" else comfy.samplers.sampler_object(sampler)
    with pytest.raises(ValueError) as told:
        sample(champ, sampler, model)
    assert str(told.value) == (
        "The first step of the sampling gave NaN or infinite values: in the denoiser its weights contain some, first "
        f"in {key}; get its file again, or remove the LoRA from it."
    )


def test_what_the_sampler_is_given(champ, calls):
    features = torch.zeros(2, 32, 8, 8)
    features[1, 0, 0, 0] = NAN
    guidance = Guidance((Layer(features),), 2, 64, 64, "Champ")
    (reference,) = champ.references
    broken = {place: tokens + NAN if place == ("middle", 0) else tokens for place, tokens in reference.tokens.items()}
    for given, cause in (
        ({"guidance": guidance}, "they are already in the guidance; encode the maps again"),
        (
            {"references": [replace(reference, tokens=broken)]},
            "they are already in the reference; encode its image again",
        ),
        (
            {"embeds": champ.clip_embeds * NAN},
            "they are already in the CLIP vision embedding; get the CLIP vision file again",
        ),
        (
            {"noise": torch.full((2, 4, 8, 8), NAN)},
            "they are already in the latent; encode the video again with another VAE",
        ),
    ):
        calls.clear()
        with pytest.raises(ValueError, match=f"first step of the sampling gave NaN or infinite values: {cause}"):
            sample(champ, **given)
        assert len(calls) == 1


def test_later_steps_are_not_waited_for(champ, calls, monkeypatch):
    unet = champ.model.model.diffusion_model
    forward = unet._forward
    monkeypatch.setattr(unet, "_forward", lambda *a, **k: forward(*a, **k) * (NAN if len(calls) > 1 else 1))
    samples = sample(champ)
    assert len(calls) >= STEPS
    samples[0] = 1
    with pytest.raises(ValueError, match="1 of the 2 sampled frames hold NaN .* start ComfyUI with --force-fp32"):
        check_sampled(samples)
    check_sampled(samples[:1])


def test_encoders_and_reference_net(champ):
    encoders, net = load_encoders(champ.files), load_reference_net(champ.files)
    encoders.patcher.model["normal"].conv_in.bias[0] = NAN
    images = torch.rand(3, HEIGHT, WIDTH, 3)
    assert encode_guidance(encoders, {"depth": GuidanceMap(images)}, WIDTH, HEIGHT).frames == 3
    maps = {"depth": GuidanceMap(images), "normal": GuidanceMap(images)}
    with pytest.raises(ValueError, match="normal encoder gave NaN .* from frame 0 on: its weights .* first in conv_in"):
        encode_guidance(encoders, maps, WIDTH, HEIGHT)
    net.patcher.model.input_blocks[4][0].in_layers[2].weight.fill_(float("inf"))
    latents = torch.randn(1, 4, 8, 8)
    with pytest.raises(
        ValueError, match="ReferenceNet gave NaN .* reference image 0: its weights contain some, first in input_b"
    ):
        encode_reference(net, latents)
    with pytest.raises(ValueError, match="The VAE gave NaN .* start ComfyUI with --fp32-vae"):
        encode_reference(champ.net, latents * NAN)
    with pytest.raises(ValueError, match="CLIP vision embedding .* holds NaN .* get the CLIP vision file again"):
        encode_reference(champ.net, latents, champ.clip_embeds / 0)


def test_overflow_is_told_from_damage():
    layer = torch.nn.Linear(2, 2)
    assert network_cause(layer, torch.float16).startswith("its values are too large for float16; start ComfyUI with")
    assert "its weights are far too large" in network_cause(layer, torch.float32)
    layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)
    assert "too large for bfloat16" in network_cause(layer, torch.bfloat16)
    layer.weight.data = torch.full((2, 2), NAN).to(torch.float8_e4m3fn)
    assert "its weights contain some, first in weight" in network_cause(layer, torch.float16)
