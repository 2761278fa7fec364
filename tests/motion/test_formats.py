"""Files in each tool's own layout, of one and the same motion: its axes, its pivot, its gaps; and hostile files."""

import io
import math
import os
import pickle
import sys
import time
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from champ.body.smpl import load_smpl
from champ.motion.foreign import SMPL_PELVIS, SMPLX_PELVIS
from champ.motion.formats import load_motion, save_amass, save_motion
from champ.motion.motion import Motion
from champ.motion.retime import sample
from champ.motion.rotation import from_axis_angle, rot_x, rot_y, to_quaternion
from champ.progress import listening

DATA = Path(__file__).parents[1] / "data"
FRAMES = 5
PLACE = torch.tensor([0.3, 0.4, 9.0])  # of the pelvis in the first frame


@pytest.fixture(scope="module")
def smpl():
    return load_smpl(DATA / "smpl" / "SMPL_small_synth.npz")


def pose() -> torch.Tensor:
    """Axis-angle (F, 24, 3) of an upright person before the camera who turns and bends; hands at rest."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(FRAMES, 24, 3, generator=generator) * 0.3
    vectors[:, 22:] = 0
    upright = rot_x(180.0) @ rot_y(torch.linspace(20, 60, FRAMES))
    vectors[:, 0] = vector(upright)
    return vectors


def vector(matrix: torch.Tensor) -> torch.Tensor:
    q = to_quaternion(matrix)
    return 2 * q[..., :1].clamp(-1, 1).acos() * torch.nn.functional.normalize(q[..., 1:], dim=-1)


def pelvis() -> torch.Tensor:
    return PLACE + torch.linspace(0, 0.2, FRAMES)[:, None] * torch.tensor([1.0, -0.5, 2.0])


def transl(rest) -> np.ndarray:
    """What a tool adds to its posed body, so that the pelvis gets to its place."""
    return (pelvis() - torch.as_tensor(rest)).numpy()


MATRICES = from_axis_angle(pose()).numpy()
BETAS = np.linspace(-0.5, 0.5, 10, dtype=np.float32)


def joblib_dump(path: Path, value, compress: bool = False, padded: bool = True) -> None:
    """joblib.dump's layout: each array is a described wrapper, and its bytes follow in the stream."""
    module = types.ModuleType("joblib.numpy_pickle")
    wrapper = type("NumpyArrayWrapper", (), {"__module__": "joblib.numpy_pickle"})
    module.NumpyArrayWrapper = wrapper

    class Pickler(pickle._Pickler):
        def save(self, value, save_persistent_id=True):
            if type(value) is not np.ndarray:
                return super().save(value, save_persistent_id)
            note = wrapper()
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            note.__dict__ = {"subclass": np.ndarray, "shape": value.shape, "order": order, "dtype": value.dtype,
                             "allow_mmap": True}  # fmt: skip
            if padded:
                note.numpy_array_alignment_bytes = 16
            super().save(note)
            self.framer.commit_frame(force=True)
            if padded:
                padding = 16 - (self.file.tell() + 1) % 16
                self.file.write(bytes([padding]) + b"\xff" * padding)
            self.file.write(value.tobytes(order))

    packages = {"joblib": types.ModuleType("joblib"), "joblib.numpy_pickle": module}
    before = {name: sys.modules.get(name) for name in packages}
    sys.modules.update(packages)
    try:
        file = io.BytesIO()
        pickler = Pickler(file, protocol=4)
        pickler.file = file
        pickler.dump(value)
    finally:
        for name, old in before.items():
            sys.modules.pop(name) if old is None else sys.modules.update({name: old})
    path.write_bytes(zlib.compress(file.getvalue(), 3) if compress else file.getvalue())


