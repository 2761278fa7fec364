"""What tools/fuzz.py feeds to the readers: good files of every kind, and files that were made to do harm."""

import gzip
import io
import json
import lzma
import pickle
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from champ.body.smpl import load_smpl
from champ.estimate.hmr2 import HMR2Sizes
from champ.estimate.hmr2_files import read_hmr2
from champ.estimate.network import read_network
from champ.files.tensors import read_tensors
from champ.keypoints.pose_keypoint import canvas_size, from_pose_keypoint, shots_of
from champ.motion.bvh import save_bvh
from champ.motion.formats import load_motion
from champ.motion.rotation import from_axis_angle
from champ.render.folder import load_maps

DATA = Path(__file__).parents[1] / "tests" / "data"
FRAMES = 5
SIZE, POSE_SIZE = (64, 64), (128, 96)  # of the pictures that networks are tried with
HARM = Path(tempfile.gettempdir()) / "champ_fuzz_harm"  # is there when something in a file was run

Files = dict[str, bytes | None]  # by their paths; the first is the one that is read, None is a folder


@dataclass(frozen=True)
class Reader:
    """One of the pack's readers, good files for it, and bad ones. What it says must begin with one of `names`."""

    read: Callable[[Path], object]
    seeds: list[Files]
    hostile: dict[str, Files] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # besides that of the file


class Harm:
    def __reduce__(self):
        return open, (str(HARM), "w")


