"""Socket types, and the helpers that all nodes share."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import Any

import torch
from comfy.model_management import get_torch_device, throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io
from server import PromptServer

from ..champ.body.body import Body
from ..champ.motion.motion import Motion
from ..champ.progress import doing, listening
from ..champ.render.rasterize import rasterizer_device
from .progress_text import ProgressText

MAX_FRAMES = 100000
MAX_SIZE = 8192  # pixels

ChampBody = io.Custom("CHAMP_BODY")
ChampMotion = io.Custom("CHAMP_MOTION")
PoseKeypoint = io.Custom("POSE_KEYPOINT")
ChampDWPose = io.Custom("CHAMP_DWPOSE")
ChampHMR2 = io.Custom("CHAMP_HMR2")
ChampReferenceNet = io.Custom("CHAMP_REFERENCE_NET")
ChampGuidanceEncoders = io.Custom("CHAMP_GUIDANCE_ENCODERS")
ChampReference = io.Custom("CHAMP_REFERENCE")
ChampGuidance = io.Custom("CHAMP_GUIDANCE")

# Set while a node works for a view in the page, outside of any run: no progress bar moves, and nobody is warned.
aside: ContextVar[bool] = ContextVar("aside", default=False)


def schema(*, aliases: list[str], advanced: Collection[str] = (), **about: Any) -> io.Schema:
    """Makes a node's schema. Newer versions of ComfyUI also get search aliases, and the advanced inputs, which they
    fold away."""
    if "search_aliases" in {field.name for field in fields(io.Schema)}:
        about["search_aliases"] = aliases
    for given in about["inputs"]:
        if given.id in advanced and hasattr(given, "advanced"):
            given.advanced = True
    return io.Schema(**about)


def drawing_device() -> torch.device:
    """Returns the device of the rasteriser."""
    return rasterizer_device(get_torch_device())


@contextmanager
def progress(what: str, unit: str = "frame", bar: bool = True) -> Iterator[None]:
    """Moves the node's progress bar with the work inside, says on the node how far it is, and stops it when the user
    cancels. Decorates `execute`; `what` is done unless the work itself says more."""
    if aside.get():
        yield
        return
    shown, last = ProgressBar(1), 0

    def listener(done: int, total: int) -> None:
        nonlocal shown, last
        throw_exception_if_processing_interrupted()
        if done < last:  # another piece of work begins
            shown = ProgressBar(1)
        last = done
        if bar:
            shown.update_absolute(done, total)
        text.on_progress(done, total)

    with doing(what, unit), ProgressText() as text, listening(listener):
        yield


def span_inputs() -> list[io.Float.Input]:
    """Returns the inputs start and end: the part of the sampling in which something acts."""
    return [
        io.Float.Input(
            "start", default=0.0, min=0.0, max=1.0, step=0.01,
            tooltip="Where in the sampling it begins to act. 0 is the first step, 1 the last.",
        ),
        io.Float.Input(
            "end", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Where in the sampling it stops acting. 0 is the "
            "first step, 1 the last."
        ),
    ]  # fmt: skip


def checked(check: Callable[[str], object], text: str | None) -> bool | str:
    """Returns a node's answer to validate_inputs: True, or the sentence that says what is wrong with a widget's text.

    A widget with a link has no text before the node runs, which then checks it again.
    """
    try:
        if text is not None:
            check(text)
    except ValueError as error:
        return str(error)
    return True


def to_image(picture: torch.Tensor) -> torch.Tensor:
    """Converts a uint8 picture or mask to ComfyUI's IMAGE or MASK, float 0..1."""
    return picture.float().div_(255)


def to_bytes(image: torch.Tensor) -> torch.Tensor:
    """Converts an IMAGE or MASK to uint8, frame by frame, so that no second clip of floats is needed."""
    pixels = torch.empty(image.shape, dtype=torch.uint8)
    for picture, frame in zip(pixels, image):
        picture.copy_(frame.mul(255).add_(0.5).clamp_(0, 255))
    return pixels


def warn(message: str) -> None:
    """Warns the user in the browser and in the log, without stopping the workflow."""
    if aside.get():
        return
    logging.warning("[Champ] %s", message)
    PromptServer.instance.send_sync("champ.warning", {"message": message})


def warn_of_other_shape(body: Body, motion: Motion) -> None:
    """Warns when a built-in motion is connected with a body of another shape: the motion's shape is used. Motions
    estimated from a video or a picture are meant to differ."""
    built_in, shape = motion.source.startswith("built-in"), body.with_betas(motion.betas).betas
    if built_in and body.betas.any() and not torch.allclose(body.betas, shape, atol=1e-4):
        warn(
            "The body's shape differs from the motion's, and the motion's shape is used; to use the other one, make "
            "the motion with this body."
        )
