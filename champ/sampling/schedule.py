"""The noise schedule: linear or scaled-linear betas, zero terminal SNR or not, and the official timesteps."""

from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..model.denoiser import champ_model
from ..model.families import FAMILIES
from ..model.prediction import BETAS, model_sampling

OFFICIAL = "official"
BETA_SCHEDULES = (OFFICIAL, *BETAS)


def with_betas(model: ModelPatcher, betas: str = OFFICIAL) -> ModelPatcher:
    """Returns the model with another beta schedule: "official", which is that of its family's inference, "linear" or
    "scaled_linear"."""
    if betas not in BETA_SCHEDULES:
        raise ValueError(f"There is no beta schedule called {betas!r}; choose from {', '.join(BETA_SCHEDULES)}.")
    family = champ_model(model).family
    patched = model.clone()
    patched.add_object_patch(
        "model_sampling", model_sampling(FAMILIES[family].betas if betas == OFFICIAL else betas, family)
    )
    return patched


def alphas_cumprod(sampling: Any) -> Tensor:
    """Returns alpha_bar_t = 1 / (1 + sigma_t^2) for every training step t, with an exact 0 for ComfyUI's last sigma."""
    alphas = 1 / (1 + sampling.sigmas.cpu().double() ** 2)  # not all devices have float64
    if sampling.zsnr:
        alphas[-1] = 0
    return alphas


def trailing_timesteps(steps: int, total: int = 1000) -> list[int]:
    """Returns round(total - i total / steps) - 1, from total - 1 on, rounded like diffusers' "trailing" spacing."""
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} steps are not possible; choose from 1 to {total}.")
    # Rounding makes this range one too long for some counts, such as 61; the scheduler would then step to "-1".
    return (np.arange(total, 0, -total / steps).round().astype(int) - 1).tolist()[:steps]


def leading_timesteps(steps: int, total: int = 1000) -> list[int]:
    """Returns n * (total // steps) + 1 from the last n to 0: diffusers' "leading" spacing with an offset of 1."""
    if not 1 <= steps < total:
        raise ValueError(f"{steps} steps are not possible; choose from 1 to {total - 1}.")
    return [n * (total // steps) + 1 for n in range(steps)][::-1]


def official_jump(timesteps: list[int], total: int = 1000) -> int | None:
    """Returns T // n, the step of the official scheduler with n steps, for consecutive timesteps of its n, with -1 for
    the end after them; None if there is no such n.

    If n does not divide T, this is less than the distance to the next timestep. One or two timesteps can belong to
    several n of 34 and more, whose steps differ by 1; an n that divides T is then preferred, otherwise the smallest.
    """

    def holds(n: int) -> bool:
        there = [*trailing_timesteps(n, total), -1]
        first = there.index(timesteps[0]) if timesteps[0] in there else 0
        return there[first : first + len(timesteps)] == timesteps

    fitting = (n for n in range(max(1, len(timesteps) - 1), total + 1) if holds(n))
    best = min(fitting, key=lambda n: (total % n > 0, n), default=None)
    return best and total // best


def official_sigmas(sampling: Any, steps: int, denoise: float = 1.0) -> Tensor:
    """Returns the sigmas of the official timesteps and a final 0; if denoise < 1, the last `steps` of a longer
    schedule."""
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise is {denoise}; it must be from 0 (nothing changes) to 1 (all noise).")
    if denoise == 0:
        return torch.empty(0)
    sigmas = sampling.sigmas.cpu()
    trailing = sampling.zsnr  # without zero terminal SNR, the official spacing is the leading one
    total = min(int(steps / denoise), len(sigmas) if trailing else len(sigmas) - 1)
    kept = min(steps, max(1, round(total * denoise)))
    timesteps = (trailing_timesteps if trailing else leading_timesteps)(total, len(sigmas))
    return torch.cat([sigmas[timesteps], sigmas.new_zeros(1)])[-(kept + 1) :]