def saved(write: Callable[..., Any], *values: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    write(*(file if value is ... else value for value in values), **more)
    return file.getvalue()


def torch_file(value: Any, zipped: bool = True, **more: Any) -> bytes:
    return saved(torch.save, value, ..., _use_new_zipfile_serialization=zipped, **more)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


# Pickles.


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def hostile_pickles() -> dict[str, bytes]:
    """Each would do what its name says in Python's own unpickler, or in a careless one."""
    laughs = b"]q\x00" + b"".join(b"0(h%ch%clq%c" % (i, i, i + 1) for i in range(40))
    colliding = b"}(" + b"".join(
        b"\x8a\x0a" + (i * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for i in range(20_000)
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tVb\ntR"
    dtype = b"cnumpy\ndtype\n(V%s\nI0\nI1\ntR(I3\nV<\nNNNI-1\nI-1\ntb"
    return {
        "runs a function": pickle.dumps({"v_template": Harm(), "a": Harm()}),
        "runs a function, protocol 0": pickle.dumps(Harm(), 0),
        "runs eval": b"cbuiltins\neval\n(Vopen(%r, 'w')\ntR." % str(HARM).encode(),
        "runs by INST": b"(V" + str(HARM).encode() + b"\nVw\ni__builtin__\nopen\n.",
        "gets an attribute": b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR.",
        "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x1andarray.__class__.__base__\x93.",
        "changes a shared class": b"ccollections\ndefaultdict\n(N}(Vpop\nI1\nVname\nI2\nutb.",
        "remembers far": b"\x80\x02}r\xff\xff\xff\x3f.",
        "long bytes": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "a long string": b"X\xff\xff\xff\x7fx.",
        "a long integer": b"\x8b\xff\xff\xff\x7f1.",
        "many digits": b"I" + b"9" * 500_000 + b"\n.",
        "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
        "deep lists": b"]" * 20_000 + b"a" * 19_999 + b".",
        "deep tuples": b")" + b"\x85" * 20_000 + b".",
        "many dicts": b"(" + b"}" * 200_000 + b"l.",
        "many marks": b"(" * 200_000 + b".",
        "lists of lists of lists": b"}Vpose\n" + laughs + b"s.",
        "colliding keys": colliding + b"u.",
        "long lists again and again": b"ccollections\nOrderedDict\nq\x00(" + b"NN\x86" * 30_000 + b"lq\x01"
        + b"h\x00h\x01\x85R" * 30_000 + b".",
        "an array that claims much": array + b"(K\x01(" + number(1 << 40) + b"t" + dtype % b"f8" + b"I00\nC\x04abcdtb.",
        "a type that is large": array + b"(K\x01(K\x01t" + dtype % b"V2000000000" + b"I00\nC\x04abcdtb.",
        "a type that is code": b"cnumpy\ndtype\n(V(1000,1000,1000)f8\nI0\nI1\ntR.",
        "itself": b"}q\x00Va\nh\x00s.",
    }  # fmt: skip


def in_containers(pickled: bytes) -> dict[str, bytes]:
    """A pickle as each kind of file would hold it."""
    npy = b"\x93NUMPY\1\0" + struct.pack("<H", 60)
    npy += b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(59) + b"\n" + pickled
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    legacy += pickle.dumps({"little_endian": True, "protocol_version": 1001, "type_sizes": {}}, 2) + pickled
    return {
        ".pkl": pickled,
        ".zlib.pkl": zlib.compress(pickled),
        ".npy": npy,
        ".npz": zipped({"smpl.npy": npy, "camera.npy": npy, "v_template.npy": npy}),
        ".pt": zipped({"x/data.pkl": pickled, "x/data/0": bytes(16)}),
        ".legacy.pt": legacy,
    }


@cache
def bombs() -> dict[str, bytes]:
    zeros = bytes(300 << 20)
    header = (
        b"\x93NUMPY\1\0v\0" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (39321584,), }".ljust(117) + b"\n"
    )
    packed = zipped({"trans.npy": header + zeros, "poses.npy": header}, zipfile.ZIP_DEFLATED)  # AMASS
    member = zipped({"a.npy": b""})
    many = member[:-22] + b"PK\5\6" + bytes(4) + b"\xff\xff" * 2 + member[-10:]
    return {
        ".npz": packed,
        ".body.npz": zipped({"f.npy": header + zeros}, zipfile.ZIP_DEFLATED),
        ".pkl": zlib.compress(b"\x8e" + struct.pack("<Q", len(zeros)) + zeros + b".", 1),
        ".gzip.pkl": gzip.compress(zeros, 1),
        ".many.npz": many,
        ".pt": zipped({"x/data.pkl": b"N" * (200 << 20)}, zipfile.ZIP_DEFLATED),
    }


def everyday(name: str) -> dict[str, Files]:
    """What people have under the name of a file."""
    return {
        "nothing": {name: b""},
        "a folder": {name: None},
        "a web page": {name: b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"},
        "a pointer of Git LFS": {name: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"},
        "text": {name: b"Access denied.\n"},
        "zeros": {name: bytes(1 << 20)},
        "letters": {name: b"PK\3\4" * 5000},
    }


def hostile_files(name: str, kinds: tuple[str, ...]) -> dict[str, Files]:
    """Bad files under the names of a reader's kinds."""
    bad = everyday(name)
    for what, pickled in hostile_pickles().items():
        bad |= {f"{what} in {kind}": {f"bad{kind}": content} for kind, content in in_containers(pickled).items()}
    bad |= {f"a bomb in {kind}": {f"bad{kind}": content} for kind, content in bombs().items()}
    return {what: files for what, files in bad.items() if next(iter(files)).endswith(kinds)}


# Motions.


def body_motion() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(FRAMES, 24, 3)) * 0.3).astype(np.float32)
    return {
        "vectors": vectors,
        "matrices": from_axis_angle(torch.from_numpy(vectors)).numpy(),
        "place": np.float32([0.1, 0.2, 9]) + np.linspace(0, 0.2, FRAMES, dtype=np.float32)[:, None],
        "betas": np.linspace(-0.5, 0.5, 10, dtype=np.float32),
    }


def body_of(matrices: np.ndarray, betas: np.ndarray) -> dict[str, np.ndarray]:
    """A person in a frame as 4D-Humans has them."""
    return {"global_orient": matrices[:1], "body_pose": matrices[1:], "betas": betas}


def wham(frame_ids: Any = range(FRAMES), **other: Any) -> dict:
    m = body_motion()
    person = {"pose": m["vectors"].reshape(FRAMES, 72), "trans": m["place"], "betas": np.tile(m["betas"], (FRAMES, 1)),
              "frame_ids": np.array(frame_ids), "verts": np.zeros((FRAMES, 4, 3)), **other}  # fmt: skip
    return defaultdict(dict, {3: person, 5: person})


def phalp() -> dict:
    m = body_motion()
    return {
        f"frames/{t:06}.jpg": {
            "time": t, "tid": [1, np.int64(2)], "tracked_time": [0, t % 2], "size": [[360, 640]] * 2,
            "smpl": [body_of(m["matrices"][t], m["betas"])] * 2,
            "camera": [m["place"][t]] * 2, "conf": [np.float32(0.9), 0.8], "img": [None, "x"],
        }
        for t in range(FRAMES)
    }  # fmt: skip


def amass(frames: int = FRAMES) -> dict:
    m = body_motion()
    return {"poses": np.zeros((frames, 156)), "trans": np.zeros((frames, 3)), "betas": np.zeros(16),
            "gender": np.array("female"), "mocap_framerate": np.array(120.0), "dmpls": m["place"]}  # fmt: skip


def meshcapade(count: Any = FRAMES, poses: int = FRAMES) -> dict:
    m = body_motion()
    return {"shapeParameters": m["betas"], "bodyTranslation": m["place"][:poses], "bodyPose": m["vectors"][:poses],
            "frameCount": count, "frameRate": 24.0, "smplVersion": 0}  # fmt: skip


def own_motion(about: dict[str, str] = {}, **other: torch.Tensor) -> bytes:  # noqa: B006
    m = {name: torch.from_numpy(value) for name, value in body_motion().items()}
    tensors = {"rotations": m["matrices"], "betas": m["betas"], "cam_t": m["place"], "confidence": torch.ones(FRAMES),
               "shot": torch.zeros(FRAMES, dtype=torch.int64), **other}  # fmt: skip
    return save(tensors, {"kind": "champ motion 1", "source": "x", "focal": "5000.0", "width": "512", "height": "768",
                          "fps": "25.0", **about})  # fmt: skip


def motion_seeds() -> list[Files]:
    m = body_motion()
    people = np.array([body_of(matrices, m["betas"]) for matrices in m["matrices"]], object)
    romp = {f"{t}.jpg": {"smpl_thetas": m["vectors"].reshape(FRAMES, 72)[t : t + 1], "smpl_betas": m["betas"][None],
                         "cam_trans": m["place"][t : t + 1]} for t in range(FRAMES)}  # fmt: skip
    seen = {"rotmat": np.tile(np.eye(3, dtype=np.float32), (FRAMES, 55, 1, 1)), "trans": m["place"]}
    camera = {"pred_cam_R": np.zeros((7, 3, 3)), "img_focal": np.float32(777), "img_center": np.array([320.0, 240.0])}
    prompt = {"camera": camera, "people": {1: {"frames": np.arange(FRAMES), "smplx_cam": seen}}, "has_slam": True}
    incam = {"body_pose": m["vectors"][:, 1:22].reshape(FRAMES, 63), "global_orient": m["vectors"][:, 0],
             "transl": m["place"]}  # fmt: skip
    intrinsics = np.tile(np.float32([[900, 0, 320], [0, 900, 180], [0, 0, 1]]), (FRAMES, 1, 1))
    gvhmr = {"smpl_params_incam": {key: torch.from_numpy(value) for key, value in incam.items()},
             "K_fullimg": torch.from_numpy(intrinsics)}  # fmt: skip
    track = {"pred_rotmat": torch.from_numpy(m["matrices"]), "pred_trans": torch.from_numpy(m["place"]),
             "pred_shape": torch.zeros(FRAMES, 10), "frame": torch.arange(FRAMES)}  # fmt: skip
    return [
        {"own.safetensors": own_motion()},
        {"smpls_group.npz": saved(np.savez, ..., smpl=people, camera=m["place"])},
        {"amass.npz": saved(np.savez_compressed, ..., **amass())},
        {"romp.npz": saved(np.savez, ..., results=np.array(romp, object))},
        {"meshcapade.smpl": saved(np.savez, ..., **meshcapade())},
        {"still.smpl": saved(np.savez, ..., **meshcapade(3, 1))},
        {"wham.pkl": saved(joblib.dump, wham(), ...)},
        {"phalp.pkl": saved(joblib.dump, phalp(), ..., compress=3)},
        {"plain.pkl": pickle.dumps(phalp(), 2)},
        {"results.pkl": saved(joblib.dump, prompt, ...)},
        {"gvhmr.pt": torch_file(gvhmr)},
        {"gvhmr_old.pt": torch_file(gvhmr, zipped=False)},
        {"hps/track.npy": saved(np.save, ..., np.array(track, object)),
         "camera.npy": saved(np.save, ..., np.array(camera, object))},
    ]  # fmt: skip


def skeleton_seeds() -> list[Files]:
    body = load_smpl(DATA / "smpl" / "SMPL_small_synth.npz")
    with tempfile.TemporaryDirectory() as folder:
        save_bvh(place := Path(folder, "own.bvh"), load_motion_of(own_motion(), "own.safetensors", body), body)
        own = place.read_bytes()
    bones = own.decode().replace("LeftUpLeg", "thigh.L").replace("OFFSET 0.", "OFFSET 9.")  # no person's rest pose
    joints = np.random.default_rng(0).normal(size=(FRAMES, 24, 3))
    return [
        {"own.bvh": own},
        {"bones.bvh": bones.encode()},
        {"joints.json": json.dumps({"fps": 25, "joints": joints.tolist()}).encode()},
        {"joints.npz": saved(np.savez, ..., posed_joints=joints[:, :22], fps=20.0)},
        {"results.npy": saved(np.save, ..., np.array({"motion": joints[None, :, :22].transpose(0, 2, 3, 1)}, object))},
        {"blazepose.npy": saved(np.save, ..., np.random.default_rng(1).normal(size=(FRAMES, 33, 3)))},
    ]


def load_motion_of(content: bytes, name: str, body: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(content)
        return load_motion(Path(folder, name), body)


def without_channels(frames: int) -> bytes:
    """A person of whom only the root moves, with 900 joints below a foot that take nothing in the file."""

    def limb(side: str, *parts: str, inside: str = "") -> str:
        for part in reversed(parts):
            inside = f"JOINT {side}{part}\n{{\nOFFSET 0 -1 0\n{inside}}}\n"
        return inside

    legs = [limb("Left", "UpLeg", "Leg", "Foot", inside="JOINT t {\n}\n" * 900), limb("Right", "UpLeg", "Leg", "Foot")]
    arms = [limb(side, "Arm", "ForeArm") for side in ("Left", "Right")]
    root = "ROOT Hips\n{\nOFFSET 0 0 0\nCHANNELS 1 Xposition\n"
    rows = f"MOTION\nFrames: {frames}\nFrame Time: 0.04\n" + "0\n" * frames
    return f"HIERARCHY\n{root}{''.join(legs + arms)}}}\n{rows}".encode()


def hostile_skeletons() -> dict[str, Files]:
    def bvh(joints: str, frames: str = "Frames: 1\nFrame Time: 0.04\n0 0 0\n") -> bytes:
        return f"HIERARCHY\n{joints}\nMOTION\n{frames}".encode()

    root = "ROOT a\n{\nOFFSET 0 0 0\nCHANNELS 3 Xrotation Yrotation Zrotation\n%s}"
    deep = "JOINT b {\n" * 3000
    bad = {
        "many frames": bvh(root % "", "Frames: 99999999999\nFrame Time: 0.04\n0 0 0\n"),
        "frames that are missing": bvh(root % "", "Frames: 100000\nFrame Time: 0.04\n0 0 0\n"),
        "frames without end": bvh(root % "", "Frames: nan\nFrame Time: 0.04\n0 0 0\n"),
        "no time": bvh(root % "", "Frames: 1\nFrame Time: 0\n0 0 0\n"),
        "numbers without end": bvh(root % "", "Frames: 1\nFrame Time: 0.04\n1e999 0 0\n"),
        "deep joints": bvh(root % (deep + "}" * 3000)), "open joints": bvh(root % deep), "brackets": bvh("}" * 3000),
        "many joints": bvh(root % ("JOINT b {\n}\n" * 100_000)), "two roots inside": bvh(root % (root % "")),
        "many channels": bvh("ROOT a\n{\nCHANNELS 99999999999 Xrotation\n}"),
        "other channels": bvh("ROOT a\n{\nCHANNELS 1 Xscale\n}"), "no channels": bvh("ROOT a\n{\n}"),
        "channels of nobody": bvh("CHANNELS 1 Xrotation"), "an offset of nobody": bvh("OFFSET 0 0 0"),
        "no offset": bvh("ROOT a\n{\nOFFSET x y z\n}"), "no brackets": bvh("ROOT a\nJOINT b"),
        "a long line": b"HIERARCHY\nROOT " + b"a" * 5_000_000, "one joint": bvh(root % ""), "bytes": bytes(range(256)),
        "a long name": bvh(root.replace("ROOT a", "ROOT " + "a" * 100_000) % ""),
    }  # fmt: skip
    bad["joints without channels"] = without_channels(12_000)
    nan = float("nan")
    joints = {"no list": "{}", "nothing": "[]", "deep lists": "[" * 100_000, "a number": "1", "not a number": "[NaN]",
              "a text": '"x"', "a large number": f"[{'9' * 10_000}]", "a dict of texts": '{"joints": ["x"]}',
              "all in one place": json.dumps([[[0, 0, 0]] * 24] * 3), "never there": json.dumps([[[nan] * 3] * 24]),
              "one that is missing": json.dumps([[[nan] * 3, *[[1, 2, 3]] * 23]]),
              "far away": json.dumps([[[1e30, 1, 1]] * 24])}  # fmt: skip
    files: dict[str, Files] = {what: {"bad.bvh": content} for what, content in bad.items()} | everyday("x.bvh")
    files |= {f"joints: {what}": {"bad.json": text.encode()} for what, text in joints.items()}
    return files | {f"joints: {what}": content for what, content in everyday("x.json").items()}


def repeated_motions() -> dict[str, Files]:
    """What is in the file once, and would be converted in every frame."""
    ones, empty, large = [1] * 900_000, [[]] * 900_000, np.asfortranarray(np.zeros((1000, 500), np.float32))
    frame = phalp()["frames/000000.jpg"]

    def frames(count: int, rotations: Any) -> bytes:
        body = dict.fromkeys(frame["smpl"][0], rotations)
        return pickle.dumps(dict.fromkeys(range(count), {**frame, "smpl": [body] * 2}))

    people = dict.fromkeys(("smpl_thetas", "smpl_betas", "cam_trans"), empty)
    romp = np.array(dict.fromkeys(range(1000), people), object)
    return {
        "one list under many names": {"bad.pkl": pickle.dumps(dict.fromkeys(map(str, range(1000)), ones))},
        "a body of long lists": {"bad.pkl": frames(1000, ones)},
        "a body of large arrays": {"bad.pkl": frames(90_000, large)},
        "people without numbers": {"bad.npz": saved(np.savez_compressed, ..., results=romp)},
    }


def hostile_motions() -> dict[str, Files]:
    m = body_motion()
    crowd, frame = wham()[3], phalp()["frames/000000.jpg"]
    nobody = body_of(np.zeros((24, 3, 3)), m["betas"])
    far = np.zeros((1 << 40, 0))
    bad: dict[str, Files] = {
        "a frame far away": {"bad.pkl": saved(joblib.dump, wham([0, 1, 2, 3, 1_000_000]), ...)},
        "a frame very far away": {"bad.pkl": saved(joblib.dump, wham([0, 1, 2, 3, 1 << 60]), ...)},
        "a frame before the first": {"bad.pkl": saved(joblib.dump, wham([0, 1, 2, 3, -4]), ...)},
        "a long gap": {"bad.pkl": saved(joblib.dump, wham([0, 1, 2, 3, 20_000]), ...)},
        "frames that are no numbers": {"bad.pkl": saved(joblib.dump, wham(["a"] * FRAMES), ...)},
        "no frames": {"bad.pkl": saved(joblib.dump, {1: {key: value[:0] for key, value in crowd.items()}}, ...)},
        "rotations that are no numbers": {"bad.pkl": saved(joblib.dump, wham(pose=crowd["pose"] * np.nan), ...)},
        "rotations that are infinite": {"bad.pkl": saved(joblib.dump, wham(pose=crowd["pose"] + np.inf), ...)},
        "places far away": {"bad.pkl": saved(joblib.dump, wham(trans=crowd["trans"] * 1e30), ...)},
        "betas of a giant": {"bad.pkl": saved(joblib.dump, wham(betas=crowd["betas"] * 1e30), ...)},
        "one person ten thousand times": {"bad.pkl": pickle.dumps(dict.fromkeys(range(10_000), crowd))},
        "one frame again and again": {"bad.pkl": pickle.dumps(dict.fromkeys(range(200_000), frame))},
        "a frame that is empty": {"bad.pkl": pickle.dumps({"a": dict.fromkeys(frame, [])})},
        "a still pose for hours": {"bad.smpl": saved(np.savez, ..., **meshcapade(10**7, 1))},
        "a still pose for ever": {"bad.smpl": saved(np.savez, ..., **meshcapade(1e300, 1))},
        "fewer poses than frames": {"bad.smpl": saved(np.savez, ..., **meshcapade(10**7))},
        "no matrices": {"bad.npz": saved(np.savez, ..., camera=m["place"][:1], smpl=np.array([nobody], object))},
        "a long still motion": {"bad.npz": saved(np.savez_compressed, ..., **amass(3_000))},
        "members that are no arrays": {"bad.npz": zipped({"poses": b"x", "trans": b"y", "readme.txt": b"z"})},
        "a rate that is text": {"bad.npz": saved(np.savez, ..., **{**amass(), "mocap_framerate": np.array("fast")})},
        "a rate of 1e300": {"bad.npz": saved(np.savez, ..., **{**amass(), "mocap_framerate": np.array(1e300)})},
        "another kind of file": {"own.safetensors": save({"x": torch.zeros(3)})},
        "rows of nothing": {"bad.npz": saved(np.savez, ..., poses=far, trans=far)},
    }  # fmt: skip
    for what, about in {
        "a width of 99999999999": {"width": "99999999999"}, "a height of -5": {"height": "-5"},
        "a rate of 1e300": {"fps": "1e300"}, "a rate that is no number": {"fps": "nan"}, "no lens": {"focal": "0"},
        "a width that is text": {"width": "wide"}, "a width of many digits": {"width": "9" * 10_000},
        "an endless name": {"source": "x" * 1_000_000},
    }.items():  # fmt: skip
        bad[what] = {"own.safetensors": own_motion(about)}
    for what, tensors in {
        "zero rotations": {"rotations": torch.zeros(FRAMES, 24, 3, 3)},
        "mirrored rotations": {"rotations": -torch.eye(3).repeat(FRAMES, 24, 1, 1)},
        "rotations of half precision": {"rotations": torch.eye(3).repeat(FRAMES, 24, 1, 1).half()},
        "rotations that are integers": {"rotations": torch.eye(3).repeat(FRAMES, 24, 1, 1).long()},
        "rotations of another shape": {"rotations": torch.zeros(FRAMES, 22, 3, 3)},
        "rotations that are no numbers": {"rotations": torch.full((FRAMES, 24, 3, 3), torch.nan)},
        "endless betas": {"betas": torch.zeros(1_000_000)},
        "a place far away": {"cam_t": torch.full((FRAMES, 3), 1e30)},
        "shots that are no numbers": {"shot": torch.full((FRAMES,), torch.nan)},
        "other confidence": {"confidence": torch.ones(3)},
        "no frames": {name: torch.zeros(0, *shape) for name, shape in (
            ("rotations", (24, 3, 3)), ("cam_t", (3,)), ("confidence", ()), ("shot", ()))},
    }.items():  # fmt: skip
        bad[f"{what} in our own"] = {"own.safetensors": own_motion(**tensors)}
    return bad


# Bodies, networks and tensors.


def smpl_seeds() -> list[Files]:
    with np.load(DATA / "smpl" / "SMPL_small_synth.npz") as file:
        arrays = dict(file)
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value.astype(np.float32))) for key, value in arrays.items()}
    pickles: list[Files] = [
        {name.name.removesuffix(".xz"): lzma.decompress(name.read_bytes())}
        for name in sorted((DATA / "smpl").glob("*.pkl.xz"))
    ]
    return [
        *pickles,
        {"model.npz": (DATA / "smpl" / "SMPL_small_synth.npz").read_bytes()},
        {"model.safetensors": save(tensors)},
        {"model.pth": torch_file(tensors)},
    ]


