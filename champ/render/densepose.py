"""DensePose's 24 body parts, drawn from a body instead of detected: the maps that MagicAnimate was trained with.

Which part a point belongs to follows from its place beside the joints of the rest pose, by rules of our own. A rule is
a field over the vertices, such as the distance from a plane; it is interpolated between them, so that the borders of
the parts are straight across faces and do not depend on how fine the mesh is.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS
from ..motion.motion import Motion
from ..progress import advance
from .maps import interpolate_corners, motion_hits
from .rasterize import Hits

# OpenCV's VIRIDIS at 255 * part // 24, as RGB. 0 is the background.
DENSEPOSE_COLORS = np.array(
    [
        (68, 1, 84), (71, 16, 99), (72, 31, 112), (71, 44, 122), (68, 57, 131), (64, 70, 136), (59, 81, 139),
        (54, 93, 141), (49, 104, 142), (44, 113, 142), (40, 124, 142), (37, 133, 142), (33, 144, 141), (31, 154, 138),
        (32, 163, 134), (39, 173, 129), (53, 183, 121), (70, 192, 111), (92, 200, 99), (115, 208, 86), (142, 214, 69),
        (170, 220, 50), (197, 224, 33), (226, 228, 24), (253, 231, 37),
    ],
    dtype=np.uint8,
)  # fmt: skip

# The regions of each limb, from the body outwards, with their two parts: where the side field is negative, and where it
# is positive.
LIMBS = {
    "torso": {"torso": (1, 2)},  # back, front
    "head": {"head": (23, 24)},  # right, left half
    "left_arm": {"left_arm": (17, 15), "left_forearm": (21, 19), "left_hand": (4, 4)},  # outside, inside
    "right_arm": {"right_arm": (18, 16), "right_forearm": (22, 20), "right_hand": (3, 3)},
    "left_leg": {"left_thigh": (8, 10), "left_shin": (12, 14), "left_foot": (5, 5)},  # back, front
    "right_leg": {"right_thigh": (7, 9), "right_shin": (11, 13), "right_foot": (6, 6)},
}
PARTS = {region: parts for regions in LIMBS.values() for region, parts in regions.items()}
LIMB_OF = [number for number, regions in enumerate(LIMBS.values()) for _ in regions]
# Joints that move the outer regions of a limb.
MOVED_BY = {"forearm": ("elbow",), "hand": ("wrist", "hand"), "shin": ("knee",), "foot": ("ankle", "foot")}
# The bones of the regions that have two sides.
BONES = {
    "arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist"), "thigh": ("hip", "knee"), "shin": ("knee", "ankle"),
}  # fmt: skip
# The inside of an arm looks down in the rest pose, and this far to the front.
INSIDE = math.radians(10)
# In lengths of the thigh: where it ends at the hip bone, between the legs, and below the buttocks.
HIP_BONE, CROTCH, FOLD = 0.1, -0.24, -0.27
SHOULDER = 0.012  # metres from the shoulder joint to the border of arm and torso


class PartFields(NamedTuple):
    """Fields over the vertices, linear between them."""

    limb: Tensor  # (6, V) for LIMBS: a point belongs to the limb with the largest one,
    share: Tensor  # (14, V) for PARTS: in it, to the region with the largest one,
    side: Tensor  # (14, V) and the sign says to which side of it


def part_fields(body: Body) -> PartFields:
    """Returns the fields of a body in its present shape."""
    rest = body.rest()
    vertices, joints = rest.vertices[0], dict(zip(JOINTS, rest.joints[0]))
    weights = dict(zip(JOINTS, body.weights.t()))
    ones = torch.ones_like(vertices[:, 0])
    limb = {"torso": 0 * ones, "head": weights["neck"] + weights["head"] - 0.5}
    share = {"torso": ones, "head": ones}
    side = {"torso": _before_the_side_line(vertices, joints), "head": vertices[:, 0]}
    for name in ("left", "right"):
        limb[f"{name}_arm"] = _past_the_shoulder(vertices, joints, name)
        limb[f"{name}_leg"] = _below_the_hip(vertices, joints, name)
        for inner, *outer in (("arm", "forearm", "hand"), ("thigh", "shin", "foot")):
            moved = {part: sum(weights[f"{name}_{joint}"] for joint in MOVED_BY[part]) for part in outer}
            share |= {f"{name}_{part}": value for part, value in moved.items()}
            share[f"{name}_{inner}"] = ones - sum(moved.values())
        inside = vertices.new_tensor([0.0, -math.cos(INSIDE), math.sin(INSIDE)])
        front = vertices.new_tensor([0.0, 0.0, 1.0])
        for part, (first, last) in BONES.items():
            direction = inside if "arm" in part else front
            bone = joints[f"{name}_{first}"], joints[f"{name}_{last}"]
            side[f"{name}_{part}"] = _beside_bone(vertices, *bone, direction)
        side |= {f"{name}_{part}": ones for part in ("hand", "foot")}
    return PartFields(
        torch.stack([limb[name] for name in LIMBS]),
        torch.stack([share[name] for name in PARTS]),
        torch.stack([side[name] for name in PARTS]),
    )


def _beside_bone(vertices: Tensor, first: Tensor, last: Tensor, direction: Tensor) -> Tensor:
    """Returns how far points lie from the line through a bone in a direction."""
    along = (last - first) / (last - first).norm()
    offset = vertices - first
    across = offset - (offset @ along)[:, None] * along
    return across @ direction


def _before_the_side_line(vertices: Tensor, joints: dict[str, Tensor]) -> Tensor:
    """Returns how far points lie before the line from the armpit to the hip."""
    low, high = (0.5 * (joints[f"left_{name}"] + joints[f"right_{name}"]) for name in ("hip", "shoulder"))
    height = ((vertices[:, 1] - low[1]) / (high[1] - low[1])).clamp(0, 1)
    return vertices[:, 2] - torch.lerp(low[2], high[2], height)


def _past_the_shoulder(vertices: Tensor, joints: dict[str, Tensor], name: str) -> Tensor:
    """Returns how far points lie outside the upright plane between torso and arm, and above the legs."""
    shoulder = joints[f"{name}_shoulder"]
    outwards = 1 if name == "left" else -1
    pit = (joints["left_shoulder"] - joints["right_shoulder"]).norm() * 0.6
    return torch.minimum(outwards * (vertices[:, 0] - shoulder[0]) - SHOULDER, vertices[:, 1] - shoulder[1] + pit)


def _below_the_hip(vertices: Tensor, joints: dict[str, Tensor], name: str) -> Tensor:
    """Returns how far points of this side lie below the groin in front, and below the buttocks behind."""
    hip, knee = joints[f"{name}_hip"], joints[f"{name}_knee"]
    thigh = (hip - knee).norm()
    outwards = vertices[:, 0] if name == "left" else -vertices[:, 0]
    across = (outwards / (1.5 * hip[0].abs())).clamp(0, 1)
    groin = CROTCH + (HIP_BONE - CROTCH) * across
    depth = ((vertices[:, 2] - hip[2]) / (0.2 * thigh)).clamp(-1, 1)
    height = hip[1] + thigh * torch.lerp(torch.full_like(groin, FOLD), groin, 0.5 + 0.5 * depth)
    return torch.minimum(height - vertices[:, 1], outwards)


def part_numbers(hits: Hits, faces: Tensor, fields: PartFields) -> Tensor:
    """Returns the part (N,) that each hit shows, 1 to 24."""
    numbers = torch.tensor(list(PARTS.values()), dtype=torch.uint8, device=faces.device)
    limb_of = torch.tensor(LIMB_OF, device=faces.device)

    def at(hits: Hits) -> Tensor:
        limb = interpolate_corners(fields.limb, 0, faces, hits).argmax(0)
        share = interpolate_corners(fields.share, 0, faces, hits)
        region = share.masked_fill(limb_of[:, None] != limb, -1).argmax(0)
        side = interpolate_corners(fields.side, 0, faces, hits).gather(0, region[None])[0]
        return numbers[region, (side > 0).long()]

    return torch.cat([at(part) for part in hits.blocks()])


def render_densepose(body: Body, motion: Motion, device: torch.device | str = "cpu") -> Tensor:
    """Draws every frame of a motion as uint8 pictures (F, H, W, 3), with hard borders on DensePose's background."""
    body = body.to(device)
    fields = part_fields(body.with_betas(motion.betas.to(device)))
    pictures = torch.empty(len(motion), motion.height, motion.width, 3, dtype=torch.uint8)
    colors = torch.from_numpy(DENSEPOSE_COLORS).to(device)
    done = 0
    for frames, _, hits in motion_hits(body, motion):
        parts = torch.zeros(len(frames) * motion.height * motion.width, dtype=torch.uint8, device=device)
        parts[hits.pixel] = part_numbers(hits, body.faces, fields)
        drawn = colors[parts.long()].view(len(frames), motion.height, motion.width, 3)
        pictures[done : done + len(frames)] = drawn.cpu()
        done += len(frames)
        advance(done, len(motion))
    return pictures
