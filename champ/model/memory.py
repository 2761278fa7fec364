"""Models that run once and then make room."""

import comfy.model_management
from comfy.model_patcher import ModelPatcher


def release(patcher: ModelPatcher) -> None:
    """Takes one model out of the graphics memory and leaves all others where they are."""
    loaded = comfy.model_management.current_loaded_models
    others = [entry for entry in loaded if entry.model is not patcher]
    comfy.model_management.free_memory(1e30, patcher.load_device, others)
