"""Champ's depth, normal and semantic maps and the mask, encoded as in the renders of its training.

One ray per pixel, no anti-aliasing, background 0, byte = floor(255 x + 0.5).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..body.body import Body, Posed
from ..body.skeleton import PART_COLORS
from ..motion.motion import Motion
from .rasterize import Hits, block_size, corner_vertices, rasterize
from .srgb import to_levels, to_linear, to_srgb

# Frames skinned together, because they share the work on the shape.
POSED_FRAMES = 16
# Pixels drawn together. A CPU is fastest if pictures and meshes stay in its cache: few frames, and small ones.
GPU_PIXELS = 1 << 22
CPU_PIXELS, CPU_FRAMES = 1 << 16, 4


class Maps(NamedTuple):
    """uint8 pictures; the mask is 0 or 255."""

    depth: Tensor  # (F, H, W, 3)
    normal: Tensor  # (F, H, W, 3)
    semantic_map: Tensor  # (F, H, W, 3)
    mask: Tensor  # (F, H, W)

    @classmethod
    def blank(cls, frames: int, height: int, width: int, device: torch.device | str = "cpu") -> "Maps":
        sizes = [(frames, height, width, 3)] * 3 + [(frames, height, width)]
        return cls(*(torch.zeros(size, dtype=torch.uint8, device=device) for size in sizes))


def motion_hits(body: Body, motion: Motion) -> Iterator[tuple[Motion, Posed, Hits]]:
    """Poses and rasterises a motion on the body's device; yields runs of consecutive frames, the posed body, and the
    hits."""
    device = body.template.device
    size = motion.width * motion.height
    run = max(1, min(CPU_PIXELS // size, CPU_FRAMES) if device.type == "cpu" else GPU_PIXELS // size)
    for start in range(0, len(motion), max(run, POSED_FRAMES)):
        frames = motion[start : start + max(run, POSED_FRAMES)].to(device)
        vertices, joints = frames.posed(body)
        vertices = vertices.transpose(1, 2).contiguous().transpose(1, 2)  # all x of a frame, all y, all z
        for i in range(0, len(frames), run):
            posed = Posed(vertices[i : i + run], joints[i : i + run])
            hits = rasterize(posed.vertices, body.faces, motion.focal, motion.width, motion.height)
            yield frames[i : i + run], posed, hits


def hit_maps(hits: Hits, vertices: Tensor, faces: Tensor, labels: Tensor, width: int, height: int) -> Maps:
    """Makes maps on the mesh's device from the hits of `rasterize` for vertices (F, V, 3) with part labels (V,)."""
    maps = Maps.blank(len(vertices), height, width, vertices.device)
    maps.depth.view(-1, 3)[hits.pixel] = depth_levels(hits, len(vertices))[:, None]
    maps.normal.view(-1, 3)[hits.pixel] = normal_levels(hit_normals(hits, vertices, faces))
    maps.semantic_map.view(-1, 3)[hits.pixel] = semantic_levels(hits, faces, labels)
    maps.mask.view(-1)[hits.pixel] = 255
    return maps


