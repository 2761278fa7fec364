"""Nodes that make, film, trim and preview motions."""

from functools import partial

import torch
from comfy.utils import common_upscale
from comfy_api.latest import io

from ..champ.body.body import Body
from ..champ.motion import retime
from ..champ.motion.camera import FOV, View, angle_path, frame_person
from ..champ.motion.motion import Motion
from ..champ.motion.presets import PRESETS, perform
from ..champ.render.preview import BACKENDS, preview
from .animation import animated
from .types import (
    MAX_FRAMES,
    MAX_SIZE,
    ChampBody,
    ChampMotion,
    checked,
    drawing_device,
    progress,
    schema,
    to_bytes,
    to_image,
    warn_of_other_shape,
)


def picture_size() -> list[io.Int.Input]:
    return [
        io.Int.Input("width", default=512, min=8, max=MAX_SIZE, step=8, tooltip="Width of the pictures in pixels."),
        io.Int.Input("height", default=768, min=8, max=MAX_SIZE, step=8, tooltip="Height of the pictures in pixels."),
    ]


def angles(text: str, name: str) -> list[float]:
    """Parses a comma-separated list of degrees."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; write angles in degrees, separated by commas, such as 0, 360.") from None
    if not torch.tensor(values).isfinite().all():
        raise ValueError(f"{name} is {text!r}; write ordinary numbers in degrees, such as 0, 360.")
    return values


def figure_over(
    background: torch.Tensor | None,
    body: Body,
    motion: Motion,
    opacity: float,
    renderer: str = "torch",
) -> torch.Tensor:
    """Draws uint8 pictures of the shaded figure over an IMAGE, which is scaled to the motion's pictures, or over a
    plain colour."""
    body = body.to(drawing_device())
    if background is None:
        return preview(body, motion, backend=renderer)
    behind = torch.empty(len(background), motion.height, motion.width, 3, dtype=torch.uint8)
    for i, picture in enumerate(background[..., :3].movedim(-1, 1).split(1)):
        scaled = common_upscale(picture, motion.width, motion.height, "bilinear", "disabled")
        behind[i] = to_bytes(scaled.movedim(1, -1))[0]
    pictures = preview(body, motion, behind, renderer)
    for figure, picture in zip(pictures, behind.expand_as(pictures)):
        figure.copy_(torch.lerp(picture.float(), figure.float(), opacity).round_())
    return pictures


class ChampBuiltInMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampBuiltInMotion",
            display_name="Built-in Motion",
            category="Champ/motion",
            aliases=["dance", "walk", "wave", "turn", "preset motion", "animation", "SMPL"],
            description="Walks, dances, sports and gestures of any length, with the feet on the floor. "
            "For a first try and for tests, without a video.",
            inputs=[
                ChampBody.Input("body", tooltip="The body that moves. The feet are placed for its proportions."),
                io.Combo.Input("motion", options=list(PRESETS), default="dance", tooltip="What the person does."),
                io.Int.Input("frames", default=48, min=1, max=MAX_FRAMES, tooltip="Length of the clip in frames."),
                io.Float.Input("fps", default=24.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second."),
                io.Boolean.Input(
                    "loop",
                    default=True,
                    tooltip="Changes the speed slightly so that the end of the clip leads back to its beginning.",
                ),
                io.Boolean.Input(
                    "travel",
                    default=False,
                    tooltip="On: the person moves across the floor, and a looped clip jumps back at its end. Off: the "
                    "person stays in one place.",
                ),
                *picture_size(),
            ],
            outputs=[ChampMotion.Output(display_name="motion", tooltip="The person in motion, seen from the front.")],
        )

    @classmethod
    @progress("Making the motion", "")
    def execute(cls, body, motion, frames, fps, loop, travel, width, height) -> io.NodeOutput:
        made = perform(motion, body, frames, fps, loop, travel)
        return io.NodeOutput(frame_person(made, body, width, height))


class ChampCamera(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampCamera",
            display_name="Set or Orbit Camera",
            category="Champ/motion",
            aliases=["orbit", "turntable", "framing", "zoom", "view", "field of view"],
            advanced=["fov", "follow"],
            description="Films the person from any side, with the whole movement in the picture. A list of angles "
            "moves the camera during the clip, for turntables and multi-view animation.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to film."),
                ChampBody.Input("body", tooltip="The kind of body that performs it. The shape comes with the motion."),
                *picture_size(),
                io.String.Input(
                    "azimuth",
                    display_name="degrees around",
                    default="0",
                    tooltip="Degrees around the person, towards the person's left. One number is a fixed camera. "
                    "Several are a path over the clip: 0, 360 goes once around; 0, 90, 0 goes to the side and back.",
                ),
                io.String.Input(
                    "elevation",
                    display_name="degrees above",
                    default="0",
                    tooltip="Degrees above the person; negative numbers are below. Several numbers are a path over the "
                    "clip.",
                ),
                io.Float.Input(
                    "fill",
                    display_name="size in the picture",
                    default=0.85,
                    min=0.05,
                    max=4.0,
                    step=0.01,
                    tooltip="How much of the picture the movement fills: 1 touches the edges, 2 is a close-up.",
                ),
                io.Float.Input(
                    "fov",
                    display_name="field of view",
                    default=round(FOV, 2),
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Field of view in degrees along the longer side. Champ was trained with 2.93, a very long "
                    "lens. 40 looks like a phone camera.",
                ),
                io.Boolean.Input(
                    "follow",
                    default=False,
                    tooltip="On: the camera moves along with the person. Off: it stands still and sees the whole path.",
                ),
            ],
            outputs=[ChampMotion.Output(display_name="motion", tooltip="The same movement, seen by the new camera.")],
        )

    @classmethod
    def validate_inputs(cls, azimuth, elevation):
        for name, text in (("azimuth", azimuth), ("elevation", elevation)):
            answer = checked(partial(angles, name=name), text)
            if answer is not True:
                return answer
        return True

    @classmethod
    @progress("Setting the camera")
    def execute(cls, motion, body, width, height, azimuth, elevation, fill, fov, follow) -> io.NodeOutput:
        warn_of_other_shape(body, motion)
        turn = angle_path(angles(azimuth, "azimuth"), len(motion))
        lift = angle_path(angles(elevation, "elevation"), len(motion))
        return io.NodeOutput(frame_person(motion, body, width, height, View(turn, lift, fill, fov, follow)))


class ChampRetimeMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampRetimeMotion",
            display_name="Trim, Retime or Loop Motion",
            category="Champ/motion",
            aliases=["trim motion", "speed", "slow motion", "loop", "frame rate", "cut", "time stretch"],
            description="Cuts a part out of a motion, changes its frame rate or speed, and repeats it.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to change."),
                io.Int.Input("start", default=0, min=0, max=MAX_FRAMES, tooltip="First frame to keep, from 0."),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames to keep. 0 keeps all that follow.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="New frames per second. The movement keeps its speed. 0 keeps the frame rate.",
                ),
                io.Float.Input(
                    "speed", default=1.0, min=0.05, max=20.0, step=0.05, tooltip="2 is twice as fast, 0.5 half as fast."
                ),
                io.Combo.Input(
                    "repeat",
                    options=["off", "loop", "ping-pong"],
                    default="off",
                    tooltip="loop starts over at the end. ping-pong goes back and forth.",
                ),
                io.Int.Input(
                    "total",
                    default=96,
                    min=1,
                    max=MAX_FRAMES,
                    tooltip="Length of the repeated motion in frames. Not used when repeat is off.",
                ),
            ],
            outputs=[
                ChampMotion.Output(display_name="motion", tooltip="The changed motion."),
                io.Int.Output(display_name="frames", tooltip="The new length in frames."),
            ],
        )

    @classmethod
    @progress("Retiming the motion")
    def execute(cls, motion, start, count, fps, speed, repeat, total) -> io.NodeOutput:
        motion = retime.trim(motion, start, count)
        motion = retime.resample(motion, fps or motion.fps, speed, loop=repeat == "loop")
        if repeat != "off":
            motion = retime.repeat(motion, total, ping_pong=repeat == "ping-pong")
        return io.NodeOutput(motion, len(motion))


class ChampPreviewMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampPreviewMotion",
            display_name="Preview Motion",
            category="Champ/motion",
            aliases=["show motion", "view SMPL", "render body", "animation preview", "dance"],
            advanced=["renderer"],
            description="Shows the moving body as a shaded figure over your pictures or a plain background. Use it to "
            "find a wrong pose or place before you start anything slow.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to look at."),
                ChampBody.Input("body", tooltip="The kind of body that performs it. The shape comes with the motion."),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="The driving video or the reference image, to draw the figure over. A single picture is "
                    "used for all frames.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.85,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="Opacity of the figure over a background.",
                ),
                io.Combo.Input(
                    "renderer",
                    options=list(BACKENDS),
                    default="torch",
                    tooltip="torch always works. pyrender draws with OpenGL; you have to install it yourself.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="One shaded picture per frame.")],
            is_output_node=True,
        )

    @classmethod
    @progress("Drawing the figure")
    def execute(cls, motion, body, opacity, renderer, background=None) -> io.NodeOutput:
        warn_of_other_shape(body, motion)
        pictures = figure_over(background, body, motion, opacity, renderer)
        return io.NodeOutput(to_image(pictures), ui=animated(pictures, motion.fps))


NODES = [ChampBuiltInMotion, ChampCamera, ChampRetimeMotion, ChampPreviewMotion]
