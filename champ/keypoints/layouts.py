"""Keypoint layouts: COCO's, and OpenPose's two."""

# COCO's 17 body points and the six foot points, in the order of COCO-WholeBody; every body of ours has them.
KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip

# OpenPose's 18 points in COCO's 17 plus the neck: nose, neck, right arm, left arm, right leg, left leg,
# right eye, left eye, right ear, left ear.
OPENPOSE_FROM_COCO = (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
COCO_FROM_OPENPOSE = tuple(OPENPOSE_FROM_COCO.index(i) for i in range(17))
# The same 18 points in OpenPose's BODY_25, which has the middle of the hips at 8 and the feet at the end.
OPENPOSE_FROM_BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
