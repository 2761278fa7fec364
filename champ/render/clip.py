"""Clips a mesh at the near plane of the camera."""

import torch
from torch import Tensor


def clip_near(points: Tensor, corners: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clips triangles with corners (3, K) in points (3, M) to the part beyond Z = near.

    Returns new points and corners, and for each new triangle its old one (K',) and the barycentric coordinates (K', 3,
    3) of its corners there. Neighbouring triangles are cut at the same points.
    """
    ahead = (points[2] >= near)[corners]
    count = ahead.sum(0)
    whole, cut = (count == 3).nonzero()[:, 0], ((count == 1) | (count == 2)).nonzero()[:, 0]
    # Turn each triangle so that corner a is alone on its side of the plane, which then cuts ab and ac.
    single = count[cut] == 1
    turn = ((ahead[:, cut] == single).int().argmax(0) + torch.arange(3, device=points.device)[:, None]) % 3
    unit = torch.eye(3, device=points.device)
    position = points[:, corners[:, cut].gather(0, turn)]
    a, b, c = torch.cat([position, unit[turn].permute(2, 0, 1)]).unbind(1)  # each (6, k): position, barycentric

    def crossing(a: Tensor, b: Tensor) -> Tensor:
        front, back = torch.where(single, a, b), torch.where(single, b, a)
        return front + (front[2] - near) / (front[2] - back[2]) * (back - front)

    ab, ac = crossing(a, b), crossing(a, c)
    tip = torch.stack([a, ab, ac], 1)[..., single]
    stump = [torch.stack(triangle, 1)[..., ~single] for triangle in ((ab, b, c), (ab, c, ac))]
    new = torch.cat([tip, *stump], 2)  # (6, 3, m)
    new_corners = points.shape[1] + torch.arange(new[0].numel(), device=points.device).view(3, -1)
    return (
        torch.cat([points, new[:3].flatten(1)], 1),
        torch.cat([corners[:, whole], new_corners], 1),
        torch.cat([whole, cut[single], cut[~single], cut[~single]]),
        torch.cat([unit.expand(len(whole), 3, 3), new[3:].permute(2, 1, 0)]),
    )
