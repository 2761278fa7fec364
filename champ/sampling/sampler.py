"""The official sampler: deterministic DDIM on variance-preserving latents, exact at the zero-SNR step."""

from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import trange

from ..model.span import LEVEL, NoiseLevel
from .schedule import alphas_cumprod, official_jump


def ddim() -> comfy.samplers.KSAMPLER:
    """Returns a SAMPLER for ComfyUI's custom sampling nodes."""
    return comfy.samplers.KSAMPLER(sample_ddim)


def targets(sigmas: Tensor, model_sampling: Any) -> tuple[list[float], list[float]]:
    """Returns alpha_bar at each step, and the alpha_bar that the step leads to.

    The official scheduler goes from t to t - T // n, which is not the next timestep if n does not divide T. Sigmas of
    its n timesteps, all or a part of them, are followed to its targets; all others from one to the next.
    """
    if not isinstance(model_sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise ValueError("This sampler is for models with a DDPM noise schedule; use another one, such as euler.")
    alphas = alphas_cumprod(model_sampling)
    sigmas = sigmas.cpu()  # the CPU always has float64
    abar = 1 / (1 + sigmas.double() ** 2)
    abar[:-1][sigmas[:-1] >= float(model_sampling.sigma_max) * (1 - 1e-5)] = alphas[-1]
    there = abar[1:].tolist()
    timesteps = [int(model_sampling.timestep(sigma)) if sigma > 0 else -1 for sigma in sigmas]
    known = torch.cat([model_sampling.sigmas.cpu(), sigmas.new_zeros(1)])[timesteps].to(sigmas)
    official = model_sampling.zsnr and torch.allclose(known, sigmas)
    jump = official_jump(timesteps, len(alphas)) if official else None
    if jump:
        there = [float(alphas[t - jump]) if t >= jump else 1.0 for t in timesteps[:-1]]
    return abar[:-1].tolist(), there


def at_level(extra_args: dict[str, Any], level: NoiseLevel) -> dict[str, Any]:
    """Tells the model the noise level, which it would otherwise have to read from the device."""
    options = extra_args.get("model_options", {})
    told = {**options.get("transformer_options", {}), LEVEL: level}
    return {**extra_args, "model_options": {**options, "transformer_options": told}}


@torch.no_grad()
def sample_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Steps x_s = sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s) eps, with x0 and eps from the model's prediction at x_t
    (eta = 0).

    ComfyUI's x is x_t sqrt(1 + sigma^2). Its denoised picture is sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v, with the
    alpha_bar of a finite sigma. At the step without signal (alpha_bar = 0) this is undone: x0 = -v, eps = x_t.
    """
    model_sampling = model.inner_model.model_patcher.get_model_object("model_sampling")
    here, there = targets(sigmas, model_sampling)
    levels = sigmas.cpu().tolist()
    scale = (1 + sigmas.cpu().double() ** 2).sqrt().tolist()
    ones = x.new_ones([len(x)])
    x = x / scale[0]
    for i in trange(len(sigmas) - 1, disable=disable):
        told = at_level(extra_args or {}, NoiseLevel(levels[i], i == 0))
        denoised = model(x * scale[i], sigmas[i] * ones, **told)
        if callback is not None:
            callback({"x": x * scale[i], "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        if here[i] == 0:
            abar = 1 / scale[i] ** 2
            x0, eps = (denoised - abar**0.5 * x) / (1 - abar) ** 0.5, x
        else:
            x0, eps = denoised, (x - here[i] ** 0.5 * denoised) / (1 - here[i]) ** 0.5
        x = there[i] ** 0.5 * x0 + (1 - there[i]) ** 0.5 * eps
    return x * scale[-1]
