"""Rasterises a mesh: the face that each pixel centre sees, as a list of hits; the same torch code on CPU and CUDA.

Camera frame and projection: u = focal * X / Z + width / 2, v = focal * Y / Z + height / 2; a pixel is sampled at its
centre. Everything nearer than Z = NEAR is clipped, the nearest face wins, and no face is culled.

A frame is some two hundred operations on some ten thousand numbers each, so what counts on a CPU is their memory: rows
of int32 and float32, of which most are changed in place. Comparisons there take several times as long as the sign of a
difference.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .clip import clip_near

NEAR = 0.05  # metres
FAR = 1e6  # metres; anything beyond is an error, not a person
# Items processed at once, which bounds the working memory; on a CPU they fit into its cache.
CPU_BLOCK = 1 << 17
GPU_BLOCK = 1 << 21


def rasterizer_device(preferred: torch.device) -> torch.device:
    """Returns CUDA or the CPU, because other devices lack some integer operations."""
    return preferred if preferred.type == "cuda" else torch.device("cpu")


def block_size(device: torch.device) -> int:
    return CPU_BLOCK if device.type == "cpu" else GPU_BLOCK


class Hits(NamedTuple):
    """The pixels that see the mesh, in ascending order of `pixel`."""

    pixel: Tensor  # (N,) int64, (frame * height + row) * width + column
    frame: Tensor  # (N,) int64
    face: Tensor  # (N,) int64, row of the mesh's `faces`
    barycentric: Tensor  # (3, N) perspective-correct weights of the face's corners
    z: Tensor  # (N,) camera-frame Z
    outward: Tensor  # (N,) bool: seen from the side to which the face's right-hand normal points

    def blocks(self) -> Iterator["Hits"]:
        """Yields the hits in bounded parts; an empty list is one part."""
        size = block_size(self.pixel.device)
        return (Hits(*part) for part in zip(*(column.split(size, -1) for column in self)))


class _Edges(NamedTuple):
    """Edges that span the heights v to v + dv; along an edge u and q = 1 / Z are linear in v."""

    u: Tensor
    minus_v: Tensor
    q: Tensor
    dv: Tensor
    du_dv: Tensor
    dq_dv: Tensor


class _Box(NamedTuple):
    """The part of the picture in which the mesh is, the same for all frames."""

    left: int
    top: int
    width: int
    height: int


class _Triangles(NamedTuple):
    """N triangles on the screen, their corners in order of height, and the two halves of each.

    The middle corner's height cuts a triangle into two trapezoids, numbers n and N + n. A row of pixel centres enters
    a trapezoid at one edge and leaves it at the other. Edges are evaluated from their upper end, so that neighbours
    agree on them to the last bit and leave neither gap nor overlap.
    """

    box: _Box
    face: Tensor  # (N,) int64, frame * T + row of `faces`
    frame: Tensor | None  # (N,) int64, or None if there is one
    order: Tensor  # (N,) int32, column of ORDERS
    q: tuple[Tensor, ...]  # three (N,), 1 / Z from top to bottom
    clipped: Tensor | None  # (N, 3, 3) barycentric coordinates of the corners in `face`, if any are not its own
    first_row: Tensor  # (N,) int32
    last_upper_row: Tensor  # (N,) int32, of the upper half
    rows: Tensor  # (N,) int32
    long: _Edges  # (N,) from the top to the bottom corner
    short: _Edges  # (2 N,) from the top to the middle corner, from the middle to the bottom corner


# Corners from top to bottom, for each outcome of: 1 if v0 > v1, and 2 if v1 > v2, and 4 if v0 > v2. 3 and 4 are none.
ORDERS = ((0, 1, 0, 0, 0, 1, 2, 2), (1, 0, 2, 1, 1, 2, 0, 1), (2, 2, 1, 2, 2, 0, 1, 0))
# Where each corner is in that order, and whether it is an even permutation.
PLACES = ((0, 1, 0, 0, 0, 2, 1, 2), (1, 0, 2, 1, 1, 0, 2, 1), (2, 2, 1, 2, 2, 1, 0, 0))
EVEN = (True, False, False, True, True, True, True, False)


def rasterize(vertices: Tensor, faces: Tensor, focal: float, width: int, height: int) -> Hits:
    """Finds the nearest face at every pixel centre, for camera-frame vertices (F, V, 3) and faces (T, 3)."""
    triangles = _project(vertices, faces, focal, width, height)
    box = triangles.box
    nearest = torch.zeros(len(vertices) * box.height * box.width, dtype=torch.int64, device=vertices.device)
    _splat(nearest, triangles)
    places = true_indices(nearest).split(block_size(nearest.device))
    parts = [_look_up(place, nearest, triangles, len(faces), width, height) for place in places]
    return parts[0] if len(parts) == 1 else Hits(*(torch.cat(column, -1) for column in zip(*parts)))


def z_at(hits: Hits, pixel: Tensor) -> Tensor:
    """Returns Z at some pixels; it is infinite where nothing is seen."""
    if not len(hits.pixel):
        return hits.z.new_full(pixel.shape, torch.inf)
    index = torch.searchsorted(hits.pixel, pixel).clamp_(max=len(hits.pixel) - 1)
    return torch.where(hits.pixel[index] == pixel, hits.z[index], torch.inf)


def true_indices(values: Tensor) -> Tensor:
    """Returns the indices (N,) of values (M,) that are not zero."""
    if values.device.type == "cpu":  # torch's own takes several times as long there
        return torch.from_numpy(np.flatnonzero(values.numpy() != 0))
    return values.nonzero()[:, 0]


def _project(vertices: Tensor, faces: Tensor, focal: float, width: int, height: int) -> _Triangles:
    """Projects the triangles whose bounding boxes contain a pixel centre."""
    frames, count = vertices.shape[:2]
    points = vertices.float().permute(2, 0, 1).reshape(3, -1)
    corners, alike, source, clipped = faces.t().contiguous(), frames, None, None  # frames with the same corners
    if not _ahead(points, frames):
        points, corners, source, clipped = clip_near(points, corner_vertices(faces, frames, count), NEAR)
        alike = 1

    q = points[2].clamp_min(NEAR).reciprocal_()  # all remaining corners are at least this far
    u = (focal * points[0]).mul_(q).add_(width / 2)
    v = (focal * points[1]).mul_(q).add_(height / 2)
    # First column and row whose centres are not before the vertex: a box without a centre has no extent in these.
    column = (u - 0.5).ceil_().clamp_(0, width).int()
    row = (v - 0.5).ceil_().clamp_(0, height).int()
    kept = true_indices(_extents(torch.stack([column, row], 1), alike, corners))
    face = kept if source is None else source.index_select(0, kept)
    frame = None if frames == 1 else face.div(len(faces), rounding_mode="floor")
    if alike == 1:
        corners = corners.index_select(1, kept)
    else:
        assert frame is not None
        corners = corners.index_select(1, kept - frame * len(faces)) + frame * count

    order = _order_by_height(*(v.index_select(0, corner) for corner in corners))
    corners = torch.cat(_reordered(corners.unbind(), ORDERS, order))
    us, vs, qs, rows = (values.index_select(0, corners).view(3, -1) for values in (u, v, q, row))
    return _Triangles(
        box=_box(u, row, width, height),
        face=face,
        frame=frame,
        order=order,
        q=qs.unbind(),
        clipped=None if clipped is None else clipped[kept],
        first_row=rows[0],
        last_upper_row=rows[1] - 1,
        rows=rows[2] - rows[0],
        long=_edges(*([values[k] for values in (us, vs, qs)] for k in (0, 2))),
        short=_edges(*([values[k : k + 2].flatten() for values in (us, vs, qs)] for k in (0, 1))),
    )


def _ahead(points: Tensor, frames: int) -> bool:
    """Returns whether all points (3, F * V) are beyond the near plane; complains about those that are no places."""
    if not points.numel():
        return True
    low, high, nearest = torch.stack([*points.aminmax(), points[2].amin()]).tolist()
    if not (-FAR < low and high < FAR):  # nor if they are NaN
        bad = (~(points.abs() < FAR)).view(3, frames, -1).any(2).any(0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"Mesh coordinates are NaN or beyond {FAR:g} m in {len(bad)} frame(s), first in frame {bad[0]}; check the "
            "rotations and the place of the motion there."
        )
    return nearest >= NEAR


def corner_vertices(faces: Tensor, frames: int, count: int) -> Tensor:
    """Returns indices (3, F * T) of the faces' corners into the vertices (F * V) of all frames."""
    if frames == 1:
        return faces.t().contiguous()
    first = torch.arange(frames, device=faces.device)[:, None] * count
    return (faces.t()[:, None] + first).reshape(3, -1)


