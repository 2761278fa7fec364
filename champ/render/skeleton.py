"""Draws skeleton maps in DWPose's style, and projects the skeleton of a motion."""

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..body.body import Body, Posed
from ..keypoints.pose import THRESHOLD, Pose, body_from_coco
from ..motion.motion import Motion
from .rasterize import NEAR, Hits, z_at

# Pairs of OpenPose-18 points; limb i and point i have colour i.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
# Five fingers of four bones from the wrist, coloured once around the hue circle.
BONES = tuple((0 if k == 0 else 4 * f + k, 4 * f + k + 1) for f in range(5) for k in range(4))
BONE_COLORS = (
    (255, 0, 0), (255, 77, 0), (255, 153, 0), (255, 229, 0), (204, 255, 0), (128, 255, 0), (51, 255, 0),
    (0, 255, 25), (0, 255, 102), (0, 255, 179), (0, 255, 255), (0, 178, 255), (0, 102, 255), (0, 25, 255),
    (51, 0, 255), (128, 0, 255), (204, 0, 255), (255, 0, 230), (255, 0, 153), (255, 0, 77),
)  # fmt: skip
LIMB_COLORS = tuple(tuple(int(0.6 * level) for level in color) for color in COLORS)  # dimmed, the points are not

# OpenPose-18 rows.
NOSE, R_ELBOW, R_WRIST, L_ELBOW, L_WRIST, R_EYE, L_EYE, R_EAR, L_EAR = 0, 3, 4, 6, 7, 14, 15, 16, 17
FACE = (NOSE, R_EYE, L_EYE, R_EAR, L_EAR)
FOREARMS = {"left_hand": (L_ELBOW, L_WRIST), "right_hand": (R_ELBOW, R_WRIST)}

# Depth in metres behind the nearest surface up to which a COCO keypoint counts as seen. Measured on the free body of
# several shapes, turning: the nose is 0.014 deep while visible and 0.06 when not, eyes 0.016 and 0.037, the points in
# limbs are 0.08 deep, hips and shoulders 0.18.
DEPTH_TOLERANCE = (0.03, 0.03, 0.03, 0.011, 0.011, 0.2, 0.2, *(0.1,) * 4, 0.2, 0.2, *(0.1,) * 4)
EAR = 0.02  # metres by which the ear stands out from its opening, which is the keypoint
HIDDEN = 0.5  # score of a hidden body point: it is drawn, as DWPose guesses those too, but nothing depends on it


def draw_skeleton(
    people: list[Pose],
    width: int,
    height: int,
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    canvas: np.ndarray | None = None,
) -> np.ndarray:
    """Draws people as (height, width, 3) uint8 RGB, into `canvas` if a black one is given; line widths do not grow with
    the picture, so draw at the final size."""
    if canvas is None:
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
    if body:
        _draw_bodies(canvas, [pose.body for pose in people])
    if hands:
        for hand in [pose.left_hand for pose in people] + [pose.right_hand for pose in people]:
            if hand is not None:
                _draw_hand(canvas, hand)
    if face:
        for pose in people:
            if pose.face is not None:
                _draw_dots(canvas, _pixels(pose.face[:68]), 3, (255, 255, 255))  # 69 and 70 repeat the eyes
    return canvas


def _draw_bodies(canvas: np.ndarray, bodies: list[np.ndarray]) -> None:
    for (a, b), color in zip(LIMBS, LIMB_COLORS):
        for points in bodies:
            if (points[[a, b], 2] >= THRESHOLD).all():
                (x0, y0), (x1, y1) = points[[a, b], :2].astype(float)
                centre = int((x0 + x1) / 2), int((y0 + y1) / 2)
                axes = int(math.hypot(x1 - x0, y1 - y0) / 2), 4
                angle = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
                cv2.fillConvexPoly(canvas, cv2.ellipse2Poly(centre, axes, angle, 0, 360, 1), color)
    for i, color in enumerate(COLORS):
        for points in bodies:
            if points[i, 2] >= THRESHOLD:
                cv2.circle(canvas, (int(points[i, 0]), int(points[i, 1])), 4, color, cv2.FILLED)


def _draw_hand(canvas: np.ndarray, hand: np.ndarray) -> None:
    pixels = _pixels(hand)
    for (a, b), color in zip(BONES, BONE_COLORS):
        if pixels[a] and pixels[b]:
            cv2.line(canvas, pixels[a], pixels[b], color, 2)
    _draw_dots(canvas, pixels, 4, (0, 0, 255))


def _draw_dots(canvas: np.ndarray, pixels: list[tuple[int, int] | None], radius: int, color: tuple) -> None:
    for pixel in pixels:
        if pixel:
            cv2.circle(canvas, pixel, radius, color, cv2.FILLED)


def _pixels(points: np.ndarray) -> list[tuple[int, int] | None]:
    """Returns integer positions of hand or face points; None for missing ones and, as in DWPose, for those on or before
    the first row or column."""
    return [(int(x), int(y)) if score >= THRESHOLD and x >= 1 and y >= 1 else None for x, y, score in points]


