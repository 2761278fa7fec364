"""Reports on a motion: as text, and as a plot."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..frame_lists import in_short
from .camera import to_sight
from .motion import Motion
from .rotation import to_axis_angle

WIDTH, HEIGHT = 960, 640
LEFT, RIGHT = 78, 18  # margins of the curves
# Top and bottom of the three diagrams.
SEEN, PLACE, SPEED = (34, 104), (142, 352), (390, 600)
PAPER, INK, FAINT = (252, 252, 250), (40, 42, 46), (222, 223, 224)
GOOD, FILLED, OLD = (108, 171, 116), (214, 69, 61), (176, 178, 182)
DOUBTFUL, OFF, FAST, OUTSIDE = (233, 181, 62), (226, 120, 40), (146, 88, 172), (70, 130, 140)
BAR = 5  # pixels, below the frames that are partly outside the picture
UNSURE = 0.5  # doubt from which a frame is doubtful
AWAY = 0.03  # of the person's height between body and keypoints, from which a frame is off
# Degrees a second, for the whole body and for any joint in the body.
WHOLE_TURN, JOINT_TURN = 540.0, 1800.0
HANDS_FEET_HEAD = (22, 23, 10, 11, 15)
AT_ONCE = 512  # frames
CURVES = ((31, 98, 178), (226, 132, 28), (92, 62, 138))


class Findings(NamedTuple):
    """What to look at, each (F,) bool."""

    filled: Tensor  # nobody was seen
    doubtful: Tensor  # front and back may be exchanged
    off: Tensor  # the body is not where the keypoints are
    fast: Tensor  # turned faster than people do

    @property
    def good(self) -> Tensor:
        return ~torch.stack(self).any(0)


def look_over(motion: Motion) -> Findings:
    turn = turns(motion).norm(dim=-1).rad2deg() * motion.fps
    fast = (turn[:, 0] > WHOLE_TURN) | (turn[:, 1:] > JOINT_TURN).any(1)
    fast &= motion.shot.diff() == 0
    none = fast.new_zeros(1)
    fast = torch.cat([fast, none]) | torch.cat([none, fast])
    filled = motion.confidence == 0
    return Findings(filled, motion.doubt > UNSURE, motion.misfit > AWAY, fast & ~filled)


def worst(motion: Motion, count: int) -> list[int]:
    """Frames to look at: those that are worst, none near another; of a motion that is good everywhere some others."""
    found = look_over(motion)
    bad = motion.doubt + motion.misfit / AWAY + found.fast.float() + found.filled.float()
    bad = torch.where(found.good, torch.zeros_like(bad), bad)
    if not bad.any():
        return torch.linspace(0, len(motion) - 1, min(count, len(motion))).round().int().tolist()
    apart = max(1, len(motion) // (2 * count))
    chosen: list[int] = []
    while len(chosen) < count and bad.max() > 0:
        frame = int(bad.argmax())
        chosen.append(frame)
        bad[max(0, frame - apart) : frame + apart + 1] = 0
    return sorted(chosen)


def outside(motion: Motion, body: Body) -> Tensor:
    """(F,) whether a hand, a foot or the head is outside the picture."""
    found = []
    for start in range(0, len(motion), AT_ONCE):
        part = motion[start : start + AT_ONCE]
        points = part.project(part.posed(body).joints[:, HANDS_FEET_HEAD])
        inside = (points >= 0) & (points < points.new_tensor([motion.width, motion.height]))
        found.append(~inside.all(-1).all(1))
    return torch.cat(found)


def frames_of(chosen: Tensor) -> str:
    return in_short(chosen.nonzero().flatten().tolist())


def verdict(motion: Motion, body: Body | None = None) -> list[str]:
    """The number for the whole clip, and a line for all that there is to look at."""
    found = look_over(motion)
    lines = [f"{100 * float(found.good.float().mean()):.0f} % of the frames are good."]
    for chosen, what in (
        (
            found.doubtful,
            "doubtful: a limb may be in front that is behind, or a knee straight that bends",
        ),
        (found.off, f"off: body and keypoints are more than {100 * AWAY:.0f} % of the height apart"),
        (found.fast, "turned faster than people do"),
    ):
        if chosen.any():
            lines.append(f"{int(chosen.sum())} {what}: {frames_of(chosen)}.")
    if body is not None and (gone := outside(motion, body)).any():
        lines.append(f"{int(gone.sum())} with a hand, a foot or the head outside the picture: {frames_of(gone)}.")
    return lines


def describe(motion: Motion, before: Motion | None = None, body: Body | None = None) -> str:
    """Describes length, filled frames, shots, confidence and jitter, compared with `before` where possible, and what is
    not good. With a body also what is outside the picture."""
    filled = (motion.confidence == 0).nonzero().flatten().tolist()
    seen = motion.confidence[motion.confidence > 0]
    shots = motion.shots()
    lines = [
        f"{motion.source}: {len(motion)} frames of {motion.width}x{motion.height} at {motion.fps:g} fps "
        f"({len(motion) / motion.fps:.1f} s).",
        f"{len(filled)} filled: {in_short(filled)}." if filled else "No frame was filled.",
        "1 shot."
        if len(shots) == 1
        else f"{len(shots)} shots: {', '.join(in_short(range(s.start, s.stop)) for s in shots)}.",
    ]
    if len(seen):
        whose = " of the others" if filled else ""
        lines.append(f"Confidence{whose}: {float(seen.mean()):.2f} on average, {float(seen.min()):.2f} at least.")
    if before is not None and len(before) != len(motion):
        lines.append(f"The motion before has {len(before)} frames, so it is another motion and is not compared.")
        before = None
    if len(motion) > 2:
        was = "" if before is None else f", {jitter(before):.2f} before"
        lines.append(f"Jitter: {jitter(motion):.2f} degrees a frame{was}.")
    return "\n".join([*lines, *verdict(motion, body)])


def turns(motion: Motion) -> Tensor:
    """Returns the axis-angles (F - 1, 24, 3) by which the joints turn from each frame to the next."""
    return to_axis_angle(motion.rotations[:-1].mT @ motion.rotations[1:])


def speed(motion: Motion) -> Tensor:
    """Returns the mean turning speed of the joints (F - 1,) in degrees per second; 0 at a cut."""
    turn = turns(motion).norm(dim=-1).mean(1)
    return turn.rad2deg() * motion.fps * (motion.shot.diff() == 0)


def jitter(motion: Motion) -> float:
    """Returns the jitter in degrees: the median distance of a joint's rotation from the midpoint of its neighbours in
    time."""
    turn = turns(motion)
    inside = (motion.shot[2:] == motion.shot[:-2]).nonzero().flatten()
    change = (turn[1:] - turn[:-1])[inside].norm(dim=-1) / 2
    return float(change.median().rad2deg()) if len(inside) else 0.0


def plot(motion: Motion, before: Motion | None = None, body: Body | None = None) -> Tensor:
    """Draws a plot (HEIGHT, WIDTH, 3) uint8 RGB: which frames were seen and are good, with a body also which are partly
    outside the picture, where the person stands, how fast the joints turn."""
    picture = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    frames = len(motion)
    _frame_axis(picture, motion)

    _frames(picture, motion, None if body is None else outside(motion, body))

    sight = to_sight(motion.cam_t)
    middle = sight.mean(0)
    across = (sight[:, :2] - middle[:2]) * motion.focal / motion.height * 100
    near = torch.expm1(middle[2] - sight[:, 2:]) * 100
    names = ("right (% of the picture's height)", "down", "nearer (%)")
    _legend(picture, PLACE, list(zip(names, CURVES)))
    limits = _scale(picture, PLACE, [across, near], least=2.0)
    for curve, color in zip(torch.cat([across, near], dim=1).T, CURVES):
        for shot in motion.shots():
            _curve(picture, PLACE, curve[shot], color, shot.start, frames, limits)

    clips = [(motion, CURVES[0], "turning of the joints (degrees a second)")]
    if before is not None and len(before) == frames:
        clips.insert(0, (before, OLD, "before"))
    _legend(picture, SPEED, [(name, color) for _, color, name in clips[::-1]])
    limits = _scale(picture, SPEED, [torch.zeros(1), *(speed(m) for m, _, _ in clips)], least=10.0)
    for clip, color, _ in clips:
        for shot in clip.shots():
            _curve(picture, SPEED, speed(clip)[shot.start : shot.stop - 1], color, shot.start + 0.5, frames, limits)
    return torch.from_numpy(picture)


def _frames(picture: np.ndarray, motion: Motion, gone: Tensor | None) -> None:
    """Draws the confidence of every frame in the colour of what is wrong with it, and a bar below those that are `gone`
    (F,) from the picture."""
    frames, found = len(motion), look_over(motion)
    title = f"seen ({int((motion.confidence > 0).sum())} of {frames} frames)"
    kinds = [(found.filled, FILLED), (found.fast, FAST), (found.off, OFF), (found.doubtful, DOUBTFUL)]
    said = list(zip(("filled", "too fast", "off", "doubtful"), (color for _, color in kinds)))
    said += [] if gone is None else [("outside", OUTSIDE)]
    _legend(picture, SEEN, [("confidence", INK), (title, GOOD), *said])
    top, bottom = SEEN
    for f, confidence in enumerate(motion.confidence.tolist()):
        x0, x1 = (round(_column(f + d, frames)) for d in (-0.5, 0.5))
        end = max(x1 - 1, x0)
        high = bottom - confidence * (bottom - top) if confidence > 0 else top
        color = next((color for chosen, color in kinds if chosen[f]), GOOD)
        cv2.rectangle(picture, (x0, round(high)), (end, bottom), color, -1)
        if gone is not None and gone[f]:
            cv2.rectangle(picture, (x0, bottom + 2), (end, bottom + 1 + BAR), OUTSIDE, -1)


def _column(frame: float, frames: int) -> float:
    """Returns the column of a frame in the plot."""
    return LEFT + (frame + 0.5) / frames * (WIDTH - LEFT - RIGHT)


def _text(picture: np.ndarray, text: str, x: int, y: int, color=INK, align: float = 0.0) -> int:
    """Writes a text that begins (align 0), is centred (0.5) or ends (1) at x, and returns where it ends."""
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
    left = round(x - align * width)
    cv2.putText(picture, text, (left, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
    return left + width


def _legend(picture: np.ndarray, rows: tuple[int, int], names) -> None:
    x = LEFT
    for name, color in names:
        x = _text(picture, name, x, rows[0] - 10, color) + 24


def _frame_axis(picture: np.ndarray, motion: Motion) -> None:
    """Draws round frame numbers at the bottom, and a line at every cut."""
    frames = len(motion)
    step = next(s for p in range(9) for s in (10**p, 2 * 10**p, 5 * 10**p) if frames <= 12 * s)
    for frame in range(0, frames, step):
        x = round(_column(frame, frames))
        for top, bottom in (SEEN, PLACE, SPEED):
            cv2.line(picture, (x, top), (x, bottom), FAINT, 1)
        _text(picture, str(frame), x, SPEED[1] + 20, align=0.5)
    _text(picture, "frame", LEFT - 10, SPEED[1] + 20, align=1)
    for shot in motion.shots()[1:]:
        x = round(_column(shot.start - 0.5, frames))
        cv2.line(picture, (x, SEEN[0]), (x, SPEED[1]), INK, 1)
        _text(picture, "cut", min(x + 4, WIDTH - 30), SPEED[1] - 6)


def _scale(picture: np.ndarray, rows: tuple[int, int], curves: list[Tensor], least: float) -> tuple[float, float]:
    """Draws the limits of the curves, and returns them."""
    values = torch.cat([c.flatten() for c in curves])
    low, high = float(values.min()), float(values.max())
    spare = max(least - (high - low), 0) / 2
    low, high = (low - spare if low < 0 else low), high + spare
    for value, y in ((high, rows[0]), (low, rows[1])):
        cv2.line(picture, (LEFT, y), (WIDTH - RIGHT, y), FAINT, 1)
        _text(picture, f"{value:.1f}", LEFT - 10, y + 5, align=1)
    return low, high


def _curve(
    picture: np.ndarray, rows, curve: Tensor, color, start: float, frames: int, limits: tuple[float, float]
) -> None:
    (top, bottom), (low, high) = rows, limits
    y = bottom - (curve.cpu().numpy() - low) / (high - low) * (bottom - top)
    x = np.array([_column(start + i, frames) for i in range(len(y))])
    points = np.round(np.stack([x, y], axis=1) * 16).astype(np.int32)  # sixteenths of a pixel
    cv2.polylines(picture, [points], False, color, 2, cv2.LINE_AA, shift=4)
