"""Models that run once and then make room."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from .compat import load_whole


@contextmanager
def loaded(*patchers: ModelPatcher, memory: float = 0, whole: bool = False) -> Iterator[None]:
    """Models in the graphics memory during a block, and out of it again however the block ends. `memory` is what they
    need beside their weights; `whole` is for models of plain torch layers."""
    load = load_whole if whole else comfy.model_management.load_models_gpu
    try:
        load(list(patchers), memory)
        yield
    finally:
        for patcher in patchers:
            release(patcher)


def release(patcher: ModelPatcher) -> None:
    """Takes one model out of the graphics memory and leaves all others where they are."""
    others = [entry for entry in comfy.model_management.current_loaded_models if entry.model is not patcher]
    comfy.model_management.free_memory(1e30, patcher.load_device, others)