def hostile_bodies() -> dict[str, Files]:
    with np.load(DATA / "smpl" / "SMPL_small_synth.npz") as file:
        arrays = dict(file)

    def changed(key: str, value: Any) -> bytes:
        return pickle.dumps({**arrays, key: value})

    matrix = b"cscipy.sparse.csc\ncsc_matrix\n)\x81}(V_shape\n(%b%btVindptr\n(lVindices\n(lVdata\n(lub"
    loop = b"cchumpy.reordering\ntranspose\n)\x81q\x01(Va\nh\x01Vaxes\nNdb"
    tree = b"cchumpy.reordering\nSelect\n)\x81q\x00" + b"".join(
        b"cchumpy.reordering\nSelect\n)\x81q%b}(Va\nh%bVidxs\nh%bVpreferred_shape\n)ub" % (
            bytes([i + 1]), bytes([i]), bytes([i])) for i in range(60))  # fmt: skip
    return {
        "no numbers": {"model.pkl": changed("v_template", arrays["v_template"] * np.nan)},
        "faces out of range": {"model.pkl": changed("f", arrays["f"] + 1000)},
        "negative faces": {"model.pkl": changed("f", arrays["f"].astype(np.int64) - 1000)},
        "text": {"model.npz": saved(np.savez, ..., **{**arrays, "weights": np.array(["a"])})},
        "no vertices": {"model.pkl": pickle.dumps({key: np.zeros((0, 3, 207)) for key in arrays})},
        "a large matrix": {"model.pkl": b"\x80\x02}VJ_regressor\n" + matrix % (number(1 << 40), number(24)) + b"s."},
        "an expression of itself": {"model.pkl": b"\x80\x02}Vv_template\n" + loop + b"s."},
        "expressions of expressions": {"model.pkl": b"\x80\x02}Vv_template\n" + tree + b"s."},
    }


