"""Whole clips against the official pipeline, with the pack's sampler and with ComfyUI's own."""

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import pytest
import torch
from golden import frames_first, relative

from champ.sampling.aggregation import with_windows
from champ.sampling.noise import OfficialNoise
from champ.sampling.sampler import ddim, sample_ddim, targets
from champ.sampling.schedule import alphas_cumprod, official_sigmas, with_betas


def sample(model, sampler, sigmas, noise, conditioning, latent=None):
    positive, negative = conditioning
    latent = torch.zeros_like(noise) if latent is None else latent
    found = comfy.sample.sample_custom(
        model, noise, 3.5, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=0
    )
    return found * 0.18215


@pytest.mark.parametrize("length", ["short", "long"])
def test_official_clips(family, length):
    """20 steps of 16 frames, and of 40 frames in two windows."""
    data = {key: frames_first(x) for key, x in family.data("sample").items() if key.startswith(length)}
    if not data:
        pytest.skip("there is no long clip of Animate Anyone")
    noise = data[f"{length}/noise"]
    assert torch.equal(OfficialNoise(1001).generate_noise({"samples": torch.zeros_like(noise)}), noise)
    model = with_windows(family.model)
    sampling = model.get_model_object("model_sampling")
    sigmas = official_sigmas(sampling, 20)
    exact = sample(model, ddim(), sigmas, noise, family.conditioning(len(noise)))
    assert relative(exact, data[f"{length}/latents_final/exact_fp64"]) < 5e-5
    assert relative(exact, data[f"{length}/latents_final/bank_fp32"]) < 5e-5
    if length == "long":
        return  # windows are the same for every sampler, and ComfyUI's own is compared on the short clip
    simple = comfy.samplers.calculate_sigmas(sampling, "simple", 20)
    stock = sample(model, comfy.samplers.sampler_object("ddim"), simple, noise, family.conditioning(len(noise)))
    # This Animate Anyone net answers a change of 1e-5 in the noise with 5e-4, seven times as much as the Champ net.
    assert relative(stock, data[f"{length}/latents_final/bank_fp32"]) < (
        2e-3 if family.name == "animate_anyone" else 5e-4
    )


class Linear:
    """A stand-in for a model: predicts v = a x_t + b(t) for ComfyUI's samplers."""

    def __init__(self, patcher):
        self.inner_model = self
        self.model_patcher = patcher
        self.seen = []

    def v(self, x, t):
        return 0.3 * x + torch.sin(torch.tensor(t / 100.0))

    def __call__(self, x, sigma, **kwargs):
        sampling = self.model_patcher.get_model_object("model_sampling")
        t = int(sampling.timestep(sigma[0]))
        self.seen.append(t)
        scale = (1 + sigma[0].double() ** 2) ** 0.5
        x = x / scale
        return x / scale - self.v(x, t) * sigma[0] / scale


