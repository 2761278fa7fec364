"""Differences between the versions of ComfyUI and torch, from ComfyUI 0.3.75 on."""

import re
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

# MPS and the CPU raise a plain RuntimeError.
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)


def operations(dtype: torch.dtype, compute_dtype: torch.dtype | None, fast_fp8: bool = False) -> Any:
    """Returns ComfyUI's layers for weights stored in one dtype and computed in another (None: the same)."""
    picked: Any = comfy.ops.pick_operations(dtype, compute_dtype, fp8_optimizations=fast_fp8)

    # With dynamic memory, ComfyUI's layers have no weights before they are loaded, so their names and shapes are not
    # known. ComfyUI leaves layers with their own loader alone.
    class Linear(picked.Linear):
        def _load_from_state_dict(self, *args, **kwargs) -> None:
            nn.Module._load_from_state_dict(self, *args, **kwargs)

    return type(picked.__name__, (picked,), {"Linear": Linear})


def managed(model: nn.Module, load_device: torch.device, offload_device: torch.device) -> ModelPatcher:
    """Wraps a model for ComfyUI's memory management, with dynamic memory if this ComfyUI has it."""
    # ComfyUI replaces this class when it starts, so it is looked up every time.
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    return kind(model, load_device, offload_device)


def load_whole(patchers: Sequence[ModelPatcher], memory_required: float = 0) -> None:
    """Loads models of plain torch layers whole: unlike ComfyUI's layers, they cannot stay in main memory in part."""
    comfy.model_management.load_models_gpu(patchers, memory_required=memory_required, force_full_load=True)
    for patcher in patchers:
        patcher.model.to(patcher.load_device)  # with --novram, ComfyUI never loads anything


def is_oom(error: BaseException) -> bool:
    """Tells whether an error means that a device ran out of memory."""
    known = getattr(comfy.model_management, "is_oom", None)  # not in ComfyUI 0.3.75
    if known is not None and known(error):
        return True
    if isinstance(error, (comfy.model_management.OOM_EXCEPTION, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