def check(motion: Motion, body, frames=range(FRAMES)) -> None:
    """The joints of those frames, and with them axes, pivot and betas, are those of the motion above."""
    expected = body.with_betas(motion.betas).pose(
        torch.from_numpy(MATRICES), pelvis() - body.with_betas(motion.betas).rest().joints[0, 0]
    )
    torch.testing.assert_close(motion.posed(body).joints[list(frames)], expected.joints, atol=2e-5, rtol=0)


def rest(body) -> torch.Tensor:
    return body.with_betas(torch.from_numpy(BETAS)).rest().joints[0, 0]


def same_up_to_a_view(motion: Motion, body) -> None:
    """The motion above, seen from another side: one turn about the vertical and one shift for all frames."""
    expected = body.with_betas(motion.betas).pose(
        torch.from_numpy(MATRICES), pelvis() - body.with_betas(motion.betas).rest().joints[0, 0]
    )
    seen = motion.posed(body).joints
    torch.testing.assert_close(seen - seen[:1, :1], expected.joints - expected.joints[:1, :1], atol=2e-5, rtol=0)
    pixels = motion.project(motion.posed(body).vertices)
    assert pixels.min() >= 0 and (pixels <= torch.tensor([motion.width, motion.height])).all()


def test_our_own_file_gives_back_every_bit(tmp_path, body):
    confidence = torch.tensor([1, 0.5, 0, 1, 1])
    place = torch.from_numpy(transl(SMPL_PELVIS))
    shot = torch.tensor([0, 0, 0, 1, 1])
    motion = Motion(
        torch.from_numpy(MATRICES), torch.randn(16), place, 1234.1, 400, 300, 23.976, confidence, "test", shot
    )
    save_motion(tmp_path / "m.safetensors", motion)
    again = load_motion(tmp_path / "m.safetensors", body)
    for name, value in vars(motion).items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(getattr(again, name), value), name


def test_a_file_from_before_shots_were_known_has_one(tmp_path, body):
    motion = Motion(torch.from_numpy(MATRICES), torch.zeros(10), pelvis(), 5000, 512, 768, 25, torch.ones(FRAMES), "t")
    save_motion(tmp_path / "new.safetensors", motion)
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        about, values = file.metadata(), {name: file.get_tensor(name) for name in file.keys() if name != "shot"}
    save_file(values, tmp_path / "old.safetensors", about)
    assert load_motion(tmp_path / "old.safetensors", body).shot.tolist() == [0] * FRAMES


def amass(rest_pelvis, **more) -> dict:
    """World with z up, seen by a camera that looks along +y: x right, y forward, z up."""
    to_world = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32)
    vectors = pose().numpy()
    vectors[:, 0] = vector(torch.from_numpy(to_world @ MATRICES[:, 0])).numpy()
    trans = pelvis().numpy() @ to_world.T - np.asarray(rest_pelvis, dtype=np.float32)
    return {"poses": vectors, "trans": trans, **more}


def test_amass_smplh_stands_up_and_is_in_the_picture(tmp_path, smpl):
    data = amass(rest(smpl), betas=np.pad(BETAS, (0, 6)), mocap_framerate=np.array(120.0), gender=np.array("female"))
    data["poses"] = np.pad(data["poses"][:, :22].reshape(FRAMES, 66), ((0, 0), (0, 90)), constant_values=0.7)
    np.savez(tmp_path / "walk_poses.npz", **data)
    motion = load_motion(tmp_path / "walk_poses.npz", smpl, width=300, height=400)
    assert (motion.fps, motion.width, motion.height) == (120, 300, 400)
    torch.testing.assert_close(motion.betas.numpy(), BETAS)
    same_up_to_a_view(motion, smpl)


