"""Nodes that find the 2D keypoints of people in a clip with DWPose or BlazePose."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from comfy_api.latest import io

from ..champ.estimate.dwpose_model import load_dwpose
from ..champ.estimate.network import EXTENSIONS
from ..champ.estimate.shots import find_shots
from ..champ.keypoints.pose import Pose
from ..champ.keypoints.pose_keypoint import canvas_size, from_pose_keypoint, has_shots, shots_of, to_pose_keypoint
from ..champ.progress import advance, counted
from ..champ.render.skeleton import draw_skeleton
from .animation import PREVIEW_SIZE, animated_part, preview_scale, preview_step
from .files import dwpose_file, dwpose_files, register_dwpose
from .types import ChampDWPose, PoseKeypoint, checked, progress, schema, to_image, warn
from .video import Pictures, clip_input, pictures

register_dwpose(EXTENSIONS)

FPS = 24.0  # of the preview of a batch of images, which has no frame rate


class ChampLoadDWPose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadDWPose",
            display_name="Load DWPose",
            category="Champ/pose",
            aliases=["pose detector", "openpose", "YOLOX", "RTMPose", "keypoints"],
            description="Loads the two networks of DWPose, which find people and their keypoints, from models/dwpose "
            "or from the folder of the ControlNet Auxiliary Preprocessors.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=dwpose_files("yolo"),
                    tooltip="Finds people: yolox_l as .onnx, .torchscript.pt or .pth. All formats give the same "
                    "results.",
                ),
                io.Combo.Input(
                    "pose_network",
                    options=dwpose_files("dw-"),
                    tooltip="Finds the keypoints of one person: dw-ll_ucoco_384 as .onnx, .torchscript.pt or .pth. All "
                    "formats give the same results.",
                ),
            ],
            outputs=[ChampDWPose.Output(display_name="dwpose", tooltip="For Estimate Pose.")],
        )

    @classmethod
    def validate_inputs(cls, detector, pose_network):
        answers = (checked(dwpose_file, name) for name in (detector, pose_network))
        return next((answer for answer in answers if answer is not True), True)

    @classmethod
    @progress("Loading DWPose")
    def execute(cls, detector, pose_network) -> io.NodeOutput:
        return io.NodeOutput(load_dwpose(dwpose_file(detector), dwpose_file(pose_network)))


class ChampEstimatePose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampEstimatePose",
            display_name="Estimate Pose",
            category="Champ/pose",
            aliases=["DWPose", "BlazePose", "openpose", "skeleton", "keypoints", "pose estimation", "detect people"],
            description="Finds the keypoints of all people in a clip with BlazePose or DWPose: body, hands and face. "
            "Also finds where one shot ends and the next begins.",
            inputs=[
                clip_input("clip", "The video, or a batch of images."),
                ChampDWPose.Input("dwpose", tooltip="From Load BlazePose, which comes with the pack, or Load DWPose."),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose_keypoints",
                    tooltip="All people of each frame, with as many frames as the clip. For Follow Person, Draw "
                    "Skeleton Map, or nodes of other packs.",
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The skeletons over the dimmed clip, as in the preview. A long or large clip is shown with "
                    f"fewer frames and at most {PREVIEW_SIZE} pixels.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @progress("Looking for people")
    def execute(cls, clip, dwpose) -> io.NodeOutput:
        frames = pictures(clip)
        fps = frames.fps or FPS
        step = preview_step(len(frames), fps)
        people: list[list[Pose]] = []
        overlay: list[torch.Tensor] = []

        def looked_at() -> Iterator[np.ndarray]:
            """Yields the frames, each decoded once; the people of a frame are known when the next one is requested."""
            for picture, poses in dwpose.find_poses(frames):
                if len(people) % step == 0:
                    overlay.append(skeletons_over(picture, poses))
                people.append(poses)
                advance(len(people), len(frames))
                yield picture

        with dwpose.in_use():
            shots = find_shots(looked_at())
        if not any(people):
            warn(
                f"Nobody was found in {len(frames)} frames; use a clip with a person who is upright and not too small."
            )
        keypoints = to_pose_keypoint(people, frames.width, frames.height, shots)
        shown = torch.stack(overlay)
        return io.NodeOutput(keypoints, to_image(shown), ui=animated_part(shown, fps, step, len(frames)))


class Watched(NamedTuple):
    """The keypoints of a node's input, and the clip that they belong to, if there is one."""

    frames: Pictures | None
    width: int
    height: int
    people: list[list[Pose]]
    shot: np.ndarray  # (F,)


def keypoints_of_clip(pose_keypoints: list[dict], clip) -> Watched:
    """Reads a POSE_KEYPOINT value in the pixels of its clip; shots that it does not contain are found in the clip."""
    frames = None if clip is None else pictures(clip)
    width, height = canvas_size(pose_keypoints) if frames is None else (frames.width, frames.height)
    people = from_pose_keypoint(pose_keypoints, width, height)
    if frames is not None and len(frames) != len(people):
        raise ValueError(
            f"The clip has {len(frames)} frames and pose_keypoints {len(people)}; use the keypoints of the same clip, "
            "or leave clip empty."
        )
    shot = shots_of(pose_keypoints)
    if frames is not None and not has_shots(pose_keypoints):
        shot = find_shots(counted(frames))
    return Watched(frames, width, height, people, shot)


def skeletons_over(picture: np.ndarray, poses: list[Pose]) -> torch.Tensor:
    """Draws the skeletons over a frame at half its brightness, at a reduced size: (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    drawn = draw_skeleton(poses, width, height)
    drawn = np.where(drawn.any(axis=2, keepdims=True), drawn, picture // 2)
    _, size = preview_scale(width, height)
    return torch.from_numpy(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))


NODES = [ChampLoadDWPose, ChampEstimatePose]
