"""A video and a picture become motions in a real ComfyUI, with small networks in the place of DWPose and HMR2."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import dev
from champ.estimate.crops import Square, cam_in_picture, crop_square
from champ.estimate.hmr2 import HMR2Net, HMR2Sizes
from champ.server import Failure, Refused

DATA = dev.ROOT / "tests" / "data" / "hmr2"
SMALL = "small.safetensors"
PICTURE = np.random.default_rng(0).integers(0, 256, (640, 480, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def network(server):
    """Beside the stand-in for the official file: a copy that says how many heads it has."""
    shutil.copy(DATA / "network.safetensors", server.base / "models" / "hmr2" / SMALL)
    Image.fromarray(PICTURE).save(server.base / "input" / "noise.png")


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def estimate(clip: list, keypoints: list | None = None, file: str = SMALL, **load) -> dict:
    """The motion of a clip, saved; node 9 is the estimate."""
    options = {"weight_dtype": "default", "half_precision_copy": False, **load}
    linked = {} if keypoints is None else {"pose_keypoints": keypoints}
    return {
        "8": node("ChampLoadHMR2", model_name=file, **options),
        "9": node("ChampEstimateMotion", hmr2=["8", 0], clip=clip, fps=20.0, **linked),
        "10": node("ChampSaveMotion", motion=["9", 0], name="champ/estimate", format="Champ (.safetensors)"),
        "11": node("PreviewAny", source=["10", 0]),
        "12": node("PreviewAny", source=["9", 1]),
    }


def video() -> dict:
    return {
        "1": node("LoadVideo", file="dance.mp4"),
        "2": node("ChampLoadDWPose", detector="yolox_l.onnx", pose_network="dw-ll_ucoco_384.onnx"),
        "3": node("ChampEstimatePose", clip=["1", 0], dwpose=["2", 0]),
    }


def blank(frames: int) -> dict:
    return {"1": node("EmptyImage", width=64, height=64, batch_size=frames, color=7)}


def saved(server, entry: dict) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    name = entry["outputs"]["11"]["text"][0].removesuffix(" [output]")
    with safe_open(server.base / "output" / name, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def report(entry: dict) -> str:
    return entry["outputs"]["12"]["text"][0]


def refused(server, prompt: dict) -> str:
    with pytest.raises(Failure) as failure:
        server.run(prompt)
    return str(failure.value)


def test_a_video_becomes_a_motion_of_as_many_frames(server):
    entry = server.run({**video(), **estimate(["1", 0], ["3", 0])})
    motion, about = saved(server, entry)
    assert motion["rotations"].shape == (24, 24, 3, 3) and (motion["confidence"] > 0).all()
    assert float(about["fps"]) == 12 and (about["width"], about["height"]) == ("320", "480")
    lines = report(entry).splitlines()
    assert lines[:2] == ["HMR2: 24 frames of 320x480 at 12 fps (2.0 s).", "No frame was filled."]
    assert lines[-1].startswith("Shape: beta_0 ")
    assert motion["rotations"].std(0).max() > 0.01  # the figure dances
    assert motion["betas"][:2].all() and not motion["betas"][2:].any()  # the free body


def test_the_body_of_a_picture_is_what_the_network_says(server):
    """Without keypoints the whole picture is the box. The library, without ComfyUI, gives the same numbers."""
    prompt = {"1": node("LoadImage", image="noise.png"), **estimate(["1", 0])}
    prompt["2"] = node("ChampLoadSMPL", model_name="SMPL_NEUTRAL.pkl", beta_0=0.0, beta_1=0.0)
    prompt["9"]["inputs"]["body"] = ["2", 0]
    entry = server.run(prompt)
    motion, about = saved(server, entry)

    height, width = PICTURE.shape[:2]
    weights = load_file(DATA / "network.safetensors")
    network = HMR2Net(HMR2Sizes.read({key: tuple(value.shape) for key, value in weights.items()}, 4, 3))
    network.load_state_dict(weights)
    square = Square.around(np.array([0, 0, width, height]))
    with torch.no_grad():
        found = network(crop_square(PICTURE, square)[None])
    cam_t, focal = cam_in_picture(found.camera, [square], width, height)
    off = 0.05 if torch.cuda.is_available() else 1e-5  # 16 bits on a graphics card
    torch.testing.assert_close(motion["rotations"], found.rotations, rtol=off, atol=off)
    torch.testing.assert_close(motion["betas"], found.betas[0], rtol=off, atol=off)
    torch.testing.assert_close(motion["cam_t"], cam_t, rtol=off, atol=off)
    assert float(about["focal"]) == pytest.approx(focal)


def test_pictures_without_keypoints_take_the_rate_of_the_widget(server):
    entry = server.run({**blank(3), **estimate(["1", 0])})
    motion, about = saved(server, entry)
    assert len(motion["cam_t"]) == 3 and float(about["fps"]) == 20
    assert "No pose_keypoints are connected" in server.log.read_text()


def test_the_reference_performs_the_video(server):
    """From the video and the picture to maps, with the checkpoint in the official place."""
    prompt = {**video(), **estimate(["1", 0], ["3", 0], "epoch=35-step=1000000.ckpt")}
    prompt |= {
        "20": node("LoadImage", image="reference.png"),
        "21": node("ChampEstimatePose", clip=["20", 0], dwpose=["2", 0]),
        "22": node("ChampEstimateMotion", hmr2=["8", 0], clip=["20", 0], pose_keypoints=["21", 0], fps=20.0),
        "23": node("ChampFreeBody", gender=0.5, age=30, height=1.7, weight=0.5, muscle=0.5, proportions=0.5),
        "24": node("ChampTransferMotion", driving=["9", 0], reference=["22", 0], body=["23", 0], placement="follow",
                   figure_scale=0.0, reference_image=["20", 0]),
        "25": node("ChampRenderMaps", motion=["24", 0], body=["23", 0]),
        "26": node("SaveImage", images=["25", 1], filename_prefix="champ/estimate"),
    }  # fmt: skip
    entry = server.run(prompt)
    pictures = entry["outputs"]["26"]["images"]
    assert len(pictures) == 24
    first = Image.open(server.base / "output" / pictures[0]["subfolder"] / pictures[0]["filename"])
    assert first.size == (320, 480) and np.asarray(first).any()


def test_half_precision_copy(server):
    server.run({**blank(1), **estimate(["1", 0], file="epoch=35-step=1000000.ckpt", half_precision_copy=True)})
    info = server.json("/object_info/ChampLoadHMR2")["ChampLoadHMR2"]["input"]["required"]["model_name"]
    assert "epoch=35-step=1000000_fp16.safetensors" in str(info)


def test_keypoints_of_another_clip_are_refused(server):
    prompt = {**video(), "4": blank(5)["1"], **estimate(["4", 0], ["3", 0])}
    assert "clip has 5 frames and pose_keypoints 24" in refused(server, prompt)


def test_nobody_in_the_clip_is_explained(server):
    prompt = {**video(), "1": blank(3)["1"], **estimate(["1", 0], ["3", 0])}
    assert "The person was found in none of the 3 frames" in refused(server, prompt)


@pytest.mark.parametrize("name", ["missing.ckpt", "../vae/vae.safetensors", "/etc/passwd"])
def test_checkpoints_come_from_the_model_folder_only(server, name):
    with pytest.raises(Refused, match="not found: put epoch=35"):
        server.run({**blank(1), **estimate(["1", 0], file=name)})


def test_a_hostile_checkpoint_runs_nothing(server, tmp_path):
    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "trace"), "w")

    torch.save({"state_dict": Hostile()}, server.base / "models" / "hmr2" / "hostile.ckpt")
    message = refused(server, {**blank(1), **estimate(["1", 0], file="hostile.ckpt")})
    assert "hostile.ckpt was refused and nothing in it was run: it calls" in message
    assert not (tmp_path / "trace").exists()


def test_estimating_can_be_cancelled(server):
    interrupted = []

    def interrupt(nodes):
        if not interrupted and any(n["node_id"] == "9" and n["value"] > 2 for n in nodes.values()):
            server.request("/interrupt", {})
            interrupted.append(True)

    entry = server.run({**blank(3000), **estimate(["1", 0])}, interrupt)
    assert interrupted and "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]
    assert len(saved(server, server.run({**blank(2), **estimate(["1", 0])}))[0]["cam_t"]) == 2
