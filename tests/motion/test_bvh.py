"""BVH files: our own, and those of other skeletons with other axes, units, rest poses, channels and bones."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from champ.body.skeleton import JOINTS, PARENTS
from champ.body.skinning import forward_kinematics
from champ.motion.bvh import read_bvh, save_bvh, skeleton_of
from champ.motion.camera import CAMERA_FROM_WORLD
from champ.motion.foreign import FRAMES as LONGEST
from champ.motion.formats import load_motion, load_with_joints
from champ.motion.joint_names import find_joints
from champ.motion.presets import perform
from champ.motion.rotation import from_axis_angle, rot_x, rot_y, rot_z, to_axis_angle

FRAMES = 24
ABOUT = {"X": rot_x, "Y": rot_y, "Z": rot_z}
LIMBS = [("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")]
BONES = [(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in LIMBS]


@pytest.fixture(scope="module", params=["salsa", "walk"])
def motion(request, body):
    return perform(request.param, body, FRAMES, 12.0, travel=True)


def in_world(motion, body) -> tuple[Tensor, Tensor]:
    """Places and rotations (F, 24) of the joints, y up."""
    rotations = motion.rotations.clone()
    rotations[:, 0] = CAMERA_FROM_WORLD @ rotations[:, 0]
    rest = body.with_betas(motion.betas).rest().joints[0]
    pelvis = (rest[0] + motion.cam_t) @ CAMERA_FROM_WORLD
    return forward_kinematics(rotations, rest, PARENTS, pelvis - rest[0])[:2]


def angles(turns: Tensor, order: str) -> Tensor:
    """Degrees (F, 3) about three axes one after the other."""
    i, j, k = ("XYZ".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    turns = turns.double()
    first = torch.atan2(-sign * turns[:, j, k], turns[:, k, k])
    second = (sign * turns[:, i, k]).clamp(-1, 1).asin()
    third = torch.atan2(-sign * turns[:, i, j], turns[:, i, i])
    found = torch.stack([first, second, third], dim=1).rad2deg().float()
    again = ABOUT[order[0]](found[:, 0]) @ ABOUT[order[1]](found[:, 1]) @ ABOUT[order[2]](found[:, 2])
    torch.testing.assert_close(again, turns.float(), atol=1e-4, rtol=0)
    return found


class Other:
    """Another tool's skeleton that moves as a motion does."""

    def __init__(self, motion, body):
        self.places, self.turns = in_world(motion, body)
        self.rest = body.with_betas(motion.betas).rest().joints[0].clone()
        self.names = list(JOINTS)
        self.parents = list(PARENTS)
        self.frames = torch.eye(3).repeat(24, 1, 1)  # of each joint, in which its offsets and rotations are
        self.order, self.unit, self.axes = "ZXY", 1.0, torch.eye(3)
        self.everywhere = False  # whether all joints have positions

    def without(self, *names: str) -> None:
        for name in names:
            joint = self.names.index(name)
            above = self.parents[joint]
            self.parents = [above if parent == joint else parent for parent in self.parents]
            self.parents = [p - (p > joint) for i, p in enumerate(self.parents) if i != joint]
            keep = [i for i in range(len(self.names)) if i != joint]
            self.places, self.turns, self.rest, self.frames = (
                self.places[:, keep], self.turns[:, keep], self.rest[keep], self.frames[keep]
            )  # fmt: skip
            del self.names[joint]

    def write(self, path: Path, called: Callable[[str], str] = str) -> Path:
        axes = self.axes
        turns = axes @ self.turns @ self.frames
        lines, columns = ["HIERARCHY"], []

        def joint(i: int) -> None:
            parent = self.parents[i]
            offset, local, place = torch.zeros(3), turns[:, i], self.places[:, i] @ axes.T
            if parent >= 0:
                # In the axes of the parent. For frames that are not turned, those of the file.
                offset = self.frames[parent].T @ (self.rest[i] - self.rest[parent])
                local = turns[:, parent].mT @ turns[:, i]
                between = (self.places[:, i] - self.places[:, parent]) @ axes.T
                place = (turns[:, parent].mT @ between[..., None])[..., 0]
            lines.append(f"{'ROOT' if parent < 0 else 'JOINT'} {called(self.names[i])}")
            lines.append("{")
            lines.append("OFFSET " + " ".join(f"{v:.6f}" for v in (offset * self.unit).tolist()))
            rotation = [f"{axis}rotation" for axis in self.order]
            position = ["Xposition", "Yposition", "Zposition"] if parent < 0 or self.everywhere else []
            lines.append(f"CHANNELS {len(position + rotation)} {' '.join(position + rotation)}")
            columns.extend([place * self.unit] if position else [])
            columns.append(angles(local, self.order))
            for child in [c for c, p in enumerate(self.parents) if p == i]:
                joint(child)
            if i not in self.parents:
                lines.extend(["End Site", "{", "OFFSET 0 0 0", "}"])
            lines.append("}")

        joint(0)
        rows = torch.cat(columns, dim=1)
        lines += ["MOTION", f"Frames: {len(rows)}", "Frame Time: 0.0833333"]
        lines += [" ".join(f"{value:.5f}" for value in row) for row in rows.tolist()]
        path.write_text("\n".join(lines))
        return path


