"""What makes a drawn person and its room more like a photograph: furniture, plants and streets out of focus, folds in
clothes, hard and coloured light. Off unless `SyntheticPeople` is asked for it, with random numbers of its own."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .draw import Draw
from .looks import Color, Folds, color
from .scene import Light, draw_background

OCTAVES = 5  # of fractal noise
WAVES = 6  # of the folds of clothes
FINEST, WIDEST = 0.04, 0.25  # metres from fold to fold


def fractal(draw: Draw, height: int, width: int, roughness: float = 0.5, coarse: int = 3) -> Tensor:
    """Draws noise (height, width) of 0..1 with details of all sizes, each octave `roughness` as strong as the last."""
    total = torch.zeros(1, 1, height, width)
    for octave in range(OCTAVES):
        side = coarse * 2**octave
        points = torch.from_numpy(draw.rng.random((1, 1, side + 1, side + 1))).float()
        total += roughness**octave * F.interpolate(points, (height, width), mode="bicubic", align_corners=True)
    low, high = total.amin(), total.amax()
    return ((total - low) / (high - low).clamp_min(1e-6))[0, 0]


def draw_place(draw: Draw, width: int, height: int) -> Tensor:
    """Draws the place of a photograph, linear light (height, width, 3): a furnished room or a street, often out of
    focus."""
    outdoors = draw.chance(0.4)
    place = _outdoors(draw, width, height) if outdoors else draw_background(draw, width, height)
    horizon = draw.between(0.62, 0.82)
    for _ in range(draw.choice((1, 2, 3, 4, 5))):
        place = _bush(draw, place, horizon) if draw.chance(0.5 if outdoors else 0.2) else _box(draw, place, horizon)
    dirt = fractal(draw, height, width, 0.7, 4)[..., None]
    place = place * (1 + draw.between(0.05, 0.3) * (dirt - 0.5))
    return _blurred(place, draw.between(0, 0.015) * width) if draw.chance(0.7) else place


def _outdoors(draw: Draw, width: int, height: int) -> Tensor:
    """Draws a sky over the ground."""
    down = (torch.arange(height) + 0.5)[:, None, None] / height
    above = color(draw.between(0.52, 0.66), draw.between(0.05, 0.6), draw.between(0.6, 1.0))
    below = color(draw.between(0.05, 0.62), draw.between(0.0, 0.2), draw.between(0.7, 1.0))
    clouds = fractal(draw, height, width, 0.6, 2)[..., None]
    sky = torch.lerp(torch.lerp(above, below, down.clamp(0, 1)), torch.ones(3), 0.5 * clouds * draw.between(0, 1))
    hue = draw.choice((0.08, 0.1, 0.25, 0.6))
    ground = color(hue, draw.between(0.03, 0.5), draw.between(0.25, 0.75))
    grain = 0.7 + 0.6 * fractal(draw, height, width, 0.8, 6)[..., None]
    return torch.where(down > draw.between(0.5, 0.78), ground * grain, sky)


def _box(draw: Draw, place: Tensor, horizon: float) -> Tensor:
    """Puts a shelf, a door, a window or a house into the picture: a shaded rectangle, with shelves or panes."""
    v, u = _grid(place)
    left, wide = draw.between(-0.2, 0.9), draw.between(0.1, 0.45)
    bottom = horizon + draw.between(-0.1, 0.12)
    top = bottom - draw.between(0.15, 0.7)
    inside = (u > left) & (u < left + wide) & (v > top) & (v < bottom)
    front = color(draw.between(0, 1), draw.between(0.05, 0.6), draw.between(0.2, 0.9))
    shade = 1 + draw.between(-0.35, 0.35) * ((u - left) / wide - 0.5) - 0.2 * (v - top)
    painted = front * shade[..., None]
    if draw.chance(0.6):
        rows, columns = draw.choice((2, 3, 5, 8)), draw.choice((1, 2, 3, 5))
        across, down = (u - left) / wide * columns % 1, (v - top) / (bottom - top) * rows % 1
        pane = (across > 0.12) & (across < 0.88) & (down > 0.15) & (down < 0.85)
        paint = color(draw.between(0, 1), draw.between(0, 0.5), draw.between(0.05, 1.0))
        painted = torch.where(pane[..., None], paint * shade[..., None], painted)
    below = ((v - bottom).abs() < 0.03) & (u > left - 0.02) & (u < left + wide + 0.02)
    place = place * (1 - 0.35 * below.float()[..., None])
    return torch.where(inside[..., None], painted, place)


def _bush(draw: Draw, place: Tensor, horizon: float) -> Tensor:
    """Puts leaves into the picture, thick in the middle and with ragged edges."""
    v, u = _grid(place)
    centre, size = draw.between(0, 1), draw.between(0.08, 0.35)
    middle = horizon - draw.between(0.0, 0.5)
    near = ((u - centre) / size).square() + ((v - middle) / size).square()
    texture = fractal(draw, len(place), place.shape[1], 0.85, 6)
    leaves = color(draw.between(0.18, 0.4), draw.between(0.3, 0.8), draw.between(0.2, 0.7))
    painted = leaves * (0.35 + 1.1 * texture[..., None])
    return torch.where((near + 1.2 * texture < 1.2)[..., None], painted, place)


def _grid(place: Tensor) -> tuple[Tensor, Tensor]:
    height, width = place.shape[:2]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return v / height, u / width


def _blurred(place: Tensor, sigma: float) -> Tensor:
    """Blurs (H, W, 3) as a lens does what is far away, with a Gaussian."""
    reach = int(3 * sigma)
    if reach < 1:
        return place
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    rows = place.permute(2, 0, 1)[:, None]
    rows = F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel)
    rows = F.conv2d(F.pad(rows, (0, 0, reach, reach), mode="replicate"), kernel.mT)
    return rows[:, 0].permute(1, 2, 0)


def draw_folds(draw: Draw) -> Folds:
    """Draws waves of light and shade over clothes, with their strength in all."""
    directions = torch.from_numpy(draw.rng.normal(size=(WAVES, 3))).float()
    lengths = torch.from_numpy(draw.rng.uniform(FINEST, WIDEST, WAVES)).float()
    phases = torch.from_numpy(draw.rng.uniform(0, 2 * torch.pi, WAVES)).float()
    waves = F.normalize(directions, dim=1) * (2 * torch.pi / lengths)[:, None]
    return Folds(waves, phases, draw.between(0.05, 0.35))


def draw_hard_light(draw: Draw, light: Light) -> Light:
    """Draws the lamps of a photograph: stronger or weaker, more to one side, warmer or cooler."""
    side = draw.between(-1.2, 1.2)
    key = F.normalize(light.key + torch.tensor([side, 0.0, 0.0]), dim=0)
    strength, contrast = draw.between(0.55, 1.15), draw.between(0.5, 1.3)
    tint = _tint(draw)
    return replace(
        light,
        key=key,
        key_color=light.key_color * strength * tint,
        fill_color=light.fill_color * strength / contrast,
        sky=light.sky * strength / contrast * _tint(draw),
        ground=light.ground * strength / contrast,
    )


def _tint(draw: Draw) -> Color:
    warm = draw.between(-0.18, 0.22)
    return torch.tensor([1 + warm, 1.0, 1 - warm])
