"""Nodes that render, load, save and check guidance maps."""

from pathlib import Path

import cv2
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..champ.estimate.track import one_person
from ..champ.keypoints.pose import Pose
from ..champ.keypoints.pose_keypoint import canvas_size, from_pose_keypoint, has_shots, shots_of, to_pose_keypoint
from ..champ.motion.motion import Motion
from ..champ.progress import counted, doing
from ..champ.render.densepose import render_densepose
from ..champ.render.folder import IMAGES, MAP_FOLDERS, load_maps, save_maps
from ..champ.render.guidance import render_guidance
from ..champ.render.palette import palette_report
from ..champ.render.skeleton import draw_skeleton
from .animation import animated, animated_part, preview_scale, preview_step, save_animation
from .files import map_folder, map_folders, new_output_path
from .types import (
    MAX_FRAMES,
    MAX_SIZE,
    ChampBody,
    ChampMotion,
    PoseKeypoint,
    checked,
    drawing_device,
    progress,
    schema,
    to_bytes,
    to_image,
    warn,
    warn_of_other_shape,
)

SHOWN = ["depth", "normal", "semantic", "skeleton"]  # in the player
MAP_SIZE = 256  # pixels of a map's longer side there


def map_outputs() -> list[io.Image.Output]:
    return [
        io.Image.Output(display_name="depth", tooltip="Near is white; far and the background are black."),
        io.Image.Output(
            display_name="normal", tooltip="The direction of the surface: red to the right, green up, blue towards you."
        ),
        io.Image.Output(display_name="semantic_map", tooltip="The 24 body parts, one colour each."),
        io.Image.Output(
            display_name="dwpose", tooltip="The skeleton map in DWPose's style, with hands and face if they are known."
        ),
        io.Mask.Output(display_name="mask", tooltip="Where the body is."),
    ]


def map_inputs() -> list[io.Image.Input]:
    names = {"depth": "depth", "normal": "normal", "semantic_map": "semantic", "dwpose": "skeleton"}
    return [
        *(io.Image.Input(name, optional=True, tooltip=f"The {text} maps.") for name, text in names.items()),
        io.Mask.Input("mask", optional=True, tooltip="Where the person is in each frame."),
    ]


class ChampRenderMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampRenderMaps",
            display_name="Render Guidance Maps",
            category="Champ/maps",
            aliases=["depth map", "normal map", "semantic map", "dwpose", "skeleton", "SMPL render", "mask"],
            description="Draws a motion as the depth, normal, semantic and skeleton maps that Champ was trained with, "
            "pixel for pixel, without Blender.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion, with the camera already set."),
                ChampBody.Input("body", tooltip="The kind of body that performs it. The shape comes with the motion."),
                PoseKeypoint.Input(
                    "pose_keypoints",
                    optional=True,
                    tooltip="Keypoints of the driving video from a DWPose node. Their hands and face are put onto the "
                    "skeleton, because the body has no moving fingers and no facial expression.",
                ),
            ],
            outputs=[
                *map_outputs(),
                PoseKeypoint.Output(
                    display_name="pose_keypoints", tooltip="The drawn skeleton as keypoints, for nodes of other packs."
                ),
            ],
        )

    @classmethod
    @progress("Drawing the maps")
    def execute(cls, motion, body, pose_keypoints=None) -> io.NodeOutput:
        width, height = motion.width, motion.height
        detected = None if pose_keypoints is None else person_of(motion, pose_keypoints)
        warn_of_other_shape(body, motion)
        *pictures, poses = render_guidance(body, motion, detected, drawing_device())
        shown = maps_in_a_row(pictures[: len(SHOWN)], motion)
        for i, picture in enumerate(pictures):  # one by one, so that bytes and floats of all never coexist
            pictures[i] = to_image(picture)
        return io.NodeOutput(*pictures, to_pose_keypoint([[pose] for pose in poses], width, height), ui=shown)


def person_of(motion: Motion, keypoints: list[dict]) -> list[Pose | None]:
    """The person in the keypoints whom the motion nodes follow, in the proportions of the driving video; where the
    keypoints have no shots, in those that the motion has."""
    people = from_pose_keypoint(keypoints, *canvas_size(keypoints))
    shot = shots_of(keypoints)
    if len(people) == len(motion) and not has_shots(keypoints):
        shot = motion.shot.cpu().numpy()
    return one_person(people, shot)


