"""Keypoints become a motion in a real ComfyUI, with the clip that they were found in and without."""

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from champ.server import Failure

FRAMES = 6


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def somebody(frames: int = FRAMES) -> dict:
    """Somebody who walks: 3 is the clip, 4 has the keypoints."""
    size = {"width": 96, "height": 128}
    clip = {"motion": "walk", "frames": frames, "fps": 8.0, "loop": True, "travel": False, **size}
    return {
        "1": node("ChampFreeBody", gender=0.2, age=30, height=1.9, weight=0.5, muscle=0.5, proportions=0.5),
        "2": node("ChampBuiltInMotion", body=["1", 0], **clip),
        "3": node("ChampPreviewMotion", motion=["2", 0], body=["1", 0], opacity=1.0, renderer="torch"),
        "4": node("ChampRenderMaps", motion=["2", 0], body=["1", 0]),
    }


def run(server, **fit) -> tuple[dict, dict]:
    prompt = {
        **somebody(),
        "5": node("ChampFitMotion", pose_keypoints=["4", 5], fps=8.0, **fit),
        "6": node("ChampSaveMotion", motion=["5", 0], name="champ/fit", format="Champ (.safetensors)"),
        "7": node("PreviewAny", source=["6", 0]),
        "8": node("PreviewAny", source=["5", 2]),
        "9": node("SaveImage", images=["5", 1], filename_prefix="champ/fit"),
    }
    entry = server.run(prompt)
    assert entry["outputs"]["5"]["animated"] == [True]
    name = entry["outputs"]["7"]["text"][0].removesuffix(" [output]")
    with safe_open(server.base / "output" / name, "np") as file:
        return entry["outputs"], {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_keypoints_become_a_motion_without_models(server):
    outputs, motion = run(server)
    report = outputs["8"]["text"][0]
    assert report.startswith(f"keypoints: {FRAMES} frames of 96x128 at 8 fps"), report
    assert "No frame was filled." in report
    assert len(motion["confidence"]) == FRAMES and motion["confidence"].min() > 0.7
    pictures = [
        np.asarray(Image.open(server.base / "output" / image["subfolder"] / image["filename"]))
        for image in outputs["9"]["images"]
    ]
    assert len(pictures) == FRAMES
    for picture in pictures:
        assert picture.shape == (128, 96, 3)
        rows = np.flatnonzero((picture != picture[0, 0]).any(axis=(1, 2)))
        assert rows.min() < 20 and rows.max() > 108  # the body stands as large as the one that was drawn


def test_the_body_lies_over_the_clip(server):
    outputs, motion = run(server, clip=["3", 0], body=["1", 0])
    assert len(motion["confidence"]) == FRAMES
    assert np.abs(motion["betas"]).max() < 3


def test_another_clip_is_refused(server):
    prompt = {
        **somebody(),
        "5": node("EmptyImage", width=96, height=128, batch_size=2, color=0),
        "6": node("ChampFitMotion", pose_keypoints=["4", 5], clip=["5", 0], fps=8.0),
    }
    with pytest.raises(Failure, match=r"The clip has 2 frames and pose_keypoints 6"):
        server.run(prompt)
