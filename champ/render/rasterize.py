"""Rasterises a mesh: the face that each pixel centre sees, as a list of hits; the same torch code on CPU and CUDA.

Camera frame and projection: u = focal * X / Z + width / 2, v = focal * Y / Z + height / 2; a pixel is sampled at its
centre. Everything nearer than Z = NEAR is clipped, the nearest face wins, and no face is culled.
"""

from collections.abc import Iterator
from typing import NamedTuple

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
    v: Tensor
    q: Tensor
    dv: Tensor
    du_dv: Tensor
    dq_dv: Tensor


class _Triangles(NamedTuple):
    """N triangles on the screen, their corners in order of height, and the two halves of each.

    The middle corner's height cuts a triangle into two trapezoids, numbers n and N + n. A row of pixel centres enters
    a trapezoid at one edge and leaves it at the other. Edges are evaluated from their upper end, so that neighbours
    agree on them to the last bit and leave neither gap nor overlap.
    """

    face: Tensor  # (N,) frame * T + row of `faces`
    frame: Tensor  # (N,)
    order: Tensor  # (3, N) numbers of the top, middle and bottom corner
    odd: Tensor  # (N,) whether that is an odd permutation
    q: Tensor  # (3, N) 1 / Z in that order
    clipped: Tensor | None  # (N, 3, 3) barycentric coordinates of the corners in `face`, if any are not its own
    first_row: Tensor  # (2 N,)
    rows: Tensor  # (2 N,)
    long: _Edges  # from the top to the bottom corner
    short: _Edges  # from the top to the middle corner, from the middle to the bottom corner


def rasterize(vertices: Tensor, faces: Tensor, focal: float, width: int, height: int) -> Hits:
    """Finds the nearest face at every pixel centre, for camera-frame vertices (F, V, 3) and faces (T, 3)."""
    triangles = _project(vertices, faces, focal, width, height)
    nearest = torch.zeros(len(vertices) * height * width, dtype=torch.int64, device=vertices.device)
    _splat(nearest, triangles, width, height)
    pixels = nearest.nonzero()[:, 0].split(block_size(nearest.device))
    parts = [_look_up(pixel, nearest, triangles, len(faces), width, height) for pixel in pixels]
    return Hits(*(torch.cat(column, -1) for column in zip(*parts)))


def _project(vertices: Tensor, faces: Tensor, focal: float, width: int, height: int) -> _Triangles:
    """Projects the triangles whose bounding boxes contain a pixel centre."""
    frames, count = vertices.shape[:2]
    points = vertices.float().permute(2, 0, 1).reshape(3, -1)
    sane, ahead = torch.stack([(points.abs() < FAR).all(), (points[2] >= NEAR).all()]).tolist()
    if not sane:
        bad = (~(points.abs() < FAR)).view(3, frames, -1).any(2).any(0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"Mesh coordinates are NaN or beyond {FAR:g} m in {len(bad)} frame(s), first in frame {bad[0]}; check the "
            "rotations and the place of the motion there."
        )
    corners, alike, source, clipped = faces.t().contiguous(), frames, None, None  # frames with the same corners
    if not ahead:
        points, corners, source, clipped = clip_near(points, corner_vertices(faces, frames, count), NEAR)
        alike = 1

    q = 1 / points[2].clamp_min(NEAR)  # all remaining corners are at least this far
    u = focal * points[0] * q + width / 2
    v = focal * points[1] * q + height / 2
    # First column and row whose centres are not before the vertex: a box without a centre has no extent in these.
    column = (u - 0.5).ceil_().clamp_(0, width).int()
    row = (v - 0.5).ceil_().clamp_(0, height).int()
    extents = (_extent(index.view(alike, -1), corners) for index in (column, row))
    kept = torch.mul(*extents).flatten().nonzero()[:, 0]

    frame = kept.div(corners.shape[1], rounding_mode="floor")
    corners = corners.index_select(1, kept - frame * corners.shape[1]) + frame * count
    order, odd = _order_by_height(*(v.index_select(0, corner) for corner in corners))
    corners = corners.gather(0, order).flatten()
    uvq = torch.stack([u, v, q]).index_select(1, corners).view(3, 3, -1)
    row = row.index_select(0, corners).view(3, -1)
    face = kept if source is None else source.index_select(0, kept)

    def edges(start: Tensor, end: Tensor) -> _Edges:
        u, v, q = start
        du, dv, dq = end - start
        return _Edges(u, v, q, dv, du / dv, dq / dv)

    return _Triangles(
        face,
        face.div(len(faces), rounding_mode="floor"),
        order,
        odd,
        uvq[2],
        None if clipped is None else clipped[kept],
        row[:2].flatten(),
        (row[1:] - row[:2]).flatten(),
        edges(uvq[:, 0].repeat(1, 2), uvq[:, 2].repeat(1, 2)),
        edges(uvq[:, :2].flatten(1), uvq[:, 1:].flatten(1)),
    )


def corner_vertices(faces: Tensor, frames: int, count: int) -> Tensor:
    """Returns indices (3, F * T) of the faces' corners into the vertices (F * V) of all frames."""
    first = torch.arange(frames, device=faces.device)[:, None] * count
    return (faces.t()[:, None] + first).reshape(3, -1)