def maps_in_a_row(maps: list[torch.Tensor], motion: Motion) -> dict:
    """A node's preview of maps (F, H, W, 3) side by side, of which the player can show each alone."""
    step = preview_step(len(motion), motion.fps)
    _, size = preview_scale(motion.width, motion.height, MAP_SIZE)
    rows = []
    with doing("Making the preview"):
        for f in counted(range(0, len(motion), step)):
            cells = [cv2.resize(pictures[f].numpy(), size, interpolation=cv2.INTER_AREA) for pictures in maps]
            rows.append(torch.from_numpy(np.concatenate(cells, axis=1)))
    confidence = [round(value, 3) for value in motion.confidence[::step].tolist()]
    return animated_part(torch.stack(rows), motion.fps, step, len(motion), parts=SHOWN, confidence=confidence)


class ChampRenderDensePose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampRenderDensePose",
            display_name="Render DensePose Map",
            category="Champ/maps",
            aliases=["DensePose", "MagicAnimate", "body parts", "part segmentation", "vid2densepose"],
            description="Draws a motion as the DensePose maps that MagicAnimate was trained with: 24 parts of the body "
            "in DensePose's colours, without a detector.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion, with the camera already set."),
                ChampBody.Input("body", tooltip="The kind of body that performs it. The shape comes with the motion."),
            ],
            outputs=[io.Image.Output(display_name="densepose", tooltip="One map per frame, for Encode Guidance.")],
        )

    @classmethod
    @progress("Drawing the DensePose maps")
    def execute(cls, motion, body) -> io.NodeOutput:
        warn_of_other_shape(body, motion)
        pictures = render_densepose(body, motion, drawing_device())
        return io.NodeOutput(to_image(pictures), ui=animated(pictures, motion.fps))


class ChampLoadMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadMaps",
            display_name="Load Guidance Maps",
            category="Champ/maps",
            aliases=["load depth", "load normal", "load dwpose", "image sequence", "control images"],
            description="Loads guidance maps from a folder in the official layout: depth, normal, semantic_map, dwpose "
            "and mask, each with one picture per frame. A map that is not in the folder is left empty.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=map_folders(),
                    tooltip="A folder below ComfyUI's input folder, or below its output folder (marked [output]). "
                    "Press R after adding one.",
                ),
                io.Int.Input("start", default=0, min=0, max=MAX_FRAMES, tooltip="First frame to load, from 0."),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames to load. 0 loads all that follow.",
                ),
            ],
            outputs=[*map_outputs(), io.Int.Output(display_name="frames", tooltip="How many frames were loaded.")],
        )

    @classmethod
    def validate_inputs(cls, folder):
        return checked(map_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder, start, count):
        if folder is None:
            return None
        files = sorted(file for name in MAP_FOLDERS for file in (map_folder(folder) / name).glob("*"))
        return [(str(file), file.stat().st_mtime_ns) for file in files]

    @classmethod
    @progress("Reading the maps")
    def execute(cls, folder, start, count) -> io.NodeOutput:
        path = map_folder(folder)
        maps = load_maps(path, start, count or None)
        if "semantic_map" in maps and (problem := palette_report(maps["semantic_map"], maps.get("mask"))):
            warn(f"{folder}: {problem}")
        frames = len(next(iter(maps.values())))
        return io.NodeOutput(*(to_image(maps.pop(name)) if name in maps else None for name in MAP_FOLDERS), frames)


class ChampSaveMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSaveMaps",
            display_name="Save Guidance Maps",
            category="Champ/maps",
            aliases=["save depth", "save normal", "save dwpose", "image sequence", "control images"],
            description="Writes guidance maps as a folder in the official layout, and an animated preview of all maps "
            "side by side. For training, connect the video's frames too. Each run makes a new folder; nothing is "
            "overwritten.",
            inputs=[
                *map_inputs(),
                io.String.Input(
                    "folder",
                    default="champ/maps",
                    tooltip="Name of the folder below ComfyUI's output folder. A number is added to it.",
                ),
                io.Float.Input(
                    "fps", default=24.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the preview."
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The frames of the video that the maps were made from, in the size of the maps. They are "
                    "written beside the maps. Training needs them.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="folder", tooltip="Name of the new folder, as in the list of Load Guidance Maps."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, folder):
        return checked(new_output_path, folder)

    @classmethod
    @progress("Writing the maps")
    def execute(
        cls, folder, fps, depth=None, normal=None, semantic_map=None, dwpose=None, mask=None, images=None
    ) -> io.NodeOutput:
        given = dict(zip(MAP_FOLDERS, (depth, normal, semantic_map, dwpose, mask), strict=True))
        maps = {name: value[..., :3] for name, value in given.items() if value is not None and name != "mask"}
        if mask is not None:
            maps["mask"] = mask
        if not maps:
            raise ValueError("No maps are connected to Save Guidance Maps; connect at least one.")
        if images is not None:
            maps[IMAGES] = images[..., :3]
        path = new_output_path(folder)
        pictures = [maps[name] for name in (IMAGES, *MAP_FOLDERS[:4]) if name in maps]
        pictures = pictures or [maps["mask"][..., None].expand(-1, -1, -1, 3)]
        step = preview_step(len(pictures[0]), fps)

        def add_preview(made: Path) -> None:
            shown = torch.cat([to_bytes(p[::step]) for p in pictures], dim=2)
            save_animation(made / "preview.webp", shown, fps / step)

        save_maps(path, maps, add_preview)
        root = Path(folder_paths.get_output_directory())
        subfolder = path.relative_to(root).as_posix()
        preview = ui.SavedResult("preview.webp", subfolder, io.FolderType.output)
        return io.NodeOutput(f"{subfolder} [output]", ui=ui.SavedImages([preview], is_animated=True))


class ChampDrawSkeleton(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampDrawSkeleton",
            display_name="Draw Skeleton Map",
            category="Champ/maps",
            aliases=["dwpose", "openpose", "stick figure", "draw pose", "keypoints", "render pose"],
            description="Draws skeleton maps in DWPose's exact style, from the keypoints of any pose node.",
            inputs=[
                PoseKeypoint.Input("pose_keypoints", tooltip="Keypoints from a DWPose, OpenPose or other pose node."),
                io.Int.Input(
                    "width", default=0, min=0, max=MAX_SIZE, step=8,
                    tooltip="Width of the map in pixels. 0 takes the size of the pictures that the keypoints were "
                    "found in. Draw at the size of the video: lines do not grow with the picture.",
                ),
                io.Int.Input("height", default=0, min=0, max=MAX_SIZE, step=8, tooltip="Height of the map in pixels. 0 "
                "as for the width."),
                io.Boolean.Input("draw_body", default=True, tooltip="Draw the body's limbs and joints."),
                io.Boolean.Input("draw_hands", default=True, tooltip="Draw the fingers."),
                io.Boolean.Input("draw_face", default=True, tooltip="Draw the points of the face."),
            ],
            outputs=[io.Image.Output(display_name="dwpose", tooltip="One skeleton map per frame.")],
        )  # fmt: skip

    @classmethod
    @progress("Drawing the skeletons")
    def execute(cls, pose_keypoints, width, height, draw_body, draw_hands, draw_face) -> io.NodeOutput:
        found_width, found_height = canvas_size(pose_keypoints)
        if not width and not height:
            width, height = found_width, found_height
        width = width or round(height * found_width / found_height)
        height = height or round(width * found_height / found_width)
        if not (1 <= width <= MAX_SIZE and 1 <= height <= MAX_SIZE):
            raise ValueError(
                f"The skeleton map would have {width}x{height} pixels; set a width and height from 1 to {MAX_SIZE}, or "
                "check the canvas size of the pose node."
            )
        frames = from_pose_keypoint(pose_keypoints, width, height)
        pictures = torch.empty(len(frames), height, width, 3)
        for i, people in enumerate(counted(frames)):
            drawn = draw_skeleton(people, width, height, draw_body, draw_hands, draw_face)
            pictures[i] = to_image(torch.from_numpy(drawn))
        return io.NodeOutput(pictures)


class ChampCheckMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampCheckMaps",
            display_name="Check Semantic Map",
            category="Champ/maps",
            aliases=["validate maps", "palette", "segmentation", "part colours"],
            description="Warns when a semantic map does not have the 24 part colours that Champ knows, before you "
            "spend minutes on sampling: swapped channels, DensePose colours, JPEG damage, empty frames.",
            inputs=[
                io.Image.Input("semantic_map", tooltip="The semantic maps to check."),
                io.Mask.Input("mask", optional=True, tooltip="Where the person is, if you have it."),
                io.Boolean.Input(
                    "stop", default=False, tooltip="On: a problem ends the workflow. Off: a problem is only a warning."
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="What was found, as text.")],
            is_output_node=True,
        )

    @classmethod
    @progress("Checking the maps")
    def execute(cls, semantic_map, stop, mask=None) -> io.NodeOutput:
        if semantic_map is None:
            problem = (
                "There is no semantic map to check, because the folder of Load Guidance Maps has none; put "
                "semantic_map into that folder, or connect the map of another node."
            )
        else:
            problem = palette_report(to_bytes(semantic_map[..., :3]), None if mask is None else to_bytes(mask))
        if problem and stop:
            raise ValueError(problem)
        if problem:
            warn(problem)
        return io.NodeOutput(problem or "The semantic map has Champ's 24 part colours.")


NODES = [ChampRenderMaps, ChampRenderDensePose, ChampDrawSkeleton, ChampLoadMaps, ChampSaveMaps, ChampCheckMaps]