def bones(places: Tensor) -> Tensor:
    at = dict(zip(JOINTS, places.unbind(1)))
    return torch.stack([normalize(at[b] - at[a], dim=1) for a, b in BONES], dim=1)


def apart(a: Tensor, b: Tensor) -> float:
    """The largest angle between directions, in degrees."""
    return float((a * b).sum(-1).clamp(-1, 1).acos().rad2deg().max())


def soles(motion, body) -> Tensor:
    """Height of the lowest point (F,) above the lowest of all."""
    lowest = motion.posed(body).vertices[..., 1].amax(1)
    return lowest.max() - lowest


def test_a_round_trip_is_exact_to_one_degree(tmp_path, body, motion):
    save_bvh(tmp_path / "a.bvh", motion, body)
    again = load_motion(tmp_path / "a.bvh", body)
    assert again.fps == motion.fps and len(again) == len(motion)
    turned = to_axis_angle(motion.rotations.mT @ again.rotations).norm(dim=-1).rad2deg()
    assert turned.max() < 0.1
    moved = [m.posed(body).joints - m.posed(body).joints[:1, :1] for m in (motion, again)]
    assert (moved[0] - moved[1]).norm(dim=-1).max() < 0.002
    text = (tmp_path / "a.bvh").read_text()
    assert text.startswith("HIERARCHY\nROOT Hips\n{\n  OFFSET 0.000000 0.000000 0.000000\n  CHANNELS 6 Xposition")
    first = read_bvh(tmp_path / "a.bvh").posed(slice(0, 1))[1][0]
    assert abs(float(first[0, 0])) + abs(float(first[0, 2])) < 1e-5 and -0.05 < float(first[:, 1].min()) < 0.1


def test_angles_go_on_without_jumps(tmp_path, body):
    save_bvh(tmp_path / "a.bvh", perform("turntable", body, 24, 12.0), body)
    values = read_bvh(tmp_path / "a.bvh").values
    assert abs(values[1:] - values[:-1]).max() < 20
    assert abs(values).max() > 300


