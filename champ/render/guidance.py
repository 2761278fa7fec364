"""Renders all guidance maps of a motion in one pass over its frames."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..body.body import Body
from ..keypoints.pose import Pose
from ..motion.motion import Motion
from ..progress import advance
from .maps import Maps, draw_maps, motion_hits, part_colors
from .skeleton import attach_hands_and_face, draw_skeleton, project_poses


class GuidanceMaps(NamedTuple):
    """uint8 pictures on the CPU; the mask is 0 or 255."""

    depth: Tensor  # (F, H, W, 3)
    normal: Tensor  # (F, H, W, 3)
    semantic_map: Tensor  # (F, H, W, 3)
    dwpose: Tensor  # (F, H, W, 3)
    mask: Tensor  # (F, H, W)
    poses: list[Pose]  # the skeletons that were drawn


def render_guidance(
    body: Body,
    motion: Motion,
    detected: list[Pose | None] | None = None,
    device: torch.device | str = "cpu",
) -> GuidanceMaps:
    """Renders the maps of every frame; `detected` are people of the driving video, whose hands and faces go onto the
    skeleton."""
    if detected is not None and len(detected) != len(motion):
        raise ValueError(
            f"There are keypoints for {len(detected)} frames but the motion has {len(motion)}; use the keypoints of "
            "the same video, and trim both in the same way."
        )
    width, height = motion.width, motion.height
    maps = Maps.blank(len(motion), height, width)
    dwpose = torch.zeros(len(motion), height, width, 3, dtype=torch.uint8)
    poses: list[Pose] = []
    body = body.to(device)
    colors = part_colors(body.faces, body.part_labels)
    for frames, posed, hits in motion_hits(body, motion):
        done = len(poses)
        place = Maps(*(picture[done : done + len(frames)] for picture in maps))
        here = hits.pixel.device == maps.mask.device
        drawn = place if here else Maps.blank(len(frames), height, width, hits.pixel.device)
        draw_maps(drawn, hits, posed.vertices, body.faces, colors)
        if not here:
            for picture, part in zip(place, drawn):
                picture.copy_(part)
        for i, pose in enumerate(project_poses(body, frames, posed, hits), start=done):
            if detected is not None and (person := detected[i]) is not None:
                pose = attach_hands_and_face(pose, person)
            draw_skeleton([pose], width, height, canvas=dwpose[i].numpy())
            poses.append(pose)
            advance(len(poses), len(motion))
    return GuidanceMaps(maps.depth, maps.normal, maps.semantic_map, dwpose, maps.mask, poses)
