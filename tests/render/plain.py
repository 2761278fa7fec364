"""The rasteriser and the maps written plainly: the same arithmetic as the pack's, in the same order, but of all faces,
with comparisons, sorting and indexing as torch offers them. What the pack draws must be the same to the last bit."""

import torch
from torch import Tensor

from champ.body.skeleton import PART_COLORS
from champ.render.clip import clip_near
from champ.render.maps import Maps
from champ.render.rasterize import NEAR, Hits
from champ.render.srgb import to_levels, to_linear, to_srgb

TINY = torch.finfo(torch.float32).tiny


def plain_hits(vertices: Tensor, faces: Tensor, focal: float, width: int, height: int) -> Hits:
    frames, count = vertices.shape[:2]
    points = vertices.permute(2, 0, 1).reshape(3, -1)
    corners = (faces.t()[:, None] + torch.arange(frames)[:, None] * count).reshape(3, -1)
    source, clipped = torch.arange(corners.shape[1]), None
    if not (points[2] >= NEAR).all():
        points, corners, source, clipped = clip_near(points, corners, NEAR)
    q = 1 / points[2].clamp_min(NEAR)
    uvq = torch.stack([focal * points[0] * q + width / 2, focal * points[1] * q + height / 2, q])
    order = uvq[1][corners].argsort(dim=0, stable=True)
    corners = corners.gather(0, order)
    u, v, q = uvq[:, corners]  # each (3, N), from top to bottom
    row = (v - 0.5).ceil().clamp(0, height).long()
    # Upper halves, then lower ones: the long edge from top to bottom, the short one to or from the middle.
    long = [torch.cat([values, values]) for values in (u[0], v[0], q[0], u[2] - u[0], v[2] - v[0], q[2] - q[0])]
    short = [values[:2].flatten() for values in (u, v, q)] + [values.diff(dim=0).flatten() for values in (u, v, q)]

    half, line = _each(row[:2].flatten(), row[1:].flatten())
    frame = source.repeat(2)[half] // len(faces)
    (u_long, q_long), (u_short, q_short) = (_cross(edges, half, line) for edges in (long, short))
    start, end = torch.stack([u_long, u_short]).aminmax(dim=0)
    dq_du = (q_long - q_short) / (u_long - u_short)
    first, last = ((side - 0.5).ceil().clamp(0, width) for side in (start, end))
    q_first = q_long + (first + 0.5 - u_long) * dq_du
    span, column = _each(first.long(), last.long())
    q_here = q_first[span] + (column - first[span]) * dq_du[span]
    pixel = (frame[span] * height + line[span]) * width + column
    key = (q_here.view(torch.int32).long() << 32) | half[span]
    nearest = torch.zeros(frames * height * width, dtype=torch.int64).scatter_reduce_(0, pixel, key, "amax")

    pixel = nearest.nonzero()[:, 0]
    key = nearest[pixel]
    half = key & 0xFFFFFFFF
    triangle, lower = half % len(source), (half >= len(source)).float()
    face, frame = source[triangle] % len(faces), source[triangle] // len(faces)
    (u_long, share_long), (u_short, share_short) = (
        _weigh(edges, half, (pixel // width) % height) for edges in (long, short)
    )
    s = ((pixel % width + 0.5 - u_long) / (u_short - u_long)).clamp(0, 1)
    upper_end, lower_end = s * (1 - share_short), s * share_short
    top = (1 - s) * (1 - share_long) + upper_end * (1 - lower)
    bottom = (1 - s) * share_long + lower_end * lower
    weights = torch.stack([top, upper_end * lower + lower_end * (1 - lower), bottom]) * q[:, triangle]
    weights = weights / ((weights[0] + weights[1]) + weights[2])
    barycentric = torch.empty_like(weights).scatter_(0, order[:, triangle], weights)
    if clipped is not None:
        barycentric = (barycentric.t()[:, None] @ clipped[triangle])[:, 0].t()
    a, b, c = order[:, triangle]
    odd = ((a > b).int() + (b > c).int() + (a > c).int()) % 2 == 1
    z = 1 / (key >> 32).int().view(torch.float32)
    return Hits(pixel, frame, face, barycentric, z, (u_short > u_long) == odd)


def _each(first: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Every whole number of the ranges (N,), and which range it is of."""
    counts = (end - first).clamp(min=0)
    index = torch.repeat_interleave(counts)
    return index, torch.arange(len(index)) - (counts.cumsum(0) - counts - first)[index]


def _cross(edges: list[Tensor], half: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    u, v, q, du, dv, dq = (values[half] for values in edges)
    down = line + 0.5 - v
    return u + down * (du / dv), q + down * (dq / dv)


def _weigh(edges: list[Tensor], half: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    u, v, _, du, dv, _ = (values[half] for values in edges)
    down = line + 0.5 - v
    return u + down * (du / dv), (down / dv).clamp(0, 1)


def plain_maps(hits: Hits, vertices: Tensor, faces: Tensor, labels: Tensor, width: int, height: int) -> Maps:
    maps = Maps.blank(len(vertices), height, width)
    for frame in range(len(vertices)):
        z = hits.z[hits.frame == frame]
        if len(z):
            depth = to_levels(1 - (z - z.min()) / (z.max() - z.min()).clamp_min(TINY))
            maps.depth.view(-1, 3)[hits.pixel[hits.frame == frame]] = depth[:, None]
    side = torch.where(hits.outward, 1.0, -1.0)
    normal = _unit(_mix(_normals(vertices, faces), hits.frame * vertices.shape[1], faces, hits)) * side
    signs = torch.tensor([[0.5], [-0.5], [-0.5]])
    maps.normal.view(-1, 3)[hits.pixel] = to_levels(0.5 + normal * signs).t()
    palette = torch.from_numpy(PART_COLORS)
    linear = to_linear(palette.float() / 255)[labels].t().contiguous()
    blend = to_levels(to_srgb(_mix(linear, 0, faces, hits))).t()
    corners = labels[faces[hits.face]]
    alone = (corners == corners[:, :1]).all(1, keepdim=True)
    maps.semantic_map.view(-1, 3)[hits.pixel] = torch.where(alone, palette[corners[:, 0]], blend)
    maps.mask.view(-1)[hits.pixel] = 255
    return maps


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    points = vertices.permute(2, 0, 1).reshape(3, -1)
    corners = (faces.t()[:, None] + torch.arange(len(vertices))[:, None] * vertices.shape[1]).reshape(3, -1)
    edge = _unit(points[:, corners].roll(-1, 1) - points[:, corners])
    products = edge * edge.roll(1, 1)
    angle = (-((products[0] + products[1]) + products[2]).clamp(-1, 1)).acos()
    normal = _unit(torch.linalg.cross(edge[:, 0], edge[:, 1], dim=0))
    return _unit(torch.zeros_like(points).index_add_(1, corners.flatten(), (normal[:, None] * angle).flatten(1)))


def _mix(values: Tensor, first: Tensor | int, faces: Tensor, hits: Hits) -> Tensor:
    a, b, c = (values[:, faces[hits.face, k] + first] * hits.barycentric[k] for k in range(3))
    return a + b + c


def _unit(vectors: Tensor) -> Tensor:
    x, y, z = vectors.square()
    return vectors * (x + y + z).clamp_min(TINY).rsqrt()
