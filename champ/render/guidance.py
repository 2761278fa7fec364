"""Renders all guidance maps of a motion in one pass over its frames."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..body.body import Body
from ..keypoints.pose import Pose
from ..motion.motion import Motion
from ..progress import advance
from .maps import Maps, hit_maps, motion_hits
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
    dwpose = torch.empty(len(motion), height, width, 3, dtype=torch.uint8)
    poses: list[Pose] = []
    body = body.to(device)
    for frames, posed, hits in motion_hits(body, motion):
        done = len(poses)
        drawn = hit_maps(hits, posed.vertices, body.faces, body.part_labels, width, height)
        for picture, part in zip(maps, drawn):
            picture[done : done + len(frames)] = part
        for i, pose in enumerate(project_poses(body, frames, posed, hits), start=done):
            if detected is not None and (person := detected[i]) is not None:
                pose = attach_hands_and_face(pose, person)
            dwpose[i] = torch.from_numpy(draw_skeleton([pose], width, height))
            poses.append(pose)
            advance(len(poses), len(motion))
    return GuidanceMaps(maps.depth, maps.normal, maps.semantic_map, dwpose, maps.mask, poses)