def official_ddim(model, x, timesteps, alphas, target_steps):
    for t in timesteps:
        a, p = alphas[t], alphas[t - target_steps] if t >= target_steps else torch.tensor(1.0)
        v = model.v(x, t)
        x0, e = a**0.5 * x - (1 - a) ** 0.5 * v, a**0.5 * v + (1 - a) ** 0.5 * x
        x = p**0.5 * x0 + (1 - p) ** 0.5 * e
    return x


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 30, 600])
def test_step_counts_that_do_not_divide_1000(champ, steps):
    """The official scheduler goes from t to t - 1000 // n, even where that is not the next timestep."""
    model, x = Linear(champ.model), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    sampling = champ.model.get_model_object("model_sampling")
    sigmas = official_sigmas(sampling, steps)
    found = sample_ddim(model, x * (1 + sigmas[0].double() ** 2) ** 0.5, sigmas, disable=True)
    timesteps = [int(sampling.timestep(sigma)) for sigma in sigmas[:-1]]
    assert model.seen == timesteps
    wanted = official_ddim(model, x, timesteps, alphas_cumprod(sampling), 1000 // steps)
    assert relative(found, wanted) < 1e-6


def test_targets(champ):
    sampling = champ.model.get_model_object("model_sampling")
    alphas = alphas_cumprod(sampling)
    here, there = targets(official_sigmas(sampling, 30), sampling)
    assert here[0] == 0 and there[:3] == [alphas[t].item() for t in (966, 933, 899)]  # not 966, 932, 899
    assert there[-1] == 1
    part = official_sigmas(sampling, 10, 0.5)
    here, there = targets(part, sampling)
    assert here == pytest.approx(alphas[[int(sampling.timestep(s)) for s in part[:-1]]].tolist(), rel=1e-5)
    assert there == [*here[1:], 1.0]


def test_models_with_another_kind_of_noise_are_refused():
    flow = comfy.model_sampling.ModelSamplingDiscreteFlow()
    with pytest.raises(ValueError, match="sampler is for models with a DDPM noise schedule"):
        targets(torch.tensor([1.0, 0.0]), flow)


@pytest.mark.parametrize("steps", [1, 3, 7, 12, 20, 24, 30, 33, 50])
def test_stopping_and_going_on(champ, steps):
    """Sigmas split in two anywhere give what they give in one piece: what is handed over is ComfyUI's x."""
    model, noise = Linear(champ.model), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    sigmas = official_sigmas(champ.model.get_model_object("model_sampling"), steps)
    x = noise * (1 + sigmas[0].double() ** 2) ** 0.5
    calls = []
    whole = sample_ddim(model, x, sigmas, callback=calls.append, disable=True)
    assert [call["i"] for call in calls] == list(range(steps))
    for split in range(steps + 1):
        part = sample_ddim(model, x, sigmas[: split + 1], disable=True)
        assert relative(sample_ddim(model, part, sigmas[split:], disable=True), whole) < 1e-12, split


def test_other_sigmas_are_followed_as_they_are(champ):
    """A schedule that is not the official one, and a part of such a one, goes from each sigma to the next."""
    sampling = champ.model.get_model_object("model_sampling")
    karras = comfy.samplers.calculate_sigmas(sampling, "karras", 24)
    off = official_sigmas(sampling, 24) * 1.001
    for sigmas in karras, karras[5:12], off, off[3:9]:
        here, there = targets(sigmas, sampling)
        assert there == [*here[1:], pytest.approx(1 / (1 + float(sigmas[-1]) ** 2))]


def test_partial_denoising_keeps_the_latent(champ):
    """sqrt(abar) latent + sqrt(1 - abar) noise goes in, and a tenth of the denoising changes least."""
    latent = torch.randn(4, 4, 8, 12)
    sampling = champ.model.get_model_object("model_sampling")
    noise = OfficialNoise(3).generate_noise({"samples": latent})
    changes, first = [], []

    def watched(model, x, sigmas, **kwargs):
        first.append(x / (1 + sigmas[0] ** 2) ** 0.5)
        return sample_ddim(model, x, sigmas, **kwargs)

    for denoise in 0.1, 0.5, 1.0:
        sigmas = official_sigmas(sampling, 3, denoise)
        found = sample(champ.model, comfy.samplers.KSAMPLER(watched), sigmas, noise, champ.conditioning(4), latent)
        changes.append(relative(found, latent * 0.18215))
        abar = 1 / (1 + sigmas[0] ** 2)
        wanted = abar**0.5 * latent * 0.18215 + (1 - abar) ** 0.5 * noise
        torch.testing.assert_close(first[-1], wanted, rtol=1e-4, atol=1e-4)
    assert min(changes) == changes[0]


def test_other_samplers_and_schedulers(champ):
    model = with_betas(champ.model, "scaled_linear")
    sampling = model.get_model_object("model_sampling")
    noise = torch.randn(2, 4, 8, 12)
    for sampler in "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "lcm", "heun":
        sigmas = comfy.samplers.calculate_sigmas(sampling, "karras" if sampler == "heun" else "normal", 3)
        found = sample(model, comfy.samplers.sampler_object(sampler), sigmas, noise, champ.conditioning(2))
        assert torch.isfinite(found).all(), sampler
