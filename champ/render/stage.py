"""A motion as the page draws it in 3D: a skinned figure, the floor under it, and the camera that films it."""

import math

import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import PARENTS
from ..body.skinning import forward_kinematics
from ..motion.motion import Motion

MOST_FRAMES = 300  # sent; of a longer motion every second, third ... frame
INFLUENCES = 4  # joints that move a vertex; the rest is too small to be seen
FLOOR_FRAMES = 12  # of which the lowest point is looked for


def to_y_up(motion: Motion) -> Tensor:
    """The rotation (3, 3) from the camera frame to one with y up and z towards the camera.

    A motion does not say where up is: it is where the pelvis points on average."""
    up = -motion.rotations[:, 0, :, 1].mean(0)
    forward = up.new_tensor([0.0, 0.0, 1.0])
    image_up = up.new_tensor([0.0, -1.0, 0.0])
    up = -up if up @ image_up < 0 else up
    up = image_up if up.norm() < 0.2 else up / up.norm()  # somebody who turns somersaults
    back = -forward + (forward @ up) * up
    if back.norm() < 1e-3:  # seen from straight above
        back = image_up
    back = back / back.norm()
    return torch.stack([torch.linalg.cross(up, back), up, back])


def normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (V, 3) of a mesh, those of the faces weighted by their areas."""
    a, b, c = vertices[faces].unbind(1)
    across = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(0, faces[:, corner], across)
    return torch.nn.functional.normalize(total, dim=1)


def skin(body: Body) -> tuple[Tensor, Tensor]:
    """The joints (V, 4) that move each vertex most, and their weights (V, 4), which sum to 255; both uint8."""
    weights, joints = body.weights.topk(INFLUENCES, dim=1)
    weights = (weights / weights.sum(1, keepdim=True) * 255).round()
    weights[:, 0] += 255 - weights.sum(1)
    return joints.to(torch.uint8), weights.to(torch.uint8)


def stage(body: Body, motion: Motion) -> dict:
    """The scene in metres, y up, floor at 0, the middle of the way at 0, 0.

    `matrices` (N, 24, 3, 4) take the rest pose's `vertices` (V, 3) to their places in the frames `numbers`; `camera`
    (3, 4) takes points of the camera frame to the scene; `path` (N, 3) is where the pelvis goes."""
    step = math.ceil(len(motion) / MOST_FRAMES)
    numbers = torch.arange(0, len(motion), step)
    shown = motion[numbers]
    shaped = body.with_betas(motion.betas)
    rest = shaped.rest()
    turn = to_y_up(motion)
    posed, world, offset = forward_kinematics(shown.rotations, rest.joints[0], PARENTS, shown.cam_t)
    world, offset, joints = turn @ world, offset @ turn.T, posed @ turn.T
    some = torch.linspace(0, len(shown) - 1, min(FLOOR_FRAMES, len(shown))).round().long()
    lowest = (shown[some].posed(body).vertices @ turn[1]).amin()
    middle = (joints[:, 0].amax(0) + joints[:, 0].amin(0)) / 2
    origin = torch.stack([middle[0], lowest, middle[2]])
    return {
        "numbers": numbers,
        "matrices": torch.cat([world, (offset - origin)[..., None]], dim=3),
        "path": joints[:, 0] - origin,
        "camera": torch.cat([turn, -origin[:, None]], dim=1),
        "vertices": rest.vertices[0],
        "normals": normals(rest.vertices[0], shaped.faces),
        "confidence": shown.confidence,
    }