def _extents(places: Tensor, alike: int, corners: Tensor) -> Tensor:
    """Returns how many pixels (F * T,) the bounding boxes of triangles contain, from their corners (3, T) and the
    column and row (F * V, 2) of each vertex."""
    pairs = places.view(torch.int64).view(alike, -1)  # a column and a row are fetched as one number
    a, b, c = (pairs.index_select(1, corner).view(torch.int32) for corner in corners)
    low = torch.minimum(a, b)
    a = torch.maximum(a, b, out=a)
    extents = torch.maximum(a, c, out=a).sub_(torch.minimum(low, c, out=low)).view(-1, 2)
    return extents[:, 0] * extents[:, 1]


def _box(u: Tensor, row: Tensor, width: int, height: int) -> _Box:
    """Returns where pixels may be drawn."""
    if u.device.type != "cpu" or not u.numel():  # asking would be one more wait for the device
        return _Box(0, 0, width, height)
    low, high = (value.item() for value in u.aminmax())
    if not high - low < 1e9:  # nor if they are NaN or infinite
        return _Box(0, 0, width, height)
    margin = 1 + 1e-6 * max(-low, high)  # the rounding of a point on an edge is half of that
    left, right = (int(min(max(value, 0), width)) for value in (low - margin, high + margin + 1))
    top, bottom = (value.item() for value in row.aminmax())
    return _Box(left, top, right - left, bottom - top)