def test_hy_motion_writes_amass_with_y_up(tmp_path, smpl):
    """In the axes of the camera but for y up and z to the front, and with the root's rotation as Rh."""
    vectors, upright = pose().numpy(), np.diag([1, -1, -1]).astype(np.float32)
    vectors[:, 0] = vector(torch.from_numpy(upright @ MATRICES[:, 0])).numpy()
    trans = pelvis().numpy() @ upright - np.asarray(rest(smpl), dtype=np.float32)
    poses = np.pad(vectors[:, :22].reshape(FRAMES, 66), ((0, 0), (0, 90)))
    about = {"betas": np.pad(BETAS, (0, 6))[None], "num_frames": FRAMES, "mocap_framerate": 30, "gender": "neutral"}
    np.savez(tmp_path / "hy.npz", poses=poses, trans=trans, Rh=poses[:, :3], **about)
    motion = load_motion(tmp_path / "hy.npz", smpl, width=300, height=400)
    assert (motion.source, motion.fps) == ("HY-Motion", 30)
    same_up_to_a_view(motion, smpl)


def test_amass_smplx_keeps_its_pelvis_and_leaves_its_betas(tmp_path, body):
    data = amass(SMPLX_PELVIS, betas=np.ones(16), mocap_frame_rate=np.array(60.0), surface_model_type=np.array("smplx"))
    poses = data.pop("poses")
    data |= {
        "root_orient": poses[:, 0],
        "pose_body": poses[:, 1:22].reshape(FRAMES, 63),
        "poses": np.ones((FRAMES, 165)),
    }
    np.savez(tmp_path / "walk_stageii.npz", **data)
    motion = load_motion(tmp_path / "walk_stageii.npz", body)
    assert motion.fps == 60 and not motion.betas.any()
    same_up_to_a_view(motion, body)


@pytest.mark.parametrize("kind", ["body", "smpl"])
def test_what_is_saved_as_amass_comes_back(tmp_path, kind, request):
    body = request.getfixturevalue(kind)
    shape = torch.from_numpy(BETAS) if kind == "smpl" else body.betas
    place = pelvis() - body.with_betas(shape).rest().joints[0, 0]
    motion = Motion(torch.from_numpy(MATRICES), shape, place, 5000, 512, 768, 25, torch.ones(FRAMES), "test")
    save_amass(tmp_path / "m.npz", motion, body)
    with np.load(tmp_path / "m.npz") as file:
        assert (
            file["poses"].shape == (FRAMES, 156) and file["betas"].shape == (16,) and file["dmpls"].shape == (FRAMES, 8)
        )
        start = torch.from_numpy(file["trans"][0]).float()
    again = load_motion(tmp_path / "m.npz", body)
    assert again.fps == 25
    same_up_to_a_view(again, body)
    origin = body.with_betas(shape).rest().joints[0, 0] if kind == "smpl" else torch.tensor(SMPL_PELVIS)
    heights = PLACE[1] - motion.posed(body).vertices[..., 1]  # of the vertices above the first pelvis
    torch.testing.assert_close(
        start + origin, torch.stack([torch.tensor(0.0)] * 2 + [-heights.min()]), atol=1e-5, rtol=0
    )