def depth_levels(hits: Hits, frames: int) -> Tensor:
    """Encodes depth as bytes (N,): 1 - (Z - min) / (max - min), with the range of the visible pixels of each frame."""
    if frames == 1 and len(hits.z):  # much faster than by index
        near, far = hits.z.aminmax()
        return to_levels(1 - (hits.z - near) / (far - near).clamp_min(torch.finfo(torch.float32).tiny))
    near = hits.z.new_zeros(frames).scatter_reduce_(0, hits.frame, hits.z, "amin", include_self=False)
    far = hits.z.new_zeros(frames).scatter_reduce_(0, hits.frame, hits.z, "amax", include_self=False)
    extent = (far - near).clamp_min(torch.finfo(torch.float32).tiny)  # a surface of constant depth counts as nearest
    return to_levels(1 - (hits.z - near.index_select(0, hits.frame)) / extent.index_select(0, hits.frame))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Returns unit normals (F, V, 3): sums of the faces' unit normals, weighted by the face's angle at the vertex."""
    frames, count = vertices.shape[:2]
    index = corner_vertices(faces, frames, count).flatten()
    points = vertices.float().permute(2, 0, 1).reshape(3, -1)
    corner = points.index_select(1, index).view(3, 3, -1)  # coordinate, corner, face
    edge = _unit(corner.roll(-1, 1) - corner)
    angle = -(edge * edge.roll(1, 1)).sum(0).clamp_(-1, 1)
    normal = _unit(torch.linalg.cross(edge[:, 0], edge[:, 1], dim=0))
    weighted = normal[:, None] * angle.acos_()
    total = torch.zeros_like(points).index_add_(1, index, weighted.flatten(1))
    return _unit(total).view(3, frames, count).permute(1, 2, 0)


def hit_normals(hits: Hits, vertices: Tensor, faces: Tensor) -> Tensor:
    """Interpolates normals (N, 3) between vertices, at unit length; negated where a face shows its inner side."""
    normals = vertex_normals(vertices, _around(hits, faces, vertices.shape[1])).permute(2, 0, 1).reshape(3, -1)

    def at(hits: Hits) -> Tensor:
        first = hits.frame * vertices.shape[1]
        return _unit(interpolate_corners(normals, first, faces, hits)) * (hits.outward * 2 - 1)

    return torch.cat([at(part) for part in hits.blocks()], 1).t()


def _around(hits: Hits, faces: Tensor, count: int) -> Tensor:
    """Returns the faces (T', 3) around the vertices of visible faces: only they affect the visible normals."""
    shown = faces.new_zeros(len(faces), dtype=torch.bool).index_fill_(0, hits.face, True)
    near = faces.new_zeros(count, dtype=torch.bool).index_fill_(0, faces[shown].flatten(), True)
    a, b, c = (near.index_select(0, corner) for corner in faces.t())
    return faces.index_select(0, (a | b | c).nonzero()[:, 0])


def normal_levels(normals: Tensor) -> Tensor:
    """Encodes normals as bytes (0.5 + 0.5 x, 0.5 - 0.5 y, 0.5 - 0.5 z): red right, green up, blue to the camera."""
    return to_levels(0.5 + normals * normals.new_tensor((0.5, -0.5, -0.5)))


def semantic_levels(hits: Hits, faces: Tensor, labels: Tensor) -> Tensor:
    """Encodes part colours as bytes (N, 3), blended in linear light across faces whose corners differ."""
    palette = torch.from_numpy(PART_COLORS).to(faces.device)
    linear = to_linear(palette.float() / 255)
    colors = linear[labels.long()].t().contiguous()
    corners = labels.index_select(0, faces.flatten().long()).view(-1, 3)
    mixed = (corners != corners[:, :1]).any(1)
    # A blend of one colour is that colour, which most faces have.
    levels = palette.index_select(0, corners[:, 0].long()).index_select(0, hits.face)
    blended = mixed.index_select(0, hits.face).nonzero()[:, 0]

    def at(part: Tensor) -> Tensor:
        these = hits._replace(face=hits.face.index_select(0, part), barycentric=hits.barycentric.index_select(1, part))
        return to_levels(to_srgb(interpolate_corners(colors, 0, faces, these)))

    parts = [at(part) for part in blended.split(block_size(faces.device))]
    return levels.index_copy_(0, blended, torch.cat(parts, 1).t().contiguous())


def interpolate_corners(values: Tensor, first: Tensor | int, faces: Tensor, hits: Hits) -> Tensor:
    """Interpolates values (3, N) between the corners; `values` (3, V) holds a frame's from column `first` on."""
    corners = faces.index_select(0, hits.face).t() + first
    a, b, c = (values.index_select(1, corner) * weight for corner, weight in zip(corners, hits.barycentric))
    return a + b + c


def _unit(vectors: Tensor) -> Tensor:
    """Normalises vectors (3, ...), but not zeros. (torch's `normalize` takes 30 times as long along axis 0.)"""
    return vectors * vectors.square().sum(0).clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
