"""Colours of a dressed figure at canonical points, so that skin, face, hair and clothes stick to the body."""

from collections.abc import Callable

import torch
from torch import Tensor

from .figure import BODY, HAIR, HAT, SHOE, SKIRT, hairline, in_bottoms, in_top
from .looks import Color, Look, Pattern, color

WHITE = color(0.0, 0.0, 0.9)
BLACK = color(0.0, 0.0, 0.06)

Paint = Callable[[Look, Tensor], Tensor]  # colours (3, N) at canonical points (3, N)


def albedo(look: Look, point: Tensor, kind: Tensor) -> Tensor:
    """Returns the linear colour (3, N) of canonical points (3, N) on faces of a kind (N,)."""
    body = kind == BODY
    x, y, z = point
    out = look.skin[:, None].repeat(1, point.shape[1])

    def put(where: Tensor, what: Color | Paint) -> None:
        nonlocal out
        if isinstance(what, Tensor):
            out = torch.where(where, what[:, None], out)
        elif len(index := where.nonzero()[:, 0]):
            out.index_copy_(1, index, what(look, point.index_select(1, index)))

    put(body & (y > 0.24) & (x.abs() < 0.12), _head)
    put(body & (y < look.boot) & (y < -0.75), look.boot_color)
    put((body & in_bottoms(look, point)) if look.bottom == "trousers" else kind == SKIRT, _bottoms)
    if look.belt is not None:
        put((y + 0.13).abs() < 0.017, look.belt)
        put(((y + 0.13).abs() < 0.013) & (x.abs() < 0.017) & (z > 0.1), color(0.12, 0.5, 0.8))
    put(body & in_top(look, point), _top)
    put(kind == SHOE, _shoe)
    put(kind == HAIR, _strands)
    put(kind == HAT, look.top.second)
    return out


def _top(look: Look, point: Tensor) -> Tensor:
    out = _folded(look, _cloth(look.top, point), point)
    if look.trim is None:
        return out
    across = point[0].abs()
    edge = point.clone()
    edge[1] += torch.where(across < 0.13, 0.018, 0.0)
    end = (point[1] < look.hem + 0.022) | (across > look.sleeve - 0.016) | ~in_top(look, edge)
    return torch.where(end, look.trim[:, None], out)


def _cloth(pattern: Pattern, point: Tensor) -> Tensor:
    """Returns the pattern (3, N) of a top: rings go around trunk and sleeves, stripes along them."""
    x, y, z = point
    across = x.abs()
    sleeve = across > 0.205
    along = torch.where(sleeve, 0.205 - across, y)  # down the trunk, down the sleeve
    around = torch.where(sleeve, y - 0.16, x)
    p, s = pattern.period, pattern.share
    ring, stripe = _saw(along / p) < s, _saw(around / p + s / 2) < s
    first, second = pattern.color[:, None], pattern.second[:, None]
    match pattern.kind:
        case "stripes":
            mixed = stripe.float()
        case "rings":
            mixed = ring.float()
        case "check":
            mixed = (ring.float() + stripe.float()) / 2
        case "half":
            mixed = (x > 0).float()
        case "dots":
            row = (along / p).floor()
            u, v = _saw(around / p + 0.5 * (row % 2)) - 0.5, _saw(along / p) - 0.5
            mixed = (u * u + v * v < 0.1 * s / 0.45).float()
        case "band":
            mixed = ((along - pattern.place).abs() < 0.5 * p).float()
        case "emblem":
            mixed = ((x * x + (y - pattern.place).square() < (0.03 + 0.4 * p) ** 2) & (z > 0.05)).float()
        case "raglan":
            mixed = (across - 0.35 * (0.16 - y).clamp(-0.1, 0.1) > 0.15).float()
        case _:
            mixed = torch.zeros_like(x)
    return first + mixed * (second - first)


def _bottoms(look: Look, point: Tensor) -> Tensor:
    x, y, _ = point
    base = _cloth(look.bottoms, torch.stack([x.clamp(-0.2, 0.2), y, point[2]]))
    if look.bottom == "trousers":
        out = look.top.second[:, None]
        if look.side_stripe:
            outer = (x.abs() - (0.178 + 0.14 * (y + 0.3).clamp(-0.9, 0))) > 0
            base = torch.where(outer, out, base)
        seam = (y < look.leg + 0.02) | ((x.abs() < 0.006) & (y < -0.14))
        base = torch.where(seam, 0.75 * base, base)
    return _folded(look, base, point)


