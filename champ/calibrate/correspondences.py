"""Visible COCO keypoints (17) and silhouettes of a person, frame by frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..body.body import Body
from ..estimate.track import one_person
from ..keypoints.layouts import OPENPOSE_FROM_COCO
from ..keypoints.pose import THRESHOLD, Pose
from ..motion.motion import Motion
from ..progress import advance
from ..render.maps import motion_hits
from ..render.skeleton import HIDDEN, project_poses


class People(NamedTuple):
    """One person in F frames. In a frame without the person, all scores are 0."""

    points: np.ndarray  # (F, 17, 3) x, y in pixels, score; 0 = missing, hidden or outside the picture
    width: int  # pixels of the picture
    height: int
    shares: Tensor | None = None  # (F, h, w) in 0..1: share of each cell of a coarser grid that the person covers
    crowded: tuple[int, ...] = ()  # frames with several people

    def stretched(self, width: int, height: int) -> "People":
        """Scales the points to a picture of another size."""
        scale = (width / self.width, height / self.height, 1)
        return self._replace(points=self.points * scale, width=width, height=height)


def people_of_poses(frames: Sequence[list[Pose]], shot: np.ndarray, width: int, height: int) -> People:
    """Follows the largest person through the clip, from everybody's detected keypoints."""
    followed = one_person(list(frames), shot)
    points = np.stack([np.zeros((18, 3)) if pose is None else pose.body for pose in followed])
    crowded = tuple(i for i, poses in enumerate(frames) if len(poses) > 1)
    return People(_visible(points, float(THRESHOLD), width, height), width, height, crowded=crowded)


def people_of_motion(
    body: Body,
    motion: Motion,
    cells: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> People:
    """Projects the joints of a motion's bodies that are not hidden. With `cells`, the rows and columns of a coarser
    grid, also computes the shares of the silhouettes."""
    width, height = motion.width, motion.height
    shares = None if cells is None else torch.empty(len(motion), *cells)
    points: list[np.ndarray] = []
    body = body.to(device)
    for frames, posed, hits in motion_hits(body, motion):
        if shares is not None:
            drawn = torch.zeros(len(frames), height, width, device=device)
            drawn.view(-1)[hits.pixel] = 1
            shares[len(points) : len(points) + len(frames)] = covered(drawn, *shares.shape[1:])
        points += [pose.body for pose in project_poses(body, frames, posed, hits)]
        advance(len(points), len(motion))
    return People(_visible(np.stack(points), HIDDEN, width, height), width, height, shares)


def covered(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Averages masks (F, H, W) in 0..1 over the cells of a grid (F, rows, columns), frame by frame."""
    return torch.cat([adaptive_avg_pool2d(mask[None].float(), (rows, columns)) for mask in masks])


def _visible(openpose: np.ndarray, least: float, width: int, height: int) -> np.ndarray:
    """Selects COCO's 17 of OpenPose's 18 points (F, 18, 3); points outside the picture or with a score of `least` or
    less get the score 0."""
    points = np.empty((len(openpose), 18, 3))
    points[:, OPENPOSE_FROM_COCO, :] = openpose
    points = points[:, :17]
    x, y, score = np.moveaxis(points, 2, 0)
    seen = (score > least) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    points[..., 2] *= seen
    return points
