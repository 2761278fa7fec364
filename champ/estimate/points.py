"""Keypoints of a posed body and their derivatives, without its vertices: skinning reduced to a few numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..keypoints.layouts import KEYPOINTS
from ..motion.rotation import from_axis_angle

# Points of the skin: COCO's 17, and of the feet those that every network for feet knows.
SKIN = (*KEYPOINTS[:17], *(name for name in KEYPOINTS[17:] if name.endswith(("big_toe", "heel"))))
# With joints of SMPL (its hands are middle knuckles), and a point 1 m above the pelvis as that is turned.
SEEN = (*SKIN, "left_hand", "right_hand")
POINTS = (*SEEN, "left_foot", "right_foot", "pelvis", "above")
# Joints that keypoints can determine. Toes and fingers stay at rest.
MOVING = tuple(j for j, name in enumerate(JOINTS) if not name.endswith(("_foot", "_hand")))
DIMENSIONS = 3 * len(MOVING) + 3  # of one frame: axis-angles of the moving joints, place of the pelvis


def _above() -> Tensor:
    """Returns (24, 24), 1 if the column's joint is the row's or one of its ancestors."""
    above = torch.eye(len(PARENTS))
    for joint, parent in enumerate(PARENTS[1:], start=1):
        above[joint] += above[parent]
    return above


def _levels() -> list[list[int]]:
    """Groups joints by their distance from the pelvis; a level is rotated at once."""
    depth = (_above().sum(1) - 1).tolist()
    return [[j for j, d in enumerate(depth) if d == level] for level in range(int(max(depth)) + 1)]


class PosedPoints(NamedTuple):
    points: Tensor  # (F, P, 3) in the camera frame
    by_motion: Tensor  # (F, P, 3, DIMENSIONS) derivatives
    by_betas: Tensor  # (F, P, 3, B)


@dataclass(frozen=True)
class PointBody:
    """Keypoints of a body: point k is sum_j R_j b_kj + c_kj t_j, with R_j and t_j of the joints in the world.

    b_kj = sum_v r_kv w_vj (v - J_j) and c_kj = sum_v r_kv w_vj for regressor r, skin weights w, rest vertices v and
    rest joints J; b and J are linear in the shape. SMPL's pose correctives, some millimetres here, are left out.
    """

    arms: Tensor  # (P, 24, 3, 1 + B) b: at betas 0, then for each beta
    shares: Tensor  # (P, 24) c
    joints: Tensor  # (24, 3, 1 + B) J

    @classmethod
    def of(cls, body: Body) -> "PointBody":
        rows = body.keypoint_regressor[[KEYPOINTS.index(name) for name in SKIN]]
        over_vertices, over_joints = rows.split([len(body.template), len(JOINTS)], dim=1)
        used = (over_vertices != 0).any(0)
        skin = over_vertices[:, None, used] * body.weights[used].T  # (S, 24, V)
        shape = torch.cat([body.template[..., None], body.shapedirs], dim=2)  # (V, 3, 1 + B)
        joints = torch.einsum("jv,vcb->jcb", body.joint_regressor, shape)
        arms = torch.zeros(len(POINTS), *joints.shape)
        arms[: len(SKIN)] = torch.einsum("kjv,vcb->kjcb", skin, shape[used]) - skin.sum(2)[..., None, None] * joints
        arms[POINTS.index("above"), 0, 1, 0] = 1
        at = [JOINTS.index(name) for name in (*POINTS[len(SKIN) : -1], "pelvis")]
        shares = torch.cat([skin.sum(2) + over_joints, torch.eye(len(JOINTS))[at]])
        return cls(arms.double(), shares.double(), joints.double())

    def with_knees(self, lower: float) -> "PointBody":
        """Returns the same body with the points of its knees so many metres further down the legs."""
        arms = self.arms.clone()
        for side in ("left", "right"):
            hip, knee, ankle = (JOINTS.index(f"{side}_{part}") for part in ("hip", "knee", "ankle"))
            carrier, end, start = (knee, ankle, knee) if lower > 0 else (hip, knee, hip)
            bone = self.joints[end, :, 0] - self.joints[start, :, 0]
            arms[POINTS.index(f"{side}_knee"), carrier, :, 0] += lower * bone / bone.norm()
        return PointBody(arms, self.shares, self.joints)

    def shaped(self, betas: Tensor) -> "PointBody":
        """Returns the body with a shape that cannot be changed: it has no betas."""
        one = torch.cat([betas.new_ones(1), betas])[:, None]
        return PointBody(self.arms @ one, self.shares, self.joints @ one)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Points, and joints that carry a part of them."""
        k, j = ((self.shares != 0) | (self.arms != 0).flatten(2).any(2)).nonzero().T
        return k, j

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(24, 3)"""
        return self.joints[..., 0] + self.joints[..., 1:] @ betas

    def pose(self, pose: Tensor, facing: Tensor, pelvis: Tensor, betas: Tensor) -> PosedPoints:
        """Returns points and derivatives for axis-angles (F, 24, 3), of which the root's comes before `facing` (F, 3,
        3), and the place of the pelvis (F, 3)."""
        frames = len(pose)
        local, above = from_axis_angle(pose), _above().to(pose)
        base = torch.empty_like(local)  # of each joint: the rotation of its parent
        turn = torch.empty_like(local)
        base[:, 0], turn[:, 0] = facing, facing @ local[:, 0]
        for level in _levels()[1:]:
            base[:, level] = turn[:, [PARENTS[j] for j in level]]
            turn[:, level] = base[:, level] @ local[:, level]
        # Positions and their derivatives by the betas together: the last axis is (value, by beta 0, by beta 1, ...).
        one = torch.cat([betas.new_ones(1), betas])[:, None]
        columns = torch.cat([one, torch.eye(len(one))[:, 1:].to(one)], dim=1)  # (1 + B, 1 + B)
        bones = self.joints - self.joints[list(PARENTS)]
        bones[0] = 0
        places = (above @ (base @ (bones @ columns)).flatten(2)).unflatten(2, (3, -1))
        places[..., 0] += pelvis[:, None]
        k, j = self._pairs
        carried = turn[:, j] @ (self.arms[k, j] @ columns) + self.shares[k, j, None, None] * places[:, j]
        points = carried.new_zeros(frames, len(POINTS), *carried.shape[2:]).index_add_(1, k, carried)
        # A joint that turns by w moves the parts below it by w x (lever): their share of the point, relative to the
        # joint.
        parts = carried.new_zeros(len(POINTS), len(JOINTS), frames, 3).index_put(
            (k, j), carried[..., 0].transpose(0, 1)
        )
        moving = list(MOVING)
        lever = torch.einsum("kifx,ij->fxkj", parts, above[:, moving])
        lever -= (self.shares @ above[:, moving]) * places[:, moving, :, 0].transpose(1, 2)[:, :, None]
        axes = base[:, moving] @ _turning(pose[:, moving])  # columns: w of a radian more in each of the axis-angle
        by_motion = carried.new_zeros(frames, len(POINTS), 3, DIMENSIONS)
        turning = by_motion[..., :-3].unflatten(3, (-1, 3))
        for x, (y, z) in enumerate(((1, 2), (2, 0), (0, 1))):
            turning[:, :, x] = (
                axes[:, None, :, y] * lever[:, z, ..., None] - axes[:, None, :, z] * lever[:, y, ..., None]
            )
        by_motion[..., -3:] = torch.eye(3)
        return PosedPoints(points[..., 0], by_motion, points[..., 1:])


def _turning(vector: Tensor) -> Tensor:
    """Returns w (..., 3, 3) with exp(v + dv) = exp(w dv) exp(v): the left Jacobian of SO(3)."""
    angle = (vector.square().sum(-1) + 1e-8).sqrt()
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine = (angle.sin() / angle)[..., None, None]
    half = ((1 - angle.cos()) / angle**2)[..., None, None]
    rest = (1 - sine) / angle[..., None, None] ** 2
    outer = vector[..., None] * vector[..., None, :]
    return sine * torch.eye(3).to(vector) + half * k + rest * outer