def hmr2_seeds() -> list[Files]:
    file = DATA / "hmr2" / "network.safetensors"
    state = {key: value for key, value in read_tensors(file).items() if "blocks.0" in key or "layers.0" in key}
    training = {"epoch": 1, "state_dict": OrderedDict(state), "optimizer_states": [{"state": {0: torch.ones(3)}}]}
    about = {"heads": "4", "decoder_heads": "3"}
    return [{"hmr2.ckpt": torch_file(training)}, {"hmr2.safetensors": save(state, about)}]


def read_network_of_hmr2(path: Path) -> object:
    state, about = read_hmr2(path)
    heads, decoder_heads = int(about.get("heads", 16)), int(about.get("decoder_heads", 8))
    try:
        return HMR2Sizes.read({key: tuple(value.shape) for key, value in state.items()}, heads, decoder_heads)
    except ValueError as error:  # as load_hmr2 says it
        raise ValueError(f"{path.name} does not fit: {error}.") from None


def hostile_tensors() -> dict[str, Files]:
    def described(size: tuple, stride: tuple, count: int = 4, offset: int = 0) -> bytes:
        sizes, strides = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
        pid = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + number(count) + b"tQ"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(offset) + sizes + strides + b"I00\nNtR"
        return zipped({"x/data.pkl": b"\x80\x02}Va\n" + tensor + b"s.", "x/data/0": bytes(16)})

    def header(content: bytes, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(content) if length is None else length) + content + bytes(16)

    entry = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,%d]}}'
    many = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(100_000)) + b"}"
    return {
        "a stride of 0": {"bad.pth": described((1 << 20, 1 << 20), (0, 0))},
        "overlapping rows": {"bad.pth": described((1000, 2), (1, 1))},
        "a huge shape": {"bad.pth": described((1 << 50, 1 << 50), (1 << 50, 1))},
        "a huge count": {"bad.pth": described((2,), (1,), 1 << 50)},
        "a far offset": {"bad.pth": described((2,), (1,), offset=1 << 50)},
        "a negative stride": {"bad.pth": described((2,), (-1,))},
        "a list": {"bad.pth": torch_file([torch.ones(2)])},
        "a tensor": {"bad.pth": torch_file(torch.ones(2))},
        "numbers": {"bad.pth": torch_file({"a": 1})},
        "a list of numbers": {"bad.pth": torch_file([1, 2])},
        "a whole module": {"bad.pth": torch_file(torch.nn.Linear(2, 2))},
        "a header that is long": {"bad.safetensors": header(b"{}", 1 << 62)},
        "a header that is longer than it": {"bad.safetensors": header(b"{", 500)},
        "a deep header": {"bad.safetensors": header(b'{"a":' * 200_000)},
        "many tensors of nothing": {"bad.safetensors": header(many)},
        "a shape that is huge": {"bad.safetensors": header(entry % (b"4294967296,4294967296,4294967296", 16))},
        "numbers behind the end": {"bad.safetensors": header(entry % (b"1000", 4000))},
    }