def test_other_axes_units_channels_and_an_a_pose(tmp_path, body, motion):
    """z up in inches, XYZ, positions on all joints, and arms that hang in the rest pose."""
    other = Other(motion, body)
    true = bones(other.places)
    # The arms of the rest pose hang by 50 degrees: their joints are turned back in every frame.
    for side, sign in (("left", -1.0), ("right", 1.0)):
        arm = [JOINTS.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist", "hand")]
        down = rot_z(sign * 50.0)
        start = other.rest[arm[0]].clone()
        other.rest[arm] = (other.rest[arm] - start) @ down.T + start
        other.turns[:, arm] = other.turns[:, arm] @ down.T
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    other.axes, other.rest, other.turns = z_up, other.rest @ z_up.T, other.turns @ z_up.T
    other.order, other.unit, other.everywhere = "XYZ", 39.37, True
    read = load_motion(other.write(tmp_path / "a.bvh"), body)
    assert apart(bones(in_world(read, body)[0]), true) < 0.5
    error = to_axis_angle(in_world(read, body)[1].mT @ in_world(motion, body)[1]).norm(dim=-1).rad2deg()
    assert error[:, [JOINTS.index("left_wrist"), JOINTS.index("right_elbow")]].max() < 12  # arms do not hang as A
    assert (soles(read, body) - soles(motion, body)).abs().max() < 0.015


@pytest.mark.parametrize("axis", "xy")
def test_bones_along_one_axis_are_understood_from_their_movement(tmp_path, body, motion, axis):
    """As of Bandai-Namco and LAFAN1: nothing in the rest pose says how a joint is turned."""
    other = Other(motion, body)
    true, rest = bones(other.places), other.rest.clone()
    for i, name in enumerate(JOINTS):
        below = [c for c, p in enumerate(PARENTS) if p == i]
        along = rest[below[0]] - rest[i] if below else rest[i] - rest[PARENTS[i]]
        trunk = name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
        x = torch.tensor([0, 1.0, 0]) if trunk else normalize(along, dim=0) * (-1 if "right" in name else 1)
        z = normalize(torch.linalg.cross(x, torch.tensor([0.3, 0.2, 1.0])), dim=0)
        if trunk:
            z = torch.tensor([0.0, 0, 1.0])
        y = torch.linalg.cross(z, x)
        other.frames[i] = torch.stack([x, y, z] if axis == "x" else [-y, x, z], dim=1)
    read = load_motion(other.write(tmp_path / "a.bvh"), body)
    assert apart(bones(in_world(read, body)[0]), true) < 2
    error = to_axis_angle(in_world(read, body)[1].mT @ in_world(motion, body)[1]).norm(dim=-1).rad2deg().mean(0)
    for name in ("pelvis", "spine3", "head", "left_hip", "right_knee", "left_ankle", "right_ankle"):
        assert error[JOINTS.index(name)] < 10, name
    assert (soles(read, body) - soles(motion, body)).abs().max() < 0.02


def test_other_proportions_and_fewer_joints(tmp_path, body, motion):
    """A child of 60 % with a wide pelvis, one spine joint, no collars and no toes, in centimetres."""
    other = Other(motion, body)
    other.without(
        "spine1", "spine2", *(f"{side}_{part}" for side in ("left", "right") for part in ("collar", "foot", "hand"))
    )
    at = dict(zip(other.names, range(len(other.names))))
    hips = [at["left_hip"], at["right_hip"]]
    wide = torch.tensor([[0.04, 0, 0], [-0.04, 0, 0]])
    for hip, more in zip(hips, wide):
        below = [i for i, name in enumerate(other.names) if name[:4] == other.names[hip][:4] and i >= hip]
        legs = [i for i in below if other.names[i].endswith(("hip", "knee", "ankle"))]
        other.rest[legs] += more
        other.places[:, legs] += (other.turns[:, :1] @ more[:, None])[..., 0]
    other.unit = 60.0
    read = load_motion(other.write(tmp_path / "a.bvh"), body)
    assert apart(bones(in_world(read, body)[0])[:, 2:4], bones(in_world(motion, body)[0])[:, 2:4]) < 0.5  # arms
    ankles = [JOINTS.index(f"{side}_ankle") for side in ("left", "right")]
    places = in_world(read, body)[0]
    step = (places[:, ankles[0]] - places[:, ankles[1]]).norm(dim=1)
    wanted = (other.places[:, at["left_ankle"]] - other.places[:, at["right_ankle"]]).norm(dim=1)
    torch.testing.assert_close(step, wanted, atol=0.01, rtol=0)
    assert soles(read, body).median() < 0.03


def test_lines_may_be_broken_and_written_in_any_way(tmp_path, body, motion):
    save_bvh(tmp_path / "a.bvh", motion[:2], body)
    head, frames = (tmp_path / "a.bvh").read_text().split("Frame Time: ")
    time, *rows = frames.split("\n")
    rows = [row.replace(" ", "\n", 5) for row in rows]
    head = head.replace("\n", "\r\n").replace("{\r\n", "{").replace("JOINT", "Joint").replace("OFFSET", "\tOffset ")
    (tmp_path / "b.bvh").write_text("\ufeff" + head + "Frame Time:\t" + time + "\n\n" + "\n".join(rows), "utf-8")
    a, b = (read_bvh(tmp_path / f"{name}.bvh") for name in "ab")
    assert (a.values == b.values).all() and a.nodes == b.nodes


GOOD = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 3 Xrotation Yrotation Zrotation\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\n"
GOOD += "MOTION\nFrames: 2\nFrame Time: 0.04\n1 2 3\n4 5 6\n"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("HIERARCHY", "SKELETON", "line 1 is 'SKELETON', and a BVH file begins with HIERARCHY"),
        ("OFFSET 0 1 0", "OFFSET 0 1", "line 8, 'OFFSET 0 1': 3 numbers are expected"),
        ("3 Xrotation", "2 Xrotation", "line 5, .*: up to 6 channels are expected"),
        ("}\n}\n", "}\n", "line 10 begins the motion, but the skeleton is not complete"),
        ("}\n}\n", "}\n}\n}\n", "line 11, '}': no skeleton has that here"),
        ("End Site", "Joint b\nEnd Site", "line 7, 'End Site': there is a joint without a bracket"),
        ("Frames: 2", "Frames: many", "line 12: a number is expected where there is none"),
        ("Frames: 2", "Frames: 999999", "it has 999999 frames, and 1 to 100000 can be read"),
        ("Frames: 2", "Frames: 3", "it ends in frame 2, and a frame has 3 numbers"),
        ("0.04", "0", "line 13 lets a frame take 0 seconds"),
        ("4 5 6", "4 nan 6", "line 15: a number is not finite"),
        ("4 5 6", "4 5 6 7", "line 15 goes on after the 3 numbers of a frame"),
        ("4 5 6", "4 x 6", "line 15: a number is expected"),
        ("4 5 6", "", "it ends in frame 1"),
    ],
)
def test_what_is_damaged_is_said_with_the_line(tmp_path, was, now, says):
    (tmp_path / "a.bvh").write_text(GOOD)
    assert read_bvh(tmp_path / "a.bvh").values.tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "a.bvh").write_text(GOOD.replace(was, now))
    with pytest.raises(ValueError, match=rf"a\.bvh cannot be read as a motion: {says}.*; export it again as BVH\.$"):
        read_bvh(tmp_path / "a.bvh")


