"""Loads models that run once, and unloads them afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from .compat import is_oom, load_whole

Result = TypeVar("Result")


@contextmanager
def loaded(*patchers: ModelPatcher, memory: float = 0, whole: bool = False) -> Iterator[None]:
    """Loads models into graphics memory for a block, and unloads them however it ends. `memory` is the working memory
    besides the weights; `whole` is for models of plain torch layers."""
    load = load_whole if whole else comfy.model_management.load_models_gpu
    try:
        load(list(patchers), memory)
        yield
    finally:
        for patcher in patchers:
            release(patcher)


def release(patcher: ModelPatcher) -> None:
    """Unloads one model from graphics memory and leaves all others."""
    others = [entry for entry in comfy.model_management.current_loaded_models if entry.model is not patcher]
    comfy.model_management.free_memory(1e30, patcher.load_device, others)


def if_it_fits(run: Callable[[], Result], several: bool) -> Result | None:
    """Returns what `run` makes of several things at once, or None when the memory does not suffice for them; what was
    made of them is gone then."""
    try:
        return run()
    except Exception as error:
        if not several or not is_oom(error):
            raise
    comfy.model_management.soft_empty_cache()  # out here nothing holds what the error held
    return None
