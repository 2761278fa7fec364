"""Motions to files and back in a real ComfyUI, and names that lead elsewhere."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from champ.server import Failure, Refused

FREE = {"gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def walk(**save) -> dict:
    """A walk of four frames, saved."""
    walk = {"motion": "walk", "frames": 4, "fps": 8.0, "loop": True, "travel": True, "width": 64, "height": 96}
    options = {"name": "champ/walk", "format": "Champ (.safetensors)", **save}
    return {
        "1": node("ChampFreeBody", **FREE),
        "2": node("ChampBuiltInMotion", body=["1", 0], **walk),
        "3": node("ChampSaveMotion", motion=["2", 0], body=["1", 0], **options),
        "4": node("PreviewAny", source=["3", 0]),
    }


def load(file: str, person: int = 0, **more) -> dict:
    """The motion in a file; its maps as pictures, and its numbers as texts."""
    options = {"person": person, "width": 64, "height": 96, "fps": 30.0, **more}
    return {
        "1": node("ChampFreeBody", **FREE),
        "5": node("ChampLoadMotion", file=file, body=["1", 0], **options),
        "6": node("ChampRenderMaps", motion=["5", 0], body=["1", 0]),
        "7": node("SaveImage", images=["6", 1], filename_prefix="champ/normal"),
        "8": node("PreviewAny", source=["5", 3]),
    }


def text(entry: dict, name: str) -> str:
    return entry["outputs"][name]["text"][0]


def pictures(server, entry: dict) -> list[bytes]:
    """The saved pixels, without the workflow that ComfyUI writes into each file."""
    items = entry["outputs"]["7"]["images"]
    files = [server.base / "output" / item["subfolder"] / item["filename"] for item in items]
    return [Image.open(file).tobytes() for file in files]


def test_a_saved_motion_gives_the_same_pictures(server):
    saved = {**walk(), "6": node("ChampRenderMaps", motion=["2", 0], body=["1", 0]),
             "7": node("SaveImage", images=["6", 1], filename_prefix="champ/normal")}  # fmt: skip
    entry = server.run(saved)
    name = text(entry, "4")
    assert re.fullmatch(r"champ/walk_\d{5}\.safetensors \[output]", name)
    again = server.run(load(name))
    assert text(again, "8").startswith("built-in walk: 4 frames of 64x96 at 8 fps (")
    assert pictures(server, again) == pictures(server, entry)
    [info] = server.json("/object_info/ChampLoadMotion").values()
    assert name in info["input"]["required"]["file"][1]["options"]


def test_a_motion_saved_as_amass_is_loaded(server):
    name = text(server.run(walk(format="AMASS (.npz)")), "4")
    assert name.endswith(".npz [output]")
    assert text(server.run(load(name)), "8").startswith("AMASS: 4 frames of 64x96 at 8 fps (")


def test_a_motion_saved_as_bvh_is_loaded_and_its_joints_can_be_said(server):
    name = text(server.run(walk(format="BVH (.bvh)")), "4")
    assert re.fullmatch(r"champ/walk_\d{5}\.bvh \[output]", name)
    told = text(server.run(load(name)), "8")
    assert told.startswith("BVH: 4 frames of 64x96 at 8 fps (") and "\n\nJoints:\npelvis = Hips\n" in told
    assert "left_knee = LeftLeg\n" in told and "spine = Spine, Spine1, Spine2\n" in told
    file = server.base / "output" / name.removesuffix(" [output]")
    strange = file.read_text().replace("LeftLeg", "Links3")
    (server.base / "input" / "strange.bvh").write_text(strange)
    with pytest.raises(Failure, match="strange.bvh has no joint that is known to be left_knee; write in joints which"):
        server.run(load("strange.bvh"))
    assert "left_knee = Links3\n" in text(server.run(load("strange.bvh", joints="left_knee = Links3")), "8")
    (server.base / "input" / "strange.bvh").write_text(strange[:-40])
    with pytest.raises(
        Failure, match="strange.bvh cannot be read as a motion: it ends in frame 3, .*; export it again as BVH"
    ):
        server.run(load("strange.bvh"))


def test_a_camera_of_tram_that_comes_later_is_read(server):
    folder = server.base / "input" / "tram"
    (folder / "hps").mkdir(parents=True)
    one = {"frame": np.arange(2), "pred_rotmat": np.tile(np.eye(3, dtype=np.float32), (2, 24, 1, 1)),
           "pred_trans": np.float32([[0, 0, 3]] * 2), "pred_shape": np.zeros((2, 10), np.float32)}  # fmt: skip
    np.save(folder / "hps" / "hps_track_0.npy", one)
    assert text(server.run(load("tram/hps/hps_track_0.npy")), "8").startswith("TRAM: 2 frames of 64x96 ")
    camera = {"pred_cam_R": np.zeros((3, 3, 3)), "img_focal": 90.0, "img_center": np.array([40.0, 30.0])}
    np.save(folder / "camera.npy", camera)
    assert text(server.run(load("tram/hps/hps_track_0.npy")), "8").startswith("TRAM: 3 frames of 80x60 ")


def test_joints_in_space_are_loaded(server):
    heights = torch.linspace(0, 1.7, 24)
    points = torch.stack([torch.sin(torch.arange(24.0)) / 5, heights, torch.zeros(24)], dim=1).repeat(3, 1, 1)
    (server.base / "input" / "joints.json").write_text(json.dumps({"fps": 20, "joints": points.tolist()}))
    assert text(server.run(load("joints.json")), "8").startswith("SMPL joints: 3 frames of 64x96 at 20 fps (")


def test_a_moving_body_is_saved_for_preview_3d(server):
    saved = {**walk(), "9": node("ChampSaveGLB", motion=["2", 0], body=["1", 0], name="champ/walk"),
             "10": node("Preview3D", model_file=["9", 0])}  # fmt: skip
    model_file = server.run(saved)["outputs"]["10"]["result"][0]
    assert re.fullmatch(r"champ/walk_\d{5}\.glb", model_file)
    shown = server.view({"filename": model_file.removeprefix("champ/"), "subfolder": "champ", "type": "output"})
    assert shown[:4] == b"glTF"
    with pytest.raises((Failure, Refused), match="cannot be a name"):
        server.run({**saved, "9": node("ChampSaveGLB", motion=["2", 0], name="../walk")})


def test_a_file_in_the_input_folder_of_another_tool(server):
    params = {"body_pose": torch.zeros(3, 63), "global_orient": torch.tensor([[3.14, 0, 0]]).repeat(3, 1),
              "transl": torch.tensor([[0, 0, 5.0]]).repeat(3, 1)}  # fmt: skip
    torch.save({"smpl_params_incam": params}, server.base / "input" / "hmr4d_results.pt")
    assert text(server.run(load("hmr4d_results.pt")), "8").startswith("GVHMR: 3 frames of 64x96 at 30 fps (")
    with pytest.raises(Failure, match="has 1 people, so there is no person 1"):
        server.run(load("hmr4d_results.pt", person=1))


def test_a_hostile_file_is_refused_in_a_sentence(server):
    class Hostile:
        def __reduce__(self):
            return print, ("ran",)

    people = np.array([Hostile()], dtype=object)
    np.savez(server.base / "input" / "hostile.npz", smpl=people, camera=np.zeros((1, 3)))
    with pytest.raises(Failure, match="hostile.npz was refused and nothing in it was run"):
        server.run(load("hostile.npz"))


@pytest.mark.parametrize("name", ["../secret.npz", "/etc/passwd", "C:\\x.npz", "a//b.npz", "", "a\0.npz", "x.txt"])
def test_no_other_file_can_be_loaded(server, name):
    (server.base / "secret.npz").write_bytes(b"")
    (server.base / "input" / "x.txt").write_bytes(b"")
    with pytest.raises((Failure, Refused), match="There is no motion file called"):
        server.run(load(name))


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "C:\\outside", "a//b", "", "con", "a|b", "..\\b"])
def test_nothing_is_saved_outside_the_output_folder(server, name):
    with pytest.raises((Failure, Refused), match="cannot be a name"):
        server.run(walk(name=name))
