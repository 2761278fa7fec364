"""Muon: orthogonalised steps for matrices, and Adam's steps for everything else.

K. Jordan's optimizer of 2024 with the scale of Liu et al. (arXiv 2502.16982), with which both kinds of steps have about
the same length and share a learning rate. A convolution is the matrix of its output channels by everything that they
read.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .precision import bf16_slowdown

LEAST = 32  # rows and columns of what counts as a matrix; first and last layers have fewer
MOMENTUM = 0.95
SCALE = 0.2  # root mean square of a step, which is about Adam's
CUBIC = (3.4445, -4.7750, 2.0315)  # a, b, c of s -> a s + b s^3 + c s^5, which takes (0, 1] to about 1 in five steps


def is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(parameter.flatten(1).shape) >= LEAST


def orthogonalized(x: Tensor, steps: int = 5) -> Tensor:
    """Turns U S V^T into U S' V^T with S' between 0.7 and 1.2, by Newton and Schulz's iteration, in bfloat16 where
    that is fast."""
    a, b, c = CUBIC
    wide = x.shape[0] <= x.shape[1]
    y = (x if wide else x.T).to(torch.float32 if x.device.type == "cpu" and bf16_slowdown() > 1 else torch.bfloat16)
    y = y / (y.norm() + 1e-7)
    for _ in range(steps):
        square = y @ y.T
        y = a * y + (b * square + c * square @ square) @ y
    return (y if wide else y.T).to(x)


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float):
        chosen: dict[bool, list[Tensor]] = {True: [], False: []}
        for parameter in parameters:
            chosen[is_matrix(parameter)].append(parameter)
        groups = [{"params": values, "matrices": matrices} for matrices, values in chosen.items() if values]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                find = self._of_matrix if group["matrices"] else self._adam
                parameter.sub_(group["lr"] * find(parameter.grad, self.state[parameter], group["betas"]))

    def _of_matrix(self, gradient: Tensor, state: dict, betas: tuple[float, float]) -> Tensor:
        if not state:
            state["mean"] = torch.zeros_like(gradient)
        mean = state["mean"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(mean, MOMENTUM).flatten(1)  # Nesterov's
        return SCALE * max(ahead.shape) ** 0.5 * orthogonalized(ahead).view_as(gradient)

    def _adam(self, gradient: Tensor, state: dict, betas: tuple[float, float], eps: float = 1e-8) -> Tensor:
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - betas[0])
        square = state["square"].lerp_(gradient.square(), 1 - betas[1])
        first, second = (1 - beta ** state["step"] for beta in betas)
        return mean / first / ((square / second).sqrt() + eps)
