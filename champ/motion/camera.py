"""The camera: framing a person, and orbiting along a path of angles."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.body import Body
from ..progress import advance
from .motion import Motion
from .rotation import rot_x, rot_y

# 4D-Humans' camera, with which Champ was trained: 5000 px for a 256 px picture, almost parallel.
FOCAL_PER_PIXEL = 5000 / 256
FOV = math.degrees(2 * math.atan(0.5 / FOCAL_PER_PIXEL))
CAMERA_FROM_WORLD = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up to y down, for a camera that looks along -z
CHUNK = 32  # frames that are posed at once


def transform(motion: Motion, body: Body, rotation: Tensor, translation: Tensor) -> Motion:
    """Transforms a motion by x' = R x + t in the camera frame; R is (3, 3) or (F, 3, 3), t is (3,) or (F, 3).

    The root turns about the rest pelvis J0, not about the origin: cam_t' = R (J0 + cam_t) + t - J0.
    """
    pelvis = body.with_betas(motion.betas).rest().joints[0, 0]
    turned = (rotation @ (pelvis + motion.cam_t)[..., None])[..., 0]
    root = (rotation @ motion.rotations[:, 0])[:, None]
    return replace(
        motion,
        rotations=torch.cat([root, motion.rotations[:, 1:]], dim=1),
        cam_t=turned + translation - pelvis,
    )


def to_sight(place: Tensor) -> Tensor:
    """Converts a place (x, y, z) to (x/z, y/z, log z): position in the picture and distance. Their errors have
    different causes, and are of the same size near and far."""
    if not (place[..., 2] > 0).all():
        raise ValueError(
            "In some frames of this motion the person is behind the camera and cannot be drawn; trim those frames "
            "away, or set the camera with Set or Orbit Camera."
        )
    return torch.cat([place[..., :2] / place[..., 2:], place[..., 2:].log()], dim=-1)


def from_sight(sight: Tensor) -> Tensor:
    """Converts (x/z, y/z, log z) back to (x, y, z)."""
    z = sight[..., 2:].exp()
    return torch.cat([sight[..., :2] * z, z], dim=-1)


def angle_path(angles: list[float], frames: int) -> Tensor:
    """Interpolates a path of angles in degrees linearly, evenly over the frames.

    A path that returns to its start (0, 360) omits its last point, so that the clip loops.
    """
    if len(angles) == 1 or frames == 1:
        return torch.full((frames,), float(angles[0]))
    closed = (angles[-1] - angles[0]) % 360 == 0
    position = torch.arange(frames) / (frames if closed else frames - 1) * (len(angles) - 1)
    index = position.long().clamp(max=len(angles) - 2)
    points = torch.tensor(angles, dtype=torch.float32)
    return torch.lerp(points[index], points[index + 1], position - index)


def focal_length(fov: float, width: int, height: int) -> float:
    """Pixels, of a field of view in degrees along the longer side."""
    return max(width, height) / 2 / math.tan(math.radians(fov) / 2)


@dataclass(frozen=True, eq=False)
class View:
    """The camera's view of a person. Azimuth turns it towards the person's left, elevation lifts it above the person,
    in degrees per frame or fixed. With `follow`, it moves along with the person."""

    azimuth: Tensor | float = 0.0
    elevation: Tensor | float = 0.0
    fill: float = 0.85  # part of the picture that the movement may fill
    fov: float = FOV
    follow: bool = False


FRONT = View()


def frame_person(motion: Motion, body: Body, width: int, height: int, view: View = FRONT) -> Motion:
    """Films the motion with a camera that looks at the person, as near as the view's `fill` of the picture allows. The
    distance is the same in all frames."""
    frames = len(motion)
    turn = rot_x(torch.as_tensor(view.elevation).expand(frames)) @ rot_y(torch.as_tensor(view.azimuth).expand(frames))
    turn = turn.to(motion.cam_t)
    pelvis = body.with_betas(motion.betas).rest().joints[0, 0] + motion.cam_t
    pivot = pelvis.mean(0, keepdim=True).expand(frames, -1)
    if view.follow:
        pivot = torch.stack([pelvis[:, 0], pivot[:, 1], pelvis[:, 2]], dim=1)
    seen = transform(motion, body, turn, -(turn @ pivot[..., None])[..., 0])

    focal = focal_length(view.fov, width, height)
    # A point stays inside if focal |X - centre| / (distance + Z) <= fill * width / 2, and the same for Y and height.
    # The distance is therefore the largest of +-slope (X - centre) - Z, for which the extremes of X and of +-slope X -
    # Z are enough.
    slope = focal / (view.fill / 2 * turn.new_tensor([width, height]))
    furthest = turn.new_full((4, 2), -torch.inf)
    for start in range(0, frames, CHUNK):
        points = seen[start : start + CHUNK].posed(body).vertices.flatten(0, 1)
        across, depth = points.T.contiguous().split([2, 1])  # along rows, extremes are found many times faster
        steep = slope[:, None] * across
        ends = [across.amax(1), -across.amin(1), (steep - depth).amax(1), -(steep + depth).amin(1)]
        torch.maximum(furthest, torch.stack(ends), out=furthest)
        advance(min(start + CHUNK, frames), frames)
    right, left, far_right, far_left = furthest
    centre = (right - left) / 2
    distance = torch.cat([far_right - slope * centre, far_left + slope * centre]).max()
    place = torch.cat([-centre, distance[None]])
    return replace(seen, cam_t=seen.cam_t + place, focal=focal, width=width, height=height)