def test_champs_own_file(smpl):
    """As the official tool wrote it: 4D-Humans' lens, one shape, every rotation and place unchanged."""
    path = DATA / "motion" / "smpls_group.npz"
    motion = load_motion(path, smpl, width=640, height=360, fps=25)
    with np.load(path, allow_pickle=True) as file:  # a file of the test data
        people, camera = file["smpl"], file["camera"]
    expected = np.concatenate([np.concatenate([p["global_orient"], p["body_pose"]], axis=1) for p in people])
    np.testing.assert_allclose(motion.rotations.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(motion.cam_t.numpy(), camera)
    np.testing.assert_allclose(motion.betas.numpy(), np.mean([p["betas"][0] for p in people], axis=0), atol=1e-6)
    assert motion.focal == 12500 and (motion.width, motion.height, motion.fps) == (640, 360, 25)


def test_smoothed_rotations_are_rotations_again(tmp_path, smpl):
    person = {"global_orient": 0.97 * MATRICES[None, :1, :1][0], "body_pose": 0.97 * MATRICES[None, 0, 1:],
              "betas": BETAS[None]}  # fmt: skip
    np.savez(tmp_path / "g.npz", smpl=np.array([person], dtype=object), camera=transl(rest(smpl))[:1])
    motion = load_motion(tmp_path / "g.npz", smpl)
    np.testing.assert_allclose(motion.rotations[0].numpy(), MATRICES[0], atol=1e-5)


def wham(body) -> dict:
    others = {"pose_world": np.zeros((FRAMES, 72)), "trans_world": np.zeros((FRAMES, 3))}
    betas = np.repeat(BETAS[None], FRAMES, axis=0)
    person = {"pose": pose().reshape(FRAMES, 72).numpy(), "trans": transl(rest(body)), "betas": betas, **others}
    short = {name: value[:2] for name, value in person.items()}
    return {3: {**short, "frame_ids": np.array([0, 8])}, 5: {**person, "frame_ids": np.array([1, 2, 3, 4, 6])}}


@pytest.mark.parametrize(("compress", "padded"), [(False, True), (True, True), (False, False)])
def test_wham_with_two_people_and_a_gap(tmp_path, smpl, compress, padded):
    from collections import defaultdict

    joblib_dump(tmp_path / "wham_output.pkl", defaultdict(dict, wham(smpl)), compress, padded)
    motion = load_motion(tmp_path / "wham_output.pkl", smpl, width=300, height=400)
    check(motion, smpl, (1, 2, 3, 4, 6))
    assert motion.focal == 500 and len(motion) == 9
    assert motion.confidence.tolist() == [0, 1, 1, 1, 1, 0, 1, 0, 0]
    halfway = sample(motion[torch.tensor([4, 6])], torch.tensor([0.5]))
    torch.testing.assert_close(motion.rotations[5:6], halfway.rotations)
    torch.testing.assert_close(motion.cam_t[5:6], halfway.cam_t)
    torch.testing.assert_close(motion.rotations[8], motion.rotations[6])
    assert load_motion(tmp_path / "wham_output.pkl", smpl, person=1).confidence.nonzero().flatten().tolist() == [0, 8]
    with pytest.raises(ValueError, match="has 2 people, so there is no person 2; choose 0 to 1"):
        load_motion(tmp_path / "wham_output.pkl", smpl, person=2)


def test_joblib_itself_writes_what_is_read_here(tmp_path, smpl):
    joblib = pytest.importorskip("joblib")
    for compress in (0, 3, ("gzip", 3)):
        joblib.dump(wham(smpl), tmp_path / "w.pkl", compress=compress)
        check(load_motion(tmp_path / "w.pkl", smpl), smpl, (1, 2, 3, 4, 6))


def test_another_body_keeps_its_shape_and_the_place_of_the_pelvis(tmp_path, smpl, body):
    joblib_dump(tmp_path / "w.pkl", wham(smpl))
    motion = load_motion(tmp_path / "w.pkl", body.with_betas(torch.tensor([1.0])))
    assert motion.betas[0] == 1 and not motion.betas[1:].any()
    shift = torch.tensor(SMPL_PELVIS) - rest(smpl)
    seen = motion.posed(body).joints[[1, 2, 3, 4, 6], 0]
    torch.testing.assert_close(seen, pelvis() + shift, atol=1e-5, rtol=0)


def test_gvhmr_has_its_camera_and_smplx_pelvis(tmp_path, body):
    camera = torch.tensor([[900.0, 0, 320], [0, 900, 180], [0, 0, 1]]).repeat(FRAMES, 1, 1)
    params = {"body_pose": pose()[:, 1:22].reshape(FRAMES, 63), "global_orient": pose()[:, 0],
              "betas": torch.ones(FRAMES, 10), "transl": torch.from_numpy(transl(SMPLX_PELVIS))}  # fmt: skip
    world = {name: torch.zeros_like(value) for name, value in params.items()}
    values = {
        "smpl_params_global": world,
        "smpl_params_incam": params,
        "K_fullimg": camera,
        "net_outputs": {"x": camera},
    }
    torch.save(values, tmp_path / "hmr4d_results.pt")
    motion = load_motion(tmp_path / "hmr4d_results.pt", body)
    check(motion, body)
    assert (motion.focal, motion.width, motion.height) == (900, 640, 360) and not motion.betas.any()


def phalp(body) -> dict:
    """Two tracks; in frame 2 the first is a ghost that repeats its last values."""
    frames = {}
    ghost = {"global_orient": MATRICES[0][:1], "body_pose": MATRICES[0][1:], "betas": BETAS}
    for t in range(FRAMES):
        mine = {"global_orient": MATRICES[t][:1], "body_pose": MATRICES[t][1:], "betas": BETAS}
        frames[f"frames/{t:06}.jpg"] = {
            "time": t, "tid": [1, np.int64(2)], "tracked_time": [2 if t == 2 else 0, 0], "size": [[360, 640]] * 2,
            "smpl": [ghost, mine], "camera": [np.zeros(3, np.float32), transl(rest(body))[t]], "shot": 0,
            "conf": [np.float32(0.9), 0.8], "img": [None, "x"],
        }  # fmt: skip
    return frames


def test_4d_humans_tracks_leave_ghosts_out(tmp_path, smpl):
    joblib_dump(tmp_path / "demo_x.pkl", phalp(smpl), compress=True)
    motion = load_motion(tmp_path / "demo_x.pkl", smpl)
    check(motion, smpl)
    assert motion.focal == 12500 and (motion.width, motion.height) == (640, 360)
    assert load_motion(tmp_path / "demo_x.pkl", smpl, person=1).confidence.tolist() == [1, 1, 0, 1, 1]


def test_tram_with_the_camera_beside_its_folder(tmp_path, smpl):
    track = {
        "pred_rotmat": torch.from_numpy(MATRICES), "pred_shape": torch.from_numpy(BETAS).repeat(FRAMES, 1),
        "pred_trans": torch.from_numpy(transl(rest(smpl)))[:, None], "frame": torch.tensor([0, 1, 2, 4, 5]),
    }  # fmt: skip
    (tmp_path / "hps").mkdir()
    np.save(tmp_path / "hps" / "hps_track_0.npy", track)
    motion = load_motion(tmp_path / "hps" / "hps_track_0.npy", smpl, width=300, height=400)
    assert motion.focal == 500 and len(motion) == 6
    camera = {"pred_cam_R": np.zeros((8, 3, 3)), "img_focal": 777.0, "img_center": np.array([320.0, 240.0])}
    np.save(tmp_path / "camera.npy", camera)
    motion = load_motion(tmp_path / "hps" / "hps_track_0.npy", smpl)
    check(motion, smpl, (0, 1, 2, 4, 5))
    assert (motion.focal, motion.width, motion.height) == (777, 640, 480)
    assert motion.confidence.tolist() == [1, 1, 1, 0, 1, 1, 0, 0]


def prompt_hmr() -> dict:
    """Two people of SMPL-X with 55 joints; masks and keypoints stand beside them."""
    matrices = np.tile(np.eye(3, dtype=np.float32), (FRAMES, 55, 1, 1))
    matrices[:, :22] = MATRICES[:, :22]
    matrices[:, 22:] = rot_x(30.0).numpy()  # jaw, eyes and fingers
    seen = {"rotmat": matrices, "pose": np.zeros((FRAMES, 75), np.float32), "shape": np.ones((FRAMES, 10), np.float32),
            "trans": transl(SMPLX_PELVIS)}  # fmt: skip
    person = {"frames": np.array([0, 1, 2, 4, 5]), "track_id": np.int64(2), "smplx_cam": seen,
              "smplx_world": {"rotmat": matrices * 0, "trans": transl(SMPLX_PELVIS) * 0}}  # fmt: skip
    short = {"frames": np.array([3]), "smplx_cam": {name: value[:1] for name, value in seen.items()}}
    camera = {"pred_cam_R": np.zeros((7, 3, 3)), "pred_cam_T": np.zeros((7, 3)), "img_focal": np.float32(777),
              "img_center": np.array([320.0, 240.0])}  # fmt: skip
    return {"camera": camera, "people": {1: short, 2: person}, "masks": np.ones((7, 4, 4), bool), "has_slam": True,
            "timings": {}, "contact_joint_ids": [7, 10]}  # fmt: skip


def test_prompt_hmr_has_smplx_and_one_camera(tmp_path, body):
    joblib_dump(tmp_path / "results.pkl", prompt_hmr())
    motion = load_motion(tmp_path / "results.pkl", body)
    check(motion, body, (0, 1, 2, 4, 5))
    assert (motion.focal, motion.width, motion.height) == (777, 640, 480) and not motion.betas.any()
    assert motion.source == "PromptHMR" and motion.confidence.tolist() == [1, 1, 1, 0, 1, 1, 0]
    assert load_motion(tmp_path / "results.pkl", body, person=1).confidence.tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_romp_with_an_empty_frame(tmp_path, smpl):
    results = {}
    for t in range(FRAMES):
        results[f"{2 * t:08}.jpg"] = {
            "smpl_thetas": np.stack([np.zeros(72, np.float32), pose()[t].reshape(72).numpy()]),
            "smpl_betas": np.stack([BETAS, BETAS]), "cam_trans": np.stack([np.zeros(3), transl(rest(smpl))[t]]),
            "track_ids": np.array([8, 7]),
        }  # fmt: skip
        if t == 1:
            results[f"{2 * t:08}.jpg"] = {k: v[1:] for k, v in results[f"{2 * t:08}.jpg"].items()}
            results["00000003.jpg"] = {}
    np.savez(tmp_path / "video_results.npz", results=results)
    motion = load_motion(tmp_path / "video_results.npz", smpl, width=512, height=512)
    check(motion, smpl, (0, 1, 3, 4, 5))
    assert motion.confidence.tolist() == [1, 1, 0, 1, 1, 1]
    assert math.isclose(motion.focal, 443.405, abs_tol=1e-3)


def test_meshcapade_has_y_up(tmp_path, smpl):
    flip = np.diag(np.array([1, -1, -1], dtype=np.float32))
    vectors = pose().numpy()
    vectors[:, 0] = vector(torch.from_numpy(flip @ MATRICES[:, 0])).numpy()
    place = pelvis().numpy() @ flip - rest(smpl).numpy()
    with (tmp_path / "a.smpl").open("wb") as file:
        about = {"codecVersion": 2, "smplVersion": 0, "gender": 2, "frameCount": FRAMES, "frameRate": 24.0}
        np.savez(file, shapeParameters=BETAS, bodyTranslation=place, bodyPose=vectors, **about)
    motion = load_motion(tmp_path / "a.smpl", smpl)
    assert motion.fps == 24
    same_up_to_a_view(motion, smpl)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["pkl", "npz", "npy", "pt"])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path, body, kind):
    hostile, path = Hostile(), tmp_path / f"bad.{kind}"
    hostile.marker = tmp_path / "ran"
    if kind == "pkl":
        joblib_dump(path, {1: {"pose": hostile}})
    elif kind == "npz":
        np.savez(path, smpl=np.array([hostile], dtype=object), camera=np.zeros((1, 3)))
    elif kind == "npy":
        np.save(path, np.array(hostile, dtype=object), allow_pickle=True)
    else:
        torch.save({"smpl_params_incam": hostile}, path)
    with pytest.raises(ValueError, match="was refused and nothing in it was run"):
        load_motion(path, body)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["pkl", "npz", "npy", "pt", "smpl", "safetensors"])
