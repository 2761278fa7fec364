"""Distils a model to few steps without guidance: a step of the student goes where several steps of its teacher go.

Progressive distillation (arXiv 2202.00512) of a guided teacher (arXiv 2210.03142), in one round: the student starts as
a copy of the teacher, and learns the v with which one step of DDIM lands where the teacher's steps with guidance land.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .networks import Champ
from .objective import TIMESTEPS, setting
from .trainer import Trainer

COMPARED = 4096  # values of each tensor by which teachers are told apart

Predict = Callable[[Tensor, int], Tensor]  # v of latents at a timestep


@dataclass(frozen=True)
class Distillation:
    """How many steps the student takes, and what it learns from."""

    few: int = setting(4, "steps of the distilled model")
    substeps: int = setting(3, "steps of the teacher for each of them")
    teacher_cfg: float = setting(2.0, "guidance scale of the teacher; the distilled model runs at cfg 1")


def ddim_step(x: Tensor, v: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Takes latents from one alpha_bar to another."""
    return there**0.5 * (here**0.5 * x - (1 - here) ** 0.5 * v) + (1 - there) ** 0.5 * (
        (1 - here) ** 0.5 * x + here**0.5 * v
    )


def velocity_between(x: Tensor, end: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Returns the v with which `ddim_step` leads from x to its end."""
    kept = (here * there) ** 0.5 + ((1 - here) * (1 - there)) ** 0.5
    return (end - kept * x) / ((here * (1 - there)) ** 0.5 - (there * (1 - here)) ** 0.5)


class Distiller(Trainer):
    """A trainer whose targets are made by a copy of the model as it is at the beginning."""

    leads_on = False  # the student would become the teacher

    def __init__(self, model: Champ, *rest: Any, distillation: Distillation):
        self.distillation = distillation
        if TIMESTEPS % distillation.few or distillation.substeps < 1:
            raise ValueError(
                f"--few is {distillation.few} and --substeps {distillation.substeps}; --few must divide {TIMESTEPS} (4 "
                "and 8 are usual), and --substeps must be 1 or more."
            )
        self.teacher = copy.deepcopy(model.denoiser).requires_grad_(False)
        self.taught_by = _digest(self.teacher)
        super().__init__(model, *rest)
        self.teacher.to(self.accelerator.device)

    def fixed(self) -> dict[str, Any]:
        return {**super().fixed(), **asdict(self.distillation), "teacher": self.taught_by}

    def draw_timesteps(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draws from the timesteps of the student's sampling: of 4 steps 999, 749, 499 and 249."""
        part = TIMESTEPS // self.distillation.few
        return part * torch.randint(1, self.distillation.few + 1, shape, generator=generator) - 1

    @torch.no_grad()
    def target(
        self,
        flat: tuple[Tensor, Tensor, Tensor],
        noisy: Tensor,
        timesteps: Tensor,
        maps: Mapping[str, Tensor],
        reference: Tensor | None,
        clip_embeds: Tensor,
    ) -> Tensor:
        model, scale = self.model, self.distillation.teacher_cfg
        with self.accelerator.autocast():
            features, tokens = model.guided(maps), model.seen(reference, clip_embeds)

        def predict(x: Tensor, shift: int) -> Tensor:
            times = (timesteps - shift).clamp(min=0)
            with self.accelerator.autocast():
                v = model.denoised(x, times, features, tokens, clip_embeds, self.teacher).float()
                if scale == 1 or reference is None:
                    return v
                free = model.denoised(x, times, features, {}, torch.zeros_like(clip_embeds), self.teacher).float()
            return free + scale * (v - free)

        return self.led_to(noisy, timesteps, predict)

    def led_to(self, noisy: Tensor, timesteps: Tensor, predict: Predict) -> Tensor:
        """Returns the v of one step to where `predict` leads in the teacher's steps; it is asked for v at timesteps
        that are so many below the given ones."""
        part, steps = TIMESTEPS // self.distillation.few, self.distillation.substeps
        shifts = [round(part * k / steps) for k in range(steps + 1)]
        bars = [self.alpha_bar(timesteps - shift) for shift in shifts]
        x = noisy
        for shift, here, there in zip(shifts, bars, bars[1:]):
            x = ddim_step(x, predict(x, shift), here, there)
        return velocity_between(noisy, x, bars[0], bars[-1])

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """Returns alpha_bar (B, F, 1, 1, 1) of timesteps (B, F): 1 below 0, where there is no noise."""
        alphas = self.noise_schedule.alphas_cumprod.to(timesteps.device)
        bars = torch.where(timesteps < 0, 1.0, alphas[timesteps.clamp(min=0)])
        return bars[:, :, None, None, None]


def _digest(network: nn.Module) -> str:
    """Computes eight hexadecimal digits that tell networks apart, from the first values of each tensor."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.flatten()[:COMPARED].cpu().numpy())
    return digest.hexdigest()[:8]
