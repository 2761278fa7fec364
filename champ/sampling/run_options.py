"""Options of a model that are made anew for each sampling, and end with it."""

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
from comfy.model_patcher import ModelPatcher

Change = Callable[[dict[str, Any]], dict[str, Any]]


def change_options(model: ModelPatcher, key: str, change: Change) -> None:
    """Sets a model to sample with changed model options, in the place of an earlier change of this key."""

    def sample(executor: Callable, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj  # type: ignore[attr-defined]
        given = guider.model_options
        guider.model_options = change(given)
        try:
            return executor(*args, **kwargs)
        finally:
            guider.model_options = given

    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    model.remove_wrappers_with_key(kind, key)
    model.add_wrapper_with_key(kind, key, sample)
