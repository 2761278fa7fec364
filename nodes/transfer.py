"""Node that puts the person of the reference into the driving motion."""

from typing import Any

import cv2
import numpy as np
from comfy_api.latest import io

from ..champ.body.body import Body
from ..champ.motion.motion import Motion
from ..champ.motion.report import frames_of, outside
from ..champ.motion.transfer import MATCHES, PLACEMENTS, ByHand, Inside, transfer
from ..champ.motion.transfer import keep_inside as into_picture
from .animation import animated, still
from .motion import figure_over
from .types import ChampBody, ChampMotion, progress, schema, to_image, warn

OPACITY = 0.7


class ChampTransferMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampTransferMotion",
            display_name="Put Reference into Motion",
            category="Champ/motion",
            aliases=["retarget", "align person", "shape transfer", "motion transfer", "driving video"],
            advanced=["figure_scale", "match", "move_right", "move_down", "size"],
            description="Gives a motion the shape and the place of the person in the reference image, so that the maps "
            "fit the image. Shows the figure over the image, before you start anything slow: drag it to move it, and "
            "drag a corner to change its size.",
            inputs=[
                ChampMotion.Input("driving", tooltip="The motion to perform. It may be of any person."),
                ChampMotion.Input(
                    "reference",
                    tooltip="The body in the reference image, as a motion. Only its first frame is used.",
                ),
                ChampBody.Input("body", tooltip="The kind of body. The shape comes with the reference."),
                io.Image.Input(
                    "reference_image", optional=True, tooltip="The reference image, to check that the body fits."
                ),
                io.Combo.Input(
                    "placement",
                    options=list(PLACEMENTS),
                    default="follow",
                    tooltip="follow: begins at the person's place and follows the driving path, with steps scaled to "
                    "the person's size. pin: stays in place, as in Champ's own tool. keep: keeps the driving camera "
                    "and path.",
                ),
                io.Float.Input(
                    "figure_scale",
                    display_name="slimmer or fatter",
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Makes the figure slimmer (above 0) or fatter (below 0) than the reference.",
                ),
                io.Combo.Input(
                    "match",
                    display_name="align by",
                    options=list(MATCHES),
                    default="floor",
                    optional=True,
                    tooltip="floor: the feet stand on the floor of the reference, also where that kneels or sits. "
                    "pelvis: the pelvis begins at the height of the reference's, as in Champ's own tool.",
                ),
                io.Boolean.Input(
                    "keep_inside",
                    display_name="keep inside the picture",
                    default=False,
                    optional=True,
                    tooltip="Moves the whole motion, and makes it smaller if needed, so that nothing of it leaves the "
                    "picture. The overlay says how.",
                ),
                io.Float.Input(
                    "move_right", default=0.0, min=-200.0, max=200.0, step=0.1, optional=True,
                    tooltip="Moves the figure to the right, in percent of the picture's width. Below 0: to the left. "
                    "Dragging the figure in the picture sets it.",
                ),
                io.Float.Input(
                    "move_down", default=0.0, min=-200.0, max=200.0, step=0.1, optional=True,
                    tooltip="Moves the figure down, in percent of the picture's height. Below 0: up. Dragging the "
                    "figure in the picture sets it.",
                ),
                io.Float.Input(
                    "size", default=100.0, min=10.0, max=1000.0, step=0.1, optional=True,
                    tooltip="Size in percent. The figure grows and shrinks from the floor under its feet. Dragging a "
                    "corner in the picture sets it, and the mouse wheel does.",
                ),
            ],
            outputs=[
                ChampMotion.Output(display_name="motion", tooltip="The driving motion, performed by the reference."),
                io.Image.Output(display_name="overlay", tooltip="The first frame over the reference image."),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    @progress("Putting the reference into the motion")
    def execute(cls, driving, reference, body, reference_image=None, **widgets) -> io.NodeOutput:
        motion, told = put_into(driving, reference, body, **widgets)
        gone = outside(motion, body)
        if gone.any():
            warn(
                f"Put Reference into Motion: a hand, a foot or the head leaves the picture in {int(gone.sum())} of "
                f"{len(motion)} frames ({frames_of(gone)}). Switch on keep inside the picture (keep_inside), or use a "
                "wider picture."
            )
        picture = None if reference_image is None else reference_image[:1]
        overlay = figure_over(picture, body, motion[:1], OPACITY)
        if told is not None:
            caption(overlay[0].numpy(), f"kept inside: {told}")
        shown = animated(overlay, motion.fps)
        if reference_image is not None and (behind := still(picture, cls)):
            shown["champ_behind"] = behind.as_dict()["images"]
        return io.NodeOutput(motion, to_image(overlay), ui=shown)


def put_into(
    driving: Motion,
    reference: Motion,
    body: Body,
    keep_inside: bool = False,
    move_right: float = 0.0,
    move_down: float = 0.0,
    size: float = 100.0,
    **how: Any,
) -> tuple[Motion, Inside | None]:
    """Returns the motion of the node, and what was done to keep it inside the picture."""
    by_hand = ByHand(move_right / 100, move_down / 100, size / 100)
    motion = transfer(driving, reference, body, by_hand=by_hand, **how)
    return into_picture(motion, body) if keep_inside else (motion, None)


def caption(picture: np.ndarray, text: str) -> None:
    """At the foot of a picture (H, W, 3) uint8, as large as fits."""
    height, width = picture.shape[:2]
    (long, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    size = min(0.95 * width / long, 0.06 * height / tall)
    for color, thick in ((0, 0, 0), 3), ((255, 255, 255), 1):
        place = round(0.02 * width), height - round(0.02 * height) - 2
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, thick, cv2.LINE_AA)


NODES = [ChampTransferMotion]
