"""The nodes in a real ComfyUI: what they give for good input, and the sentence they give for bad input."""

import re

import numpy as np
import pytest
from PIL import Image

from champ.server import Failure, Refused

SMALL = {"width": 64, "height": 96}


def motion(name="walk", frames=4, **more) -> dict:
    """Nodes 1 and 2 of a workflow: a body, and a small clip of it."""
    options = {"motion": name, "frames": frames, "fps": 8.0, "loop": True, "travel": False, **SMALL, **more}
    return {
        "1": {"class_type": "ChampFreeBody", "inputs": {
            "gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}},
        "2": {"class_type": "ChampBuiltInMotion", "inputs": {"body": ["1", 0], **options}},
    }  # fmt: skip


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def camera(**changes) -> dict:
    options = {**SMALL, "azimuth": "0", "elevation": "0", "fill": 0.85, "fov": 2.93, "follow": False}
    return node("ChampCamera", motion=["2", 0], body=["1", 0], **{**options, **changes})


def retime(**changes) -> dict:
    options = {"start": 0, "count": 0, "fps": 0.0, "speed": 1.0, "repeat": "off", "total": 10}
    return node("ChampRetimeMotion", motion=["2", 0], **{**options, **changes})


def render(source="2", **more) -> dict:
    return node("ChampRenderMaps", motion=[source, 0], body=["1", 0], **more)


def save(source="3", folder="champ/test", **more) -> dict:
    maps = {name: [source, i] for i, name in enumerate(("depth", "normal", "semantic_map", "dwpose", "mask"))}
    return node("ChampSaveMaps", **{**maps, "folder": folder, "fps": 8.0, **more})


def load(folder: str, start=0, count=0) -> dict:
    return node("ChampLoadMaps", folder=folder, start=start, count=count)


def saved_folder(server, entry: dict, name: str):
    """The folder that Save Guidance Maps made in this run."""
    [item] = entry["outputs"][name]["images"]
    return server.base / "output" / item["subfolder"]


def text(entry: dict, name: str) -> str:
    return entry["outputs"][name]["text"][0]


def refused(server, prompt: dict) -> str:
    with pytest.raises(Failure) as failure:
        server.run(prompt)
    return str(failure.value)


@pytest.fixture(scope="module")
def folder(server):
    """A folder of four frames of all maps, 64x96."""
    entry = server.run({**motion(), "3": render(), "4": save(folder="champ/fixture")})
    return saved_folder(server, entry, "4")


def test_maps_are_saved_in_the_official_layout(folder):
    for name, mode in (("depth", "L"), ("normal", "RGB"), ("semantic_map", "RGB"), ("dwpose", "RGB"), ("mask", "L")):
        files = sorted((folder / name).iterdir())
        assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png", "0003.png"]
        picture = Image.open(files[0])
        assert (picture.size, picture.mode) == ((64, 96), mode)
        assert picture.getextrema() != (0, 0)
    with Image.open(folder / "preview.webp") as preview:
        assert preview.n_frames == 4 and preview.size == (4 * 64, 96)


def test_loading_and_saving_again_changes_no_byte(server, folder):
    again = saved_folder(server, server.run({"3": load("champ/fixture_00001 [output]"), "4": save()}), "4")
    for file in sorted(folder.glob("*/*.png")):
        copy = again / file.relative_to(folder)
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(copy))), copy


def test_the_images_of_the_video_are_saved_for_training(server):
    blue = node("EmptyImage", width=64, height=96, batch_size=4, color=255)
    entry = server.run({**motion(), "3": render(), "5": blue, "4": save(folder="champ/training", images=["5", 0])})
    files = sorted((saved_folder(server, entry, "4") / "images").iterdir())
    assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    with Image.open(files[3]) as picture:
        assert picture.getextrema() == ((0, 0), (0, 0), (255, 255)) and picture.size == (64, 96)
    with Image.open(files[0].parents[1] / "preview.webp") as preview:
        assert preview.size == (5 * 64, 96)