def test_unknown_names_are_asked_for_and_can_be_said(tmp_path, body, motion):
    other = Other(motion, body)
    path = other.write(tmp_path / "a.bvh", lambda name: f"bone_{chr(97 + JOINTS.index(name))}")
    with pytest.raises(ValueError, match="a.bvh has no joint that is known to be left_hip.* of bone_a, bone_b"):
        load_motion(path, body)
    lines = [f"{name} = Bone_{chr(97 + i)}" for i, name in enumerate(JOINTS) if not name.startswith("spine")]
    said = "\n".join([*lines, "spine = bone_d, bone_g, bone_j", "up = y"])
    read, told = load_with_joints(path, body, 0, 512, 768, 30.0, said)
    turned = to_axis_angle(motion.rotations[:, 1:].mT @ read.rotations[:, 1:]).norm(dim=-1).rad2deg()
    assert turned.max() < 0.1
    assert "left_knee = bone_e\n" in told and "spine = bone_d, bone_g, bone_j" in told
    again = load_with_joints(path, body, 0, 512, 768, 30.0, told.split("\n", 1)[1])[0]
    assert torch.equal(again.rotations, read.rotations)
    for line, says in (
        ("left_knee : bone_e", "a line such as left_knee = LeftLeg is expected"),
        ("left_knee = bone_z", "the file has no joint 'bone_z'"),
        ("up = north", "up is x, y or z"),
    ):
        with pytest.raises(ValueError, match=says):
            load_with_joints(path, body, 0, 512, 768, 30.0, line)


