"""Smooth Motion and Motion Report in the real host, on a motion from a file that trembles and has a gap and a cut."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from champ.body.free import load_free_body
from champ.motion.formats import save_motion
from champ.motion.presets import make_motion
from champ.motion.rotation import from_axis_angle, rot_y
from champ.server import Failure

FRAMES = 24


@pytest.fixture(scope="module", autouse=True)
def trembling(server):
    motion = make_motion("wave", load_free_body(), FRAMES, width=64, height=96)
    turn = torch.randn(FRAMES, 24, 3, generator=torch.Generator().manual_seed(0)) * 0.03
    motion.rotations[:] = motion.rotations @ from_axis_angle(turn)
    motion.rotations[8, 0] = motion.rotations[8, 0] @ rot_y(180)
    motion.shot[16:] = 1
    motion.confidence[[3, 4]] = 0
    save_motion(server.base / "input" / "trembling.safetensors", motion)
    return motion


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def prompt(method: str, strength: float = 1.0) -> dict:
    return {
        "1": node("ChampLoadMotion", file="trembling.safetensors", person=0, width=512, height=768, fps=24.0),
        "2": node("ChampSmoothMotion", motion=["1", 0], method=method, strength=strength),
        "3": node("ChampSaveMotion", motion=["2", 0], name="champ/smooth", format="Champ (.safetensors)"),
        "4": node("PreviewAny", source=["3", 0]),
        "5": node("ChampMotionReport", motion=["2", 0], before=["1", 0]),
        "6": node("PreviewAny", source=["5", 0]),
        "7": node("SaveImage", images=["5", 1], filename_prefix="champ/report"),
    }


def saved(server, entry: dict) -> dict[str, torch.Tensor]:
    name = entry["outputs"]["4"]["text"][0].removesuffix(" [output]")
    with safe_open(server.base / "output" / name, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def roughness(rotations: torch.Tensor) -> float:
    return rotations[10:15].diff(n=2, dim=0).abs().mean().item()


def test_a_trembling_motion_is_smoothed_filled_and_reported(server, trembling):
    entry = server.run(prompt("steady"))
    values = saved(server, entry)
    assert roughness(values["rotations"]) < 0.3 * roughness(trembling.rotations)
    assert (values["confidence"] == 0).nonzero().flatten().tolist() == [3, 4, 8]
    assert values["shot"].tolist() == [0] * 16 + [1] * 8
    report = entry["outputs"]["6"]["text"][0]
    assert f"{FRAMES} frames of 64x96 at 24 fps" in report and "3 filled: 3-4, 8." in report
    assert "2 shots: 0-15, 16-23." in report and " before." in report
    [item] = entry["outputs"]["7"]["images"]
    picture = np.asarray(Image.open(server.base / "output" / item["subfolder"] / item["filename"]).convert("RGB"))
    assert picture.shape == (640, 960, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert entry["outputs"]["5"]["images"]


def test_off_changes_nothing_and_official_changes_every_inner_frame(server, trembling):
    off, official = (saved(server, server.run(prompt(method))) for method in ("off", "official"))
    assert torch.equal(off["rotations"], trembling.rotations) and torch.equal(off["cam_t"], trembling.cam_t)
    changed = (official["rotations"] - trembling.rotations).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False] + [True] * 15 + [False] + [True] * 7


def test_an_unknown_method_is_refused(server):
    with pytest.raises(Failure, match="no smoothing method called .kalman.|Value not in list: method: .kalman."):
        server.run(prompt("kalman"))