def _folded(look: Look, cloth: Tensor, point: Tensor) -> Tensor:
    return cloth if look.folds is None else cloth * look.folds(point)


def _shoe(look: Look, point: Tensor) -> Tensor:
    x, y, z = point
    assert look.shoes is not None  # bare feet have no such faces
    out = look.shoes[:, None].expand_as(point)
    lace = (z > 0.03) & (z < 0.11) & ((x.abs() - 0.128).abs() < 0.018) & (_saw(z / 0.026) < 0.5) & (y > -1.15)
    toecap = (z > 0.165) & (y > -1.2) & (y < -1.178)
    out = torch.where(lace | (y < -1.203), look.sole[:, None], out)
    return torch.where(toecap, (look.sole * 0.6 + look.shoes * 0.4)[:, None], out)


def _strands(look: Look, point: Tensor) -> Tensor:
    """Returns hair (3, N) with lighter and darker strands that run down from the crown."""
    x, y, z = point
    turn = torch.atan2(x, z - 0.06)
    wave = (23 * turn + 2 * (40 * y).sin()).sin() + 0.6 * (61 * turn + 5).sin()
    if look.hair == "afro":
        wave = (x * 260).sin() * (y * 240).sin() * (z * 250).sin() * 1.6
    return look.hair_color[:, None] * (1 + 0.16 * wave)


def _head(look: Look, point: Tensor) -> Tensor:
    """Paints face, beard and scalp; features are slightly larger than in life, so that small pictures show them."""
    x, y, z = point
    out = look.skin[:, None].expand_as(point)
    across = x.abs()
    face = z > 0.1
    bright = look.skin.mean()

    def put(where: Tensor, what: Tensor) -> None:
        nonlocal out
        out = torch.where(where, what if what.ndim == 2 else what[:, None], out)

    def oval(u: float, v: float, width: float, height: float) -> Tensor:
        return ((across - u) / width).square() + ((y - v) / height).square()

    cheek = torch.exp(-oval(0.043, 0.335, 0.018, 0.014)) * face
    out = out * (1 - cheek * torch.tensor([[0.02], [0.16], [0.14]]))
    if look.beard:
        jaw = (y < 0.325) & (z > 0.07) & (y > 0.25) & (across < 0.09)
        jaw |= (oval(0.0, 0.323, 0.028, 0.006) < 1) & face
        jaw &= ~((oval(0.0, 0.306, 0.026, 0.011) < 1) & face)
        jaw &= (y < 0.325 - 0.25 * (0.16 - z).clamp_max(0)) | (y < 0.3)
        put(jaw, look.beard * look.hair_color[:, None] + (1 - look.beard) * out)
    put(((x / 0.025).square() + ((y - 0.3045 - 6 * x * x) / 0.0088).square() < 1) & face, look.lips)
    put((across < 0.024) & ((y - 0.3055 - 6 * x * x).abs() < 0.0015) & face, look.lips * 0.35)
    eye = oval(0.0325, 0.3765, 0.0155, 0.0085)
    put((eye < 1.5) & face, look.skin * 0.45)
    put((eye < 1) & face, WHITE)
    put((oval(0.0325, 0.3765, 0.0082, 0.0085) < 1) & face, look.eyes)
    put((oval(0.0325, 0.3765, 0.0042, 0.0045) < 1) & face, BLACK * 0.3)
    put((oval(0.0325, 0.3852, 0.0175, 0.0028) < 1) & face, BLACK)
    arch = 0.4015 - 5 * (across - 0.03).square()
    hair = look.hair_color if look.hair != "bald" else BLACK
    brow = ((y - arch).abs() < 0.003) & (across > 0.015) & (across < 0.05) & face
    put(brow, hair * 0.55 if bright > 0.15 else hair * 0.3)
    above = hairline(look, point)
    ears = (across > 0.07) & (y < 0.392) & (z > 0.04) & (z < 0.1)
    scalp = (above > 0) & ~ears
    if look.hair == "beanie":
        band = above < 0.03
        knit = 1 + 0.12 * (torch.atan2(x, z - 0.06) * 40).sin()
        put(scalp, look.top.second[:, None] * knit)
        put(scalp & band, look.top.color[:, None] * knit)
    elif look.hair == "bald":
        put(scalp, look.skin * 0.93)
    else:
        put(scalp, _strands(look, point))
    return out


def _saw(x: Tensor) -> Tensor:
    return x - x.floor()
