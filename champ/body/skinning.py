"""Linear blend skinning as in SMPL (Loper et al. 2015, section 3), without its pose-dependent blend shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def blend_shapes(template: Tensor, shapedirs: Tensor, betas: Tensor) -> Tensor:
    """Returns T + sum_b beta_b S_b: vertices (V, 3) from a template (V, 3) and shape directions (V, 3, B)."""
    return template + shapedirs @ betas


def regress(regressor: Tensor, points: Tensor) -> Tensor:
    """Applies the rows of a regressor (R, N) to points (..., N, 3); returns (..., R, 3)."""
    return regressor @ points


def forward_kinematics(
    rotations: Tensor, joints: Tensor, parents: Sequence[int], transl: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Carries the rest joints (J, 3) along the kinematic tree, for rotations (F, J, 3, 3) relative to the parents.

    Returns the posed joints (F, J, 3), and the world rotation (F, J, 3, 3) and offset (F, J, 3) that take a rest point
    of each joint to its place. The root turns about itself; `transl` (F, 3) moves everything. A parent stands before
    its children, and the root's parent is -1."""
    worlds = [rotations[:, 0]]
    places = [joints[0].expand(len(rotations), 3)]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = joints[joint] - joints[parent]
        worlds.append(worlds[parent] @ rotations[:, joint])
        places.append(places[parent] + worlds[parent] @ bone)
    world = torch.stack(worlds, dim=1)
    posed = torch.stack(places, dim=1) + transl[:, None]
    return posed, world, posed - (world @ joints[..., None])[..., 0]