def test_a_second_run_gets_a_new_folder(server, folder):
    prompt = {"3": load("champ/fixture_00001 [output]"), "4": save(folder="champ/fixture")}
    again = saved_folder(server, server.run(prompt), "4")
    assert again != folder and again.parent == folder.parent


def test_a_part_of_a_folder_is_loaded(server, folder):
    prompt = {"3": load("champ/fixture_00001 [output]", start=1, count=2), "4": node("PreviewAny", source=["3", 5])}
    assert text(server.run(prompt), "4") == "2"


def test_camera_and_retime_work_on_the_motion(server):
    entry = server.run(
        {
            **motion(frames=8),
            "3": retime(start=2, count=4, fps=16.0, repeat="ping-pong", total=11),
            "4": {**camera(azimuth="0, 360", elevation="-5, 20", width=48, height=40)},
            "5": node("PreviewAny", source=["3", 1]),
            "6": render("4"),
            "7": save("6", folder="champ/camera"),
        }
    )
    assert text(entry, "5") == "11"
    frames = sorted((saved_folder(server, entry, "7") / "normal").iterdir())
    assert len(frames) == 8 and Image.open(frames[0]).size == (48, 40)


def test_the_preview_lays_the_figure_over_a_picture(server):
    prompt = {
        **motion(),
        "3": node("EmptyImage", width=200, height=100, batch_size=1, color=0x0000FF),
        "4": node("ChampPreviewMotion", motion=["2", 0], body=["1", 0], background=["3", 0], opacity=1.0,
                  renderer="torch"),
        "5": node("SaveImage", images=["4", 0], filename_prefix="champ/over"),
    }  # fmt: skip
    entry = server.run(prompt)
    assert entry["outputs"]["4"]["animated"] == [True]
    files = [server.base / "output" / item["subfolder"] / item["filename"] for item in entry["outputs"]["5"]["images"]]
    picture = np.asarray(Image.open(files[0]).convert("RGB"))
    assert len(files) == 4 and picture.shape == (96, 64, 3)
    assert picture[0, 0].tolist() == [0, 0, 255] and picture[48, 32].min() > 60


def test_hands_and_face_come_from_keypoints(server, folder):
    """The skeleton's own keypoints, read back, give the same body; with nothing to add they add nothing."""
    prompt = {
        **motion(),
        "3": render(),
        "4": render(pose_keypoints=["3", 5]),
        "5": save("4"),
        "6": node("ChampDrawSkeleton", pose_keypoints=["3", 5], width=0, height=0, draw_body=True, draw_hands=False,
                  draw_face=False),
        "7": node("SaveImage", images=["6", 0], filename_prefix="champ/skeleton"),
    }  # fmt: skip
    entry = server.run(prompt)
    [first, *_] = entry["outputs"]["7"]["images"]
    drawn = np.asarray(Image.open(server.base / "output" / first["subfolder"] / first["filename"]).convert("RGB"))
    assert np.array_equal(drawn, np.asarray(Image.open(folder / "dwpose" / "0000.png")))


def test_the_check_passes_our_own_maps_and_reports_others(server, folder):
    prompt = {
        "3": load("champ/fixture_00001 [output]"),
        "4": node("ChampCheckMaps", semantic_map=["3", 2], mask=["3", 4], stop=True),
        "5": node("PreviewAny", source=["4", 0]),
    }
    assert text(server.run(prompt), "5") == "The semantic map has Champ's 24 part colours."
    prompt["4"]["inputs"] |= {"semantic_map": ["3", 1], "stop": False}
    report = text(server.run(prompt), "5")
    assert "semantic map" in report and "24 part colours" in report
    prompt["4"]["inputs"]["stop"] = True
    assert report in refused(server, prompt)
    assert f"[Champ] {report}" in server.log.read_text()


