"""Reads values of POSE_KEYPOINT sockets, which may come from any pack and are not trusted, and writes them."""

import numpy as np

from .layouts import OPENPOSE_FROM_BODY_25
from .pose import THRESHOLD, Pose

FAR = 1e6  # pixels; OpenCV draws what is nearer

# POSE_KEYPOINT names of the parts, and the numbers of points seen under each.
PARTS = {
    "body": ("pose_keypoints_2d", (18, 25)),
    "left_hand": ("hand_left_keypoints_2d", (21,)),
    "right_hand": ("hand_right_keypoints_2d", (21,)),
    "face": ("face_keypoints_2d", (68, 70)),
    "feet": ("foot_keypoints_2d", (6,)),
}
# Our additional keys, which other packs ignore: a person's detector box and 3D points, and a frame's shot number.
BOX, WORLD, SHOT = "box_2d", "world_3d", "shot"


def canvas_size(frames: list[dict]) -> tuple[int, int]:
    """Returns width and height of the picture in which the first frame's people were found."""
    _check_list(frames)
    _read_frame(frames[0], "POSE_KEYPOINT frame 0")
    return round(frames[0]["canvas_width"]), round(frames[0]["canvas_height"])


def from_pose_keypoint(frames: list[dict], width: int, height: int) -> list[list[Pose]]:
    """Reads the people of every frame of a POSE_KEYPOINT value, stretched from its canvas to width x height."""
    _check_list(frames)
    people = [_read_frame(frame, f"POSE_KEYPOINT frame {i}") for i, frame in enumerate(frames)]
    # DWPose nodes emit pixels, controlnet_aux's OpenPose node emits 0..1, and editors mix the two within a person. No
    # real clip lies within the first two pixels, while points outside the picture make 0..1 a little larger than 1.
    fractional = {name: _reach(people, name) <= 2 for name in (*PARTS, "box")}
    poses = []
    for frame, persons in zip(frames, people):
        to_pixels = np.array([width, height, 1])
        canvas = np.array([frame["canvas_width"], frame["canvas_height"], 1])
        scale = {name: to_pixels if fractional[name] else to_pixels / canvas for name in fractional}
        scale["world"] = np.ones(4)
        poses.append([
            _to_pose({name: (part * scale[name]).astype(np.float32) for name, part in person.items()})
            for person in persons
        ])  # fmt: skip
    return poses


def _to_pose(parts: dict[str, np.ndarray]) -> Pose:
    corners = parts.pop("box", None)
    box = None if corners is None else np.concatenate([corners[0, :2], corners[1]])
    return Pose(**parts, box=box)


def shots_of(frames: list[dict]) -> np.ndarray:
    """Returns the shot number (F,) int of every frame of a POSE_KEYPOINT value; all 0 if nobody searched for cuts."""
    _check_list(frames)
    shots = [frame.get(SHOT, 0) for frame in frames]
    for i, shot in enumerate(shots):
        if not isinstance(shot, int | np.integer) or not 0 <= shot < FAR:
            raise ValueError(f"POSE_KEYPOINT frame {i} has {SHOT} {str(shot)[:20]!r}, expected the number of its shot.")
    return np.array(shots, dtype=int)


def has_shots(frames: list[dict]) -> bool:
    """Returns whether somebody searched for cuts."""
    return any(SHOT in frame for frame in frames)


def to_pose_keypoint(frames: list[list[Pose]], width: int, height: int, shots: np.ndarray | None = None) -> list[dict]:
    """Writes a POSE_KEYPOINT value in pixels, in the form that every node reads: all parts present, a seen point as x,
    y, 1 and a missing one as 0, 0, 0, and the eyes after the 68 points of the face."""
    written = [
        {"people": [_write_person(pose) for pose in people], "canvas_width": width, "canvas_height": height}
        for people in frames
    ]
    if shots is not None:
        for frame, shot in zip(written, shots, strict=True):
            frame[SHOT] = int(shot)
    return written


