"""Checks that a semantic map has the 24 part colours of Champ's training."""

import math

import cv2
import numpy as np
from torch import Tensor

from ..body.skeleton import PART_COLORS

FOREGROUND = 42  # brightest channel: half of the darkest part colour, above compression noise in black
FLAT = 3  # levels within a 3x3 neighbourhood; smooth borders between parts, from rendering or resizing, are steeper
DITHER = 2  # levels; official pictures carry Blender's dither of up to +1
COLOUR = 24  # levels between the channels of a pixel; compression of grey pictures leaves less
FRAMES = 16  # frames checked for colours; the others are only checked for being empty

FIX = "Champ knows only its own 24 part colours on black; make this map with this pack or the official tools"


def palette_report(semantic_map: Tensor, mask: Tensor | None = None) -> str | None:
    """Returns the problem of a semantic map (F, H, W, 3) uint8, or None; a mask (F, H, W) shows where the person is."""
    frames = semantic_map.cpu().numpy()
    if mask is not None and (mask.shape[1:] != semantic_map.shape[1:3] or len(mask) not in (1, len(frames))):
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)} but the semantic maps have {tuple(semantic_map.shape[:3])}; "
            "connect the mask of the same maps."
        )
    everywhere = np.broadcast_to(np.True_, frames.shape[:3])
    inside = everywhere if mask is None else mask.expand(frames.shape[:3]).cpu().numpy() > 0
    empty = [i for i in range(len(frames)) if frames[i][inside[i]].max(initial=0) <= FOREGROUND]
    if len(empty) == len(frames):
        return (
            "The semantic map is black in every frame: nobody is in the picture, or another map was connected; check "
            "it with a preview."
        )
    filled = sorted(set(range(len(frames))) - set(empty))
    chosen = [filled[i] for i in np.linspace(0, len(filled) - 1, min(FRAMES, len(filled))).astype(int)]
    purple = all(_on_purple(frames[i]) for i in chosen)
    colors, even = [], []
    for i in chosen:
        person = inside[i] & (frames[i].max(-1) > FOREGROUND)
        if purple:
            person &= ~_near(frames[i], PART_COLORS[:1])
        colors.append(frames[i][person])
        even.append(frames[i][person & _flat(frames[i])])
    person, flat = np.concatenate(colors), np.concatenate(even)

    share = _near(flat, PART_COLORS).mean() if len(flat) else 0.0
    found = f"Only {share:.0%} of the semantic map's even areas have one of the 24 part colours"
    if np.ptp(person.astype(int), axis=1).max(initial=0) <= FLAT:
        return f"The semantic map is grey: {FIX}."
    if len(flat) and _near(flat, PART_COLORS[:, ::-1]).mean() > 0.5:
        return "The semantic map has red and blue exchanged (BGR); swap its channels before using it."
    if len(flat) < 0.05 * len(person):
        return f"The semantic map has no even areas, like a normal map, a depth map or a photo: {FIX}."
    if share < 0.7 and _near(flat, _viridis()).mean() > 0.9:
        return f"{found}, and the others lie between them as in DensePose pictures: {FIX}."
    if share < 0.7:
        return f"{found}: {FIX}."
    if share < 0.97:
        return f"{found}, as after JPEG or video compression; use lossless PNG frames."
    if purple and mask is None:
        return (
            "The semantic map has the purple background (68, 1, 84) of an older Champ script; connect the mask too, or "
            "make the background black, as the official inference does."
        )
    if empty:
        listed = ", ".join(str(i) for i in empty[:10]) + (", ..." if len(empty) > 10 else "")
        return (
            f"The semantic map is black in {len(empty)} of {len(frames)} frames ({listed}); the video may flash there."
        )
    return None


def exchange_report(depth: Tensor | None, normal: Tensor | None) -> str | None:
    """Returns a warning if depth or normal maps, uint8 (F, H, W, 3), look swapped: depth is grey, normals are not."""
    if depth is not None and (share := _coloured(depth)) > 0.05:
        return (
            f"{share:.0%} of the depth maps is coloured, but Champ's depth maps are grey; check that no other map is "
            "connected to depth."
        )
    if normal is not None and (share := _coloured(normal)) < 0.05:
        return (
            "The normal maps are grey, but Champ's are red where the surface faces right, green where it faces up, and "
            "blue where it faces the viewer; check that no other map is connected to normal."
        )
    return None


def _coloured(maps: Tensor) -> float:
    """Returns the coloured share of the pixels that are not black; NaN if all are black."""
    frames = maps.cpu().numpy()
    shown = frames[frames.max(-1) > FOREGROUND].astype(int)
    return float((np.ptp(shown, axis=-1) > COLOUR).mean()) if len(shown) else math.nan


def _near(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Tells whether each colour (..., 3) is within the dither of a palette colour."""
    table = np.zeros((256, 256, 256), dtype=bool)
    for color in palette.astype(int):
        red, green, blue = (slice(max(0, level - DITHER), level + DITHER + 1) for level in color)
        table[red, green, blue] = True
    return table[colors[..., 0], colors[..., 1], colors[..., 2]]


def _flat(frame: np.ndarray) -> np.ndarray:
    kernel = np.ones((3, 3), dtype=np.uint8)
    return (cv2.dilate(frame, kernel) - cv2.erode(frame, kernel)).max(-1) <= FLAT


def _on_purple(frame: np.ndarray) -> bool:
    border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    return bool(_near(border, PART_COLORS[:1]).mean() > 0.9)


def _viridis() -> np.ndarray:
    """Returns the colour map whose every tenth level is a part colour."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
