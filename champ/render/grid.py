"""Puts clips side by side."""

import torch
from torch import Tensor


def side_by_side(clips: list[Tensor], columns: int = 0) -> Tensor:
    """Arranges clips (F or 1, H, W, 3) in rows of `columns` (0: one row), scaled to the height of the first; single
    pictures are repeated.

    Width and height are even, as video files need.
    """
    frames = max((len(clip) for clip in clips), default=0)
    if not frames:
        raise ValueError(
            "There are no pictures to put side by side; connect at least one that is not empty (Load Guidance Maps "
            "leaves those maps empty that are not in the folder)."
        )
    for clip in clips:
        if len(clip) not in (1, frames):
            raise ValueError(
                f"A clip of {len(clip)} frames does not fit beside one of {frames}; connect clips of the same length, "
                "or single pictures."
            )
    height = clips[0].shape[1]
    widths = [_width(clip, height) for clip in clips]
    columns = columns or len(clips)
    rows = [widths[i : i + columns] for i in range(0, len(widths), columns)]
    width, below = max(map(sum, rows)), len(rows) * height
    grid = clips[0].new_zeros(frames, below + below % 2, width + width % 2, 3)
    for i, clip in enumerate(clips):
        row, column = divmod(i, columns)
        top, left = row * height, sum(rows[row][:column])
        place = grid[:, top : top + height, left : left + widths[i]]
        for picture, cell in zip(clip, place[None] if len(clip) < frames else place):
            cell.copy_(_scaled(picture, widths[i], height))
    return grid


def _width(clip: Tensor, height: int) -> int:
    return clip.shape[2] if clip.shape[1] == height else max(1, round(clip.shape[2] * height / clip.shape[1]))


def _scaled(picture: Tensor, width: int, height: int) -> Tensor:
    if picture.shape[:2] == (height, width):
        return picture
    pixels = picture.permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0)
