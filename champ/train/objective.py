"""The objective: noise with an offset, v targets on a schedule without signal at its end, min-SNR weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

TIMESTEPS = 1000


def setting(default: Any, text: str) -> Any:
    """Makes a field that the command line offers."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Objective:
    """What is learned; the defaults are the official ones."""

    betas: str = setting("scaled_linear", "noise schedule: scaled_linear, or linear as the official inference has it")
    noise_offset: float = setting(0.05, "noise that is the same at all pixels of a channel")
    same_noise: float = setting(0.0, "share of the clips whose frames all get the same noise, as samplers may do")
    snr_gamma: float = setting(5.0, "min-SNR's bound; 0: every timestep counts the same")
    drop: float = setting(0.1, "how often a batch goes without the reference and its CLIP embedding")
    matching: float = setting(0.0, "how much it counts where in the reference the attention looks (drawn people only)")
    person: float = setting(0.0, "how much more the person's pixels count than the others, where there are masks")

    def schedule(self) -> Any:  # mypy sees none of the attributes of a DDIMScheduler
        return DDIMScheduler(
            num_train_timesteps=TIMESTEPS,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule=self.betas,
            rescale_betas_zero_snr=True,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        )

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws N(0, 1) + offset * N(0, 1) for latents (B, F, 4, h, w); the offset is one number per sample and
        channel."""
        noise = torch.randn(shape, generator=generator)
        if self.same_noise:
            same = torch.rand(shape[0], 1, 1, 1, 1, generator=generator) < self.same_noise
            noise = torch.where(same, noise[:, :1], noise)
        return noise + self.noise_offset * torch.randn(shape[0], 1, shape[2], 1, 1, generator=generator)

    def weights(self, schedule: Any, timesteps: Tensor) -> Tensor:
        """Computes min(SNR + 1, gamma) / (SNR + 1): the weights of min-SNR for a network that predicts v."""
        if not self.snr_gamma:
            return torch.ones(timesteps.shape, device=timesteps.device)
        alphas = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = alphas / (1 - alphas) + 1
        return snr.clamp(max=self.snr_gamma) / snr


def loss(prediction: Tensor, target: Tensor, weights: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Computes the mean of w (prediction - target)^2 in float32, for (B, F, 4, h, w) with weights (B, F) and of
    pixels."""
    errors = (prediction.float() - target.float()).square()
    if pixels is not None:
        errors = errors * pixels
    return (weights * errors.flatten(2).mean(2)).mean()