def read_all_tensors(path: Path) -> None:
    """Reads every number, and sees that there are no more than the file has bytes."""
    tensors = read_tensors(path, ("state_dict", "model"), "module.")
    for name, tensor in tensors.items():
        if tensor.nbytes > path.stat().st_size:
            raise AssertionError(f"{name} is larger than the file")
        tensor.float().sum()


@cache
def network_seeds() -> list[Files]:
    """DWPose's networks in small: ONNX, and one that torch has traced."""
    layers = [torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.BatchNorm2d(4), torch.nn.SiLU(), torch.nn.Conv2d(4, 2, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(torch.nn.Sequential(*layers).eval(), torch.zeros(1, 3, *SIZE))
        script = saved(torch.jit.save, traced, ...)
    onnx = {file.stem: lzma.decompress(file.read_bytes()) for file in sorted((DATA / "networks").glob("*.onnx.xz"))}
    return [{"plain.torchscript.pt": script}, *({name: content} for name, content in onnx.items())]


def hostile_networks() -> dict[str, Files]:
    """Code in the place of a network's, and descriptions that claim much."""
    (script,) = network_seeds()[0].values()
    with zipfile.ZipFile(io.BytesIO(script or b"")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = next(name for name in members if name.endswith("container.py"))
    lines = {
        "writes a file": f'ops.image.write_file("{HARM}", x)', "writes it otherwise": f'(torch.save)(x, "{HARM}")',
        "an endless loop": "while True:\n      pass", "a huge tensor": "y = torch.zeros([1000000, 1000000])",
        "lists of lists of lists": "l0 = [1]\n    "
        + "".join(f"l{i + 1} = [l{i}, l{i}]\n    " for i in range(50)) + "torch.cat(l50)",
    }  # fmt: skip
    bad: dict[str, Files] = {}
    for what, line in lines.items():
        text = members[code].decode()
        head, body = text.split("Tensor:\n", 1)
        changed = zipped({**members, code: f"{head}Tensor:\n    {line}\n{body}".encode()})
        bad[what] = {"bad.torchscript.pt": changed}
    traced = next(name for name in members if name.endswith("/traced_inputs.pkl"))
    bad["lists of lists of lists that it was traced with"] = {
        "bad.torchscript.pt": zipped({**members, traced: hostile_pickles()["lists of lists of lists"]})
    }
    return bad | {
        "a long field": {"bad.onnx": b"\x3a\xff\xff\xff\xff\x7f"}, "many fields": {"bad.onnx": b"\x08\x00" * 500_000},
        "deep messages": {"bad.onnx": b"\x3a\x7f" * 60}, "an endless number": {"bad.onnx": b"\xff" * 100_000},
    }  # fmt: skip


def run_network(path: Path) -> None:
    size = POSE_SIZE if path.name.startswith("rtmpose") else SIZE
    network = read_network(path)
    network.check(*size)
    network(torch.zeros(1, 3, *size))


# Pictures and keypoints.


def png(picture: np.ndarray) -> bytes:
    return saved(lambda file: Image.fromarray(picture).save(file, "PNG"), ...)


def map_seeds() -> list[Files]:
    random = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
    pictures = {kind: saved(lambda file, kind=kind: Image.fromarray(random).save(file, kind), ...)
                for kind in ("PNG", "JPEG", "WEBP")}  # fmt: skip
    return [
        {"maps/depth/0001.png": png(random[..., 0]), "maps/normal/0001.png": pictures["PNG"],
         "maps/mask/0001.png": png(random[..., 0]), "maps/semantic_map/0001.png": pictures["PNG"]},
        {"maps/normal/a_1.jpg": pictures["JPEG"], "maps/normal/a_2.jpg": pictures["JPEG"]},
        {"maps/normal/1.webp": pictures["WEBP"], "maps/depth/1.webp": pictures["WEBP"]},
    ]  # fmt: skip


def hostile_maps() -> dict[str, Files]:
    def claimed(width: int, height: int) -> bytes:
        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

        head = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100)))

    def webp(kind: bytes, content: bytes) -> bytes:
        return b"RIFF" + struct.pack("<L", 100) + b"WEBP" + kind + struct.pack("<L", 80) + content + bytes(60)

    good = png(np.zeros((4, 4), np.uint8))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(" + str(HARM).encode() + b") (w) file\n"
    bad = {
        "an .eps": eps, "a bomb": claimed(60_000, 60_000), "a large bomb": claimed(1 << 30, 1 << 30),
        "a small bomb": claimed(9000, 9000), "no width": claimed(0, 5), "nothing": b"", "text": b"picture",
        "a web page": b"<html>", "16 bits": png(np.full((4, 4), 40_000, np.uint16)),
        "a WebP bomb": webp(b"VP8X", bytes(4) + b"\xff\xff\x3f\xff\xff\x3f"),
        "a TIFF": saved(lambda file: Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, "TIFF"), ...),
        "an animated GIF": saved(lambda file: Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, "GIF"), ...),
    }  # fmt: skip
    files: dict[str, Files] = {what: {"maps/depth/0.png": content} for what, content in bad.items()}
    return files | {
        "no number": {"maps/depth/0001.png": good, "maps/depth/x.png": good},
        "only names": {"maps/depth/x.png": good, "maps/depth/y.png": good},
        "a number twice": {"maps/depth/1.png": good, "maps/depth/01.png": good},
        "a number of many digits": {f"maps/depth/{'9' * 200}.png": good, "maps/depth/1.png": good},
        "a folder as a picture": {"maps/depth/1.png": None},
        "two sizes": {"maps/depth/1.png": good, "maps/depth/2.png": png(np.zeros((5, 4), np.uint8))},
    }


