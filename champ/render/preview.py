"""Previews of a motion: a clay figure over a plain colour or over video frames."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, pad

from ..body.body import Body
from ..motion.motion import Motion
from ..progress import advance
from .maps import hit_normals, motion_hits
from .rasterize import NEAR, Hits
from .srgb import to_linear, to_pixels

SAMPLES = 2  # per pixel along each side; without them silhouettes are jagged
BACKDROP = (46, 49, 54)

# Linear light in the camera frame (x right, y down, z forward).
CLAY = (0.58, 0.57, 0.565)
KEY = (-0.75, -0.70, -0.55), (1.10, 1.03, 0.94)  # direction towards the light, colour
FILL = (0.95, 0.05, -0.30), (0.10, 0.15, 0.24)
SKY = (0.22, 0.26, 0.32)
GROUND = (0.07, 0.05, 0.04)
RIM = (0.35, 0.40, 0.48)
CREASE = 0.07  # metres around a point whose mean depth decides how far it lies in a crease


def preview(
    body: Body,
    motion: Motion,
    background: Tensor | tuple[int, int, int] = BACKDROP,
    backend: str = "torch",
) -> Tensor:
    """Draws shaded pictures (F, H, W, 3) uint8 RGB over a plain colour, or over one or as many pictures (1 or F, H, W,
    3)."""
    if backend not in BACKENDS:
        raise ValueError(f"There is no preview backend called {backend!r}; choose from {', '.join(BACKENDS)}.")
    size = (len(motion), motion.height, motion.width, 3)
    backdrop = torch.as_tensor(background, dtype=torch.uint8)
    if backdrop.ndim > 1 and tuple(backdrop.shape) not in (size, (1, *size[1:])):
        raise ValueError(
            f"The background has shape {tuple(backdrop.shape)}, expected {(1, *size[1:])} or {size}; resize it to the "
            "motion's picture, and give one frame or as many as the motion has."
        )
    out = backdrop.expand(size).clone()
    done = 0
    for rows, columns, light, cover in BACKENDS[backend](body, motion):
        figure = out[done : done + len(light), rows, columns]
        behind = to_linear(figure.to(light.device).float() / 255)
        figure.copy_(to_pixels(light + (1 - cover) * behind))
        done += len(light)
        advance(done, len(motion))
    return out


DrawnFigure = tuple[slice, slice, Tensor, Tensor]


def _clay(body: Body, motion: Motion) -> Iterator[DrawnFigure]:
    """Yields the figure of consecutive runs of frames: its rows and columns, and there premultiplied linear light (f,
    h, w, 3) and coverage (f, h, w, 1)."""
    fine = replace(motion, focal=motion.focal * SAMPLES, width=motion.width * SAMPLES, height=motion.height * SAMPLES)
    for frames, posed, hits in motion_hits(body, fine):
        normals = hit_normals(hits, posed.vertices, body.faces)
        rows, columns, frames, hits = _cropped(frames, hits)
        picture = normals.new_zeros(len(frames), frames.height, frames.width, 4)
        picture.view(-1, 4)[hits.pixel, :3] = shade(normals) * openness(hits, frames)[:, None]
        picture.view(-1, 4)[hits.pixel, 3] = 1
        small = avg_pool2d(picture.permute(0, 3, 1, 2), SAMPLES).permute(0, 2, 3, 1)
        yield rows, columns, small[..., :3], small[..., 3:]


def _cropped(frames: Motion, hits: Hits) -> tuple[slice, slice, Motion, Hits]:
    """Crops to the rows and columns of the small picture that contain all hits; also returns frames and hits."""
    line = hits.pixel.div(frames.width, rounding_mode="floor")
    row, column = line - hits.frame * frames.height, hits.pixel - line * frames.width

    def bounds(index: Tensor, size: int) -> slice:
        low, high = torch.stack(index.aminmax()).tolist() if len(index) else (0, size - 1)
        return slice(low // SAMPLES, high // SAMPLES + 1)

    rows, columns = bounds(row, frames.height), bounds(column, frames.width)
    height, width = SAMPLES * (rows.stop - rows.start), SAMPLES * (columns.stop - columns.start)
    pixel = (hits.frame * height + row - SAMPLES * rows.start) * width + column - SAMPLES * columns.start
    return rows, columns, replace(frames, width=width, height=height), hits._replace(pixel=pixel)


def shade(normals: Tensor) -> Tensor:
    """Returns the linear light (N, 3) that a surface with unit normals (N, 3) sends to the camera."""
    color = normals.new_tensor
    up = 0.5 - 0.5 * normals[:, 1:2]
    light = color(GROUND) + up * (color(SKY) - color(GROUND))
    for direction, lamp in (KEY, FILL):
        towards = normalize(color(direction), dim=0)
        light = light + ((normals @ towards + 0.15) / 1.15).clamp_min(0)[:, None] * color(lamp)
    edge = (1 + normals[:, 2:]).clamp(0, 1) ** 4
    return light * color(CLAY) + edge * up * color(RIM)


def openness(hits: Hits, motion: Motion) -> Tensor:
    """Returns the share of light (N,) that reaches a point: less if it lies far behind its surroundings."""
    if len(hits.z) == 0:
        return hits.z
    # The mean around a pixel is smooth: a quarter of the resolution is enough.
    height, width = -(-motion.height // 4), -(-motion.width // 4)
    line = hits.pixel.div(motion.width, rounding_mode="floor")
    row, column = line - hits.frame * motion.height, hits.pixel - line * motion.width
    cell = (hits.frame * height + (row >> 2)) * width + (column >> 2)
    picture = hits.z.new_zeros(2, len(motion) * height * width)
    picture[0].scatter_add_(0, cell, hits.z)
    picture[1].scatter_add_(0, cell, torch.ones_like(hits.z))
    picture = picture.view(2, len(motion), height, width)
    reach = min(int(CREASE * motion.focal / hits.z.mean() / 4), min(height, width) // 4)
    for size, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        picture = avg_pool2d(picture, size, stride=1, padding=padding)
    # Bilinear between the centres of four cells; border cells are repeated.
    picture = pad(picture, (1, 1, 1, 1), "replicate").flatten(1)
    corner = (hits.frame * (height + 2) + (row + 2 >> 2)) * (width + 2) + (column + 2 >> 2)
    down, across = ((row + 2 & 3) * 0.25 + 0.125), ((column + 2 & 3) * 0.25 + 0.125)
    at = [picture.index_select(1, corner + step) for step in (0, 1, width + 2, width + 3)]
    upper, lower = torch.lerp(at[0], at[1], across), torch.lerp(at[2], at[3], across)
    z, seen = torch.lerp(upper, lower, down)
    return 1 - 0.55 * ((hits.z - z / seen) / CREASE).clamp(0, 1)


def _pyrender(body: Body, motion: Motion) -> Iterator[DrawnFigure]:
    """Draws the same with OpenGL, one frame at a time; the torch backend looks better and needs nothing."""
    pyrender, trimesh = import_pyrender()
    body, motion = body.to("cpu"), motion.to("cpu")
    try:
        renderer = pyrender.OffscreenRenderer(motion.width, motion.height)
    except Exception as error:  # each GL library has its own exceptions
        raise ValueError(
            f"pyrender finds no OpenGL here ({error}); install EGL or OSMesa, or set renderer to torch."
        ) from error
    try:
        for i in range(len(motion)):
            vertices = motion[i : i + 1].posed(body).vertices[0].numpy() * (1, -1, -1)  # y up, z backward
            far = max(1.0, -1.1 * vertices[:, 2].min())
            camera = pyrender.IntrinsicsCamera(
                motion.focal, motion.focal, motion.width / 2, motion.height / 2, znear=NEAR, zfar=far
            )
            scene = pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=SKY)
            scene.add(camera)
            scene.add(pyrender.DirectionalLight(color=KEY[1], intensity=2.5), pose=_towards(KEY[0]))
            mesh = trimesh.Trimesh(vertices, body.faces.numpy(), process=False)
            material = pyrender.MetallicRoughnessMaterial(baseColorFactor=CLAY, metallicFactor=0, roughnessFactor=0.8)
            scene.add(pyrender.Mesh.from_trimesh(mesh, material=material))
            picture, _ = renderer.render(scene, flags=pyrender.RenderFlags.RGBA)
            picture = torch.from_numpy(picture.copy())[None].float() / 255
            cover = picture[..., 3:]
            yield slice(None), slice(None), to_linear(picture[..., :3] / cover.clamp_min(1 / 255)) * cover, cover
    finally:
        renderer.delete()


def import_pyrender():
    """Imports pyrender and trimesh; on Linux without a display, OpenGL comes from EGL unless the user chose."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # read when pyrender is imported
    # Mesa loads LLVM, and triton crashes the process if torch imports it after that.
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
    try:
        import pyrender
        import trimesh
    except ImportError as error:
        raise ValueError(
            f'The pyrender backend is not installed ({error}); run "pip install pyrender", or choose the torch backend.'
        ) from error
    return pyrender, trimesh


def _towards(direction: tuple[float, float, float]) -> np.ndarray:
    """Returns the OpenGL pose (4, 4) of a lamp that shines from a direction of the camera frame, its z axis."""
    z = np.array(direction) * (1, -1, -1) / np.linalg.norm(direction)
    x = np.cross((0, 1, 0), z)
    x = x / np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    return pose


BACKENDS = {"torch": _clay, "pyrender": _pyrender}
