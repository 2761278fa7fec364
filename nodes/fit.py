"""Node that fits a motion to 2D keypoints, without any network."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from comfy_api.latest import io

from ..champ.body.body import Body
from ..champ.body.free import load_free_body
from ..champ.estimate.fit import fit_motion
from ..champ.estimate.track import one_person
from ..champ.keypoints.pose import Pose
from ..champ.motion.camera import FOV, focal_length
from ..champ.motion.motion import Motion
from ..champ.motion.report import worst
from ..champ.progress import counted
from ..champ.render.sheet import figure_sheet
from ..champ.render.skeleton import draw_skeleton
from .animation import animated_part, preview_scale, preview_step
from .estimate import describe_estimate
from .motion import figure_over
from .pose import keypoints_of_clip
from .types import ChampBody, ChampMotion, PoseKeypoint, progress, schema, to_image
from .video import Pictures, clip_input
from .view import keep

OVERLAY_SIZE = 512  # longer side in pixels
OPACITY = 0.85
LONG_LENS = round(FOV, 2)  # degrees, of the camera that Champ was trained with
TO_LOOK_AT = 8  # frames
UNSEEN = 0.75  # median confidence below which much of the person was out of sight in most frames


class ChampFitMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampFitMotion",
            display_name="Fit Motion to Keypoints",
            category="Champ/motion",
            aliases=["motion capture", "keypoints to SMPL", "SMPLify", "lift to 3D", "pose to body", "dance"],
            description="Estimates the 3D body of a person in every frame from 2D keypoints alone, of any pose node. "
            "No model files are needed. The motion has as many frames as the keypoints. Frames in which the person is "
            "not seen are filled.",
            inputs=[
                PoseKeypoint.Input(
                    "pose_keypoints",
                    tooltip="Keypoints of a video, or of the reference image alone, from a DWPose, OpenPose or other "
                    "pose node. If there are several people, the largest is followed; Follow Person chooses another.",
                ),
                clip_input(
                    "clip",
                    "The same video or images. It gives the frame rate and the shots, and is shown behind the body. "
                    "The motion itself does not need it.",
                    optional=True,
                ),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The body to start from. Its shape is changed as far as the keypoints ask for it. Empty "
                    "uses the free body.",
                ),
                io.Float.Input(
                    "fps",
                    default=24.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the keypoints. A connected video has its own.",
                ),
                io.Float.Input(
                    "fov",
                    default=LONG_LENS,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    optional=True,
                    tooltip="Field of view of the camera in degrees, along the longer side. 2.93, a very long lens, is "
                    "what Champ was trained with. 50 to 70 is a phone held near to the person: with it hands and feet "
                    "that come near to the camera get their right size.",
                ),
            ],
            outputs=[
                ChampMotion.Output(
                    display_name="motion",
                    tooltip="One frame for every frame of the keypoints. From a single picture: the reference for Put "
                    "Reference into Motion.",
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The body and the keypoints over the clip, as in the preview. A long or large clip is "
                    f"shown with fewer frames and at most {OVERLAY_SIZE} pixels.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="How many frames are good, which were filled, are doubtful or off, and the shape.",
                ),
                io.Image.Output(
                    display_name="to_look_at",
                    tooltip="The frames that are doubtful, off or filled, or some others if all are good: the picture, "
                    "the body over it, and the body from the side.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @progress("Fitting the body", "")
    def execute(cls, pose_keypoints, fps, clip=None, body=None, fov=LONG_LENS) -> io.NodeOutput:
        body = body or load_free_body()
        frames, width, height, people, shot = keypoints_of_clip(pose_keypoints, clip)
        if frames is not None:
            fps = frames.fps or fps
        person = one_person(people, shot)
        focal = None if fov == LONG_LENS else focal_length(fov, width, height)
        motion = fit_motion(person, body, width, height, fps, shot, focal)
        step, doubtful = preview_step(len(motion), fps), worst(motion, TO_LOOK_AT)
        shown = None if frames is None else small_pictures(frames, {*range(0, len(motion), step), *doubtful})
        overlay = body_over(shown, person, body, motion, step)
        pictures = None if shown is None else [shown[f] for f in doubtful]
        strip = figure_sheet(motion[torch.tensor(doubtful)], body, list(map(str, doubtful)), pictures)
        report = describe_estimate(motion, body)
        if motion.confidence[motion.confidence > 0].median() < UNSEEN:
            report += "\nMuch of the person is out of sight in most frames; legs that are not seen hang."
        if not any(pose is not None and pose.world is not None for pose in person):
            report += (
                "\nThese keypoints say nothing about depth, so what is in front and what behind is a guess; those of "
                "Load BlazePose say it."
            )
        shown_here = {**animated_part(overlay, fps, step, len(motion)), **keep(motion, body)}
        return io.NodeOutput(motion, to_image(overlay), report, to_image(strip)[None], ui=shown_here)


def small_pictures(frames: Pictures, chosen: set[int]) -> dict[int, np.ndarray]:
    """Some frames of a clip at a reduced size, by their number."""
    _, size = preview_scale(frames.width, frames.height, OVERLAY_SIZE)
    return {
        i: cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        for i, picture in enumerate(counted(frames))
        if i in chosen
    }


def body_over(
    shown: dict[int, np.ndarray] | None, person: list[Pose | None], body: Body, motion: Motion, step: int
) -> torch.Tensor:
    """Draws body and keypoints of every `step`-th frame over its picture or a plain colour, at a reduced size: (F, H,
    W, 3) uint8."""
    scale, (width, height) = preview_scale(motion.width, motion.height, OVERLAY_SIZE)
    small = replace(motion[::step], focal=motion.focal * scale, width=width, height=height)
    behind = None
    if shown is not None:
        behind = to_image(torch.from_numpy(np.stack([shown[f] for f in range(0, len(motion), step)])))
    overlay = figure_over(behind, body, small, OPACITY)
    for picture, pose in zip(overlay.numpy(), person[::step]):
        if pose is not None:
            points = Pose((pose.body * (scale, scale, 1)).astype(np.float32))
            lines = draw_skeleton([points], width, height)
            np.copyto(picture, lines, where=lines.any(axis=2, keepdims=True))
    return overlay


NODES = [ChampFitMotion]
