"""Joints in space over time, in the layouts and axes of pose networks and of tools that make motions from text."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from champ.keypoints.layouts import KEYPOINTS
from champ.motion.formats import load_motion, load_with_joints
from champ.motion.joint_lists import BLAZEPOSE, HUMAN36M, LAYOUTS, MHR
from champ.motion.presets import perform

FRAMES = 24
Y_UP = np.diag([1.0, -1.0, -1.0])  # from the camera's axes
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ Y_UP


@pytest.fixture(scope="module", params=["salsa", "walk"])
def motion(request, body):
    return perform(request.param, body, FRAMES, 12.0, travel=True)


def joints(motion, body) -> np.ndarray:
    return motion.posed(body).joints.numpy()


def error(read, motion, body) -> Tensor:
    """How far the joints (F, 22) are apart, apart from one shift for all frames."""
    a, b = (m.posed(body).joints[:, :22] for m in (read, motion))
    apart = a - b
    return (apart - apart.mean((0, 1))).norm(dim=-1)


def listed(layout, count: int, motion, body) -> np.ndarray:
    """The points of a layout: keypoints of the skin, and joints."""
    posed = motion.posed(body)
    at = dict(zip(KEYPOINTS, body.keypoints(posed).unbind(1))) | {
        "crown": posed.joints[:, 15] * 2 - posed.joints[:, 12]
    }
    at["pelvis"] = (at["left_hip"] + at["right_hip"]) / 2
    at |= {name: posed.joints[:, i] for name, i in LAYOUTS[24][1].items() if name not in at}
    points = torch.zeros(FRAMES, count, 3)
    for name, i in layout.items():
        points[:, i] = at[name]
    return points.numpy()


@pytest.mark.parametrize("count", [22, 24, 52])
@pytest.mark.parametrize(("axes", "unit"), [(np.eye(3), 1.0), (Y_UP, 100.0), (Z_UP, 39.37)])
def test_the_joints_of_smpl_are_met_exactly(tmp_path, body, motion, count, axes, unit):
    points = np.zeros((FRAMES, count, 3))
    points[:, :24] = joints(motion, body)[:, :count]
    np.savez(
        tmp_path / "a.npz", fps=12.0, local_rot_mats=np.zeros((FRAMES, 24, 3, 3)), posed_joints=points @ axes.T * unit
    )
    read, told = load_with_joints(tmp_path / "a.npz", body, 0, 512, 768, 30.0, "")
    assert (read.fps, len(read), read.width) == (12, FRAMES, 512)
    assert told == f"{count} joints, as {LAYOUTS[count][0]} has them"
    assert error(read, motion, body).max() < 0.01
    pixels = read.project(read.posed(body).vertices)
    assert pixels.min() >= 0 and (pixels <= torch.tensor([512, 768])).all()


def test_another_build_leaves_the_limbs_as_they_are(tmp_path, body, motion):
    """Hips half as wide and collars further out, as SMPL's are for our free body: arms point where theirs point."""
    points = joints(motion, body)
    middle = points[:, 1:3].mean(1, keepdims=True)
    legs, arms = [1, 2, 4, 5, 7, 8, 10, 11], [13, 14, 16, 17, 18, 19, 20, 21, 22, 23]
    side = np.array([1.0 if joint % 3 == 1 else -1.0 for joint in legs])[:, None]
    points[:, legs] -= side * (points[:, 1:2] - middle) / 2
    points[:, arms] += [0, -0.05, 0]
    np.save(tmp_path / "a.npy", points)
    read = load_motion(tmp_path / "a.npy", body)
    for start, end in ((16, 18), (17, 19), (18, 20), (19, 21)):
        bones = [m.posed(body).joints[:, end] - m.posed(body).joints[:, start] for m in (read, motion)]
        cosine = torch.nn.functional.cosine_similarity(*bones, dim=1)
        assert cosine.min() > 0.9999
    assert error(read, motion, body).mean() < 0.06


def test_a_left_handed_world_is_turned_into_ours(tmp_path, body, motion):
    mirrored = joints(motion, body) @ Y_UP * np.array([-1, 1, 1])
    np.save(tmp_path / "a.npy", mirrored)
    assert error(load_motion(tmp_path / "a.npy", body), motion, body).max() < 0.01


