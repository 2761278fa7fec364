"""Transfers the shape and the place of the person in the reference to the motion of another person."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.body import Body
from ..progress import advance
from .motion import Motion

PLACEMENTS = ("follow", "pin", "keep")
MATCHES = ("floor", "pelvis")
BEGINNING = 1.0  # seconds in which the person stands on the floor once
LOOKED_AT = 24  # frames of that, at most
MARGIN = 0.02  # of the picture's shorter side, between its edge and a motion that is kept inside
AT_ONCE = 64  # frames whose vertices are made together
ROUNDS = 4  # of moving a motion into the picture: perspective makes the first way inexact


@dataclass(frozen=True)
class ByHand:
    """How a motion is moved in its picture: to the right and down, as parts of the picture's width and height, and its
    size."""

    right: float = 0.0
    down: float = 0.0
    size: float = 1.0


def transfer(
    driving: Motion,
    reference: Motion,
    body: Body,
    placement: str = "follow",
    figure_scale: float = 0.0,
    match: str = "floor",
    by_hand: ByHand = ByHand(),
) -> Motion:
    """Returns the driving poses with the reference's betas (Champ's equation 3), in front of the reference's camera.

    `reference` is the body in the picture; its first frame is used. Placement: "follow" begins at the reference's place
    and follows the driving path, in steps of the reference's size. "pin" stays at the reference's place, as the
    official tool does. "keep" keeps the driving camera and path. `figure_scale` is added to the second beta: larger is
    slimmer. `match` says what of the reference is met: the "floor" under it, also where it kneels or
    sits, or the height of its "pelvis". At last the motion is moved `by_hand`.
    """
    if match not in MATCHES:
        raise ValueError(f"There is nothing to match called {match!r}; choose from {', '.join(MATCHES)}.")
    if placement not in PLACEMENTS:
        raise ValueError(f"There is no placement called {placement!r}; choose from {', '.join(PLACEMENTS)}.")
    betas = reference.betas.clone()
    betas[1] += figure_scale
    target = body.with_betas(betas)
    pelvis, driving_pelvis = (b.rest().joints[0, 0] for b in (target, body.with_betas(driving.betas)))
    # The root joint lies at rest pelvis + cam_t, whatever the pose.
    path = driving_pelvis + driving.cam_t
    if placement == "keep":
        return reposition(replace(driving, betas=betas, cam_t=path - pelvis), body, by_hand)
    place = body.with_betas(reference.betas).rest().joints[0, 0] + reference.cam_t[0]
    way = torch.zeros_like(path)
    if placement == "follow":
        # Depth is only known up to the lens: a lens twice as long moves everything twice as far away.
        lens = relative_focal(reference) / relative_focal(driving)
        way = (path - path[0]) * path.new_tensor([1.0, 1.0, lens]) * stature(target) / stature(body, driving.betas)
    moved = replace(
        driving,
        betas=betas,
        cam_t=place + way - pelvis,
        focal=reference.focal,
        width=reference.width,
        height=reference.height,
        source=f"{driving.source}, as the person of {reference.source}",
    )
    if match == "floor":
        step = max(1, math.ceil(BEGINNING * moved.fps / LOOKED_AT))
        drop = lowest(reference[:1], body) - lowest(moved[: round(BEGINNING * moved.fps) + 1 : step], body)
        moved = replace(moved, cam_t=moved.cam_t + drop * moved.cam_t.new_tensor([0.0, 1.0, 0.0]))
    return reposition(moved, body, by_hand)


def reposition(motion: Motion, body: Body, by_hand: ByHand) -> Motion:
    """Moves the point of the floor below the pelvis of the first frame in the picture, and all frames with it. The size
    is a matter of the distance to the camera."""
    if by_hand == ByHand():
        return motion
    x, _, z = (body.with_betas(motion.betas).rest().joints[0, 0] + motion.cam_t[0]).tolist()
    y = float(lowest(motion[:1], body))
    away = z / by_hand.size
    right, down = (
        part * pixels * away / motion.focal
        for part, pixels in ((by_hand.right, motion.width), (by_hand.down, motion.height))
    )
    way = [x / by_hand.size - x + right, y / by_hand.size - y + down, away - z]
    return replace(motion, cam_t=motion.cam_t + motion.cam_t.new_tensor(way))


def lowest(motion: Motion, body: Body) -> Tensor:
    """Returns where the floor is (y), if the person stands on it once."""
    lows = []
    for start in range(0, len(motion), AT_ONCE):
        lows.append(motion[start : start + AT_ONCE].posed(body).vertices[..., 1].amax())
        advance(min(start + AT_ONCE, len(motion)), len(motion))
    return torch.stack(lows).amax()


@dataclass(frozen=True)
class Inside:
    """How a motion was moved to be inside the picture: its size, and pixels to the right and down."""

    scale: float
    right: float
    down: float

    def __str__(self) -> str:
        ways = (self.right, "right", "left"), (self.down, "down", "up")
        moved = [f"{abs(way):.0f} px {names[way < 0]}" for way, *names in ways if abs(way) >= 0.5]
        size = [f"{100 * self.scale:.0f} % of its size"] if self.scale < 0.995 else []
        return ", ".join([*size, *moved]) or "as it was"


def keep_inside(motion: Motion, body: Body) -> tuple[Motion, Inside]:
    """The whole motion in the picture: moved as little as that needs, and where it is too large, away from the camera,
    the feet staying where they are if they can."""
    size = motion.cam_t.new_tensor([motion.width, motion.height])
    spare = MARGIN * size.min()
    scale, moved = 1.0, torch.zeros(2)
    for _ in range(ROUNDS):
        low, high = extent(motion, body)
        away = motion.cam_t[:, 2].mean()
        smaller = float(((size - 2 * spare) / (high - low)).min().clamp(max=1.0))
        if smaller < 1:
            scale *= smaller
            farther = away * (1 / smaller - 1)
            motion = replace(motion, cam_t=motion.cam_t + farther * motion.cam_t.new_tensor([0.0, 0.0, 1.0]))
            feet = torch.stack([(low[0] + high[0]) / 2, high[1]])
            low, high = extent(motion, body)
            away = motion.cam_t[:, 2].mean()
            back = feet - torch.stack([(low[0] + high[0]) / 2, high[1]])
        else:
            back = torch.zeros_like(low)
        low, high = low + back, high + back
        back = back + (spare - low).clamp(min=0) - (high - (size - spare)).clamp(min=0)
        if smaller == 1 and back.abs().max() < 0.5:
            break
        moved = moved + back
        way = torch.cat([back * away / motion.focal, back.new_zeros(1)])
        motion = replace(motion, cam_t=motion.cam_t + way)
    return motion, Inside(scale, *moved.tolist())


def extent(motion: Motion, body: Body) -> tuple[Tensor, Tensor]:
    """The least and the largest pixel (2,) that any vertex reaches in any frame."""
    lows, highs = [], []
    for start in range(0, len(motion), AT_ONCE):
        advance(start, len(motion))
        part = motion[start : start + AT_ONCE]
        pixels = part.project(part.posed(body).vertices).flatten(0, 1)
        lows.append(pixels.amin(0))
        highs.append(pixels.amax(0))
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


def relative_focal(motion: Motion) -> float:
    return motion.focal / max(motion.width, motion.height)


def stature(body: Body, betas: Tensor | None = None) -> Tensor:
    """Returns the height of the body at rest in metres."""
    shaped = body if betas is None else body.with_betas(betas)
    y = shaped.rest().vertices[0, :, 1]
    return y.max() - y.min()
