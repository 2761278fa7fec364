"""The loop in which the small networks learn that are none of Champ's: the image codec, the finder of silhouettes."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

AnyBatch = TypeVar("AnyBatch")


def train_small_network(
    network: nn.Module,
    groups: list[dict[str, Any]],
    batches: Iterable[AnyBatch],
    steps: int,
    loss_of: Callable[[AnyBatch], tuple[Tensor, float]],
    on_step: Callable[[int, float, float], None] | None = None,
) -> None:
    """Takes AdamW's steps for groups of parameters, each up to its "lr" and down again; `loss_of` gives the loss of a
    batch and a measure of it, and `on_step` hears step, loss and measure."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.05)
    for step, batch in zip(range(1, steps + 1), batches):
        loss, measure = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step, loss.item(), measure)
