"""The noise schedule: zero terminal SNR, linear or scaled-linear betas, and the official (trailing) timesteps."""

from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..model.denoiser import BETAS, model_sampling


def with_betas(model: ModelPatcher, betas: str) -> ModelPatcher:
    """The model with other betas: "linear" as in the official inference, or "scaled_linear" as in its training."""
    if betas not in BETAS:
        raise ValueError(f"There is no noise schedule called {betas!r}; choose from {', '.join(BETAS)}.")
    patched = model.clone()
    patched.add_object_patch("model_sampling", model_sampling(betas))
    return patched


def alphas_cumprod(sampling: Any) -> Tensor:
    """abar_t = 1 / (1 + sigma_t^2) for every training step t, with the exact 0 that ComfyUI's last sigma stands for."""
    alphas = 1 / (1 + sampling.sigmas.double().cpu() ** 2)
    if sampling.zsnr:
        alphas[-1] = 0
    return alphas


def trailing_timesteps(steps: int, total: int = 1000) -> list[int]:
    """round(total - i total / steps) - 1, from total - 1 on, as diffusers' "trailing" spacing rounds it."""
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} steps are not possible; choose from 1 to {total}.")
    # Rounding makes this range one too long for some counts (61, say); the scheduler would then step to "-1".
    return (np.arange(total, 0, -total / steps).round().astype(int) - 1).tolist()[:steps]


def trailing_sigmas(sampling: Any, steps: int, denoise: float = 1.0) -> Tensor:
    """The sigmas of the official timesteps and a final 0; of a longer schedule the last `steps` if denoise < 1."""
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise is {denoise}; it must be from 0 (nothing changes) to 1 (all noise).")
    if denoise == 0:
        return torch.empty(0)
    sigmas = sampling.sigmas.cpu()
    total = min(int(steps / denoise), len(sigmas))
    kept = min(steps, max(1, round(total * denoise)))
    timesteps = trailing_timesteps(total, len(sigmas))
    return torch.cat([sigmas[timesteps], sigmas.new_zeros(1)])[-(kept + 1) :]
