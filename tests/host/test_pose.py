"""Estimate Pose in the real host: what it finds in a video and in pictures, with small networks in all formats."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dev
from champ.server import Failure, Refused

DETECTOR, POSE_NETWORK = "yolox_l.onnx", "dw-ll_ucoco_384.onnx"
FRAMES, WIDTH, HEIGHT = 24, 320, 480  # of the test video


@pytest.fixture(scope="module")
def scripts(server, tmp_path_factory):
    """The TorchScript forms, where the ControlNet Auxiliary Preprocessors keep them."""
    sys.path.append(str(dev.ROOT / "tests" / "estimate"))
    small_dwpose = pytest.importorskip("small_dwpose")
    made = tmp_path_factory.mktemp("scripts")
    small_dwpose.write_torchscript(made)
    ckpts = server.base / "custom_nodes" / "comfyui_controlnet_aux" / "ckpts" / "hr16"
    places = {"yolox_l.torchscript.pt": "yolox-onnx",
              "dw-ll_ucoco_384_bs5.torchscript.pt": "DWPose-TorchScript-BatchSize5"}  # fmt: skip
    for name, folder in places.items():
        (ckpts / folder).mkdir(parents=True)
        shutil.copy(made / name, ckpts / folder)
    return list(places)


def estimate(detector=DETECTOR, pose_network=POSE_NETWORK, clip=("1", 0)) -> dict:
    return {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "dance.mp4"}},
        "2": {"class_type": "ChampLoadDWPose", "inputs": {"detector": detector, "pose_network": pose_network}},
        "3": {"class_type": "ChampEstimatePose", "inputs": {"clip": list(clip), "dwpose": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 1], "filename_prefix": "champ/pose_overlay"}},
    }


def keypoints(entry: dict) -> list[dict]:
    return json.loads(entry["outputs"]["4"]["text"][0])


def overlay(server, entry: dict) -> list[np.ndarray]:
    items = entry["outputs"]["5"]["images"]
    files = [server.base / "output" / item["subfolder"] / item["filename"] for item in items]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@pytest.fixture(scope="module")
def found(server):
    return server.run(estimate())


def test_the_figure_in_the_video_is_found_in_every_frame(server, found):
    frames = keypoints(found)
    assert len(frames) == FRAMES
    for frame in frames:
        assert (frame["canvas_width"], frame["canvas_height"], frame["shot"]) == (WIDTH, HEIGHT, 0)
        [person] = frame["people"]
        body = np.reshape(person["pose_keypoints_2d"], (18, 3))
        assert (body[:, 2] == 1).all()
        x0, y0, x1, y1, score = person["box_2d"]
        assert score > 0.9 and (body[:, :2] > [x0, y0]).all() and (body[:, :2] < [x1, y1]).all()
        assert body[0, 1] < body[8, 1] < body[10, 1] and body[2, 0] < body[5, 0]  # nose, hip, ankle; the shoulders
    assert found["outputs"]["3"]["animated"] == [True]
    pictures = overlay(server, found)
    assert len(pictures) == FRAMES and pictures[0].shape == (HEIGHT, WIDTH, 3)
    x, y = np.reshape(frames[5]["people"][0]["pose_keypoints_2d"], (18, 3))[4, :2].astype(int)
    assert pictures[5][y, x].tolist() == [170, 255, 0]  # the right wrist's dot, over the dimmed video
    assert pictures[0][0, 0].tolist() == [0, 0, 0]


def test_a_batch_of_pictures_gives_what_the_video_gives(server, found):
    """To a level of the colours, and so to two pixels of this coarse network."""
    parts = {"6": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}}}
    of_pictures, of_video = keypoints(server.run(estimate(clip=("6", 0)) | parts)), keypoints(found)
    assert len(of_pictures) == len(of_video)
    for ours, theirs in zip(of_pictures, of_video):
        [one], [other] = ours.pop("people"), theirs.pop("people")
        assert ours == theirs and one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=2, err_msg=name)


def test_torchscript_from_the_other_packs_folder_gives_what_onnx_gives(server, scripts, found):
    options = server.json("/object_info/ChampLoadDWPose")["ChampLoadDWPose"]["input"]["required"]
    for name, own, other in zip(("detector", "pose_network"), (DETECTOR, POSE_NETWORK), scripts):
        listed = options[name][1]["options"] if options[name][0] == "COMBO" else options[name][0]
        assert listed[:2] == [own, other]
    for ours, theirs in zip(keypoints(server.run(estimate(*scripts))), keypoints(found)):
        ours, theirs = ours["people"][0], theirs["people"][0]
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], atol=0.5 if "keypoints" in key else 1e-3)


def test_nobody_is_no_person_and_a_warning(server):
    empty = {"6": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 3, "color": 0}}}
    frames = keypoints(server.run(estimate(clip=("6", 0)) | empty))
    assert [frame["people"] for frame in frames] == [[], [], []]
    assert "Nobody was found in 3 frames" in server.log.read_text()


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "yolox_m.onnx"])
def test_only_listed_files_are_read(server, name):
    for files in ({"detector": name}, {"pose_network": name}):
        with pytest.raises(Refused, match="not found: press Download files"):
            server.run(estimate(**files))


def test_exchanged_files_are_explained(server):
    with pytest.raises(Failure, match="dw-ll_ucoco_384.onnx does not take pictures of 640x640 pixels"):
        server.run(estimate(detector=POSE_NETWORK))


def test_checkpoints_are_listed_beside_the_others_and_run(server):
    """In small widths, with random weights: what they find is nothing to speak of."""
    sys.path.append(str(dev.ROOT))
    from tests.estimate.full_dwpose import RtmPose, YoloX, filled

    folder = server.base / "models" / "dwpose"
    torch.save({"model": filled(YoloX(1 / 16, 1 / 3)).state_dict()}, folder / "yolox_l.pth")
    pose = filled(RtmPose(1 / 16, 1 / 6, tokens=(16, 8)))
    torch.save({"meta": {}, "state_dict": pose.state_dict()}, folder / "dw-ll_ucoco_384.pth")
    prompt = estimate("yolox_l.pth", "dw-ll_ucoco_384.pth")
    prompt["components"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}}
    one = {"image": ["components", 0], "batch_index": 0, "length": 1}
    prompt["one"] = {"class_type": "ImageFromBatch", "inputs": one}
    prompt["3"]["inputs"]["clip"] = ["one", 0]
    assert len(keypoints(server.run(prompt))) == 1
