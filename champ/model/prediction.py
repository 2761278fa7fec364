"""What the denoiser predicts, v or the noise, and at which noise levels."""

from types import SimpleNamespace
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from .families import CHAMP, FAMILIES

# ComfyUI's names of the noise schedules: what diffusers calls "linear" is its "sqrt_linear".
BETAS = {"linear": "sqrt_linear", "scaled_linear": "linear"}
# Replaces the infinite sigma of the step without signal. With ComfyUI's own 4519, its DDIM is four times as far from
# the official results; from 30000 on, the rounding of x_t * sigma in float32 dominates.
LAST_SIGMA = 25000.0


class _Levels(comfy.model_sampling.ModelSamplingDiscrete):
    """ComfyUI's noise levels, but as plain tensors in main memory with a copy on each device that asks.

    As buffers they would go where the model goes. A model that is loaded in part stays in main memory, and every
    evaluation would wait for a timestep from there; nodes that ask for a single level would wait for the card. And
    ComfyUI's dynamic memory restores buffers by their names, so that a changed schedule would get the old one's.
    """

    def set_sigmas(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas.float()
        self.log_sigmas = sigmas.log().float()
        self._copies: dict[torch.device, Tensor] = {}

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self._logs(sigma.device)[:, None]).abs().argmin(0).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        logs = self._logs(timestep.device)
        place = timestep.float().clamp(0, len(logs) - 1)
        below, above, share = place.floor().long(), place.ceil().long(), place.frac()
        return ((1 - share) * logs[below] + share * logs[above]).exp()

    def _logs(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = self.log_sigmas.to(device)
        return self._copies[device]


class NoiseSampling(_Levels, comfy.model_sampling.EPS):
    """Noise prediction, which begins with plain noise at whatever timestep if there is no picture in the latent.

    The official timesteps begin below the last one, where ComfyUI expects noise times sqrt(1 - alpha_bar).
    """

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return super().noise_scaling(sigma, noise, latent_image, max_denoise or not latent_image.any())


class VelocitySampling(_Levels, comfy.model_sampling.V_PREDICTION):
    """Prediction of v, with a last step that is all noise."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.set_sigmas(torch.cat([self.sigmas[:-1], self.sigmas.new_tensor([LAST_SIGMA])]))


def model_sampling(betas: str, family: str = CHAMP) -> NoiseSampling | VelocitySampling:
    """Returns the family's kind of prediction with 1000 steps of these betas: v, rescaled to zero terminal SNR, or the
    noise."""
    epsilon = FAMILIES[family].epsilon
    settings = {"beta_schedule": BETAS[betas], "linear_start": 0.00085, "linear_end": 0.012, "zsnr": not epsilon}
    return (NoiseSampling if epsilon else VelocitySampling)(SimpleNamespace(sampling_settings=settings))
