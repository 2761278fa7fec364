"""Builds the dressed figure of a look: the free body, offset where cloth and hair lie on it, with shoes, skirt and
locks.

Everything is built on the free body at betas 0. Each point keeps its T-pose coordinates there ("canonical"), and is
moved to the person's shape together with the skin around it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..body.skinning import forward_kinematics
from ..render.maps import vertex_normals
from .looks import Look

BODY, SHOE, HAIR, SKIRT, HAT = range(5)  # kinds of faces
NEAR_SKIN = 0.05  # metres around a point of cloth: the skin within moves it to another shape
SPARSE = 12  # one of this many vertices of the body moves cloth


@dataclass(frozen=True)
class Figure:
    """A person in the T-pose, ready to be posed; V vertices and T faces, those of the body first."""

    vertices: Tensor  # (V, 3)
    normals: Tensor  # (V, 3)
    canonical: Tensor  # (V, 3) where the point is on the free body at betas 0
    weights: Tensor  # (V, 24)
    joints: Tensor  # (24, 3)
    faces: Tensor  # (T, 3)
    kind: Tensor  # (T,)

    def pose(self, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
        """Returns vertices and normals, each (F, V, 3), for rotations (F, 24, 3, 3) and root translations (F, 3)."""
        frames = len(rotations)
        _, world, offset = forward_kinematics(rotations, self.joints, PARENTS, transl)
        matrices = torch.cat([world, offset[..., None]], dim=3)  # (F, 24, 3, 4)
        blended = (matrices.permute(0, 2, 3, 1).reshape(frames * 12, 24) @ self.weights.t()).view(frames, 3, 4, -1)
        x, y, z = self.vertices.t()
        vertices = blended[:, :, 0] * x + blended[:, :, 1] * y + blended[:, :, 2] * z + blended[:, :, 3]
        x, y, z = self.normals.t()
        normals = blended[:, :, 0] * x + blended[:, :, 1] * y + blended[:, :, 2] * z
        return vertices.transpose(1, 2), normals.transpose(1, 2)


def hairline(look: Look, point: Tensor) -> Tensor:
    """Returns the height in metres above the hairline of canonical points (3, N) of the head; negative below it."""
    front = {"fringe": 0.413, "bob": 0.425, "cropped": 0.45, "beanie": 0.428}.get(look.hair, 0.44)
    if look.hair == "beanie":
        line = [(-0.04, 0.385), (0.04, 0.39), (0.12, 0.41), (0.19, front)]
    else:
        line = [(-0.04, 0.285), (0.03, 0.30), (0.05, 0.345), (0.062, 0.384), (0.10, 0.388), (0.115, 0.405)]
        line += [(0.13, front), (0.19, front + 0.012)]
    knots, heights = np.array(line).T
    return point[1] - torch.from_numpy(np.interp(point[2].numpy(), knots, heights)).float()


def in_top(look: Look, point: Tensor) -> Tensor:
    """Tells whether canonical points (3, N) lie under the top: below its neckline, above its hem, in its sleeves."""
    x, y, z = point
    across = x.abs()
    drop = (0.235 - look.neckline) * (z > 0.05)
    width = 0.075 if look.vee == 0 else 0.085
    shape = (1 - (across / width) ** (2 if look.vee == 0 else 1)).clamp_min(0)
    if look.vee == 0:
        shape = shape.sqrt()
    collar = 0.245 - drop * shape - 0.1 * (across - 0.09).clamp_min(0)
    return (y > look.hem) & (across < look.sleeve) & ((y < collar) | (across > 0.13))


def in_bottoms(look: Look, point: Tensor) -> Tensor:
    x, y, _ = point
    end = look.leg if look.bottom == "trousers" else -0.36
    return (y < -0.115) & (y > end) & (x.abs() < 0.3)


def dress(body: Body, look: Look) -> Figure:
    """Builds the figure of a look on the free body, which must have the look's betas."""
    rest = body.rest()
    skin = rest.vertices[0]
    canonical = body.template
    normals = vertex_normals(rest.vertices, body.faces)[0]
    vertices = skin + normals * _stand_off(look, canonical.t(), body.part_labels)[:, None]
    faces = [body.faces[~_hidden(look, canonical, body)]]
    kinds = [torch.full(faces[0].shape[:1], BODY)]
    points, weights = [canonical], [body.weights]
    for kind, part, part_weights, part_faces in _parts(look):
        faces.append(part_faces + sum(len(p) for p in points))
        kinds.append(torch.full(part_faces.shape[:1], kind))
        points.append(part)
        weights.append(part_weights)
    skin_points, moves = canonical[::SPARSE], (skin - canonical)[::SPARSE]
    vertices = torch.cat([vertices, *(_carried(part, skin_points, moves) for part in points[1:])])
    all_faces = torch.cat(faces)
    return Figure(
        vertices,
        vertex_normals(vertices[None], all_faces)[0],
        torch.cat(points),
        torch.cat(weights),
        rest.joints[0],
        all_faces,
        torch.cat(kinds),
    )


