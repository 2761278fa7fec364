"""The look of a synthetic person: shape, skin, hair and clothes, from one stream of random draws.

Lengths are metres in the T-pose of the free body at betas 0 (x to the body's left, y up, z to the front). Garments are
bands of it: the top by height and, on the arms, by distance from the middle; trousers and skirts by height.
"""

import colorsys
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..body.free import free_body_betas
from ..render.srgb import to_linear
from .draw import Draw

Color: TypeAlias = Tensor  # (3,) linear light

PATTERNS = ("plain", "stripes", "rings", "check", "half", "dots", "band", "emblem", "raglan")
HAIR = ("short", "cropped", "fringe", "bob", "long", "bun", "ponytail", "pigtails", "afro", "beanie", "bald")
HAIR_OF_WOMEN = (0, 1, 2, 4, 4, 3, 2, 2, 1.5, 1, 0.2)  # relative frequencies
HAIR_OF_MEN = (5, 3, 2, 0, 0.7, 0.3, 0.3, 0, 1, 1.5, 1)
SKIN = ((255, 219, 190), (241, 194, 155), (224, 172, 125), (198, 134, 86), (161, 102, 62), (118, 72, 44), (84, 52, 36))
HAIR_COLORS = (
    (28, 22, 20), (52, 34, 24), (94, 58, 32), (140, 84, 44), (214, 170, 98), (236, 210, 150), (168, 62, 28),
    (150, 150, 152), (206, 60, 120), (60, 90, 200),
)  # fmt: skip


@dataclass(frozen=True)
class Pattern:
    kind: str
    color: Color
    second: Color
    period: float  # of stripes, rings, checks and dots
    share: float  # of the second colour in a period
    place: float  # height of a band or an emblem


@dataclass(frozen=True)
class Folds:
    """Waves of light and shade over clothes."""

    waves: Tensor  # (N, 3) radians a metre
    phases: Tensor  # (N,)
    strength: float

    def __call__(self, point: Tensor) -> Tensor:
        """Returns the brightness (P,) of cloth at canonical points (3, P), about 1."""
        waves = (self.waves @ point + self.phases[:, None]).sin().mean(0)
        return 1 + self.strength * 2 * waves.clamp(-0.5, 0.5)


@dataclass(frozen=True)
class Look:
    betas: Tensor
    skin: Color
    lips: Color
    eyes: Color
    hair: str
    hair_color: Color
    hair_size: float  # 0..1
    hair_length: float  # 0..1, of long hair
    beard: float  # 0 = none, else its strength
    top: Pattern
    sleeve: float  # |x| where the sleeve ends
    hem: float  # y where the top ends
    neckline: float  # y of its lowest point in front
    vee: float  # 0 round, 1 pointed
    trim: Color | None  # of cuffs, hem and neckline
    top_volume: float  # metres of the top from the body
    bottom: str  # "trousers" or "skirt"
    bottoms: Pattern
    leg: float  # y where trousers or skirt end
    bottom_volume: float
    flare: float  # metres by which trousers or skirt widen towards their end
    side_stripe: bool
    belt: Color | None
    shoes: Color | None  # None = barefoot
    sole: Color
    boot: float  # y up to which shoes or socks cover the leg
    boot_color: Color
    folds: Folds | None = None


def color(hue: float, saturation: float, value: float) -> Color:
    return to_linear(torch.tensor(colorsys.hsv_to_rgb(hue % 1, saturation, value)))


def paint(rgb: tuple[int, int, int]) -> Color:
    return to_linear(torch.tensor(rgb) / 255)


def _cloth(draw: Draw, hue: float) -> Color:
    if draw.chance(0.2):
        return color(hue, draw.between(0, 0.08), draw.choice((0.12, 0.35, 0.93)))
    return color(hue, draw.between(0.55, 0.95), draw.between(0.45, 0.95))


def _pattern(draw: Draw, hue: float, kind: str) -> Pattern:
    first = _cloth(draw, hue)
    contrast = draw.own(0.2, 0.8)
    light = 0.93 if first.mean() < 0.25 else 0.2
    second = color(hue + contrast, 0.85, 0.9) if draw.chance(0.5) else color(hue, 0.05, light)
    return Pattern(kind, first, second, draw.own(0.05, 0.13), draw.between(0.35, 0.6), draw.between(0.0, 0.1))


