"""Whole clips of MagicAnimate against its official pipeline."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from golden import frames_first, relative

from champ.model.families import FAMILIES
from champ.model.span import Span
from champ.sampling.aggregation import with_windows
from champ.sampling.noise import RepeatedNoise
from champ.sampling.sampler import ddim
from champ.sampling.schedule import alphas_cumprod, leading_timesteps, official_sigmas
from champ.sampling.shortcuts import with_cfg_interval, with_deep_cache


def sample(model, noise, conditioning, sigmas, sampler=None, latent=None, cfg=7.5):
    latent = torch.zeros_like(noise) if latent is None else latent
    found = comfy.sample.sample_custom(
        model, noise, cfg, sampler or ddim(), sigmas, *conditioning, latent, disable_pbar=True, seed=0
    )
    return found * 0.18215


def test_an_official_clip(magic_animate):
    """25 steps of 16 frames."""
    data = magic_animate.data("sample")
    wanted = frames_first(data["short/latents_final/bank_fp32"])
    noise = RepeatedNoise(1001).generate_noise({"samples": torch.zeros_like(wanted)})
    model = with_windows(magic_animate.model)
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 25)
    found = sample(model, noise, magic_animate.conditioning(16, "short"), sigmas)
    assert relative(found, wanted) < 5e-4
    assert relative(found, frames_first(data["short/latents_final/exact_fp64"])) < 5e-4


@pytest.mark.parametrize(("name", "windows"), [("odd", 2), ("long", 4)])
def test_the_first_steps_of_clips_in_windows(magic_animate, name, windows):
    """20 frames, and 48 whose noise repeats; the official code had rounded what ReferenceNet saw."""
    data = magic_animate.data("sample")
    wanted = frames_first(data[f"{name}/latents_after_2"])
    empty = {"samples": torch.zeros_like(wanted)}
    noise = frames_first(data["odd/noise"]) if name == "odd" else RepeatedNoise(1002).generate_noise(empty)
    model = with_windows(magic_animate.model)
    handler = model.model_options["context_handler"]
    assert handler.context_length == 16 and len(handler.windows(len(wanted), 0)) == windows
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 25)[:3]
    found = sample(model, noise, magic_animate.conditioning(len(wanted), name), sigmas)
    assert relative(found / (1 + sigmas[-1] ** 2) ** 0.5, wanted) < 5e-4


def test_timesteps_and_noise_levels_are_the_official_ones(magic_animate):
    assert leading_timesteps(25)[:3] == [961, 921, 881] and leading_timesteps(25)[-2:] == [41, 1]
    assert leading_timesteps(30)[:2] == [958, 925] and leading_timesteps(30)[-2:] == [34, 1]
    sampling = magic_animate.model.get_model_object("model_sampling")
    alphas = alphas_cumprod(sampling)
    for t, wanted in ((0, 0.99914998), (41, 0.95567775), (481, 0.18138821), (961, 0.0024783323), (999, 0.0015789628)):
        assert float(alphas[t]) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="1000 steps are not possible; choose from 1 to 999"):
        leading_timesteps(1000)


def test_an_empty_latent_begins_with_plain_noise(magic_animate):
    """And a video with the noise of its noise level."""
    sampling = magic_animate.model.get_model_object("model_sampling")
    sigma, noise = sampling.sigma(torch.tensor(961.0)), torch.randn(2, 4, 8, 12)
    begun = sampling.noise_scaling(sigma, noise.clone(), torch.zeros_like(noise))
    torch.testing.assert_close(sampling.calculate_input(sigma, begun), noise)
    video = torch.ones_like(noise)
    torch.testing.assert_close(sampling.noise_scaling(sigma, noise.clone(), video), noise * sigma + video)


def test_an_empty_latent_outside_of_a_mask_has_the_noise_of_each_step(magic_animate):
    """ComfyUI puts it there before each step, and the model should find there what it finds inside."""
    noise = torch.randn(2, 4, 8, 12)
    sigmas, mask, seen = (
        official_sigmas(magic_animate.model.get_model_object("model_sampling"), 2),
        noise[:, :1] > 0,
        [],
    )

    def look(predict, args):
        seen.append(args["input"][: len(noise)].clone())
        return predict(args["input"], args["timestep"], **args["c"])

    model = magic_animate.model.clone()
    model.set_model_unet_function_wrapper(look)
    conds, empty = magic_animate.conditioning(2, "short"), torch.zeros_like(noise)
    comfy.sample.sample_custom(
        model, noise, 7.5, ddim(), sigmas, *conds, empty, noise_mask=mask.float(), disable_pbar=True, seed=0
    )
    outside = ~mask.expand_as(noise)
    for x, sigma in zip(seen[-2:], sigmas):
        torch.testing.assert_close(x[outside], (noise * sigma)[outside])


def test_noise_repeats_every_16_frames():
    noise = RepeatedNoise(5).generate_noise({"samples": torch.zeros(20, 4, 3, 2)})
    assert torch.equal(noise[16:], noise[:4]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(RepeatedNoise(5).generate_noise({"samples": torch.zeros(3, 4, 3, 2)}), noise[:3])


def test_windows_are_those_of_the_family(champ, magic_animate):
    for golden in champ, magic_animate:
        found = with_windows(golden.model).model_options["context_handler"].context_length
        assert found == FAMILIES[golden.files.family].window


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler_ancestral", "normal"), ("dpmpp_2m", "karras")])
def test_samplers_of_comfyui(magic_animate, sampler, scheduler):
    """ReferenceNet sees the image at whatever timesteps they ask for."""
    noise = RepeatedNoise(1).generate_noise({"samples": torch.zeros(3, 4, 8, 12)})
    sigmas = comfy.samplers.calculate_sigmas(magic_animate.model.get_model_object("model_sampling"), scheduler, 2)
    method = comfy.samplers.sampler_object(sampler)
    found = sample(magic_animate.model, noise, magic_animate.conditioning(3, "short"), sigmas, method)
    assert torch.isfinite(found).all() and found.std() > 0.1


@pytest.fixture
def short(magic_animate):
    """Samples two frames."""
    noise = RepeatedNoise(1).generate_noise({"samples": torch.zeros(2, 4, 8, 12)})
    conds = magic_animate.conditioning(2, "short")

    def make(sigmas, model=magic_animate.model, cfg=7.5):
        return sample(model, noise, conds, sigmas, cfg=cfg)

    return make


def test_cfg_in_a_part_of_the_sampling(magic_animate, short):
    """Outside of it, the steps are those of cfg 1."""
    sigmas = official_sigmas(magic_animate.model.get_model_object("model_sampling"), 2)
    without = short(sigmas, cfg=1.0)
    assert torch.equal(short(sigmas, with_cfg_interval(magic_animate.model, Span(0.0, 0.001))), without)
    half = short(sigmas, with_cfg_interval(magic_animate.model, Span(0.0, 0.5)))
    assert relative(half, short(sigmas)) > 1e-3 and relative(half, without) > 1e-3 and half.isfinite().all()


def test_cached_features(magic_animate, short):
    """Exact in a second step of the same noise level, with the ControlNet's residuals of the blocks that are evaluated;
    not far off in the next one."""
    sampling, middle = magic_animate.model.get_model_object("model_sampling"), []
    hook = magic_animate.model.model.diffusion_model.middle_block[0].register_forward_hook(lambda *_: middle.append(1))
    sigma = float(sampling.sigma(torch.tensor(481.0)))
    pair = torch.tensor([sigma, sigma * (1 - 1e-6), 0.0])
    plain = short(pair)
    for blocks in (1, 5):
        middle.clear()
        assert relative(short(pair, with_deep_cache(magic_animate.model, 2, blocks, Span())), plain) < 1e-4
        assert len(middle) == 1
    hook.remove()
    sigmas = official_sigmas(sampling, 25)[12:15]
    assert 1e-5 < relative(short(sigmas, with_deep_cache(magic_animate.model, 2, 5, Span())), short(sigmas)) < 0.2
