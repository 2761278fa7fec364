"""Temporal aggregation: a clip of any length, denoised in windows whose predictions are averaged at every step."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.context_windows
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..model.families import CHAMP, FAMILIES
from ..model.residence import rows_of, spare_memory, stretches
from ..model.span import LEVEL, NoiseLevel
from ..progress import advance
from .run_options import change_options
from .windows import MOVING, SCHEDULES, WEIGHTS, check_overlap


def with_windows(
    model: ModelPatcher, length: int = 0, overlap: int = 4, schedule: str = "looped", weights: str = "flat"
) -> ModelPatcher:
    """Returns the model, set to denoise `length` frames at a time; the defaults are the official ones, and 0 takes the
    length that the model's family was made for."""
    limit = getattr(model.model.diffusion_model, "max_frames", None)
    if length == 0:
        length = FAMILIES[getattr(model.model, "family", CHAMP)].window
    if limit is not None and length > limit:
        raise ValueError(
            f"The motion modules know windows of up to {limit} frames but were given {length}; choose a shorter window."
        )
    check_overlap(length, overlap)
    for name, known in ((schedule, SCHEDULES), (weights, WEIGHTS)):
        if name not in known:
            raise ValueError(f"There is nothing called {name!r} here; choose from {', '.join(known)}.")
    patched = model.clone()
    patched.model_options["context_handler"] = Aggregation(length, overlap, schedule, weights)
    # Memory is estimated for one window, not for the clip.
    comfy.context_windows.create_prepare_sampling_wrapper(patched)
    change_options(patched, "champ_windows", with_memory)
    return patched


def window_count(model: ModelPatcher, frames: int) -> int:
    """Returns how many windows a step has, as far as it is known."""
    handler = model.model_options.get("context_handler")
    if not isinstance(handler, Aggregation) or frames <= handler.context_length:
        return 1
    return len(handler.windows(frames, 0))


class Window(comfy.context_windows.ContextWindowABC):
    """Some frames of the clip, in order; the attributes are those of ComfyUI's own windows."""

    def __init__(self, frames: Sequence[int], total: int):
        self.index_list = list(frames)
        self.context_length = len(self.index_list)
        self.total_frames = total
        self.dim = 0

    def get_tensor(self, full: Tensor) -> Tensor:
        return rows_of(full, self.index_list)

    def add_window(self, full: Tensor, to_add: Tensor) -> Tensor:
        first = 0
        for part in stretches(self.index_list):
            last = first + part.stop - part.start
            full[part] += to_add[first:last]
            first = last
        return full


class Aggregation(comfy.context_windows.ContextHandlerABC):
    """Weighted average over windows, with frames as ComfyUI's batch: per frame, out = sum of weight * prediction / sum
    of weights."""

    def __init__(self, length: int, overlap: int, schedule: str, weights: str):
        self.context_length, self.context_overlap, self.dim = length, overlap, 0
        self.schedule, self.weights = schedule, weights
        self.run: SamplingRun | None = None

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        theirs = model_options["transformer_options"].get("ad_params") or {}
        if theirs.get("context_length"):  # AnimateDiff-Evolved cuts this clip into windows, and tells the model
            return False
        return len(x_in) > self.context_length

    def windows(self, frames: int, step: int) -> list[Window]:
        lists = SCHEDULES[self.schedule](frames, self.context_length, self.context_overlap, step)
        return [Window(indices, frames) for indices in lists]

    def execute(self, calc_cond_batch: Callable, model, conds, x_in, timestep, model_options) -> list[Tensor]:
        sums = [torch.zeros_like(x_in) for _ in conds]
        total = x_in.new_zeros(len(x_in), *[1] * (x_in.ndim - 1))
        run = self.run or SamplingRun()
        given = model_options.get("transformer_options", {})
        level = run.level(given.get(LEVEL), timestep)
        step = run.step(level, given["sample_sigmas"], self.schedule in MOVING)
        steps = len(given["sample_sigmas"]) - 1
        windows = self.windows(len(x_in), step)
        for i, window in enumerate(windows):
            advance(step * len(windows) + i, steps * len(windows))
            comfy.model_management.throw_exception_if_processing_interrupted()
            told = {LEVEL: level, "context_window": window}  # the window for other packs, too
            if "easycache" in given:
                told["easycache"] = run.easy_cache(given["easycache"], window, model.model_sampling)
            options = {**model_options, "transformer_options": {**given, **told}}
            controls = run.controls.setdefault(tuple(window.index_list), {})
            parts = [self.get_resized_cond(cond, x_in, window, controls=controls) for cond in conds]
            x = window.get_tensor(x_in)
            outputs = calc_cond_batch(model, parts, x, window.get_tensor(timestep), options)
            weights = run.weights(self, window, total)
            window.add_window(total, weights)
            for sum_, output in zip(sums, outputs):
                window.add_window(sum_, output * weights)
            if self.run is None or not run.keep(controls, model, len(conds) * len(x), x):
                del run.controls[tuple(window.index_list)]
        return [sum_.div_(total) for sum_ in sums]

    def get_resized_cond(self, cond_in, x_in, window, device=None, controls=None):
        """Cuts a conditioning to a window: values with a row per frame, and ControlNet's hints.

        Guidance and references stay whole; the denoiser selects the window's frames itself.
        """
        if cond_in is None:
            return None
        controls = {} if controls is None else controls
        return [{k: self._resized(k, v, len(x_in), window, controls) for k, v in cond.items()} for cond in cond_in]

    def _resized(self, key: str, value: Any, frames: int, window: Window, controls: dict[int, Any]) -> Any:
        if key == "control":
            return window_control(value, window.index_list, controls)
        if key == "model_conds":
            return {k: self._resized(k, v, frames, window, controls) for k, v in value.items()}
        if isinstance(value, Tensor):
            return window.get_tensor(value) if value.ndim > 1 and len(value) == frames else value
        inner = getattr(value, "cond", None)
        if isinstance(inner, Tensor) and inner.ndim > 1 and len(inner) == frames:
            return value._copy_with(window.get_tensor(inner))
        return value