def with_toes(text: str, toe: str) -> str:
    """Our own BVH file with more below each foot."""
    feet = text.split("ToeBase")
    return "ToeBase".join([feet[0], *(part.replace("End Site", f"{toe}End Site", 1) for part in feet[1:])])


def test_joints_that_cost_a_file_nothing_do_not_cost_memory_in_every_frame(tmp_path, body):
    save_bvh(tmp_path / "a.bvh", perform("walk", body, 1, 12.0), body)
    head, frame = with_toes((tmp_path / "a.bvh").read_text(), "JOINT t\n{\n}\n" * 450).split("Frames: 1\n")
    time, row = frame.splitlines()
    many = "\n".join([time, *[" ".join("0" for _ in row.split())] * 8000])
    (tmp_path / "b.bvh").write_text(f"{head}Frames: 8000\n{many}\n")
    with pytest.raises(ValueError, match=r"^b\.bvh cannot be read.*it would take far more memory than its size; exp"):
        load_motion(tmp_path / "b.bvh", body)


def test_an_hour_of_a_skeleton_with_fingers_and_toes_has_room(tmp_path, body):
    save_bvh(tmp_path / "a.bvh", perform("walk", body, 1, 12.0), body)
    end = "End Site\n{\nOFFSET 0 0 0.02\n}\n"
    toes = "".join(f"JOINT toe{i}\n{{\nOFFSET 0.0{i} 0 0.05\n{end}}}\n" for i in range(5))
    (tmp_path / "b.bvh").write_text(with_toes((tmp_path / "a.bvh").read_text(), toes))
    clip = read_bvh(tmp_path / "b.bvh")
    found = find_joints(clip.tree(), "b.bvh")
    hour = replace(clip, values=clip.values.repeat(LONGEST, axis=0))
    skeleton = skeleton_of(hour, clip.tree(), found)
    assert skeleton.turns.shape[:2] == (LONGEST, 24) and skeleton.places.shape[:2] == (LONGEST, 46)


def test_a_joint_can_be_left_out(tmp_path, body, motion):
    save_bvh(tmp_path / "a.bvh", motion, body)
    stiff = load_with_joints(tmp_path / "a.bvh", body, 0, 512, 768, 30.0, "left_wrist = none\nhead = none")[0]
    still = stiff.rotations[:, [JOINTS.index("left_wrist"), JOINTS.index("head")]]
    torch.testing.assert_close(still, torch.eye(3).expand_as(still), atol=1e-5, rtol=0)


def test_it_can_be_cancelled(tmp_path, body, motion):
    from champ.progress import listening

    save_bvh(tmp_path / "a.bvh", motion, body)
    seen: list[float] = []
    with listening(lambda done, total: seen.append(done / total)):
        load_motion(tmp_path / "a.bvh", body)
    assert len(seen) > 3

    class Cancelled(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled), listening(stop):
        load_motion(tmp_path / "a.bvh", body)


def test_a_frame_time_of_few_digits_is_the_rate_that_is_meant(tmp_path):
    for time, rate in (("0.0333333", 30), ("0.008333", 120), (".0416667", 24), ("0.0417083750417", 23.976)):
        (tmp_path / "a.bvh").write_text(GOOD.replace("0.04", time))
        assert math.isclose(read_bvh(tmp_path / "a.bvh").fps, rate)


def test_random_frames_still_give_the_limbs(tmp_path, body, motion):
    """Joints whose axes lie anyhow, as of Kimodo's own rest pose."""
    other = Other(motion, body)
    torch.manual_seed(0)
    other.frames = from_axis_angle(torch.randn(24, 3))
    read = load_motion(other.write(tmp_path / "a.bvh"), body)
    assert apart(bones(in_world(read, body)[0]), bones(other.places)) < 8
