"""One person's 2D keypoints, and their conversion from DWPose's."""

from dataclasses import dataclass

import numpy as np

from .layouts import OPENPOSE_FROM_COCO

THRESHOLD = np.float32(0.3)  # DWPose's limit between a seen and a missing point


@dataclass(frozen=True)
class Pose:
    """Rows are x, y, score with x and y in pixels; left and right are the person's own."""

    body: np.ndarray  # (18, 3) in OpenPose's order
    left_hand: np.ndarray | None = None  # (21, 3)
    right_hand: np.ndarray | None = None  # (21, 3)
    face: np.ndarray | None = None  # (68, 3), or (70, 3) with the eyes again at the end
    box: np.ndarray | None = None  # (5,) x0, y0, x1, y1, score: where the detector saw the person, in pixels
    feet: np.ndarray | None = None  # (6, 3) big toe, small toe and heel of the left foot, then of the right one
    # (24, 4) points of the body and the feet in metres from the middle of the hips, as estimated by the pose network: x
    # right, y down, z away from the camera, score.
    world: np.ndarray | None = None

    @classmethod
    def from_whole_body(cls, keypoints: np.ndarray, scores: np.ndarray, box: np.ndarray | None = None) -> "Pose":
        """Converts DWPose's 133 points of COCO-WholeBody, (133, 2), and their scores (133,)."""
        points = np.concatenate([keypoints, scores[:, None]], axis=1).astype(np.float32)
        return cls(body_from_coco(points[:17]), points[91:112], points[112:133], points[23:91], box, points[17:23])


def body_from_coco(points: np.ndarray) -> np.ndarray:
    """Converts COCO's 17 points (..., 17, 3), the score last, to OpenPose's 18. The neck is the midpoint of the
    shoulders, with DWPose's score: 1 if both are seen, else 0."""
    neck = points[..., 5:7, :].mean(axis=-2)
    neck[..., -1] = (points[..., 5:7, -1] > THRESHOLD).all(axis=-1)
    return np.concatenate([points, neck[..., None, :]], axis=-2)[..., OPENPOSE_FROM_COCO, :]
