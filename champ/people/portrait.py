"""The pack's own reference images: invented people in a room, always the same for a number."""

from typing import NamedTuple

from torch import Tensor

from ..body.body import Body
from ..body.free import free_body_betas
from ..motion.camera import View, frame_person
from ..motion.motion import Motion
from ..motion.presets import make_motion
from ..motion.rotation import rot_x
from .draw import Draw
from .looks import Look, Pattern, draw_look, paint
from .samples import UP, draw_pictures, make_actor

ROOM = 9  # the number of the room that suits the clothes
SITTERS = 1_000_003  # keeps the other portraits' random streams apart from those of samples


class Portrait(NamedTuple):
    picture: Tensor  # (H, W, 3) uint8
    mask: Tensor  # (H, W) uint8, 0 or 255
    motion: Motion  # one frame: pose, shape and camera of the picture
    body: Body


def portrait(width: int = 512, height: int = 512, number: int = 0) -> Portrait:
    """Draws a portrait. Number 0 is a woman in a striped top and blue trousers; the others are random, and unlike
    anybody on whom the tiny model was trained. They stand almost facing the camera."""
    look = draw_look(Draw("held_out", SITTERS, number)) if number else _look()
    room = Draw("held_out", SITTERS, number, 1) if number else Draw("held_out", ROOM)
    actor = make_actor(look, room, width, height)
    motion = make_motion("wave", actor.body, frames=1, width=width, height=height)
    elevation = 6.0
    motion = frame_person(motion, actor.body, width, height, View(azimuth=14.0, elevation=elevation, fill=0.86))
    pictures, masks = draw_pictures(actor, motion, rot_x(elevation) @ UP)
    return Portrait(pictures[0], masks[0], motion, actor.body)


def _look() -> Look:
    navy, red, cream, denim = paint((28, 40, 92)), paint((206, 44, 44)), paint((240, 234, 220)), paint((52, 92, 150))
    skin = paint((236, 190, 152))
    return Look(
        betas=free_body_betas(gender=1.0, age=25, muscle=0.4, weight=0.3, height=1.68, proportions=0.2),
        skin=skin,
        lips=paint((196, 104, 100)),
        eyes=paint((70, 110, 140)),
        hair="long",
        hair_color=paint((112, 62, 34)),
        hair_size=0.5,
        hair_length=0.35,
        beard=0.0,
        top=Pattern("rings", cream, red, 0.075, 0.5, 0.0),
        sleeve=0.62,
        hem=-0.2,
        neckline=0.2,
        vee=0.0,
        trim=red,
        top_volume=0.012,
        bottom="trousers",
        bottoms=Pattern("plain", denim, navy, 0.1, 0.5, 0.0),
        leg=-1.09,
        bottom_volume=0.009,
        flare=0.012,
        side_stripe=False,
        belt=None,
        shoes=paint((245, 196, 40)),
        sole=cream,
        boot=-1.2,
        boot_color=cream,
    )