def project_poses(body: Body, motion: Motion, posed: Posed, hits: Hits) -> list[Pose]:
    """Projects the skeleton of every frame of a motion, from the keypoints of its posed body and the hits.

    A point of the face that is hidden or outside the picture is missing; so is a point behind the camera. Other hidden
    points get the score HIDDEN.
    """
    points = body.keypoints(posed)[:, :17]
    ahead = points[..., 2] > NEAR
    pixels = torch.where(ahead[..., None], motion.project(points), 0)
    tested, backwards = _turned_ears(points)
    column, row = motion.project(tested).nan_to_num().floor().long().unbind(-1)
    inside = (column >= 0) & (column < motion.width) & (row >= 0) & (row < motion.height)
    frame = torch.arange(len(motion), device=points.device)[:, None]
    line = frame * motion.height + row.clamp(0, motion.height - 1)
    nearest = z_at(hits, line * motion.width + column.clamp(0, motion.width - 1))
    hidden = inside & (tested[..., 2] > nearest + points.new_tensor(DEPTH_TOLERANCE))
    hidden[:, :5] |= ~inside[:, :5]
    hidden[:, 3:5] |= backwards
    score = torch.where(hidden, HIDDEN, 1.0)
    score[:, :5] = (~hidden[:, :5]).to(score)
    coco = torch.cat([pixels, (score * ahead)[..., None]], dim=-1)
    return [Pose(person) for person in body_from_coco(coco.float().cpu().numpy())]


def _turned_ears(points: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the ears of COCO points outwards, and returns which ears (F, 2) face away from the camera.

    Without the first, the far ear would vanish at the slightest turn of the head; without the second, the back of a
    head would keep its ears.
    """
    left, right = points[:, 3], points[:, 4]
    outward = normalize(left - right, dim=-1)
    forward = normalize(points[:, 0] - (left + right) / 2, dim=-1)
    outward = torch.stack([outward, -outward], dim=1)
    ears = points[:, 3:5]
    backwards = ((outward + forward[:, None]) * ears).sum(-1) > 0
    return torch.cat([points[:, :3], ears + EAR * outward, points[:, 5:]], dim=1), backwards


def attach_hands_and_face(projected: Pose, detected: Pose) -> Pose:
    """Attaches the hands and the face of `detected` to the body of `projected`.

    A hand moves from wrist to wrist, scaled and turned with its forearm. The face moves by the similarity that fits
    eyes, ears and nose. A part is left out if its wrist or face was not detected, or is hidden here.
    """
    target, source = _complex(projected.body), _complex(detected.body)
    seen = (projected.body[:, 2] >= THRESHOLD) & (detected.body[:, 2] >= THRESHOLD)
    limbs = [(a, b) for a, b in LIMBS[:12] if seen[a] and seen[b] and source[a] != source[b]]
    sizes = [abs(target[a] - target[b]) / abs(source[a] - source[b]) for a, b in limbs]
    # A limb that points at one of the two cameras shows little of its size, so the scale stays near the body's.
    limits = (np.median(sizes) / 1.5, np.median(sizes) * 1.5) if sizes else (0, np.inf)

    def moved(points: np.ndarray, anchors: list[int], pivot: complex, goal: complex) -> np.ndarray | None:
        a, b = source[anchors] - pivot, target[anchors] - goal
        if not a.any() or not b.any():
            return None
        similarity = np.vdot(a, b) / np.vdot(a, a)  # least squares |s a - b|; modulus is scale, argument is turn
        similarity *= np.clip(abs(similarity), *limits) / abs(similarity)
        return _with_positions(points, goal + similarity * (_complex(points) - pivot))

    parts = {}
    for name, hand in _hands_by_wrist(detected).items():
        elbow, wrist = FOREARMS[name]
        if seen[elbow] and seen[wrist] and projected.body[wrist, 2] > HIDDEN:
            parts[name] = moved(hand, [elbow], source[wrist], target[wrist])
    anchors = [i for i in FACE if seen[i]]
    # The back of a head also shows two ears.
    if detected.face is not None and len(anchors) >= 2 and seen[[NOSE, R_EYE, L_EYE]].any():
        parts["face"] = moved(detected.face, anchors, source[anchors].mean(), target[anchors].mean())
    return Pose(projected.body, **parts)


def _hands_by_wrist(pose: Pose) -> dict[str, np.ndarray]:
    """Returns the hands, swapped if they begin nearer to each other's wrist: ComfyUI's SDPose nodes swap the names of
    left and right hand."""
    hands = {name: hand for name in FOREARMS if (hand := getattr(pose, name)) is not None}
    other = {"left_hand": "right_hand", "right_hand": "left_hand"}

    def distance(hand: np.ndarray, name: str) -> float:
        return math.dist(hand[0, :2], pose.body[FOREARMS[name][1], :2])

    own = sum(distance(hand, name) for name, hand in hands.items())
    exchanged = sum(distance(hand, other[name]) for name, hand in hands.items())
    if (pose.body[[L_WRIST, R_WRIST], 2] >= THRESHOLD).all() and exchanged < own:
        return {other[name]: hand for name, hand in hands.items()}
    return hands


def _complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0] + 1j * points[:, 1]


def _with_positions(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return np.stack([positions.real, positions.imag, points[:, 2]], axis=1).astype(np.float32)