def test_maps_that_are_not_in_a_folder_are_empty(server):
    depth = node("ChampSaveMaps", folder="champ/depth", fps=8.0, depth=["3", 0])
    server.run({**motion(), "3": render(), "4": depth})
    prompt = {
        "3": load("champ/depth_00001 [output]"),
        "4": node("ChampCheckMaps", semantic_map=["3", 2], mask=["3", 4], stop=False),
        "5": node("PreviewAny", source=["4", 0]),
    }
    report = text(server.run(prompt), "5")
    assert report.startswith("There is no semantic map to check, because the folder of Load Guidance Maps has none;")
    assert report in server.log.read_text()
    prompt["4"]["inputs"]["stop"] = True
    assert report in refused(server, prompt)
    beside = node("ChampCompareGrid", image_1=["3", 1], image_2=["3", 2], columns=0)
    shown = {"3": prompt["3"], "4": beside, "5": node("PreviewImage", images=["4", 0])}
    assert "no pictures to put side by side; connect at least one that is not empty" in refused(server, shown)
    beside["inputs"]["image_2"] = ["3", 0]
    assert len(server.run(shown)["outputs"]["5"]["images"]) == 4


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc", "C:\\Windows", "champ/../..", "champ//x", "", "a\0b", "..\\..\\x", "champ/fixture_00001"],
)
def test_no_other_folder_can_be_loaded(server, folder, name):
    assert "There is no folder of maps called" in refused(server, {"3": load(name), "4": save()})


@pytest.mark.parametrize(
    "name",
    ["../outside", "/tmp/outside", "C:\\outside", "a//b", "", "a/../../b", "..\\b", "a|b", "a" * 300, "con", "a. "],
)
def test_nothing_is_saved_outside_the_output_folder(server, folder, name):
    prompt = {"3": load("champ/fixture_00001 [output]"), "4": save(folder=name)}
    assert "cannot be a name" in refused(server, prompt)


def test_an_unreadable_picture_is_named(server, folder):
    broken = server.base / "input" / "broken"
    (broken / "depth").mkdir(parents=True)
    (broken / "depth" / "0000.png").write_bytes(b"not a picture")
    assert re.search(r"0000\.png.*cannot be read", refused(server, {"3": load("broken"), "4": save()}))


def test_missing_frames_are_named(server, folder):
    short = server.base / "input" / "short"
    for name, frames in (("depth", 3), ("normal", 2)):
        (short / name).mkdir(parents=True)
        for i in range(frames):
            Image.new("RGB", (8, 8)).save(short / name / f"{i:04}.png")
    assert "normal has 2 frames and lacks number 2, which depth has (3 frames)" in refused(
        server, {"3": load("short"), "4": save()}
    )


def test_a_gap_in_one_map_is_named(server):
    """The counts agree, but without a word the frames behind the gap would belong to different moments."""
    gaps = server.base / "input" / "gaps"
    for name, gap in (("depth", 1), ("normal", 2)):
        (gaps / name).mkdir(parents=True)
        for i in {0, 1, 2, 3} - {gap}:
            Image.new("RGB", (8, 8)).save(gaps / name / f"{i:04}.png")
    assert "depth has 3 frames and lacks number 1, which normal has" in refused(
        server, {"3": load("gaps"), "4": save()}
    )


def test_maps_of_different_size_are_refused_before_anything_is_written(server, folder):
    small = node("EmptyImage", width=8, height=8, batch_size=4, color=0)
    prompt = {"2": small, "3": load("champ/fixture_00001 [output]"), "4": save(depth=["2", 0], folder="champ/sizes")}
    assert "differ in size (depth 8x8, normal 64x96" in refused(server, prompt)
    assert not (server.base / "output" / "champ" / "sizes_00001").exists()


def test_linked_texts_are_checked_when_the_node_runs(server, folder):
    text = node("PrimitiveString", value="0, 90")
    prompt = {**motion(), "3": camera(azimuth=["9", 0]), "4": render("3"), "5": save("4", folder=["8", 0]),
              "8": node("PrimitiveString", value="champ/linked"), "9": text}  # fmt: skip
    saved = saved_folder(server, server.run(prompt), "5")
    assert saved.name == "linked_00001"
    prompt["9"] = node("PrimitiveString", value="left")
    assert "azimuth is 'left'; write" in refused(server, prompt)
    prompt["8"], prompt["9"] = node("PrimitiveString", value="../outside"), text
    assert "cannot be a name" in refused(server, prompt)


