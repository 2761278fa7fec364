"""The scene of a synthetic person: a room in one picture, two lamps, and the shadow under the feet."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .draw import Draw
from .looks import Color, color

WALLS = ("plain", "gradient", "spot", "boxes", "checker", "stripes", "noise", "poster")


@dataclass(frozen=True)
class Light:
    """Linear light in the camera frame (x right, y down, z forward)."""

    key: Tensor  # (3,) towards the lamp
    key_color: Color
    fill: Tensor
    fill_color: Color
    sky: Color
    ground: Color

    def __call__(self, normals: Tensor) -> Tensor:
        """Returns the light (3, N) on unit normals (3, N); lamps are large, so the light fades beyond the edge."""
        up = 0.5 - 0.5 * normals[1]
        light = self.ground[:, None] + up * (self.sky - self.ground)[:, None]
        for towards, lamp in ((self.key, self.key_color), (self.fill, self.fill_color)):
            light = light + ((towards @ normals + 0.25) / 1.25).clamp_min(0) * lamp[:, None]
        return light


def draw_light(draw: Draw) -> Light:
    side = draw.choice((-1.0, 1.0))
    key = torch.tensor([side * draw.between(0.25, 1.0), -draw.between(0.4, 1.0), -draw.between(0.7, 1.2)])
    fill = torch.tensor([-side, -0.1, -draw.between(0.3, 0.8)])
    warm = draw.between(-0.06, 0.1)
    tint = torch.tensor([1 + warm, 1.0, 1 - warm])
    strength = draw.between(0.8, 1.05)
    return Light(
        normalize(key, dim=0),
        strength * tint,
        normalize(fill, dim=0),
        draw.between(0.1, 0.3) / tint,
        draw.between(0.2, 0.34) / tint,
        draw.between(0.08, 0.16) * tint,
    )


def draw_background(draw: Draw, width: int, height: int) -> Tensor:
    """Draws a wall and usually a floor: linear light (height, width, 3)."""
    v, u = torch.meshgrid((torch.arange(2 * height) + 0.5) / 2, (torch.arange(2 * width) + 0.5) / 2, indexing="ij")
    u, v = u / width, v / height
    hue = draw.own(0, 1)
    saturation, value = draw.between(0.05, 0.55), draw.between(0.35, 0.95)
    first = color(hue, saturation, value)
    second = color(hue + draw.between(-0.12, 0.12), draw.between(0.05, 0.6), value * draw.between(0.6, 0.95))
    kind = draw.choice(WALLS, (2, 3, 2, 2, 1.5, 1.5, 2, 2))
    period = draw.own(0.08, 0.3)
    wall = first + _mix(draw, kind, u, v, period)[..., None] * (second - first)
    if kind in ("boxes", "poster"):
        for _ in range(draw.choice((1, 2, 3))):
            left, top = draw.between(-0.1, 0.8), draw.between(-0.1, 0.5)
            wide, high = draw.between(0.15, 0.4), draw.between(0.15, 0.45)
            inside = (u > left) & (u < left + wide) & (v > top) & (v < top + high)
            box = color(draw.own(0, 1), draw.between(0.1, 0.6), draw.between(0.3, 0.9))
            wall = torch.where(inside[..., None], box, wall)
    if draw.chance(0.8):
        horizon = draw.between(0.68, 0.84)
        floor = color(draw.choice((hue, 0.08, draw.own(0, 1))), draw.between(0.05, 0.45), draw.between(0.3, 0.85))
        depth = ((v - horizon) / (1 - horizon)).clamp(0, 1)
        ground = floor * (0.8 + 0.35 * depth[..., None])
        if draw.chance(0.35):
            slats = ((u - 0.5) / (0.25 + depth) * draw.choice((7, 11, 15)) + 0.5).floor() % 2
            ground = ground * (1 - 0.14 * slats[..., None])
        wall = torch.where((v > horizon)[..., None], ground, wall)
        board = ((horizon - v) > 0) & (horizon - v < 0.018)
        wall = torch.where(board[..., None], floor * 0.6, wall)
    # Light falls off towards the corners.
    wall = wall * (1.05 - 0.5 * ((u - 0.5).square() + (v - 0.45).square()))[..., None]
    return torch.nn.functional.avg_pool2d(wall.permute(2, 0, 1), 2).permute(1, 2, 0)


def _mix(draw: Draw, kind: str, u: Tensor, v: Tensor, period: float) -> Tensor:
    """Returns the share of the second colour at each place, 0..1."""
    match kind:
        case "gradient":
            a = draw.between(-0.6, 0.6)
            return (v + a * (u - 0.5)).clamp(0, 1)
        case "spot":
            return (3 * ((u - draw.between(0.3, 0.7)).square() + (v - 0.4).square())).clamp(0, 1)
        case "checker":
            return ((u / period).floor() + (v / period).floor()) % 2 * 0.6
        case "stripes":
            return (u / period).floor() % 2 * 0.6
        case "noise":
            coarse = torch.from_numpy(draw.rng.random((1, 1, 7, 7))).float()
            fine = torch.from_numpy(draw.rng.random((1, 1, 23, 23))).float()
            size = {"size": u.shape, "mode": "bicubic", "align_corners": True}
            up = torch.nn.functional.interpolate
            return (0.75 * up(coarse, **size) + 0.25 * up(fine, **size))[0, 0].clamp(0, 1)
        case _:
            return torch.zeros_like(u)


def cast_shadow(background: Tensor, spots: Tensor, metre: Tensor) -> Tensor:
    """Darkens a background (H, W, 3) under what is near the floor; returns (F, H, W, 3).

    `spots` (F, K, 4): column and row of the place on the floor, height above it in metres, radius in metres; `metre`
    (F,) is in pixels.
    """
    height, width = background.shape[:2]
    column, row, above, radius = spots[..., None].unbind(2)  # each (F, K, 1)
    spread = (radius + 0.5 * above) * metre[:, None, None]
    across = torch.exp(-((torch.arange(width) + 0.5 - column) / spread).square())
    down = torch.exp(-((torch.arange(height) + 0.5 - row) / (0.3 * spread)).square())
    dark = (0.5 / (1 + 6 * above) * down)[..., None] * across[:, :, None]
    return background * (1 - dark).prod(1)[..., None]
