"""A few frames of a motion side by side: the picture, the body over it, and the body from its left side."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..motion.camera import View, frame_person
from ..motion.motion import Motion
from .preview import preview

TALL, WIDE = 240, 190  # pixels of each tile
PERSON, AROUND = 1.7, 1.3  # metres, and how much of them a tile shows
SOLID = 0.85  # how much of the body covers the picture
SIDE = View(azimuth=90, follow=True)
PAPER, EDGE = (255, 255, 255), (0, 0, 0)


def figure_sheet(motion: Motion, body: Body, titles: list[str], pictures: list[np.ndarray] | None = None) -> Tensor:
    """(H, W, 3) uint8 of a motion of few frames, each with a title and, if there are any, with its picture of any size
    and the motion's shape. Without pictures there is no row for them."""
    pelvis = body.with_betas(motion.betas).rest().joints[0, 0] + motion.cam_t
    scale = float(TALL / (AROUND * PERSON * motion.focal / pelvis[:, 2]).median())
    width, height = max(1, round(motion.width * scale)), max(1, round(motion.height * scale))
    small = replace(motion, focal=motion.focal * scale, width=width, height=height)
    middle = small.project(pelvis) - pelvis.new_tensor([WIDE, TALL]) / 2
    sides = preview(body, frame_person(motion, body, WIDE, TALL, SIDE)).numpy()
    columns = []
    for i, (title, side) in enumerate(zip(titles, sides)):
        x, y = middle[i].round().int().tolist()
        one = _around(small[i : i + 1], x, y)
        if pictures is None:
            column = np.concatenate([preview(body, one)[0].numpy(), side])
        else:
            shown = _part(pictures[i], width, height, x, y)
            behind = torch.from_numpy(shown)
            figure = torch.lerp(behind.float(), preview(body, one, behind[None])[0].float(), SOLID)
            column = np.concatenate([shown, figure.byte().numpy(), side])
        for color, thick in ((PAPER, 3), (EDGE, 1)):
            cv2.putText(column, title, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thick, cv2.LINE_AA)
        columns.append(column)
    return torch.from_numpy(np.concatenate(columns, axis=1))


def _around(motion: Motion, x: int, y: int) -> Motion:
    """The same, seen in a tile from x, y on: moved across so that the tile is the whole picture."""
    away = motion.cam_t.new_tensor([motion.width / 2 - x - WIDE / 2, motion.height / 2 - y - TALL / 2])
    sideways = away / motion.focal * motion.cam_t[:, 2:]
    place = torch.cat([motion.cam_t[:, :2] + sideways, motion.cam_t[:, 2:]], dim=1)
    return replace(motion, cam_t=place, width=WIDE, height=TALL)


def _part(picture: np.ndarray, width: int, height: int, x: int, y: int) -> np.ndarray:
    """(TALL, WIDE, 3) from x, y on of a picture that is made width x height, black outside."""
    rows, columns = picture.shape[:2]
    matrix = np.array([[columns / width, 0, x * columns / width], [0, rows / height, y * rows / height]])
    return cv2.warpAffine(picture, matrix, (WIDE, TALL), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
