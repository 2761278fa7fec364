"""A posable body in SMPL's layout. SMPL itself, which adds pose-dependent blend shapes, is in smpl.py."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .skeleton import PARENTS
from .skinning import blend_shapes, forward_kinematics, regress


class Posed(NamedTuple):
    vertices: Tensor  # (F, V, 3)
    joints: Tensor  # (F, 24, 3)


@dataclass(frozen=True)
class Body:
    """Template, linear shape space, skin weights and default shape of one kind of body.

    Rest frame: SMPL's T-pose in metres, x to the body's left, y up, z to the front.
    """

    name: str
    template: Tensor  # (V, 3)
    shapedirs: Tensor  # (V, 3, B)
    joint_regressor: Tensor  # (24, V)
    weights: Tensor  # (V, 24)
    faces: Tensor  # (T, 3) int64
    part_labels: Tensor  # (V,) int64, 0..23
    keypoint_regressor: Tensor  # (23, V + 24) over vertices, then joints; rows as keypoints.layouts.KEYPOINTS
    betas: Tensor  # (B,) default shape

    def __post_init__(self):
        # All first corners lie in memory before all second ones, because that is how they are drawn.
        object.__setattr__(self, "faces", self.faces.t().contiguous().t())

    def to(self, device: torch.device | str) -> "Body":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def with_betas(self, betas: Tensor) -> "Body":
        """Returns the same body with another default shape; missing components are zero, extra ones dropped."""
        full = self.betas.new_zeros(self.shapedirs.shape[-1])
        count = min(len(full), betas.shape[-1])
        full = torch.cat([betas[:count].to(full), full[count:]])
        return replace(self, betas=full)

    def rest(self) -> Posed:
        """Returns vertices and joints of the default shape in the T-pose, each with a leading axis of 1."""
        vertices = blend_shapes(self.template, self.shapedirs, self.betas)[None]
        return Posed(vertices, regress(self.joint_regressor, vertices))

    def pose(self, rotations: Tensor, transl: Tensor | None = None) -> Posed:
        """Poses the body by joint rotations (F, 24, 3, 3) and root translations (F, 3).

        The shape is the same in every frame, so all frames share one matrix product, sum_j w_vj [v 1] M_fj, over
        (vertex) x (joint and coordinate).
        """
        frames = len(rotations)
        if transl is None:
            transl = rotations.new_zeros(frames, 3)
        vertices, joints = (value[0] for value in self.rest())
        posed, world, offset = forward_kinematics(rotations, joints, PARENTS, transl)
        matrices = torch.cat([world, offset[..., None]], dim=3).permute(1, 3, 0, 2).reshape(24 * 4, frames * 3)
        homogeneous = torch.cat([vertices, torch.ones_like(vertices[:, :1])], dim=1)
        weighted = (self.weights[:, :, None] * homogeneous[:, None]).flatten(1)  # (V, 24 * 4)
        # In TF32, which other packs switch on for the whole process, vertices would be off by a centimetre.
        exact = torch.float64 if weighted.is_cuda else weighted.dtype
        return Posed((weighted.to(exact) @ matrices.to(exact)).to(weighted).view(-1, frames, 3).transpose(0, 1), posed)

    def only(self, chosen: Tensor) -> "Body":
        """Returns the body reduced to some of its vertices (V,), in its present shape, followed by its 24 joints as
        further vertices. It is posed in the same way, in less time."""
        rest = self.rest()
        vertices, joints = rest.vertices[0, chosen], rest.joints[0]
        one_each = torch.eye(len(joints)).to(joints)
        return replace(
            self,
            template=torch.cat([vertices, joints]),
            shapedirs=self.shapedirs.new_zeros(len(vertices) + len(joints), 3, self.shapedirs.shape[2]),
            joint_regressor=torch.cat([one_each.new_zeros(len(joints), len(vertices)), one_each], dim=1),
            weights=torch.cat([self.weights[chosen], one_each]),
        )

    def keypoints(self, posed: Posed) -> Tensor:
        """Returns the 23 keypoints of keypoints.layouts.KEYPOINTS of posed bodies, (F, 23, 3)."""
        over_vertices, over_joints = self.keypoint_regressor.split([len(self.template), len(PARENTS)], dim=1)
        return regress(over_vertices, posed.vertices) + regress(over_joints, posed.joints)