def test_another_body_shape_is_noticed(server):
    other = motion()["1"]
    other["inputs"] = {**other["inputs"], "height": 2.0}
    drawn = render()
    drawn["inputs"]["body"] = ["7", 0]
    server.run({**motion(), "7": other, "3": drawn, "4": save()})
    assert "The body's shape differs from the motion's" in server.log.read_text()


def test_saving_nothing_is_refused(server):
    assert "connect at least one" in refused(server, {"4": node("ChampSaveMaps", folder="champ/none", fps=8.0)})


def test_saving_maps_of_different_length_is_refused(server, folder):
    prompt = {
        "2": load("champ/fixture_00001 [output]", count=2),
        "3": load("champ/fixture_00001 [output]"),
        "4": save(depth=["2", 0]),
    }
    assert "[2, 4] frames" in refused(server, prompt)


@pytest.mark.parametrize("text", ["left", "", "0,,90", "nan", "0; 90"])
def test_angles_must_be_numbers(server, text):
    message = refused(server, {**motion(), "3": camera(azimuth=text), "4": render("3"), "5": save("4")})
    assert f"azimuth is {text!r}; write" in message


def test_starting_behind_the_end_is_refused(server):
    prompt = {**motion(), "3": retime(start=9), "4": render("3"), "5": save("4")}
    assert "has 4 frames, so it cannot start at frame 9" in refused(server, prompt)


def test_a_background_of_another_length_is_refused(server):
    prompt = {
        **motion(),
        "3": node("EmptyImage", width=64, height=96, batch_size=3, color=0),
        "4": node("ChampPreviewMotion", motion=["2", 0], body=["1", 0], background=["3", 0], opacity=1.0,
                  renderer="torch"),
    }  # fmt: skip
    assert "background" in refused(server, prompt)


def test_keypoints_of_another_length_are_refused(server):
    short = retime(count=2)
    prompt = {**motion(), "3": short, "4": render("3"), "5": render("2", pose_keypoints=["4", 5]), "6": save("5")}
    assert "keypoints for 2 frames but the motion has 4" in refused(server, prompt)


@pytest.mark.parametrize(("width", "frames"), [(0, 4), (64, 0)])
def test_sizes_of_zero_are_refused_before_anything_runs(server, width, frames):
    prompt = {**motion(frames=frames, width=width), "3": render(), "4": save()}
    with pytest.raises(Refused, match="smaller than min"):
        server.run(prompt)


def test_a_missing_smpl_file_is_explained_before_anything_runs(server):
    prompt = {
        "1": node("ChampLoadSMPL", model_name="SMPL_MISSING.pkl", beta_0=0.0, beta_1=0.0),
        "2": motion()["2"],
        "3": render(),
        "4": save(),
    }
    with pytest.raises(Refused, match=r"put SMPL_NEUTRAL.pkl or .npz into models/smpl"):
        server.run(prompt)


@pytest.mark.parametrize("name", ["../../secret.pkl", "/etc/passwd"])
def test_smpl_files_come_from_the_model_folder_only(server, name):
    prompt = {
        "1": node("ChampLoadSMPL", model_name=name, beta_0=0.0, beta_1=0.0),
        "2": motion()["2"],
        "3": render(),
        "4": save(),
    }
    with pytest.raises(Refused, match="not found"):
        server.run(prompt)


def test_a_failed_run_leaves_the_host_usable(server):
    refused(server, {**motion(), "3": retime(start=9), "4": render("3"), "5": save("4")})
    entry = server.run({**motion(), "3": render(), "4": save()})
    assert entry["status"]["status_str"] == "success"


def test_a_run_can_be_cancelled(server):
    """A long clip stops at the next frame after an interrupt and the next run works."""
    prompt = {**motion(frames=500, width=256, height=256), "3": render(), "4": save()}
    interrupted = []

    def interrupt(nodes):
        if not interrupted and any(n["node_id"] == "3" and n["value"] > 2 for n in nodes.values()):
            server.request("/interrupt", {})
            interrupted.append(True)

    entry = server.run(prompt, interrupt)
    assert interrupted and entry["status"]["status_str"] == "error"
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds
    assert server.run({**motion(), "3": render(), "4": save()})["status"]["status_str"] == "success"
