"""Champ's depth, normal and semantic maps and the mask, encoded as in the renders of its training.

One ray per pixel, no anti-aliasing, background 0, byte = floor(255 x + 0.5).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..body.body import Body, Posed
from ..body.skeleton import PART_COLORS
from ..motion.motion import Motion
from .rasterize import Hits, block_size, corner_vertices, rasterize, true_indices
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


class PartColors(NamedTuple):
    """The colours of a mesh's parts."""

    faces: Tensor  # (3, T) uint8, those of the first corners
    mixed: Tensor  # (T,) bool: the corners have several colours
    vertices: Tensor  # (3, V) in linear light


def part_colors(faces: Tensor, labels: Tensor) -> PartColors:
    """Returns the colours of a mesh whose vertices are of parts (V,)."""
    palette = torch.from_numpy(PART_COLORS).to(faces.device)
    corners = labels.long()[faces]
    mixed = (corners != corners[:, :1]).any(1)
    linear = to_linear(palette.float() / 255)
    return PartColors(palette[corners[:, 0]].t().contiguous(), mixed, linear[labels.long()].t().contiguous())


def draw_maps(maps: Maps, hits: Hits, vertices: Tensor, faces: Tensor, colors: PartColors) -> None:
    """Draws into black maps on the mesh's device the hits of `rasterize` for vertices (F, V, 3)."""
    depth = depth_levels(hits, len(vertices))
    _put(maps.depth, hits.pixel, (depth, depth, depth))
    _put(maps.normal, hits.pixel, normal_levels(hit_normals(hits, vertices, faces)).unbind(1))
    _put(maps.semantic_map, hits.pixel, semantic_levels(hits, faces, colors))
    maps.mask.view(-1).index_fill_(0, hits.pixel, 255)


def _put(pictures: Tensor, pixel: Tensor, channels: Iterable[Tensor]) -> None:
    """Writes the channels (N,) of pixels into pictures (F, H, W, 3), one by one: a third of the time of all at once."""
    for plane, levels in zip(pictures.view(-1, 3).unbind(1), channels):
        plane.scatter_(0, pixel, levels)


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
    edge = _unit(corner.roll(-1, 1).sub_(corner))
    angle = _sum(edge.roll(1, 1).mul_(edge)).clamp_(-1, 1).neg_()
    normal = _unit(torch.linalg.cross(edge[:, 0], edge[:, 1], dim=0))
    weighted = normal[:, None] * angle.acos_()
    total = torch.zeros_like(points).index_add_(1, index, weighted.flatten(1))
    return _unit(total).view(3, frames, count).permute(1, 2, 0)


def hit_normals(hits: Hits, vertices: Tensor, faces: Tensor) -> Tensor:
    """Interpolates normals (N, 3) between vertices, at unit length; negated where a face shows its inner side."""
    frames, count = vertices.shape[:2]
    normals = vertex_normals(vertices, _around(hits, faces, count)).permute(2, 0, 1).reshape(3, -1)

    def at(hits: Hits) -> Tensor:
        first = 0 if frames == 1 else hits.frame * count
        side = hits.outward.float().mul_(2).sub_(1)
        return _unit(interpolate_corners(normals, first, faces, hits)).mul_(side)

    return _joined([at(part) for part in hits.blocks()]).t()


def _around(hits: Hits, faces: Tensor, count: int) -> Tensor:
    """Returns the faces (T', 3) around the vertices of visible faces: only they affect the visible normals."""
    if faces.device.type != "cpu":  # to know them is two waits for the device, to do without them is some work for it
        return faces
    corners = faces.t().contiguous()
    shown = faces.new_zeros(len(faces), dtype=torch.bool).index_fill_(0, hits.face, True)
    near = faces.new_zeros(count, dtype=torch.bool)
    near.index_fill_(0, corners.index_select(1, true_indices(shown)).flatten(), True)
    a, b, c = (near.index_select(0, corner) for corner in corners)
    return corners.index_select(1, true_indices(a | b | c)).t()


def normal_levels(normals: Tensor) -> Tensor:
    """Encodes normals as bytes (0.5 + 0.5 x, 0.5 - 0.5 y, 0.5 - 0.5 z): red right, green up, blue to the camera."""
    return to_levels((normals * normals.new_tensor((0.5, -0.5, -0.5))).add_(0.5))


def semantic_levels(hits: Hits, faces: Tensor, colors: PartColors) -> Tensor:
    """Encodes part colours as bytes (3, N), blended in linear light across faces whose corners differ."""
    # A blend of one colour is that colour, which most faces have.
    levels = colors.faces.index_select(1, hits.face)
    blended = true_indices(colors.mixed.index_select(0, hits.face))

    def at(part: Tensor) -> Tensor:
        these = hits._replace(face=hits.face.index_select(0, part), barycentric=hits.barycentric.index_select(1, part))
        return to_levels(to_srgb(interpolate_corners(colors.vertices, 0, faces, these)))

    parts = [at(part) for part in blended.split(block_size(faces.device))]
    return levels.index_copy_(1, blended, _joined(parts))


def interpolate_corners(values: Tensor, first: Tensor | int, faces: Tensor, hits: Hits) -> Tensor:
    """Interpolates values (3, N) between the corners; `values` (3, V) holds a frame's from column `first` on."""
    corners = faces.t().contiguous().index_select(1, hits.face)
    if isinstance(first, Tensor):
        corners += first
    a, b, c = (values.index_select(1, corner).mul_(weight) for corner, weight in zip(corners, hits.barycentric))
    return a.add_(b).add_(c)


def _joined(parts: list[Tensor]) -> Tensor:
    """Returns parts (3, n) as one, without a copy if there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _sum(vectors: Tensor) -> Tensor:
    """Returns a + b + c for vectors (3, ...), which may change. (torch's `sum` takes twice as long.)"""
    a, b, c = vectors
    return a.add_(b).add_(c)


def _unit(vectors: Tensor) -> Tensor:
    """Normalises vectors (3, ...) in their memory, but not zeros. (torch's `normalize` takes 30 times as long along
    axis 0.)"""
    return vectors.mul_(_sum(vectors.square()).clamp_min_(torch.finfo(torch.float32).tiny).rsqrt_())