def _carried(points: Tensor, skin: Tensor, moves: Tensor) -> Tensor:
    """Moves points (N, 3) with the skin around them: its mean move, weighted by exp(-distance^2 / (2 s^2))."""
    low, high = points.amin(0) - 5 * NEAR_SKIN, points.amax(0) + 5 * NEAR_SKIN
    near = ((skin > low) & (skin < high)).all(1)
    share = torch.softmax(-torch.cdist(points, skin[near]).square() / (2 * (NEAR_SKIN / 2) ** 2), dim=1)
    return points + share @ moves[near]


def _step(x: Tensor, start: float, end: float) -> Tensor:
    t = ((x - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _stand_off(look: Look, point: Tensor, labels: Tensor) -> Tensor:
    """Returns the distance (V,) of clothes and hair from the skin in metres."""
    x, y, z = point
    off = torch.zeros_like(x)
    legs = in_bottoms(look, point)
    wide = look.flare if look.bottom == "trousers" else 0.0
    down = _step(-y, 0.45, max(0.5, -look.leg))
    off = torch.where(legs, look.bottom_volume * _step(-y, 0.1, 0.3) + wide * down, off)
    top = in_top(look, point)
    cuff = _step(x.abs(), 0.2, 0.45)
    off = torch.where(top, (look.top_volume * (0.6 + 0.5 * cuff)).maximum(off + 0.004), off)
    if look.belt is not None:
        off = torch.where((y + 0.13).abs() < 0.02, off.clamp_min(0.008), off)
    if look.shoes is not None:
        off = torch.where((y < look.boot) & (y > -1.13), off.clamp_min(0.007), off)
    head = torch.isin(labels, torch.tensor([JOINTS.index("head"), JOINTS.index("neck")]))
    above = hairline(look, point)
    thick = {"cropped": 0.003, "short": 0.012, "afro": 0.055, "bald": 0.0, "beanie": 0.012}.get(look.hair, 0.012)
    thick *= 0.75 + 0.5 * look.hair_size
    # Fuller on top than at the sides, nothing on the ears.
    full = _step(above, 0.0, 0.03) * thick * (0.5 + 0.5 * _step(y, 0.38, 0.47))
    if look.hair == "short":
        full = full * (1 + 1.2 * look.hair_size * _step(z, 0.05, 0.14) * _step(y, 0.43, 0.48))
    if look.hair == "afro":
        full = _step(above, -0.005, 0.03) * thick * (0.75 + 0.25 * _step(y, 0.36, 0.45))
    ears = (x.abs() > 0.07) & (y < 0.392) & (z > 0.04) & (z < 0.1)
    return torch.where(head & (above > 0) & ~ears, full, off)


def _hidden(look: Look, point: Tensor, body: Body) -> Tensor:
    """Returns the faces (T,) of the body that shoes or a skirt cover in every pose."""
    x, y, _ = point.t()
    covered = torch.zeros_like(x, dtype=torch.bool)
    if look.shoes is not None:
        covered |= y < -1.15
    if look.bottom == "skirt":
        covered |= (y < -0.17) & (y > look.leg + 0.1) & (x.abs() < 0.3)
    a, b, c = (covered.index_select(0, corner) for corner in body.faces.t())
    return a & b & c


Part = tuple[int, Tensor, Tensor, Tensor]  # kind, canonical points, weights, faces


def _parts(look: Look) -> list[Part]:
    """Builds the parts that are not skin-tight."""
    parts: list[Part] = []
    if look.shoes is not None:
        parts += [(SHOE, *shoe(1.0)), (SHOE, *shoe(-1.0))]
    if look.bottom == "skirt":
        parts.append((SKIRT, *skirt(look.leg, look.flare, pleats=9 if look.side_stripe else 0)))
    size = 0.85 + 0.35 * look.hair_size
    if look.hair in ("bob", "long"):
        end = 0.29 - 0.05 * look.hair_length if look.hair == "bob" else 0.2 - 0.28 * look.hair_length
        parts.append((HAIR, *curtain(end, 1 + 0.15 * look.hair_size)))
    elif look.hair == "bun":
        back = look.hair_length > 0.5
        centre = (0.0, 0.42, -0.045) if back else (0.0, 0.505, 0.03)
        parts.append((HAIR, *ball(centre, (0.042 * size,) * 3)))
    elif look.hair == "ponytail":
        length = 0.09 + 0.07 * look.hair_length
        parts.append((HAIR, *ball((0.0, 0.435 - length, -0.06 - 0.1 * length), (0.032 * size, length, 0.03 * size))))
        parts.append((HAIR, *ball((0.0, 0.43, -0.04), (0.025, 0.025, 0.03))))
    elif look.hair == "pigtails":
        length = 0.07 + 0.06 * look.hair_length
        for sign in (1.0, -1.0):
            parts.append((HAIR, *ball((0.115 * sign, 0.40 - length, 0.05), (0.03 * size, length, 0.03 * size))))
            parts.append((HAIR, *ball((0.09 * sign, 0.40, 0.05), (0.025, 0.022, 0.022))))
    elif look.hair == "beanie" and look.hair_length > 0.5:
        parts.append((HAT, *ball((0.0, 0.515, 0.07), (0.032, 0.03, 0.032))))
    return parts


def _net(rows: int, columns: int, closed: bool) -> Tensor:
    """Returns the faces of a grid of points, row by row, wound outward for columns from x to z; `closed` joins its
    ends."""
    index = torch.arange(rows * columns).view(rows, columns)
    right = index.roll(-1, 1)
    if not closed:
        index, right = index[:, :-1], right[:, :-1]
    a, b, c, d = index[:-1], right[:-1], index[1:], right[1:]
    return torch.cat([torch.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])


def _weights(count: int, **shares: Tensor | float) -> Tensor:
    weights = torch.zeros(count, len(JOINTS))
    for name, share in shares.items():
        weights[:, JOINTS.index(name)] = share
    return weights


def _table(x: Tensor, knots: list[float], values: list[float]) -> Tensor:
    return torch.from_numpy(np.interp(x.numpy(), knots, values)).float()


def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Builds an ellipsoid that moves with the head."""
    rows, columns = 9, 14
    polar, around = torch.linspace(0, np.pi, rows), torch.arange(columns) / columns * 2 * np.pi
    ring = torch.stack([around.cos(), torch.zeros(columns), around.sin()], dim=1)
    points = polar.sin()[:, None, None] * ring + polar.cos()[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
    points = points.view(-1, 3) * torch.tensor(radii) + torch.tensor(centre)
    return points, _weights(len(points), head=1.0), _net(rows, columns, closed=True)


def curtain(end: float, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Builds hair around the back of the head down to the height `end`."""
    rows, columns = 14, 25
    y = torch.linspace(0.47, end, rows)
    knots = [-0.1, 0.1, 0.18, 0.24, 0.3, 0.36, 0.42, 0.47]
    centre = _table(y, knots, [-0.01, 0.0, 0.02, 0.03, 0.045, 0.058, 0.065, 0.07])
    deep = _table(y, knots, [0.08, 0.085, 0.09, 0.092, 0.098, 0.102, 0.1, 0.075]) * size
    wide = _table(y, knots, [0.095, 0.108, 0.105, 0.1, 0.096, 0.092, 0.086, 0.066]) * size
    opening = _table(y, knots, [70.0, 80.0, 92.0, 104.0, 112.0, 112.0, 104.0, 95.0]) * np.pi / 180
    turn = torch.linspace(-1, 1, columns) * opening[:, None]
    lock = 1 + 0.015 * (turn * 17).cos()
    points = torch.stack(
        [
            -wide[:, None] * turn.sin() * lock,
            y[:, None].expand(-1, columns),
            centre[:, None] - deep[:, None] * turn.cos() * lock,
        ],
        dim=-1,
    ).view(-1, 3)
    head = _step(points[:, 1], 0.14, 0.27)
    return points, _weights(len(points), head=head, spine3=1 - head), _net(rows, columns, closed=False)


@cache
def shoe(sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """Builds a shoe with a flat sole around the left (1) or right (-1) foot, from slices across it."""
    columns = 20
    z = torch.tensor([-0.082, -0.078, -0.065, -0.04, -0.01, 0.03, 0.07, 0.1, 0.13, 0.155, 0.18, 0.2, 0.212, 0.216])
    knots = [-0.08, -0.06, -0.02, 0.04, 0.08, 0.12, 0.16, 0.2]
    middle = _table(z, knots, [0.096, 0.097, 0.105, 0.116, 0.128, 0.13, 0.131, 0.128])
    half = _table(z, knots, [0.028, 0.032, 0.042, 0.048, 0.054, 0.057, 0.053, 0.038])
    height = _table(z, knots, [0.085, 0.095, 0.1, 0.1, 0.078, 0.06, 0.05, 0.042])
    round_ = torch.ones_like(z)
    round_[[0, -1]] = 0.0
    round_[[1, -2]] = 0.6
    round_[[2, -3]] = 0.9
    angle = torch.arange(columns) / columns * 2 * np.pi
    flat = angle.sin().sign() * angle.sin().abs() ** 0.6
    x = middle[:, None] + half[:, None] * round_[:, None] * angle.cos().sign() * angle.cos().abs() ** 0.7
    lift = 0.006 * _step(z, 0.12, 0.22)
    low, high = -1.222 + lift, -1.222 + 0.03 + height * (0.3 + 0.7 * round_)
    y = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * flat * (0.55 + 0.45 * round_[:, None])
    points = torch.stack([sign * x, y, z[:, None].expand_as(x)], dim=-1).view(-1, 3)
    toes = _step(points[:, 2], 0.09, 0.15)
    name = "left" if sign > 0 else "right"
    weights = _weights(len(points), **{f"{name}_foot": toes, f"{name}_ankle": 1 - toes})
    faces = _net(len(z), columns, closed=True)
    return points, weights, faces if sign < 0 else faces.flip(1)


def skirt(end: float, flare: float, pleats: int) -> tuple[Tensor, Tensor, Tensor]:
    """Builds a skirt from the waist down to the height `end`, wider there by `flare`."""
    rows, columns = 12, 40
    start = -0.115
    y = torch.linspace(start, end, rows)
    down = ((start - y) / (start - end))[:, None]
    wide = (_table(-y, [0.1, 0.2, 0.3, 0.4], [0.163, 0.18, 0.2, 0.205]) + 0.004)[:, None] + flare * down**1.5
    deep = (_table(-y, [0.1, 0.2, 0.3, 0.4], [0.122, 0.132, 0.138, 0.138]) + 0.004)[:, None] + flare * down**1.5
    middle = _table(-y, [0.1, 0.2, 0.3, 0.5], [0.066, 0.06, 0.05, 0.03])[:, None]
    around = torch.arange(columns) / columns * 2 * np.pi
    fold = 1 + 0.06 * down * (around * (pleats or 5)).cos()
    x, z = wide * fold * around.cos(), middle + deep * fold * around.sin()
    points = torch.stack([x, y[:, None].expand_as(x), z], dim=-1).view(-1, 3)
    hips = 0.92 * _step(-points[:, 1], 0.14, 0.4)
    knees = 0.7 * _step(-points[:, 1], 0.6, 1.0)
    left = (0.5 + points[:, 0] / 0.16).clamp(0, 1)
    weights = _weights(
        len(points),
        pelvis=1 - hips,
        left_hip=hips * left * (1 - knees),
        right_hip=hips * (1 - left) * (1 - knees),
        left_knee=hips * left * knees,
        right_knee=hips * (1 - left) * knees,
    )
    return points, weights, _net(rows, columns, closed=True)