def _extent(index: Tensor, corners: Tensor) -> Tensor:
    """Returns the range (F, T), over each triangle's corners (3, T), of an integer per vertex (F, V)."""
    a, b, c = (index.index_select(1, corner) for corner in corners)
    return torch.maximum(torch.maximum(a, b), c) - torch.minimum(torch.minimum(a, b), c)


def _order_by_height(v0: Tensor, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
    """Returns corner numbers (3, N) from top to bottom, and whether that order is an odd permutation."""
    code = (v0 > v1).int() + 2 * (v1 > v2).int() + 4 * (v0 > v2).int()  # 3 and 4 cannot occur
    orders = ((0, 1, 2), (1, 0, 2), (0, 2, 1), (0, 1, 2), (0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    odd = (False, True, True, False, False, False, False, True)
    table = torch.tensor(orders, device=code.device).t().contiguous()
    return table.index_select(1, code), torch.tensor(odd, device=code.device).index_select(0, code)


def _splat(nearest: Tensor, triangles: _Triangles, width: int, height: int) -> None:
    """Raises `nearest` to (bits of q, number of the half) at every pixel that a half covers.

    q = 1 / Z is positive, so its bits sort like q, and the largest key is the nearest half.
    """
    frame_row = (triangles.frame * height).repeat(2)
    for half, step in _repeat(triangles.rows):
        line = triangles.first_row.index_select(0, half) + step
        u_long, q_long = _at(triangles.long, half, line)
        u_short, q_short = _at(triangles.short, half, line)
        start = (torch.minimum(u_long, u_short) - 0.5).ceil_().clamp_(0, width)
        end = (torch.maximum(u_long, u_short) - 0.5).ceil_().clamp_(0, width)
        dq_du = (q_long - q_short) / (u_long - u_short)
        q_start = q_long + (start + 0.5 - u_long) * dq_du
        first_pixel = (frame_row.index_select(0, half) + line) * width + start.long()
        for span, step in _repeat((end - start).int()):
            q = q_start.index_select(0, span) + step * dq_du.index_select(0, span)
            key = (q.view(torch.int32).long() << 32) | half.index_select(0, span)
            nearest.scatter_reduce_(0, first_pixel.index_select(0, span) + step, key, "amax")


def _repeat(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Repeats each index by its count, with the number of the repetition, a block at a time."""
    ends = counts.cumsum(0)
    starts = ends - counts
    total = int(ends[-1]) if len(ends) else 0
    size = block_size(counts.device)
    for first in range(0, total, size):
        last = min(first + size, total)
        inside = (ends.clamp(max=last) - starts.clamp(min=first)).clamp_(min=0)
        index = torch.repeat_interleave(inside, output_size=last - first)
        yield index, torch.arange(first, last, device=counts.device) - starts.index_select(0, index)


def _at(edges: _Edges, half: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Returns u and q where the centre line of a row crosses an edge."""
    u, v, q, _, du_dv, dq_dv = (plane.index_select(0, half) for plane in edges)
    down = line + 0.5 - v
    return u + down * du_dv, q + down * dq_dv


def _look_up(pixel: Tensor, nearest: Tensor, triangles: _Triangles, faces: int, width: int, height: int) -> Hits:
    """Looks up what was drawn last at some pixels."""
    key = nearest.index_select(0, pixel)
    half = key & 0xFFFFFFFF
    lower = half >= len(triangles.face)
    triangle = half - lower * len(triangles.face)
    face, frame = triangles.face.index_select(0, triangle), triangles.frame.index_select(0, triangle)
    line = pixel.div(width, rounding_mode="floor")
    weights, right = _weights(triangles, half, lower, pixel - line * width, line - frame * height)
    weights *= triangles.q.index_select(1, triangle)
    weights /= weights.sum(0)
    barycentric = torch.empty_like(weights).scatter_(0, triangles.order.index_select(1, triangle), weights)
    if triangles.clipped is not None:
        barycentric = (barycentric.t()[:, None] @ triangles.clipped[triangle])[:, 0].t()
    z = 1 / (key >> 32).int().view(torch.float32)
    return Hits(pixel, frame, face - frame * faces, barycentric, z, right == triangles.odd.index_select(0, triangle))


def _weights(triangles: _Triangles, half: Tensor, lower: Tensor, column: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Returns screen weights (3, N) of the top, middle and bottom corner at pixel centres, in 0..1 even for thin
    triangles; and whether the middle corner lies right of the long edge."""

    def crossing(edges: _Edges) -> tuple[Tensor, Tensor]:
        u, v, dv, du_dv = (plane.index_select(0, half) for plane in (edges.u, edges.v, edges.dv, edges.du_dv))
        down = line + 0.5 - v
        return u + down * du_dv, (down / dv).clamp_(0, 1)

    u_long, long = crossing(triangles.long)
    u_short, short = crossing(triangles.short)
    s = ((column + 0.5 - u_long) / (u_short - u_long)).clamp_(0, 1)
    upper_end, lower_end = s * (1 - short), s * short
    lower = lower.float()
    top = (1 - s) * (1 - long) + upper_end * (1 - lower)
    bottom = (1 - s) * long + lower_end * lower
    return torch.stack([top, upper_end * lower + lower_end * (1 - lower), bottom]), u_short > u_long