def draw_look(draw: Draw) -> Look:
    """Draws a person; the two splits differ in heights, combinations of colours, and patterns."""
    female = draw.chance(0.5)
    betas = free_body_betas(
        gender=draw.between(0.7, 1.0) if female else draw.between(0.0, 0.3),
        age=draw.between(18, 65),
        muscle=draw.between(0.25, 0.9),
        weight=draw.between(0.15, 0.9),
        height=draw.own(1.5, 1.8) if female else draw.own(1.62, 1.95),
        proportions=draw.between(0.0, 0.7),
    )
    skin = paint(draw.choice(SKIN)) * draw.between(0.92, 1.06)
    top_hue = draw.between(0, 1)
    top = _pattern(draw, top_hue, draw.choice(PATTERNS, (3, 2, 2, 1, 1, 1, 1.5, 1.5, 1)))
    bottom_hue = top_hue + draw.own(0, 1)
    skirt = female and draw.chance(0.35)
    bottoms = _pattern(draw, bottom_hue, draw.choice(("plain", "rings", "check", "stripes"), (12, 1, 1, 1)))
    if draw.chance(0.12) and skirt:
        bottoms = top  # a dress
    if draw.chance(0.3) and not skirt:
        denim = color(0.6, draw.between(0.45, 0.7), draw.own(0.22, 0.7))
        bottoms = Pattern("plain", denim, top.second, 0.1, 0.5, 0.0)
    hem = draw.choice((draw.own(-0.15, -0.08), draw.own(-0.32, -0.2)))
    hair = draw.choice(HAIR, HAIR_OF_WOMEN if female else HAIR_OF_MEN)
    shod = draw.chance(0.93)
    boots = shod and draw.chance(0.25)
    socks = shod and not boots and draw.chance(0.5)
    shoes = _cloth(draw, draw.between(0, 1))
    return Look(
        betas=betas,
        skin=skin,
        lips=skin * torch.tensor([0.95, 0.55, 0.55]) if female else skin * torch.tensor([0.85, 0.66, 0.63]),
        eyes=draw.choice([color(0.58, 0.6, 0.6), color(0.08, 0.7, 0.3), color(0.35, 0.5, 0.4), color(0.07, 0.7, 0.15)]),
        hair=hair,
        hair_color=paint(draw.choice(HAIR_COLORS, (4, 4, 4, 3, 3, 2, 2, 1, 0.6, 0.6))) * draw.between(0.8, 1.15),
        hair_size=draw.between(0, 1),
        hair_length=draw.between(0, 1),
        beard=draw.between(0.5, 0.9) if not female and draw.chance(0.3) else 0.0,
        top=top,
        sleeve=draw.choice((draw.own(0.2, 0.26), draw.own(0.3, 0.42), draw.own(0.5, 0.68), 0.67), (1, 3, 1, 3)),
        hem=hem,
        neckline=draw.choice((0.225, draw.own(0.14, 0.22))),
        vee=float(draw.chance(0.4)),
        trim=_cloth(draw, draw.between(0, 1)) if draw.chance(0.35) else None,
        top_volume=draw.between(0.006, 0.022),
        bottom="skirt" if skirt else "trousers",
        bottoms=bottoms,
        leg=draw.own(-0.95, -0.5) if skirt else draw.choice((draw.own(-0.75, -0.45), draw.own(-1.15, -0.95)), (1, 3)),
        bottom_volume=draw.between(0.004, 0.018),
        flare=draw.between(0.08, 0.2) if skirt else draw.choice((0.0, draw.between(0, 0.04))),
        side_stripe=draw.chance(0.2),
        belt=_cloth(draw, draw.between(0, 1)) * 0.5 if draw.chance(0.4) else None,
        shoes=shoes if shod else None,
        sole=color(0.1, 0.08, draw.choice((0.95, 0.9, 0.15))),
        boot=draw.between(-1.0, -0.8) if boots else draw.between(-1.08, -1.02) if socks else -1.2,
        boot_color=shoes if boots else _cloth(draw, draw.between(0, 1)),
    )