@pytest.mark.parametrize(
    ("layout", "count", "name", "most"),
    [
        (LAYOUTS[17][1], 17, "COCO", 0.03), (HUMAN36M, 17, "Human3.6M", 0.045), (BLAZEPOSE, 33, "BlazePose", 0.025),
        (MHR, 70, "SAM 3D Body", 0.025), (LAYOUTS[30][1], 30, "Kimodo", 0.045), (LAYOUTS[77][1], 77, "Kimodo", 0.045),
    ],
)  # fmt: skip
def test_points_of_other_layouts_are_met_nearly(tmp_path, body, motion, layout, count, name, most):
    np.savez(tmp_path / "a.npz", keypoints3d=listed(layout, count, motion, body))
    read = load_motion(tmp_path / "a.npz", body, fps=12.0)
    assert read.source == f"{name} joints" and read.fps == 12
    assert error(read, motion, body).mean() < most
    lowest = read.posed(body).vertices[..., 1].amax(1)
    assert (lowest.max() - lowest).median() < 0.03


def test_text_to_motion_tools_write_several_samples(tmp_path, body, motion):
    """MDM: a dict with samples, joints, coordinates, frames. Of JSON: lists, with names or without."""
    points = joints(motion, body)[:, :22] @ Y_UP
    samples = np.stack([points[::-1], points]).transpose(0, 2, 3, 1)
    np.save(tmp_path / "results.npy", {"motion": samples, "text": ["a", "b"], "lengths": np.array([FRAMES] * 2)})
    assert error(load_motion(tmp_path / "results.npy", body, 1), motion, body).max() < 0.01
    assert error(load_motion(tmp_path / "results.npy", body), motion, body).max() > 0.05
    with pytest.raises(ValueError, match="results.npy has 2 people, so there is no person 2; choose 0 to 1"):
        load_motion(tmp_path / "results.npy", body, 2)
    (tmp_path / "a.json").write_text(json.dumps({"name": "x", "fps": 10, "joints": points.tolist()}))
    (tmp_path / "b.json").write_text(json.dumps(points.tolist()))
    for name, rate in (("a", 10), ("b", 30)):
        read = load_motion(tmp_path / f"{name}.json", body)
        assert read.fps == rate and error(read, motion, body).max() < 0.01


def test_vectors_of_humanml3d_are_joints(tmp_path, body, motion):
    """Written as the data set's own code reads them."""
    points = joints(motion, body)[:, :22] @ Y_UP
    points -= points[0, 0] * [1, 0, 1]
    half = np.linspace(0, 0.7, FRAMES)  # of the angle by which the root is turned
    cos, sin, none = np.cos(2 * half), np.sin(2 * half), 0 * half
    to_front = np.stack([[cos, none, sin], [none, none + 1, none], [-sin, none, cos]]).transpose(2, 0, 1)
    place = points[:, 0] * [1, 0, 1]
    rows = np.zeros((FRAMES, 263))
    rows[:-1, 0] = np.diff(half)
    rows[:-1, 1:3] = (to_front[1:] @ np.diff(place, axis=0)[..., None])[:, [0, 2], 0]
    rows[:, 3] = points[:, 0, 1]
    rows[:, 4:67] = ((points[:, 1:] - place[:, None]) @ to_front.transpose(0, 2, 1)).reshape(FRAMES, 63)
    np.save(tmp_path / "a.npy", rows)
    assert error(load_motion(tmp_path / "a.npy", body), motion, body).max() < 0.01


def test_frames_without_a_person_are_filled(tmp_path, body, motion):
    points = joints(motion, body) @ Y_UP
    points[5] = 0
    points[9] = np.nan
    points[12, 18] = np.nan  # an elbow
    np.save(tmp_path / "a.npy", points)
    read = load_motion(tmp_path / "a.npy", body)
    assert read.confidence.tolist() == [float(frame not in (5, 9)) for frame in range(FRAMES)]
    assert error(read, motion, body).max() < 0.15


def test_other_lists_are_refused_in_a_sentence(tmp_path, body):
    for content, says in (
        ("[[1, 2, 3]]", r"no list of joints \(frames, joints, 3\) with 17 \(COCO\), 22 \(HumanML3D\)"),
        (json.dumps(np.ones((2, 24, 3)).tolist()), "in every frame, bones have no length|its legs have no length"),
        ("{", "a.json cannot be read as a motion: it is damaged"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ValueError, match=says):
            load_motion(tmp_path / "a.json", body)
