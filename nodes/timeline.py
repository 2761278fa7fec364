"""The windows of temporal aggregation for the page, before anything is queued: which frames each covers, how many
evaluations of the model that makes, and the memory that ComfyUI will plan for one window."""

import asyncio
from collections.abc import Sequence

from aiohttp import web
from server import PromptServer

from ..champ.frame_lists import runs
from ..champ.model.checkpoint import find_set
from ..champ.model.families import CHAMP, FAMILIES
from ..champ.sampling.windows import MOVING, SCHEDULES, WEIGHTS, check_overlap
from .aggregate import window_inputs
from .files import set_place
from .requests import asked
from .types import MAX_FRAMES, MAX_SIZE
from .view import NotYet, ViewedGraph, checked_value, one_at_a_time, within_time

# ComfyUI plans this much graphics memory for each pixel of a latent in 16 bits, with the attention of PyTorch or
# xformers (memory_required in comfy/model_base.py, for a memory_usage_factor of 1).
BYTES_PER_PIXEL = 2 * 0.01 * 1024**2
MOST_WINDOWS = 400  # that are sent; of more, the first


def size_of(about: dict) -> tuple[int, int, int]:
    """Frames, width and height of the clip: of a motion in the graph, or those that the page knows from a run."""
    if "nodes" in about:
        motion, _ = ViewedGraph(about["nodes"]).motion(str(about.get("node")))
        return len(motion), motion.width, motion.height
    numbers = [about.get(name) for name in ("frames", "width", "height")]
    for number, most in zip(numbers, (MAX_FRAMES, MAX_SIZE, MAX_SIZE)):
        if not isinstance(number, int) or not 1 <= number <= most:
            raise NotYet("The length of the clip is known after a run.")
    return tuple(numbers)  # type: ignore[return-value]


def official_length(checkpoint_set: object) -> int:
    """The length of a window of a set's official inference; Champ's if there is no such set."""
    try:
        family = find_set(set_place(str(checkpoint_set))).family
    except ValueError:
        family = CHAMP
    return FAMILIES[family].window


def timeline(about: dict) -> dict:
    """The windows as runs of frames [first, last], the weight of each frame of a window, and what they cost."""
    frames, width, height = size_of(about)
    widgets = about.get("widgets")
    given = {one.id: one for one in window_inputs()}
    values = {id: checked_value("a window", one, (widgets or {}).get(id, one.default)) for id, one in given.items()}
    length, overlap = int(values["length"]) or official_length(about.get("checkpoint_set")), int(values["overlap"])
    check_overlap(length, overlap)
    schedule, weights = values["schedule"], values["weights"]
    if schedule not in SCHEDULES or weights not in WEIGHTS:
        raise ValueError("This schedule or these weights are not known; choose others.")
    windows: Sequence[list[int]] = SCHEDULES[schedule](frames, length, overlap, 0)
    at_once = min(length, frames)
    return {
        "frames": frames, "width": width, "height": height,
        "windows": [runs(window) for window in windows[:MOST_WINDOWS]],
        "count": len(windows),
        "weights": WEIGHTS[weights](at_once, min(overlap, at_once - 1)),
        "moves": schedule in MOVING,
        "bytes": round(2 * at_once * (width // 8) * (height // 8) * BYTES_PER_PIXEL),
    }  # fmt: skip


async def show_windows(request: web.Request) -> web.Response:
    about = await asked(request)
    async with one_at_a_time:  # with the 3D view, whose steps it uses
        return web.json_response(await asyncio.to_thread(within_time, timeline, about))


def add_routes() -> None:
    PromptServer.instance.routes.post("/champ/windows")(show_windows)
