"""Puts clips side by side."""

import torch
from torch import Tensor


def side_by_side(clips: list[Tensor], columns: int = 0) -> Tensor:
    """Arranges clips (F or 1, H, W, 3) in rows of `columns` (0: one row), scaled to the height of the first; single
    pictures are repeated.

    Width and height are even, as video files need.
    """
    frames = max(len(clip) for clip in clips)
    if not frames:
        raise ValueError("There are no pictures to put side by side; connect at least one.")
    for clip in clips:
        if len(clip) not in (1, frames):
            raise ValueError(
                f"A clip of {len(clip)} frames does not fit beside one of {frames}; connect clips of the same length, "
                "or single pictures."
            )
    height = clips[0].shape[1]
    columns = columns or len(clips)
    cells = [_scaled(clip, height).expand(frames, -1, -1, -1) for clip in clips]
    rows = [torch.cat(cells[i : i + columns], dim=2) for i in range(0, len(cells), columns)]
    width = max(row.shape[2] for row in rows)
    grid = torch.cat([torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[2])) for row in rows], dim=1)
    return torch.nn.functional.pad(grid, (0, 0, 0, width % 2, 0, grid.shape[1] % 2))


def _scaled(clip: Tensor, height: int) -> Tensor:
    if clip.shape[1] == height:
        return clip
    width = max(1, round(clip.shape[2] * height / clip.shape[1]))
    pixels = clip.permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
