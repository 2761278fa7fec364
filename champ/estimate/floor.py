"""Feet that rest: where a foot stays in the picture it stays in the world, and those that are down are on one floor."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from .least_squares import Quadratic
from .observed import Observed, pair
from .points import PosedPoints

# Of each foot, left and right: the points that say whether it rests.
FOOT_POINTS = (pair("ankle"), pair("big_toe"), pair("heel"))
ANKLES = FOOT_POINTS[0]
RESTING = 0.15  # metres a second in the picture, above which a foot moves; faster, walking in depth seems to rest
ZOOM = 0.12  # change of the person's size a second, from which it is the camera that moves
DOWN = 0.15  # metres that a foot may be above the lower one, in the picture
STILL = 0.03  # metres a second by which a resting foot moves
LEVEL = 0.025  # metres by which feet that are down leave the floor
NEAR = 0.7  # seconds within which the floor has one height, though the camera may move
STEEP = 0.6  # most of the floor's slope away from a camera that looks down
FLAT_SPREAD = 0.12  # metres of depth that feet must cover to say how steep it is
SOLE_SPREAD = 0.05  # the same for one sole
LOWER = 0.05  # metres: a foot that is higher than the other by this counts a third
RARE = 9.0  # squared error from which a foot does not rest, whatever its points do


@dataclass(frozen=True)
class Rest:
    """What the points in the picture say about the feet, each (F, 2)."""

    still: Tensor  # 0..1, that it moves neither to the frame before nor after
    down: Tensor  # 0..1, that it stands on the floor

    def __getitem__(self, index: Tensor) -> "Rest":
        return Rest(self.still[index], self.down[index])


def resting(seen: Observed, size: Tensor, shots: list[slice], fps: float) -> Rest:
    """Where feet rest, from the points of every frame and its pixels per metre."""
    frames = len(seen)
    still, down = torch.zeros(frames, 2).double(), torch.zeros(frames, 2).double()
    metres = seen.points / size[:, None, None]
    for shot in shots:
        place, weight, own = metres[shot], seen.weight[shot], size[shot]
        if len(place) < 3:
            continue
        speed = torch.stack([_speed(place[:, rows], weight[:, rows], fps) for rows in map(list, zip(*FOOT_POINTS))], 1)
        reach = max(1, round(fps / 2))
        later, before = own[reach:], own[:-reach]
        zoom = torch.zeros(len(own)).double()
        if len(later):
            rate = (later / before).log().abs() * fps / reach
            zoom = pad(rate[None], (reach // 2, len(own) - len(rate) - reach // 2), "replicate")[0]
        calm = 1 / (1 + (speed / RESTING) ** 4) / (1 + (zoom[:, None] / ZOOM) ** 4)
        low = place[:, ANKLES, 1]
        known = weight[:, ANKLES] > 0
        lowest = torch.where(known, low, -torch.inf).amax(1, keepdim=True)
        level = torch.where(known, (lowest - low) / DOWN, 2.0)
        still[shot] = calm * known
        down[shot] = still[shot] / (1 + level**4)
    return Rest(still, down)


def _speed(place: Tensor, weight: Tensor, fps: float) -> Tensor:
    """(F,) metres a second in the picture of a foot's points (F, P, 2), the fastest of three frames; a foot that is not
    seen is as fast as can be."""
    both = weight[1:] * weight[:-1]
    way = (place.diff(dim=0).norm(dim=-1) * both).sum(1) / both.sum(1).clamp(min=1e-9) * fps
    way = torch.where(both.sum(1) > 0, way, 10.0)
    fast = torch.maximum(torch.cat([way[:1], way]), torch.cat([way, way[-1:]]))
    # A point that trembles is not a foot that moves: what one pair of frames says, its neighbours must say too.
    slow = -max_pool1d(-fast[None, None], 3, stride=1, padding=1)[0, 0]
    return torch.minimum(fast, (slow + fast) / 2)


def slope_under(seen: Observed, size: Tensor, shots: list[slice], turn: Tensor, rest: Tensor) -> Tensor:
    """(F,) slope of the floor with depth as soles show it, from 0 to -STEEP: the toes of people who face a camera that
    looks down are lower than their heels. `turn` (F, 3, 3) says where people face, `rest` (P, 3) is the body at
    rest."""
    place = seen.points / size[:, None, None]
    low = torch.where(seen.weight[:, ANKLES] > 0, place[:, ANKLES, 1], -torch.inf)
    share = torch.softmax((low - low.amax(1, keepdim=True)) / LOWER, dim=1).nan_to_num(0)
    slope = torch.zeros(len(seen)).double()
    ankles, toes, heels = FOOT_POINTS
    for shot in shots:
        above = below = 0.0
        for back in (ankles, heels):
            length = rest[toes] - rest[back]
            depth = turn[shot, 2, 2, None] * length[:, 2]
            drop = place[shot][:, toes, 1] - place[shot][:, back, 1] + length[:, 1]
            weight = share[shot] * torch.minimum(seen.weight[shot][:, toes], seen.weight[shot][:, back])
            above += (weight * depth * drop).sum()
            below += (weight * (depth.square() + SOLE_SPREAD**2)).sum()
        slope[shot] = float(above / below) if below > 0 else 0
    return slope.clamp(-STEEP, 0)


def add_rest(energy: Quadratic, posed: PosedPoints, rest: Rest, joined: Tensor, fps: float) -> None:
    """Resting feet keep their depth from frame to frame; `joined` (F - 1,) says which frames follow each other."""
    if len(joined) == 0:
        return
    weight = torch.minimum(rest.still[1:], rest.still[:-1]) * joined[:, None]
    ends = [*ANKLES, *FOOT_POINTS[1]]  # ankles and toes of both feet
    values, by_motion, by_betas = (x[:, ends, 2] * (fps / STILL) for x in posed)
    error = values.diff(dim=0)
    # A foot that leaves while its points seem to rest must not pull the body along.
    robust = 1 + error.square().unflatten(1, (2, 2)).mean(1) / RARE
    energy.add_steps(error, by_motion, by_betas, (weight / robust**2).repeat(1, 2))


def floor_under(posed: PosedPoints, rest: Rest, shots: list[slice], fps: float, soles: Tensor) -> Tensor:
    """(F, 2) height of the floor (y) at the camera's place and its slope with depth, as feet that are down say it; near
    the slope (F,) that `soles` show."""
    floor = torch.zeros(len(posed.points), 2).double()
    for shot in shots:
        y, z = posed.points[shot][:, ANKLES, 1], posed.points[shot][:, ANKLES, 2]
        weight = rest.down[shot]
        middle = (weight * z).sum() / weight.sum().clamp(min=1e-9)
        frames = torch.arange(len(y)).double()
        near = torch.exp(-0.5 * ((frames[:, None] - frames) / (NEAR * fps)) ** 2)
        total = (near @ weight.sum(1)).clamp(min=1e-9)

        def smooth(x: Tensor, weight: Tensor = weight, near: Tensor = near, total: Tensor = total) -> Tensor:
            return near @ (weight * x).sum(1) / total

        away, height = z - smooth(z)[:, None], y - smooth(y)[:, None]
        spread = (weight * away.square()).sum()
        usual = weight.sum() * FLAT_SPREAD**2 + 1e-9
        slope = ((weight * away * height).sum() + usual * soles[shot].mean()) / (spread + usual)
        slope = slope.clamp(-STEEP, 0)
        floor[shot, 0] = smooth(y - slope * (z - middle)) - slope * middle
        floor[shot, 1] = slope
    return floor


def above(x: Tensor, slope: Tensor) -> Tensor:
    """(F, P, ...) heights of points, or their derivatives, x (F, P, 3, ...) over a floor with a slope (F,)."""
    return x[:, :, 1] - slope.view(-1, *[1] * (x.ndim - 2)) * x[:, :, 2]


def seen_from_above(x: Tensor, slope: Tensor) -> Tensor:
    """Returns points, or their derivatives, x (F, P, 3, ...) with feet as a camera sees them that looks down at a floor
    which slopes (F,) in its frame: their toes are lower. A short lens does so though it is level, because feet are far
    below it; legs and trunk are as seen from the side."""
    out = x.clone()
    for points in FOOT_POINTS[1:]:
        depth = x[:, points, 2] - x[:, ANKLES, 2]
        out[:, points, 1] += slope.view(-1, *[1] * (depth.ndim - 1)) * depth
    return out


def add_floor(energy: Quadratic, posed: PosedPoints, rest: Rest, floor: Tensor, size: float) -> None:
    """Feet that are down are on the floor, as exactly as points are (`size`)."""
    wide = max(LEVEL, size)
    error, by_motion, by_betas = (above(x[:, ANKLES], floor[:, 1])[:, :, None] / wide for x in posed)
    energy.add(error - floor[:, 0, None, None] / wide, by_motion, by_betas, rest.down, RARE)
