"""Detects shots: where one ends and the next begins."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 32  # of the thumbnails whose layout is compared, in pixels
PLAIN = 3.0  # grey levels of deviation below which a channel has no layout, only noise
CHANGED = 0.4  # of a layout: a close-up of a fast dance reaches this, but in frame after frame
LASTING = 0.35  # frames a few apart that differ by less than this are of the same shot
STANDS_OUT = 1.65  # factor by which a cut exceeds the change of the frames around it
SHORTEST = 3  # frames of a shot; what is shorter is a flash


class FrameLook(NamedTuple):
    layout: np.ndarray  # (SIDE, SIDE, 3), each channel around 0, and all of length 1; zeros for a plain picture
    colors: np.ndarray  # histogram of hue, saturation and value, sum 1


def find_shots(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the shot number (F,) of each frame, from 0, for uint8 RGB pictures (H, W, 3).

    A cut changes the layout at once, far more than the frames around it do (a fast movement or a pan continues), and
    for at least three frames (a flash does not). Brightness and tint of the light do not count; plain pictures belong
    to the shot before them. Fades between scenes are not found. Memory: 7 kilobytes per frame.
    """
    looks = [look(picture) for picture in pictures]
    told = [t for t, seen in enumerate(looks) if seen.layout.any()]
    pairs = [(looks[a], looks[b]) for a, b in zip(told, told[1:])]
    changes = np.array([change(a, b) for a, b in pairs])
    score = changes + np.array([np.abs(a.colors - b.colors).sum() / 2 for a, b in pairs])
    cut = np.zeros(len(looks), dtype=np.int64)
    for i in np.flatnonzero(changes > CHANGED).tolist():
        before, after = told[max(i + 1 - SHORTEST, 0) : i + 1], told[i + 1 : i + 1 + SHORTEST]
        if min(len(before), len(after)) < SHORTEST:
            continue
        # The second largest, because another cut may be near.
        around = np.sort(np.concatenate([score[max(i - 4, 0) : i], score[i + 1 : i + 5]]))[-2]
        lasting = min(change(looks[a], looks[b]) for a in before for b in after)
        cut[told[i + 1]] = score[i] > STANDS_OUT * around and lasting > LASTING
    return cut.cumsum()


def look(picture: np.ndarray) -> FrameLook:
    layout = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    layout -= layout.mean((0, 1))
    # Each channel separately, so that coloured light makes no difference.
    deviation = layout.std((0, 1))
    layout *= (deviation > PLAIN) / np.maximum(deviation, PLAIN)
    length = np.linalg.norm(layout)
    hsv = cv2.cvtColor(cv2.resize(picture, (96, 96), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2HSV)
    colors = cv2.calcHist([hsv], [0, 1, 2], None, [12, 4, 4], [0, 180, 0, 256, 0, 256]).ravel()
    return FrameLook((layout / max(float(length), 1.0)).astype(np.float16), colors / colors.sum())


def change(a: FrameLook, b: FrameLook) -> float:
    """Returns 1 - correlation of the layouts: 0 = the same, 1 = nothing in common."""
    return 1 - float(np.vdot(a.layout.astype(np.float32), b.layout.astype(np.float32)))