def _write_person(pose: Pose) -> dict[str, list[float]]:
    hand, face = np.zeros((21, 3)), np.zeros((70, 3))
    if pose.face is not None:
        face = np.concatenate([pose.face, pose.body[14:16]])[:70]
    left = hand if pose.left_hand is None else pose.left_hand
    right = hand if pose.right_hand is None else pose.right_hand
    parts = {"body": pose.body, "left_hand": left, "right_hand": right, "face": face}
    if pose.feet is not None:
        parts["feet"] = pose.feet
    flat = {}
    for name, points in parts.items():
        seen = points[:, 2:] >= THRESHOLD
        flat[PARTS[name][0]] = np.where(seen, points * (1, 1, 0) + (0, 0, 1), 0).astype(float).ravel().tolist()
    if pose.box is not None:
        flat[BOX] = pose.box.astype(float).tolist()
    if pose.world is not None:
        flat[WORLD] = pose.world.astype(float).ravel().tolist()
    return flat


def _check_list(frames: list[dict]) -> None:
    if not isinstance(frames, list) or not frames:
        raise ValueError(
            f"POSE_KEYPOINT is {_kind(frames)}, expected a list with one dict for each frame; connect a pose node."
        )


def _read_frame(frame: dict, where: str) -> list[dict[str, np.ndarray]]:
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
        raise ValueError(f"{where} has no list of 'people'; connect a node that finds people, such as a DWPose node.")
    for key in ("canvas_width", "canvas_height"):
        size = frame.get(key)
        if not isinstance(size, int | float | np.number) or not 0 < size < FAR:
            raise ValueError(f"{where} has {key} {size!r}, expected the size of its picture in pixels.")
    return [_read_person(person, f"{where}, person {i}") for i, person in enumerate(frame["people"])]


def _read_person(person: dict, where: str) -> dict[str, np.ndarray]:
    """Reads rows x, y, score of every part. The box is two corners, each with the score; the 3D points are x, y, z,
    score."""
    if not isinstance(person, dict):
        raise ValueError(f"{where} is {_kind(person)}, expected a dict with pose_keypoints_2d.")
    parts = {"body": np.zeros((18, 3))}
    for name, (key, counts) in PARTS.items():
        points = _read_points([] if person.get(key) is None else person[key], counts, f"{where}, {key}")
        if len(points) > 0:
            parts[name] = points
    if len(parts["body"]) == 25:
        parts["body"] = parts["body"][OPENPOSE_FROM_BODY_25, :]
    if person.get(BOX) is not None:
        box = _read_numbers(person[BOX], [5], f"{where}, {BOX}", "expected x0, y0, x1, y1, score")
        parts["box"] = box[[0, 1, 4, 2, 3, 4]].reshape(2, 3)
    if person.get(WORLD) is not None:
        world = _read_numbers(person[WORLD], [96], f"{where}, {WORLD}", "expected x, y, z, score of 24 points")
        parts["world"] = world.reshape(24, 4)
    return parts


def _read_points(values, counts: tuple[int, ...], where: str) -> np.ndarray:
    expected = f"expected x, y, score of {' or '.join(str(count) for count in counts)} points"
    return _read_numbers(values, [0, *(3 * count for count in counts)], where, expected).reshape(-1, 3)


def _read_numbers(values, sizes: list[int], where: str, expected: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where} is not a list of numbers; {expected}.") from None
    if numbers.size not in sizes:
        raise ValueError(f"{where} has {numbers.size} numbers; {expected}.")
    if not (np.abs(numbers) < FAR).all():
        raise ValueError(f"{where} holds NaN or a point far outside any picture; give a missing point the score 0.")
    return numbers


def _reach(people: list[list[dict[str, np.ndarray]]], name: str) -> float:
    """Returns the largest coordinate of a part in the clip, over points with a score."""
    parts = [person[name] for persons in people for person in persons if name in person]
    return max((np.abs(part[part[:, 2] > 0, :2]).max(initial=0) for part in parts), default=0)


def _kind(value) -> str:
    return "empty" if value == [] else f"of type {type(value).__name__}"