def pose_seeds() -> list[Files]:
    person = {"pose_keypoints_2d": [0.5, 0.5, 1.0] * 18, "hand_left_keypoints_2d": [10, 20, 1] * 21,
              "hand_right_keypoints_2d": None, "face_keypoints_2d": [0, 0, 0] * 70,
              "box_2d": [1, 2, 30, 40, 0.9]}  # fmt: skip
    frames = [{"people": [person, person], "canvas_width": 512, "canvas_height": 768, "shot": i} for i in range(3)]
    return [{"pose.json": json.dumps(frames).encode()}]


def hostile_poses() -> dict[str, Files]:
    frame = {"people": [], "canvas_width": 512, "canvas_height": 768}
    values = {
        "no list": {}, "nothing": [], "no frame": [None], "a frame of text": ["x"], "no people": [{}],
        "people of text": [{**frame, "people": "x"}], "a person of text": [{**frame, "people": ["x"]}],
        "a canvas of text": [{**frame, "canvas_width": "x"}], "a canvas of nothing": [{**frame, "canvas_width": 0}],
        "a huge canvas": [{**frame, "canvas_width": 1e300}], "a shot of text": [{**frame, "shot": "x"}],
        "a huge shot": [{**frame, "shot": 10**30}], "a canvas that is true": [{**frame, "canvas_width": True}],
        "points of text": [{**frame, "people": [{"pose_keypoints_2d": "x" * 54}]}],
        "points in points": [{**frame, "people": [{"pose_keypoints_2d": [[1, 2, 3]] * 18}]}],
        "points that differ": [{**frame, "people": [{"pose_keypoints_2d": [[1, 2], 3] * 18}]}],
        "huge points": [{**frame, "people": [{"pose_keypoints_2d": [10**400] * 54}]}],
        "points without end": [{**frame, "people": [{"pose_keypoints_2d": [1e308] * 54}]}],
        "a dict of points": [{**frame, "people": [{"pose_keypoints_2d": {"a": 1}}]}],
    }  # fmt: skip
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    values["deep points"] = [{**frame, "people": [{"pose_keypoints_2d": deep}]}]
    return {what: {"pose.json": json.dumps(value).encode()} for what, value in values.items()}


