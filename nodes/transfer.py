"""Node that puts the person of the reference into the driving motion."""

from comfy_api.latest import io

from ..champ.motion.transfer import PLACEMENTS, transfer
from .animation import animated
from .motion import figure_over
from .types import ChampBody, ChampMotion, schema, to_image

OPACITY = 0.7


class ChampTransferMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampTransferMotion",
            display_name="Put Reference into Motion",
            category="Champ/motion",
            aliases=["retarget", "align person", "shape transfer", "motion transfer", "driving video"],
            advanced=["figure_scale"],
            description="Gives a motion the shape and the place of the person in the reference image, so that the maps "
            "fit the image. Shows the first frame over the image, before you start anything slow.",
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
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Makes the figure slimmer (above 0) or fatter (below 0) than the reference.",
                ),
            ],
            outputs=[
                ChampMotion.Output(display_name="motion", tooltip="The driving motion, performed by the reference."),
                io.Image.Output(display_name="overlay", tooltip="The first frame over the reference image."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, driving, reference, body, placement, figure_scale, reference_image=None) -> io.NodeOutput:
        motion = transfer(driving, reference, body, placement, figure_scale)
        picture = None if reference_image is None else reference_image[:1]
        overlay = figure_over(picture, body, motion[:1], OPACITY)
        return io.NodeOutput(motion, to_image(overlay), ui=animated(overlay, motion.fps))


NODES = [ChampTransferMotion]
