"""Temporal windows: which frames are denoised together, and how overlapping predictions are averaged."""

from collections.abc import Callable
from types import SimpleNamespace

import comfy.context_windows

# (frames, length, overlap, step of the sampling) -> the frames of each window
Schedule = Callable[[int, int, int, int], list[list[int]]]
# (length, overlap) -> the weight of each frame of a window
Weights = Callable[[int, int], list[float]]


def looped(frames: int, length: int, overlap: int, step: int = 0) -> list[list[int]]:
    """Returns the official windows: one every length - overlap frames, continuing past the end with the first frames.

    The clip is treated as a loop: its last windows see the end followed by the beginning.
    """
    if frames <= length:
        return [list(range(frames))]
    return [[(start + k) % frames for k in range(length)] for start in range(0, frames, length - overlap)]


def open_ended(frames: int, length: int, overlap: int, step: int = 0) -> list[list[int]]:
    """Returns the fewest windows that share at least `overlap` frames with their neighbours, spread evenly over the
    clip.

    All are full, and none joins the end of the clip to its beginning.
    """
    if frames <= length:
        return [list(range(frames))]
    count = -(-(frames - overlap) // (length - overlap))
    starts = [round(i * (frames - length) / (count - 1)) for i in range(count)]
    return [list(range(start, start + length)) for start in starts]


def comfy_schedule(name: str) -> Schedule:
    """Returns one of ComfyUI's schedules; its uniform ones move the windows from step to step."""

    def schedule(frames: int, length: int, overlap: int, step: int) -> list[list[int]]:
        options = SimpleNamespace(
            context_length=length, context_overlap=overlap, context_stride=1, closed_loop=True, _step=step
        )
        return comfy.context_windows.get_matching_context_schedule(name).func(frames, options, {})

    return schedule


SCHEDULES: dict[str, Schedule] = {
    "looped": looped,
    "open": open_ended,
    "looped, moving": comfy_schedule("looped_uniform"),
    "open, moving": comfy_schedule("standard_uniform"),
}
MOVING = ("looped, moving", "open, moving")  # those that depend on the step


def flat_weights(length: int, overlap: int) -> list[float]:
    """The plain average of the official pipeline."""
    return [1.0] * length


def pyramid(length: int, overlap: int) -> list[float]:
    """Weights that rise to the middle of the window, where a frame sees most of its neighbours."""
    return [float(min(k + 1, length - k)) for k in range(length)]


def ramps(length: int, overlap: int) -> list[float]:
    """A cross-fade over the overlap, flat in between."""
    return [float(min(k + 1, length - k, overlap + 1)) for k in range(length)]


WEIGHTS: dict[str, Weights] = {"flat": flat_weights, "pyramid": pyramid, "ramps": ramps}


def check_overlap(length: int, overlap: int) -> None:
    if not 0 <= overlap < length:
        raise ValueError(f"An overlap of {overlap} frames does not fit windows of {length}; choose a smaller overlap.")
