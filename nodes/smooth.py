"""Nodes that smooth a motion and report on it."""

from comfy_api.latest import io

from ..champ.motion.report import describe, plot
from ..champ.motion.smooth import METHODS, smooth
from .animation import still
from .types import ChampBody, ChampMotion, progress, schema, to_image


class ChampSmoothMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSmoothMotion",
            display_name="Smooth Motion",
            category="Champ/motion",
            aliases=["jitter", "denoise motion", "stabilize", "filter motion", "trembling"],
            description="Removes the jitter of an estimated motion, shot by shot, and keeps fast movements. Frames in "
            "which the person is turned around for a moment are filled from their neighbours.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to smooth, for example one estimated from a video."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="steady: as much as the jitter needs and the movement allows. official: what Champ's own "
                    "tool does in Blender; it weakens fast movements. off: nothing.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="steady: how much movement counts as jitter; 2 smooths more, 0.5 less. official: the "
                    "number of passes, in whole numbers.",
                ),
            ],
            outputs=[
                ChampMotion.Output(display_name="motion", tooltip="The smoothed motion, with as many frames as before.")
            ],
        )

    @classmethod
    @progress("Smoothing the motion")
    def execute(cls, motion, method, strength) -> io.NodeOutput:
        return io.NodeOutput(smooth(motion, method, strength))


class ChampMotionReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampMotionReport",
            display_name="Motion Report",
            category="Champ/motion",
            aliases=["motion statistics", "jitter", "plot motion", "debug motion"],
            description="Lists which frames of a motion were filled, the confidence of the others, the jitter and the "
            "shots, and draws a plot.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to report on."),
                ChampMotion.Input("before", optional=True, tooltip="The same motion before smoothing, for comparison."),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The kind of body that performs it. With it, the report also lists frames in which a hand, "
                    "a foot or the head leaves the picture.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Length, filled frames, shots and jitter as text."),
                io.Image.Output(
                    display_name="plot",
                    tooltip="Seen and filled frames, the place of the person, and how fast the joints turn.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @progress("Looking at the motion")
    def execute(cls, motion, before=None, body=None) -> io.NodeOutput:
        picture = to_image(plot(motion, before, body))[None]
        return io.NodeOutput(describe(motion, before, body), picture, ui=still(picture, cls))


NODES = [ChampSmoothMotion, ChampMotionReport]