def test_a_damaged_file_is_named(tmp_path, body, kind):
    (tmp_path / f"bad.{kind}").write_bytes(b"nothing of the sort")
    with pytest.raises(ValueError, match=rf"bad\.{kind} cannot be read as a motion: it is \w+"):
        load_motion(tmp_path / f"bad.{kind}", body)


def test_other_files_are_no_motions(tmp_path, body, smpl):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz holds no motion of Champ, AMASS"):
        load_motion(tmp_path / "other.npz", body)
    save_file({"x": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="weights.safetensors is not a motion: it was not written by Save Motion"):
        load_motion(tmp_path / "weights.safetensors", body)
    with pytest.raises(ValueError, match="choose a file that ends in .safetensors, .bvh, .npz"):
        load_motion(tmp_path / "x.fbx", body)


# What a file claims is checked before anything is made as large.


def write_own(path: Path, about: dict = {}, **tensors) -> Path:  # noqa: B006
    own = {"rotations": torch.from_numpy(MATRICES), "betas": torch.zeros(10), "cam_t": pelvis(),
           "confidence": torch.ones(FRAMES), **tensors}  # fmt: skip
    numbers = {"focal": "5000.0", "width": "512", "height": "768", "fps": "25.0"}
    save_file(own, path, {"kind": "champ motion 1", "source": "test", **numbers, **about})
    return path


@pytest.mark.parametrize(
    ("about", "tensors", "message"),
    [
        ({"width": "99999999999"}, {}, "it claims pictures of 99999999999x768 pixels, and 16384 a side is the limit"),
        ({"fps": "1e300"}, {}, r"it claims 1e\+300 frames per second, and 1000 is the limit"),
        ({"focal": "1e-9"}, {}, "it claims a focal length of 1e-09 pixels"),
        ({}, {"rotations": torch.zeros(FRAMES, 24, 3, 3)}, "it holds matrices that are not rotations"),
        ({}, {"rotations": -torch.eye(3).repeat(FRAMES, 24, 1, 1)}, "it holds matrices that are not rotations"),
        ({}, {"cam_t": pelvis().double()}, "its numbers are not of the types that Save Motion writes"),
        ({}, {"shot": torch.full((FRAMES,), torch.nan)}, "its numbers are not of the types that Save Motion writes"),
        ({}, {"cam_t": pelvis() * 1e20}, "its person is 9.*e.20 metres away"),
        ({}, {"betas": torch.zeros(1_000)}, "it has betas that no body has"),
        ({"height": "tall"}, {}, "it is damaged"),
    ],
)
def test_what_our_own_file_claims_is_checked(tmp_path, body, about, tensors, message):
    with pytest.raises(ValueError, match=rf"^m\.safetensors cannot be read as a motion: {message}.*; save the"):
        load_motion(write_own(tmp_path / "m.safetensors", about, **tensors), body)


def test_what_another_tools_file_claims_is_checked(tmp_path, smpl):
    person = wham(smpl)[5]
    huge = {
        "it names frames outside 0 to 99999": {**person, "frame_ids": np.array([0, 1, 2, 3, 1_000_000])},
        "it names frames outside": {**person, "frame_ids": np.array([0, 1, 2, 3, -1])},
        "its person is": {**person, "trans": person["trans"] * 1e30},
        "it has betas that no body has": {**person, "betas": person["betas"] * 1e30},
    }
    for reason, value in huge.items():
        joblib_dump(tmp_path / "w.pkl", {1: value})
        with pytest.raises(ValueError, match=rf"^w\.pkl cannot be read as a motion: {reason}"):
            load_motion(tmp_path / "w.pkl", smpl)
    same = dict.fromkeys(range(2000), person)  # the file is small: pickles write an object once
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(same))
    with pytest.raises(ValueError, match=r"^w\.pkl cannot be read as a motion: it has more than 1000 people"):
        load_motion(tmp_path / "w.pkl", smpl)
    still = {"bodyPose": pose().numpy()[:1], "frameCount": 10_000_000, "frameRate": 24.0}
    np.savez(tmp_path / "m.npz", **still)
    with pytest.raises(ValueError, match=r"^m\.npz cannot be read as a motion: it has 10000000 frames, and 1"):
        load_motion(tmp_path / "m.npz", smpl)
    nothing = {"global_orient": np.zeros((1, 3, 3)), "body_pose": np.zeros((23, 3, 3)), "betas": BETAS[None]}
    np.savez(tmp_path / "g.npz", smpl=np.array([nothing], dtype=object), camera=np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^g\.npz cannot be read as a motion: it holds matrices that are not"):
        load_motion(tmp_path / "g.npz", smpl)


@pytest.mark.parametrize("what", ["keys", "bodies", "arrays", "people"])
def test_what_a_file_says_once_and_means_a_thousand_times_takes_no_hours(tmp_path, smpl, what):
    """Lists or arrays of a million numbers that a pickle holds once and refers to everywhere."""
    ones, empty = [1] * 900_000, [[]] * 300_000
    frame = phalp(smpl)["frames/000000.jpg"]
    large = np.asfortranarray(np.zeros((1000, 1000), np.float32))
    bodies = [dict.fromkeys(frame["smpl"][0], ones if what == "bodies" else large)] * 2
    if what == "people":
        results = dict.fromkeys(range(1000), dict.fromkeys(("smpl_thetas", "smpl_betas", "cam_trans"), empty))
        np.savez_compressed(tmp_path / "x.npz", results=results)
    else:
        values = dict.fromkeys(map(str, range(5000)), ones if what == "keys" else {**frame, "smpl": bodies})
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(values))
    started = time.process_time()
    with pytest.raises(ValueError, match="^x.* (lists of empty lists|where 9 are expected|holds no motion)"):
        load_motion(next(tmp_path.iterdir()), smpl)
    assert time.process_time() - started < 15


