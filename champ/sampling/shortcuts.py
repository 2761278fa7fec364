"""Ways to sample faster that change the result a little."""

from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..model.deep_cache import CACHE, DeepCache
from ..model.denoiser import champ_model
from ..model.span import LEVEL, NoiseLevel, Span
from .run_options import change_options


def with_cfg_interval(model: ModelPatcher, span: Span) -> ModelPatcher:
    """Returns the model, set to evaluate the negative during a part of the sampling only, after Kynkaanniemi et al.,
    2024. The other steps are those of cfg 1, at half the cost."""
    span.check("The CFG interval")
    inside = span.in_sigmas(model.get_model_object("model_sampling"))

    def predict(args: dict[str, Any]) -> list[Tensor]:
        options = args["model_options"]
        told = options.get("transformer_options", {})
        level = told.get(LEVEL) or NoiseLevel(args["sigma"][0], False)
        positive, negative = args["conds"]
        with_negative = negative is not None and inside.holds(level)
        conds = [positive, negative if with_negative else None]
        out = comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], options)
        return out if with_negative or negative is None else [out[0], out[0]]

    patched = model.clone()
    patched.model_options["sampler_calc_cond_batch_function"] = predict
    return patched


def with_deep_cache(model: ModelPatcher, every: int, blocks: int, span: Span) -> ModelPatcher:
    """Returns the model, set to evaluate all of its blocks in every few steps only, and `blocks` at either end in the
    others."""
    unet = champ_model(model).diffusion_model
    span.check("The feature cache")
    if not 1 <= blocks < len(unet.output_blocks):
        raise ValueError(
            f"A feature cache with {blocks} blocks does not fit this model, whose halves have "
            f"{len(unet.output_blocks)}; choose from 1 to {len(unet.output_blocks) - 1}."
        )
    patched = model.clone()
    patched.model_options["transformer_options"][CACHE] = DeepCache(every, blocks, span)
    change_options(patched, CACHE, with_empty_cache)
    return patched


def with_empty_cache(options: dict[str, Any]) -> dict[str, Any]:
    """Gives a sampling a cache of its own."""
    told = options["transformer_options"]
    return {**options, "transformer_options": {**told, CACHE: told[CACHE].fresh()}}