class SamplingRun:
    """What the windows of one sampling run keep from step to step."""

    def __init__(self) -> None:
        self.evaluations = 0  # by the sampler; PAG and SAG may add some of the same noise level
        self.controls: dict[tuple[int, ...], dict[int, Any]] = {}  # ControlNets cut to each window
        self._weights: dict[int, Tensor] = {}
        self._sigmas: list[float] = []
        self._easy_caches: dict[tuple[int, ...], Any] = {}
        self._told: Any = None
        self._level: NoiseLevel | None = None

    def level(self, told: NoiseLevel | None, timestep: Tensor) -> NoiseLevel:
        """Returns the noise level, the same object for all that is evaluated at one level or one tensor of sigmas."""
        given = told or timestep
        if self._level is None or given is not self._told:
            self._told, self._level = given, told or NoiseLevel(timestep[0], self.evaluations == 0)
            self.evaluations += 1
        return self._level

    def step(self, level: NoiseLevel, sigmas: Tensor, exact: bool) -> int:
        """Returns the number of the step. If nobody has told the noise level and it need not be exact, evaluations are
        counted instead: the level would have to be read from the device."""
        self._sigmas = self._sigmas or sigmas.cpu().tolist()  # once a run
        counted = min(self.evaluations - 1, max(0, len(self._sigmas) - 2))
        return current_step(level, self._sigmas) if exact or level.is_known else counted

    def easy_cache(self, theirs: Any, window: Window, model_sampling: Any) -> Any:
        """Returns a state of ComfyUI's EasyCache for each window; its own is one for all."""
        key = tuple(window.index_list)
        if key not in self._easy_caches:
            self._easy_caches[key] = theirs.clone().prepare_timesteps(model_sampling)
        return self._easy_caches[key]

    def weights(self, handler: "Aggregation", window: Window, like: Tensor) -> Tensor:
        length = window.context_length
        if length not in self._weights:
            values = like.new_tensor(WEIGHTS[handler.weights](length, handler.context_overlap))
            self._weights[length] = values.reshape(-1, *[1] * (like.ndim - 1))
        return self._weights[length]

    @staticmethod
    def keep(controls: Mapping[int, Any], model: Any, rows: int, x: Tensor) -> bool:
        """Tells whether the hints of a window, which are on the device, can stay there beside the work of a step."""
        hints = [getattr(control, "cond_hint", None) for control in controls.values()]
        if x.device.type == "cpu" or not any(hint is not None for hint in hints):
            return True
        return spare_memory(model, [rows, *x.shape[1:]], x.device) >= 0


def with_memory(options: dict[str, Any]) -> dict[str, Any]:
    """Gives windows a memory of their own."""
    handler = copy.copy(options["context_handler"])
    handler.run = SamplingRun()
    return {**options, "context_handler": handler}


def current_step(level: NoiseLevel, sigmas: Sequence[float]) -> int:
    """Returns the sampling step with the nearest sigma; samplers may evaluate the model between steps."""
    return min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - level.sigma))


def window_control(control: Any, frames: Sequence[int], made: dict[int, Any]) -> Any:
    """Copies a ControlNet, and those before it, with the hints of a window's frames; `made` holds one copy for all
    conds.

    ComfyUI prepares a hint once, for the first batch, and repeats a hint that has too few pictures.
    """
    if control is None:
        return None
    if id(control) not in made:
        cut = copy.copy(control)
        cut.previous_controlnet = window_control(control.previous_controlnet, frames, made)
        cut.cond_hint = None
        if control.timestep_percent_range == (0.0, 1.0):
            cut.timestep_range = None  # else ComfyUI compares the noise level with it, and waits for the device
        if hasattr(control, "control_input"):  # a T2I adapter's features of its hint
            cut.control_input = None
        cut.cond_hint_original = _cut_hint(control.cond_hint_original, frames)
        cut.extra_concat_orig = [_cut_hint(hint, frames) for hint in control.extra_concat_orig]
        made[id(control)] = cut
    return made[id(control)]


def _cut_hint(hint: Any, frames: Sequence[int]) -> Any:
    if not isinstance(hint, Tensor) or len(hint) == 1:
        return hint
    return rows_of(hint, [i % len(hint) for i in frames])