def test_a_still_pose_lasts_as_long_as_it_says(tmp_path, smpl):
    still = {"bodyPose": pose().numpy()[0], "frameCount": 70_000, "frameRate": 24.0, "shapeParameters": BETAS}
    np.savez(tmp_path / "m.npz", **still)
    motion = load_motion(tmp_path / "m.npz", smpl)
    assert len(motion) == 70_000 and motion.confidence.all()
    assert torch.equal(motion.rotations[0], motion.rotations[-1]) and torch.equal(motion.cam_t[0], motion.cam_t[-1])


def test_one_file_does_not_change_how_the_next_is_read(tmp_path, smpl):
    """State for a shared class: good files of WHAM failed behind such a one."""
    joblib_dump(tmp_path / "good.pkl", wham(smpl))
    before = load_motion(tmp_path / "good.pkl", smpl)
    (tmp_path / "bad.pkl").write_bytes(b"ccollections\ndefaultdict\n(N}(Vpop\nI1\nVupdate\nI2\nutb.")
    with pytest.raises(ValueError, match=r"bad\.pkl cannot be read as a motion"):
        load_motion(tmp_path / "bad.pkl", smpl)
    assert torch.equal(load_motion(tmp_path / "good.pkl", smpl).rotations, before.rotations)


def test_a_long_motion_can_be_stopped(tmp_path, smpl):
    """While it is put before the camera, by whatever exception; a file that is damaged is another matter."""
    np.savez(tmp_path / "walk_poses.npz", **amass(rest(smpl), mocap_framerate=np.array(30.0)))
    done = []
    with listening(lambda *counts: done.append(counts)):
        load_motion(tmp_path / "walk_poses.npz", smpl)
    assert done == [(FRAMES, FRAMES)]

    class Stopped(Exception):
        pass

    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        with listening(stop):
            load_motion(tmp_path / "walk_poses.npz", smpl)
