"""Nodes that estimate the body in a video or a picture with HMR2."""

import numpy as np
from comfy_api.latest import io

from ..champ.body.body import Body
from ..champ.body.free import load_free_body
from ..champ.estimate.estimate import estimate_motion
from ..champ.estimate.hmr2_files import OFFICIAL, SUFFIXES
from ..champ.estimate.hmr2_model import WEIGHT_DTYPES, load_hmr2
from ..champ.estimate.track import one_person, person_box
from ..champ.keypoints.pose_keypoint import from_pose_keypoint, shots_of
from ..champ.motion import report
from ..champ.motion.motion import Motion
from .files import hmr2_file, hmr2_files, register_folder
from .types import ChampBody, ChampHMR2, ChampMotion, PoseKeypoint, checked, progress, schema, warn
from .video import Pictures, clip_input, pictures
from .view import keep

register_folder("hmr2", set(SUFFIXES))


class ChampLoadHMR2(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadHMR2",
            display_name="Load HMR2",
            category="Champ/motion",
            aliases=["4D-Humans", "SMPL estimation", "HMR 2.0", "motion capture"],
            advanced=["weight_dtype", "half_precision_copy"],
            description="Loads HMR 2.0, the network of 4D-Humans that estimates the 3D body of a person in a picture, "
            "from models/hmr2.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=hmr2_files(),
                    tooltip=f"A checkpoint of HMR 2.0: {OFFICIAL} (2.0b), the older 2.0a, or a copy as .safetensors.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    tooltip="Precision of the weights in memory. default: what ComfyUI finds best for your hardware. "
                    "16 bits take half the memory of fp32. bf16 is the fastest on recent CPUs.",
                ),
                io.Boolean.Input(
                    "half_precision_copy",
                    display_name="copy of half the size",
                    default=False,
                    tooltip="The first time, writes a copy of half the size (_fp16.safetensors) beside the checkpoint, "
                    "and loads the copy from then on. The list then contains the copy too, and you may delete the "
                    "checkpoint.",
                ),
            ],
            outputs=[ChampHMR2.Output(display_name="hmr2", tooltip="For Estimate Motion.")],
        )

    @classmethod
    def validate_inputs(cls, model_name):
        return checked(hmr2_file, model_name)

    @classmethod
    @progress("Loading HMR2")
    def execute(cls, model_name, weight_dtype, half_precision_copy) -> io.NodeOutput:
        return io.NodeOutput(load_hmr2(hmr2_file(model_name), weight_dtype, half_precision_copy))


class ChampEstimateMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampEstimateMotion",
            display_name="Estimate Motion",
            category="Champ/motion",
            aliases=["motion capture", "video to SMPL", "HMR2", "4D-Humans", "pose estimation", "dance"],
            description="Estimates the 3D body of a person in every frame of a video, or in a single picture, with "
            "HMR2. The motion has as many frames as the video. Frames in which the person is not seen are filled.",
            inputs=[
                ChampHMR2.Input("hmr2", tooltip="From Load HMR2."),
                clip_input("clip", "The video, a batch of images, or the reference image alone."),
                PoseKeypoint.Input(
                    "pose_keypoints",
                    optional=True,
                    tooltip="Where the person is: keypoints of the same clip from Estimate Pose, Follow Person or "
                    "another pack's node. If there are several people, the largest is followed. If empty, the whole "
                    "picture is taken as the person: enough for a single picture of a person who fills it from head to "
                    "foot.",
                ),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The body that performs the motion. An SMPL body takes the person's whole shape; the free "
                    "body takes size and girth. Empty uses the free body.",
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of a batch of images. A video has its own.",
                ),
            ],
            outputs=[
                ChampMotion.Output(
                    display_name="motion",
                    tooltip="One frame for every frame of the clip. From a single picture: the reference for Put "
                    "Reference into Motion.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How many frames were seen, which were filled, and the shape."
                ),
            ],
        )

    @classmethod
    @progress("Estimating the motion")
    def execute(cls, hmr2, clip, fps, pose_keypoints=None, body=None) -> io.NodeOutput:
        frames = pictures(clip)
        shot = None
        if pose_keypoints is None:
            boxes = [np.array([0, 0, frames.width, frames.height, 1], np.float32)] * len(frames)
            if len(frames) > 1:
                warn(
                    "No pose_keypoints are connected, so the whole picture is taken as the person in every frame; "
                    "connect Estimate Pose, which finds the person."
                )
        else:
            boxes, shot = person_boxes(pose_keypoints, frames)
        body = body or load_free_body()
        motion = estimate_motion(
            hmr2,
            frames,
            boxes,
            (frames.width, frames.height),
            body,
            frames.fps or fps,
            shot,
        )
        text = describe_estimate(motion, body)
        return io.NodeOutput(motion, text, ui={"text": (text,), **keep(motion, body)})


def person_boxes(keypoints: list[dict], frames: Pictures) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Returns the box of the largest person in each frame, and the shot number of each frame."""
    people = from_pose_keypoint(keypoints, frames.width, frames.height)
    if len(people) != len(frames):
        raise ValueError(
            f"The clip has {len(frames)} frames and pose_keypoints {len(people)}; use the keypoints of the same clip."
        )
    shot = shots_of(keypoints)
    return [None if pose is None else person_box(pose) for pose in one_person(people, shot)], shot


def describe_estimate(motion: Motion, body: Body) -> str:
    """Describes which frames were seen, which were filled or are in doubt, and the estimated shape."""
    size, girth = motion.betas[:2].tolist()
    return f"{report.describe(motion, body=body)}\nShape: beta_0 {size:.2f}, beta_1 {girth:.2f}."


NODES = [ChampLoadHMR2, ChampEstimateMotion]
