"""What a sampling run keeps on the device, and how the rest gets there without waiting for the device."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import CrossAttention
from torch import Tensor

from .config import Place
from .span import NoiseLevel

Fits = Callable[[int], bool]  # whether so many bytes find room on the device beside the work of a step


@dataclass(frozen=True)
class Evaluation:
    """What guidance and references must know of an evaluation of the denoiser to be ready for it."""

    level: NoiseLevel | None  # None: everything acts
    frames: Sequence[int] | None  # of the clip, in a window; None means all
    device: torch.device
    dtype: torch.dtype
    fits: Fits
    attentions: Mapping[Place, CrossAttention]  # the self-attentions of the denoiser


def spare_memory(model: Any, shape: Sequence[int], device: torch.device) -> float:
    """Returns the bytes that are free on the device beside an evaluation of so many latents."""
    # The factor is what ComfyUI wants to see free before it evaluates positive and negative together.
    return comfy.model_management.get_free_memory(device) - 1.5 * model.memory_required(shape)


def stretches(frames: Sequence[int]) -> list[slice]:
    """Returns the stretches of consecutive frames in a window, in its order: one, or two if the clip is a loop.

    Slices need no list of indices on the device, which would have to be copied there.
    """
    breaks = [i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1]
    return [
        slice(frames[first], frames[last - 1] + 1) for first, last in zip([0, *breaks], [*breaks, len(frames)]) if last
    ]


def rows_of(values: Tensor, frames: Sequence[int] | None) -> Tensor:
    """Returns the rows of a window's frames (None: all), as a view where they are consecutive."""
    if frames is None:
        return values
    parts = [values[stretch] for stretch in stretches(frames)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@functools.cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def on_device(parts: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Joins rows in main memory and moves them to the device, while it computes what it was given before.

    On CUDA, a copy waits for nothing only out of pinned memory and on a stream of its own. torch keeps such memory for
    the next copy, after this one has ended.
    """
    if device.type != "cuda" or parts[0].device == device:
        there = [part.to(device, dtype) for part in parts]
        return there[0] if len(there) == 1 else torch.cat(there)
    kind = functools.reduce(torch.promote_types, (part.dtype for part in parts))
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    pinned = torch.empty(shape, dtype=kind, pin_memory=True)
    torch.cat(list(parts), out=pinned)
    copies, work = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        there = pinned.to(device, non_blocking=True)
    work.wait_stream(copies)
    there.record_stream(work)
    return there.to(dtype)


class ClipRows:
    """A row for every frame of a clip, in main memory, of which a run reads those of a window at a time.

    All rows go to the device once if they fit there, otherwise those of each window when it is evaluated.
    """

    def __init__(self, values: Tensor):
        self.values = values
        self.forget()

    def forget(self) -> None:
        """Lets go of the rows on the device."""
        self.there: Tensor | None = None
        self.too_large = False

    def at(self, frames: Sequence[int] | None, device: torch.device, dtype: torch.dtype, fits: Fits) -> Tensor:
        there = self.there
        if there is None or there.device != device or there.dtype != dtype:
            size = self.values.numel() * dtype.itemsize
            same = self.values.device == device and self.values.dtype == dtype
            if self.too_large or not (same or fits(size)):
                self.too_large = True
                given = [self.values] if frames is None else [self.values[part] for part in stretches(frames)]
                return on_device(given, device, dtype)
            there = self.there = self.values.to(device, dtype)
        return rows_of(there, frames)
