"""Reports on a calibration: warnings, a summary, and a contact sheet."""

import cv2
import numpy as np
import torch
from torch import Tensor

from ..frame_lists import in_words
from .branch import Picture, Plan
from .procrustes import SCALES

FRAMES = 7  # number of frames on the sheet, spread evenly over the clip
ROW = 4  # pictures in a row
SIZE = 384  # longer side of each in pixels
USED, UNUSED, OURS = (80, 255, 120), (255, 90, 80), (255, 255, 255)


def doubts(plan: Plan) -> list[str]:
    """Returns a sentence for everything that the user should check, with its frames."""
    reference, frames = plan.crowded
    where = [*(["the reference image"] if reference else []), *([in_words(frames)] if frames else [])]
    crowd = (
        f"There are several people in {' and in '.join(where)}; the largest is followed, and Follow Person can choose "
        "another."
    )
    return [crowd] * bool(where) + _doubtful_frames(plan) + _doubtful_silhouettes(plan)


def _doubtful_frames(plan: Plan) -> list[str]:
    stays = "so the reference stays as it is."
    if not (plan.reference[:, 2] > 0).any():
        return [f"Nobody was found in the reference image, {stays}"]
    found = plan.alignments
    if not any(a.aligned for a in found):
        return [f"The person cannot be aligned with the reference in any of the {len(found)} frames, {stays}"]
    near = [not a.aligned and a.points != "none" for a in found]
    empty = [not (person[:, 2] > 0).any() for person in plan.people]
    # The frames, and the sentence about them.
    said = (
        (
            [i for i, other in enumerate(near) if other and empty[i]],
            "nobody is seen; the position of a neighbouring frame is used.",
        ),
        (
            [i for i, other in enumerate(near) if other and not empty[i]],
            "too few points agree with the reference; the position of a neighbouring frame is used.",
        ),
        (
            [i for i, a in enumerate(found) if a.points == "none"],
            "the person cannot be aligned with the reference, and neither in any other frame of the shot; the "
            "reference is read unmoved.",
        ),
        (
            [i for i, a in enumerate(found) if a.mirrored],
            "the person shows another side than in the reference; they are aligned by the middle of the body, and the "
            "reference is not mirrored.",
        ),
        (
            [i for i, a in enumerate(found) if a.line],
            "all points lie on a line, which gives size and turn, but not the side from which the person is seen.",
        ),
        (
            [i for i, a in enumerate(found) if a.clamped],
            f"the person is more than {SCALES[1]:g} times smaller or larger than in the reference; the scale stops "
            "there.",
        ),
    )
    return [f"In {in_words(frames)} {what}" for frames, what in said if frames]


def _doubtful_silhouettes(plan: Plan) -> list[str]:
    reference, frames = plan.bare
    if reference:
        return [
            "The silhouette of the person in the reference image is empty, so nothing is masked; Load Image gives an "
            "empty mask for a picture without transparency."
        ]
    there = [i for i in frames if plan.alignments[i].aligned]
    return [f"In {in_words(there)} the silhouette is empty; all pixels read only the background."] if there else []


def calibration_summary(plan: Plan, bytes_held: int) -> str:
    """Summarises sizes, turns, points and costs, in sentences, because Preview as Text joins lines."""
    aligned = [a for a in plan.alignments if a.aligned]
    lines = [f"{len(aligned)} of {len(plan.alignments)} frames aligned"]
    if aligned:
        ways = [a.points for a in aligned]
        lines[0] += ": " + ", ".join(f"{ways.count(way)} by {way}" for way in dict.fromkeys(ways))
        points = [int(a.used.sum()) for a in aligned]
        for name, values, unit in (
            ("Scale", [a.scale for a in aligned], ""),
            ("Turn", [a.degrees for a in aligned], " degrees clockwise"),
            ("Distance of the points after the move", [a.residual for a in aligned], " pixels"),
        ):
            lines.append(f"{name} {min(values):.3g} to {max(values):.3g}{unit}")
        lines.append(f"Points used {min(points)} to {max(points)} of 17")
    lines.append(
        f"Moved images: {plan.passes}, each encoded once by ReferenceNet; a frame's ideal position differs from the "
        f"one it reads by at most {plan.off:.1f} pixels"
    )
    lines.append(f"{bytes_held / 2**20:.0f} MiB of features in main memory")
    return "\n".join([f"{line}." for line in lines] + doubts(plan))


def calibration_sheet(picture: Picture, plan: Plan) -> Tensor:
    """Draws the reference and, for some frames, the warped reference that they read: (1, H, W, 3) uint8.

    Circles are the person of the frame: green where they decided, red where not. White crosses are the reference's
    points after the transform. Areas outside the reference image are dark.
    """
    count = len(plan.alignments)
    chosen = sorted({round(i) for i in np.linspace(0, count - 1, min(FRAMES, count))})
    scale = SIZE / max(picture.width, picture.height)
    tiles = [_tile(picture, plan, None, scale), *(_tile(picture, plan, i, scale) for i in chosen)]
    blank = np.zeros_like(tiles[0])
    columns = min(ROW, len(tiles))
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return torch.from_numpy(np.concatenate(rows))[None]


def _tile(picture: Picture, plan: Plan, frame: int | None, scale: float) -> np.ndarray:
    matrix = plan.matrices[0 if frame is None else plan.warp_of[frame]]
    warped = picture.warped(matrix)
    shown = np.where(warped.valid[..., None] > 127, warped.picture, warped.picture // 4)
    size = (round(picture.width * scale), round(picture.height * scale))
    shown = np.ascontiguousarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA))

    def place(point: np.ndarray) -> tuple[int, int]:
        x, y = np.clip(point[:2] * scale, -1e4, 1e4)
        return int(x), int(y)

    for x, y, score in plan.reference:
        if score > 0:
            point = place(matrix @ (x, y, 1))
            cv2.drawMarker(shown, point, (0, 0, 0), cv2.MARKER_CROSS, 9, 3)
            cv2.drawMarker(shown, point, OURS, cv2.MARKER_CROSS, 9, 1)
    if frame is not None:
        used = plan.alignments[frame].used
        for point, decided in zip(plan.people[frame], used):
            if point[2] > 0:
                cv2.circle(shown, place(point), 6, (0, 0, 0), 3, cv2.LINE_AA)
                cv2.circle(shown, place(point), 6, USED if decided else UNUSED, 2, cv2.LINE_AA)
    text = "reference" if frame is None else f"frame {frame}, {plan.alignments[frame].points}"
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(shown, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
    return shown