def _edges(start: list[Tensor], end: list[Tensor]) -> _Edges:
    """Returns the edges from points to points, each u, v and q."""
    du, dv, dq = (b - a for a, b in zip(start, end))
    return _Edges(start[0], -start[1], start[2], dv, du.div_(dv), dq.div_(dv))


def _order_by_height(v0: Tensor, v1: Tensor, v2: Tensor) -> Tensor:
    """Returns the columns (N,) of ORDERS for triangles whose corners have the heights v."""
    first, second, third = (_sign(b - a) for a, b in ((v0, v1), (v1, v2), (v0, v2)))
    return first.add_(second, alpha=2).add_(third, alpha=4).neg_()


def _sign(values: Tensor) -> Tensor:
    """Turns values, int32 or float32, into -1 where they are less than zero and 0 elsewhere, in their memory."""
    return values.view(torch.int32).bitwise_right_shift_(31)


@cache
def _constant(values: tuple, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def _reordered(rows: Sequence[Tensor], table: tuple, order: Tensor) -> list[Tensor]:
    """Takes from each column of three rows (N,) the three that its order (N,) has in a table."""
    count = len(order)
    column = torch.arange(count, dtype=torch.int32, device=order.device)
    flat = torch.cat(list(rows))
    firsts = _constant(table, order.device).int() * count
    return [flat.index_select(0, first.index_select(0, order).add_(column)) for first in firsts]


def _splat(nearest: Tensor, triangles: _Triangles) -> None:
    """Raises `nearest` to (bits of q, number of the half) at every pixel of the box that a half covers.

    q = 1 / Z is positive, so its bits sort like q, and the largest key is the nearest half.
    """
    left, top, width, height = triangles.box
    for triangle, step in _repeat(triangles.rows):
        line = triangles.first_row.index_select(0, triangle).add_(step)
        lower = _sign(triangles.last_upper_row.index_select(0, triangle).sub_(line))
        half = torch.sub(triangle, lower, alpha=len(triangles.face))
        centre = line.float().add_(0.5)
        u_long, q_long = _at(triangles.long, triangle, centre)
        u_short, q_short = _at(triangles.short, half, centre)
        start = torch.minimum(u_long, u_short).sub_(0.5).ceil_().clamp_(left, left + width)
        end = torch.maximum(u_long, u_short).sub_(0.5).ceil_().clamp_(left, left + width)
        dq_du = (q_long - q_short).div_(u_long - u_short)
        q_start = (start + 0.5).sub_(u_long).mul_(dq_du).add_(q_long)
        pixels = end.sub_(start).int()
        first_pixel = line.sub_(top)
        if triangles.frame is not None:
            first_pixel += height * triangles.frame.int().index_select(0, triangle)
        first_pixel = first_pixel.mul_(width).add_(start.int()).sub_(left)
        for span, step in _repeat(pixels):
            q = dq_du.index_select(0, span).mul_(step.float()).add_(q_start.index_select(0, span))
            key = q.view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(half.index_select(0, span).long())
            pixel = first_pixel.index_select(0, span).add_(step).long()
            nearest.scatter_reduce_(0, pixel, key, "amax")


def _repeat(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Repeats each index by its count (N,), with the number of the repetition, a block at a time; all int32."""
    sums = counts.new_zeros(len(counts) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=sums[1:])
    starts, total = sums[:-1], int(sums[-1])
    one_each = counts.new_ones(1).expand_as(counts)
    for first in range(0, total, block_size(counts.device)):
        size = min(block_size(counts.device), total - first)
        start = starts - first
        begun = counts.new_zeros(size + 1).scatter_add_(0, start.clamp(0, size), one_each)
        index = begun[:size].cumsum(0, dtype=torch.int32).sub_(1)
        step = torch.arange(size, dtype=torch.int32, device=counts.device)
        yield index, step.sub_(start.int().index_select(0, index))


def _at(edges: _Edges, index: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Returns u and q where the centre line of a row crosses an edge."""
    down = edges.minus_v.index_select(0, index).add_(centre)
    u = edges.du_dv.index_select(0, index).mul_(down).add_(edges.u.index_select(0, index))
    q = edges.dq_dv.index_select(0, index).mul_(down).add_(edges.q.index_select(0, index))
    return u, q


def _look_up(place: Tensor, nearest: Tensor, triangles: _Triangles, faces: int, width: int, height: int) -> Hits:
    """Looks up what was drawn last at some places (N,) of the box."""
    box, count = triangles.box, len(triangles.face)
    key = nearest.index_select(0, place)
    half = key.int()
    z = (key >> 32).int().view(torch.float32).reciprocal_()
    upper = _sign(half - count)
    triangle = torch.sub(half - count, upper, alpha=count)
    line = place.double().div_(box.width).int()  # a double is never rounded up to the next whole quotient
    column = (place.int() - line * box.width).add_(box.left)
    face, frame = triangles.face.index_select(0, triangle), torch.zeros_like(place)
    if triangles.frame is not None:
        frame = triangles.frame.index_select(0, triangle)
        face -= frame * faces
        line -= (frame * box.height).int()
    line += box.top
    weights, right = _weights(triangles, (triangle, half), upper, column, line)
    for weight, q in zip(weights, triangles.q):
        weight *= q.index_select(0, triangle)
    total = (weights[0] + weights[1]).add_(weights[2])
    order = triangles.order.index_select(0, triangle)
    barycentric = torch.stack(_reordered([weight.div_(total) for weight in weights], PLACES, order))
    if triangles.clipped is not None:
        barycentric = (barycentric.t()[:, None] @ triangles.clipped[triangle.long()])[:, 0].t()
    pixel = line.long().mul_(width).add_(column)
    if triangles.frame is not None:
        pixel += frame * (height * width)
    outward = right ^ _constant(EVEN, order.device).index_select(0, order)
    return Hits(pixel, frame, face, barycentric, z, outward)


def _weights(
    triangles: _Triangles, edges: tuple[Tensor, Tensor], upper: Tensor, column: Tensor, line: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Returns screen weights (N,) of the top, middle and bottom corner at pixel centres, in 0..1 even for thin
    triangles; and whether the middle corner lies right of the long edge. `edges` are the long and short ones there."""
    centre = line.float().add_(0.5)

    def crossing(edges: _Edges, index: Tensor) -> tuple[Tensor, Tensor]:
        down = edges.minus_v.index_select(0, index).add_(centre)
        u = edges.du_dv.index_select(0, index).mul_(down).add_(edges.u.index_select(0, index))
        return u, down.div_(edges.dv.index_select(0, index)).clamp_(0, 1)

    u_long, long = crossing(triangles.long, edges[0])
    u_short, short = crossing(triangles.short, edges[1])
    across = u_short - u_long
    s = column.float().add_(0.5).sub_(u_long).div_(across).clamp_(0, 1)
    upper_end, lower_end = s * (1 - short), short.mul_(s)
    is_upper = upper.float().neg_()
    is_lower = 1 - is_upper
    s = s.neg_().add_(1)
    top = (1 - long).mul_(s).add_(upper_end * is_upper)
    bottom = long.mul_(s).add_(lower_end * is_lower)
    middle = upper_end.mul_(is_lower).add_(lower_end.mul_(is_upper))
    return [top, middle, bottom], u_short > u_long
