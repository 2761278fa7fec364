"""Node that loads the pose network of the pack."""

from comfy_api.latest import io

from ..champ.estimate.blazepose.model import load_blazepose
from .types import ChampDWPose, progress, schema


class ChampLoadBlazePose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadBlazePose",
            display_name="Load BlazePose (built-in)",
            category="Champ/pose",
            aliases=["MediaPipe", "pose detector", "openpose", "keypoints", "holistic", "hands", "face mesh"],
            description="Loads the pose network that comes with this pack: MediaPipe's BlazePose, with its networks "
            "for hands and faces. Nothing has to be downloaded. It finds the keypoints of people in a video or "
            "picture, in DWPose's format, and is many times faster on a CPU.",
            inputs=[
                io.Boolean.Input(
                    "hands_and_face",
                    default=True,
                    tooltip="Also finds fingers and faces, for skeleton maps. Off takes half the time; for Fit Motion "
                    "to Keypoints the body is enough.",
                ),
            ],
            outputs=[
                ChampDWPose.Output(display_name="dwpose", tooltip="For Estimate Pose, in the place of Load DWPose.")
            ],
        )

    @classmethod
    @progress("Loading BlazePose")
    def execute(cls, hands_and_face) -> io.NodeOutput:
        return io.NodeOutput(load_blazepose(hands_and_face))


NODES = [ChampLoadBlazePose]
