"""Synthetic people: pictures of dressed free bodies, with the guidance maps of the render nodes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.body import Body
from ..body.free import load_free_body
from ..motion.camera import CAMERA_FROM_WORLD, FOCAL_PER_PIXEL
from ..motion.motion import Motion
from ..motion.rotation import rot_x, rot_y
from ..render.guidance import render_guidance
from ..render.preview import SAMPLES, openness
from ..render.rasterize import Hits, rasterize
from ..render.srgb import to_pixels
from .draw import Draw
from .figure import Figure, dress
from .looks import Look, draw_look
from .moves import Move, draw_move
from .paint import albedo
from .photographic import draw_folds, draw_hard_light, draw_place
from .scene import Light, cast_shadow, draw_background, draw_light

# Random streams, besides a sample's first four; stream 4 is for the rooms of silhouettes.py.
FRAMING_STREAM, PHOTOGRAPHIC_STREAM = 5, 6
SPARSE = 7  # one of this many vertices is used to find floor and framing
UP = torch.tensor([0.0, -1.0, 0.0])
RUN_PIXELS = 1 << 18  # pixels of the supersampled picture painted together


@dataclass(frozen=True)
class Actor:
    """A person in a room."""

    body: Body
    look: Look
    figure: Figure
    light: Light
    background: Tensor  # (H, W, 3) linear light


@dataclass(frozen=True)
class Sample:
    """uint8 pictures; masks are 0 or 255 and show the dressed person, the maps the bare body."""

    pictures: Tensor  # (F, H, W, 3)
    maps: dict[str, Tensor]  # "depth", "normal", "semantic_map", "dwpose": (F, H, W, 3)
    masks: Tensor  # (F, H, W)
    reference: Tensor  # (H, W, 3) the same person and room, another pose and place
    reference_mask: Tensor  # (H, W)
    motion: Motion
    reference_motion: Motion
    body: Body
    actor: Actor
    up: Tensor  # (3,) the floor's normal in the camera frame of the clip


@dataclass(frozen=True)
class Framing:
    """How much closer than the whole body a picture shows its person, and which part: 1 puts the head at the upper
    edge, -1 the feet at the lower one."""

    closer: float = 1.0
    part: float = 0.95


WHOLE = Framing()


class SyntheticPeople:
    """Endless samples; each depends only on the seed, the split, its index, and the shares of close framings and of
    samples that look more like photographs."""

    def __init__(
        self,
        size: int = 128,
        split: str = "train",
        frames: int = 1,
        seed: int = 0,
        close: float = 0.0,
        photographic: float = 0.0,
    ):
        self.size, self.split, self.frames, self.seed, self.close = size, split, frames, seed, close
        self.photographic = photographic

    def _framing(self, draw: Draw) -> Framing:
        """Draws a framing, the same for a sample's pictures and its reference; close framings show mostly the upper
        half."""
        if not draw.chance(self.close):
            return WHOLE
        return Framing(draw.between(1.2, 2.4), 0.95 if draw.chance(0.65) else draw.between(-0.95, 0.95))

    def sample(self, index: int) -> Sample:
        look_draw, scene_draw, motion_draw, reference_draw = (
            Draw(self.split, self.seed, index, stream) for stream in range(4)
        )
        framing = self._framing(Draw(self.split, self.seed, index, FRAMING_STREAM))
        actor = make_actor(draw_look(look_draw), scene_draw, self.size, self.size)
        if (draw := Draw(self.split, self.seed, index, PHOTOGRAPHIC_STREAM)).chance(self.photographic):
            actor = more_photographic(actor, draw)
        move = draw_move(motion_draw)
        motion, up = place_actor(actor, move, motion_draw, self.frames, (self.size, self.size), framing=framing)
        other = move if reference_draw.chance(0.4) else draw_move(reference_draw)
        reference_motion, reference_up = place_actor(
            actor, other, reference_draw, 1, (self.size, self.size), turned=0.1, framing=framing
        )
        guidance = render_guidance(actor.body, motion)
        pictures, masks = draw_pictures(actor, motion, up)
        reference, reference_mask = draw_pictures(actor, reference_motion, reference_up)
        return Sample(
            pictures,
            {name: getattr(guidance, name) for name in ("depth", "normal", "semantic_map", "dwpose")},
            masks,
            reference[0],
            reference_mask[0],
            motion,
            reference_motion,
            actor.body,
            actor,
            up,
        )


def make_actor(look: Look, draw: Draw, width: int, height: int) -> Actor:
    body = load_free_body().with_betas(look.betas)
    return Actor(body, look, dress(body, look), draw_light(draw), draw_background(draw, width, height))


def more_photographic(actor: Actor, draw: Draw) -> Actor:
    """Returns the same person with folds in the clothes, in other light and in another place."""
    height, width = actor.background.shape[:2]
    return replace(
        actor,
        look=replace(actor.look, folds=draw_folds(draw)),
        light=draw_hard_light(draw, actor.light),
        background=draw_place(draw, width, height),
    )


def place_actor(
    actor: Actor,
    move: Move,
    draw: Draw,
    frames: int,
    size: tuple[int, int],
    turned: float = 0.35,
    framing: Framing = WHOLE,
) -> tuple[Motion, Tensor]:
    """Draws a clip of a move on the floor, filmed mostly from the front; `turned` is the share of clips from any side.
    Also returns the up direction in the camera frame."""
    width, height = size
    fps = draw.between(8, 25)
    seconds = draw.between(0, 20) + torch.arange(frames) / fps
    azimuth = draw.between(-180, 180) if draw.chance(turned) else draw.between(-50, 50)
    elevation = draw.between(0, 12)
    fill = draw.between(0.72, 0.95) if draw.chance(0.88) else draw.between(0.95, 1.5)
    fill *= framing.closer
    shift = draw.between(-1, 1), draw.between(-1, 1)

    rotations = move(seconds)
    path = stand(actor.figure, rotations)
    turn = rot_x(elevation) @ rot_y(azimuth) @ CAMERA_FROM_WORLD
    seen = rotations.clone()
    seen[:, 0] = turn @ rotations[:, 0]
    pelvis = actor.figure.joints[0]
    cam_t = (pelvis + path) @ turn.T - pelvis
    vertices = _thinned(actor.figure, slice(None, None, SPARSE)).pose(seen, cam_t)[0].flatten(0, 1)
    low, high = vertices.amin(0), vertices.amax(0)
    extent = high - low
    focal = FOCAL_PER_PIXEL * max(width, height)
    # Metres that the picture shows; the person's height takes `fill` of it, and so does the width if it fits.
    shown = max(extent[1].item() / (fill * height), extent[0].item() / (max(fill, 1.0) * 0.96 * width))
    frame = torch.tensor([width, height]) * shown
    margin = (frame - extent[:2]) / 2
    centre = (low + high)[:2] / 2
    x = centre[0] + shift[0] * 0.8 * margin[0].clamp_min(0)
    y = centre[1] + (shift[1] * 0.7 * margin[1] if margin[1] > 0 else framing.part * margin[1])
    distance = focal * shown
    cam_t = cam_t + torch.stack([-x, -y, distance - (low[2] + high[2]) / 2])
    motion = Motion(seen, actor.look.betas, cam_t, focal, width, height, fps, torch.ones(frames), "synthetic person")
    return motion, turn[:, 1]


def _thinned(figure: Figure, rows: Tensor | slice) -> Figure:
    """Returns the figure reduced to some of its points, without faces."""
    return replace(figure, vertices=figure.vertices[rows], normals=figure.normals[rows], weights=figure.weights[rows])


def stand(figure: Figure, rotations: Tensor) -> Tensor:
    """Returns world root translations (F, 3) that keep the lowest point on the floor and what touches it mostly in
    place; the drift over the clip is removed."""
    skin = _thinned(figure, figure.canonical[:, 1] < -1.1).pose(rotations, torch.zeros(len(rotations), 3))[0]
    low = skin[..., 1].amin(1)
    above = skin[..., 1] - low[:, None]
    weight = torch.softmax(-(above[1:] + above[:-1]) / 2 / 0.01, dim=1)
    steps = (weight[..., None] * (skin[:-1] - skin[1:])).sum(1)
    path = torch.cat([torch.zeros(1, 3), steps]).cumsum(0)
    path -= torch.linspace(0, 1, len(path))[:, None] * path[-1]
    path[:, 1] = -low
    return path


def draw_pictures(actor: Actor, motion: Motion, up: Tensor = UP) -> tuple[Tensor, Tensor]:
    """Draws pictures (F, H, W, 3) and masks (F, H, W) of an actor, with SAMPLES x SAMPLES samples per pixel; `up` is
    the floor's normal in the camera frame."""
    figure, width, height = actor.figure, motion.width * SAMPLES, motion.height * SAMPLES
    fine = replace(motion, focal=motion.focal * SAMPLES, width=width, height=height)
    canonical = figure.canonical.t().contiguous()
    pictures, masks = [], []
    run = max(1, RUN_PIXELS // (width * height))
    for start in range(0, len(motion), run):
        frames, coarse = fine[start : start + run], motion[start : start + run]
        vertices, normals = figure.pose(frames.rotations, frames.cam_t)
        hits = rasterize(vertices, figure.faces, frames.focal, width, height)
        corners = figure.faces.index_select(0, hits.face).t()
        normal = _between(normals.permute(2, 0, 1).reshape(3, -1), corners + hits.frame * normals.shape[1], hits)
        normal = normal * (normal.square().sum(0).clamp_min(1e-12).rsqrt() * (hits.outward * 2 - 1))
        light = actor.light(normal) * openness(hits, frames)
        light = light * albedo(actor.look, _between(canonical, corners, hits), figure.kind.index_select(0, hits.face))
        layer, cover = _pixels(light, hits, coarse)
        behind = cast_shadow(actor.background, *_shadows(figure, vertices, coarse, up))
        picture = layer + (1 - cover)[..., None] * behind
        pictures.append(to_pixels(picture))
        masks.append((cover >= 0.5).byte() * 255)
    return torch.cat(pictures), torch.cat(masks)


def draw_room(actor: Actor, motion: Motion, up: Tensor = UP) -> Tensor:
    """Draws pictures (F, H, W, 3) of the room without the actor, but with the actor's shadow."""
    vertices = actor.figure.pose(motion.rotations, motion.cam_t)[0]
    behind = cast_shadow(actor.background, *_shadows(actor.figure, vertices, motion, up))
    return to_pixels(behind)


def draw_surface(actor: Actor, motion: Motion, block: int) -> Tensor:
    """Returns, for blocks of `block` pixels, (F, H / block, W / block, 4): the mean canonical coordinates of the person
    in the block, and the share of the block that the person covers."""
    coarse = replace(motion, focal=motion.focal / block, width=motion.width // block, height=motion.height // block)
    figure, width, height = actor.figure, coarse.width * SAMPLES, coarse.height * SAMPLES
    vertices = figure.pose(motion.rotations, motion.cam_t)[0]
    hits = rasterize(vertices, figure.faces, coarse.focal * SAMPLES, width, height)
    corners = figure.faces.index_select(0, hits.face).t()
    points, cover = _pixels(_between(figure.canonical.t().contiguous(), corners, hits), hits, coarse)
    return torch.cat([points / cover.clamp_min(1e-6)[..., None], cover[..., None]], 3)


def _between(values: Tensor, corners: Tensor, hits: Hits) -> Tensor:
    """Interpolates values (3, N) between the corners (3, N), columns of `values`."""
    a, b, c = (values.index_select(1, corner) * weight for corner, weight in zip(corners, hits.barycentric))
    return a + b + c


def _pixels(light: Tensor, hits: Hits, motion: Motion) -> tuple[Tensor, Tensor]:
    """Averages light (F, H, W, 3) and coverage (F, H, W) of pixels over SAMPLES x SAMPLES hits."""
    line = hits.pixel.div(motion.width * SAMPLES, rounding_mode="floor")
    column = hits.pixel - line * (motion.width * SAMPLES)
    pixel = line.div(SAMPLES, rounding_mode="floor") * motion.width + column.div(SAMPLES, rounding_mode="floor")
    layer = torch.zeros(4, len(motion) * motion.height * motion.width)
    for total, values in zip(layer, (*light, torch.ones_like(light[0]))):
        total.scatter_add_(0, pixel, values)
    layer = layer.view(4, len(motion), motion.height, motion.width) / SAMPLES**2
    return layer[:3].permute(1, 2, 3, 0), layer[3]


def _shadows(figure: Figure, vertices: Tensor, motion: Motion, up: Tensor) -> tuple[Tensor, Tensor]:
    """Returns, for cast_shadow, spots (F, 3, 4) under either foot and, wide and faint, under the body; and pixels per
    metre."""
    sides = [(figure.canonical[:, 1] < -1.1) & (sign * figure.canonical[:, 0] > 0) for sign in (1, -1)]
    pelvis = figure.joints[0] + motion.cam_t
    feet = [vertices[:, side.nonzero()[:, 0]] for side in sides]
    low = torch.stack([(foot @ up).amin(1) for foot in feet], dim=1)
    floor = low.amin(1, keepdim=True)
    points = torch.stack([*(foot.mean(1) for foot in feet), pelvis], dim=1)
    above = torch.cat([low - floor, torch.full_like(floor, 0.3)], dim=1)
    radius = torch.tensor([0.15, 0.15, 0.25]).expand_as(above)
    on_floor = points - (points @ up - floor)[..., None] * up
    spots = torch.cat([motion.project(on_floor), above[..., None], radius[..., None]], dim=2)
    return spots, motion.focal / pelvis[:, 2]