def read_pose(path: Path) -> None:
    try:
        frames = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # is no JSON, which is another reader's matter
        return
    canvas_size(frames)
    shots_of(frames)
    from_pose_keypoint(frames, 512, 768)


def readers() -> dict[str, Reader]:
    """Every reader of the pack by what it reads."""
    body = load_smpl(DATA / "smpl" / "SMPL_small_synth.npz")
    motions = (".pkl", ".npz", ".npy", ".pt", ".smpl", ".safetensors")
    tensors = {"a": torch.arange(12.0).reshape(3, 4).T, "module.b": torch.ones(3).half(), "c": torch.zeros(0, 3)}
    weights: list[Files] = [
        {"x.pth": torch_file(tensors)}, {"old.pth": torch_file(tensors, zipped=False)},
        {"x.ckpt": torch_file({"state_dict": tensors, "optimizer": {"state": {0: torch.ones(9)}, "lr": 0.1}})},
        {"x.bin": torch_file(tensors, pickle_protocol=4)}, {"x.safetensors": save({"a": torch.ones(3, 4)}, {"b": "c"})},
    ]  # fmt: skip
    return {
        "motions": Reader(
            lambda path: load_motion(path, body, 0, 300, 400), motion_seeds(),
            {**hostile_files("x.pkl", motions), **hostile_files("x.npz", (".npz",)), **hostile_motions(),
             **repeated_motions(), **everyday("x.safetensors")}, ("camera.npy",),
        ),
        "skeletons": Reader(
            lambda path: load_motion(path, body, 0, 300, 400), skeleton_seeds(),
            hostile_skeletons(),
        ),
        "SMPL": Reader(
            load_smpl, smpl_seeds(), {**hostile_files("x.pkl", (".pkl", ".npz")), **hostile_bodies()},
            ("SMPL model not found",),
        ),
        "HMR2": Reader(
            read_network_of_hmr2, hmr2_seeds(),
            {**hostile_files("x.pt", (".pt",)), **everyday("x.ckpt"), **hostile_tensors()},
        ),
        "tensors": Reader(
            read_all_tensors, weights,
            {**hostile_files("x.pt", (".pt", ".pkl")), **everyday("x.safetensors"), **hostile_tensors()},
        ),
        "networks": Reader(
            run_network, network_seeds(),
            {**everyday("x.onnx"), **everyday("x.pt"), **hostile_files("x.pt", (".pt",)), **hostile_networks()},
        ),
        "maps": Reader(
            lambda path: load_maps(path.parents[1]), map_seeds(), hostile_maps(),
            ("depth", "normal", "mask", "semantic_map", "dwpose"),
        ),
        "keypoints": Reader(read_pose, pose_seeds(), hostile_poses(), ("POSE_KEYPOINT",)),
    }  # fmt: skip
