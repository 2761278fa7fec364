"""The noise schedule against numbers of the official scheduler."""

import comfy.samplers
import pytest
import torch

from champ.sampling.schedule import alphas_cumprod, official_jump, official_sigmas, trailing_timesteps, with_betas

OFFICIAL = {
    "linear": {0: 0.99914998, 49: 0.94315058, 99: 0.86386257, 249: 0.5557031, 499: 0.14252949, 749: 0.013368193,
               949: 2.0144803e-4, 998: 6.2773672e-8},
    "scaled_linear": {0: 0.99914998, 49: 0.94925874, 99: 0.88808566, 249: 0.65418887, 499: 0.242359, 749: 0.033171453,
                      949: 6.125418e-4},
}  # fmt: skip


@pytest.mark.parametrize("betas", OFFICIAL)
def test_alphas(champ, betas):
    model = with_betas(champ.model, betas)
    alphas = alphas_cumprod(model.get_model_object("model_sampling"))
    assert len(alphas) == 1000 and alphas[999] == 0
    for t, alpha in OFFICIAL[betas].items():
        assert alphas[t] == pytest.approx(alpha, rel=2e-6, abs=1e-9)
    assert model.model is champ.model.model


def test_the_default_is_linear(champ):
    default = champ.model.get_model_object("model_sampling")
    assert torch.equal(default.sigmas, with_betas(champ.model, "linear").get_model_object("model_sampling").sigmas)
    with pytest.raises(
        ValueError, match="no beta schedule called 'cosine'; choose from official, linear, scaled_linear"
    ):
        with_betas(champ.model, "cosine")


def test_trailing_timesteps():
    assert trailing_timesteps(20) == list(range(999, 0, -50))
    assert trailing_timesteps(30)[:7] == [999, 966, 932, 899, 866, 832, 799]
    assert trailing_timesteps(30)[-1] == 32
    assert trailing_timesteps(1) == [999]
    for steps in range(1, 1001):
        timesteps = trailing_timesteps(steps)
        assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
        assert timesteps == sorted(set(timesteps), reverse=True)
    with pytest.raises(ValueError, match="1001 steps are not possible; choose from 1 to 1000"):
        trailing_timesteps(1001)


def test_a_part_of_a_schedule_has_the_jump_of_the_whole():
    for steps in 1, 2, 12, 20, 24, 30, 33:
        timesteps = [*trailing_timesteps(steps), -1]
        assert official_jump(timesteps) == 1000 // steps
        for split in range(1, steps):
            assert official_jump(timesteps[: split + 1]) == official_jump(timesteps[split:]) == 1000 // steps
    # The first or last step of 50 could be of 51, which go on by 19.
    assert trailing_timesteps(50)[:2] == trailing_timesteps(51)[:2] == [999, 979]
    assert official_jump([999, 979]) == official_jump([19, -1]) == 20
    assert official_jump([999, 958]) is None and official_jump([999, 957, 900]) is None


def test_sigmas_are_those_of_the_simple_scheduler_where_that_is_exact(champ):
    sampling = champ.model.get_model_object("model_sampling")
    for steps in 10, 20, 25, 40, 50:
        simple = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        assert torch.equal(official_sigmas(sampling, steps), simple)
    thirty = official_sigmas(sampling, 30)
    assert [int(sampling.timestep(sigma)) for sigma in thirty[:-1]] == trailing_timesteps(30)
    assert not torch.equal(thirty, comfy.samplers.calculate_sigmas(sampling, "simple", 30))


def test_partial_denoising(champ):
    sampling = champ.model.get_model_object("model_sampling")
    assert torch.equal(official_sigmas(sampling, 10, 0.5), official_sigmas(sampling, 20)[-11:])
    assert len(official_sigmas(sampling, 10, 0.0)) == 0
    # A schedule has at most 1000 timesteps: with many steps fewer are left, not more of the video is lost.
    for steps, denoise, kept in ((500, 0.1, 100), (1000, 0.5, 500), (100, 0.05, 50), (20, 0.01, 10)):
        sigmas = official_sigmas(sampling, steps, denoise)
        assert len(sigmas) == kept + 1 and int(sampling.timestep(sigmas[0])) < 1000 * denoise
    with pytest.raises(ValueError, match="denoise is 1.5; it must be from 0"):
        official_sigmas(sampling, 10, 1.5)
