"""Finds NaN and infinite values where they first appear, and reports their cause."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def all_finite(values: Iterable[Tensor]) -> Tensor:
    """Returns one bool on the device, so that nothing waits for it before it is read."""
    return torch.stack([value.isfinite().all() for value in values]).all()


def broken_weight(module: nn.Module) -> str | None:
    """Returns the name of the first weight that holds NaN or infinity."""
    weights = ((name, value) for name, value in module.state_dict().items() if value.is_floating_point())
    return next((name for name, value in weights if not value.float().isfinite().all()), None)  # float8 has no isfinite


def network_cause(module: nn.Module, dtype: torch.dtype, remedy: str = "get its file again") -> str:
    """Explains why a network makes such values from finite input, and what to do."""
    if (name := broken_weight(module)) is not None:
        return f"its weights contain some, first in {name}; {remedy}"
    if dtype == torch.float32:
        return "its weights are far too large; use another file"
    return f"its values are too large for {str(dtype).removeprefix('torch.')}; start ComfyUI with --force-fp32"


def check_sampled(samples: Tensor) -> None:
    """Checks the result of a sampling; the model itself has checked its first step."""
    broken = sum(not frame.isfinite().all() for frame in samples)
    if broken:
        raise ValueError(
            f"{broken} of the {len(samples)} sampled frames hold NaN or infinite values, which began after the first "
            "step, because values of the model are too large for 16 bits; start ComfyUI with --force-fp32."
        )
