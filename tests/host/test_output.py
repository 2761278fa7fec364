"""What the nodes save in a real ComfyUI: whole or not there, and what stands in its way in a sentence."""

import os
import stat

import pytest

from champ.server import Refused

from .test_nodes import SMALL, load, motion, node, refused, render, save, text


def glb(name: str = "champ/whole/body") -> dict:
    return {**motion(), "3": node("ChampSaveGLB", motion=["2", 0], body=["1", 0], name=name)}


def saved_motion(name: str, format: str) -> dict:
    options = {"motion": ["2", 0], "body": ["1", 0], "name": name, "format": format}
    return {**motion(), "3": node("ChampSaveMotion", **options)}


def names(folder) -> set[str]:
    return {item.name for item in folder.iterdir()} if folder.exists() else set()


def test_a_cancelled_folder_of_maps_is_not_there(server):
    folder = server.base / "output" / "champ" / "cancelled"
    long = {**motion(frames=60), "3": render(), "4": save(folder="champ/cancelled/maps")}
    seen = set()

    def cancel(nodes: dict) -> None:
        if nodes.get("4", {}).get("value", 0) >= 2:
            seen.update(names(folder))
            server.request("/interrupt", {})

    entry = server.run(long, show=cancel)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert seen and all(name.startswith(".champ_") and name.endswith(".part") for name in seen)
    assert names(folder) == set()
    server.run({**motion(), "3": render(), "4": save(folder="champ/cancelled/maps")})
    assert names(folder) == {"maps_00001"} and names(folder / "maps_00001") == {
        "depth", "normal", "semantic_map", "dwpose", "mask", "preview.webp"
    }  # fmt: skip


def test_what_a_killed_run_has_left_is_not_offered(server):
    left = server.base / "output" / "champ" / ".champ_killed.part" / "whole" / "depth"
    left.mkdir(parents=True)
    (left / "0000.png").touch()
    (left.parent / "walk.npz").touch()
    for kind, widget in (("ChampLoadMaps", "folder"), ("ChampLoadMotion", "file")):
        schema = server.json(f"/object_info/{kind}")[kind]["input"]["required"][widget]
        options = schema[0] if isinstance(schema[0], list) else schema[1]["options"]
        assert not any(".champ_" in option for option in options)
    with pytest.raises(Refused, match="There is no folder of maps called"):
        server.run({"1": load("champ/.champ_killed.part/whole [output]"), "2": node("PreviewAny", source=["1", 0])})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_everybody_may_read_what_is_saved(server):
    folder = server.base / "output" / "champ" / "readable"
    for format in ("Champ (.safetensors)", "AMASS (.npz)"):
        server.run(saved_motion("champ/readable/walk", format))
    server.run(glb("champ/readable/body"))
    server.run({**motion(), "3": render(), "4": save(folder="champ/readable/maps")})
    files = [item for item in folder.rglob("*") if item.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".npz", ".glb", ".png", ".webp"}
    permissions = {stat.S_IMODE(item.stat().st_mode) for item in files}
    assert permissions == {0o666 & ~current_umask()}


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_file_where_the_folder_should_be(server):
    (server.base / "output" / "in_the_way").touch()
    for prompt in (glb("in_the_way/body"), saved_motion("in_the_way/walk", "AMASS (.npz)")):
        assert "cannot be saved in" in (said := refused(server, prompt)) and "is a file, not a folder" in said


@pytest.mark.parametrize("name, sentence", [
    ("x" * 300, "cannot be a name in ComfyUI's output folder"),
    ("\u821e" * 90, "cannot be a name in ComfyUI's output folder"),
    ("/".join(["long"] * 1000), "its name or path is too long; choose a shorter name"),
    ("\ud800", "cannot be a name in ComfyUI's output folder"),
])  # fmt: skip
def test_names_that_no_disk_takes(server, name, sentence):
    assert sentence in refused(server, glb(name))


def test_a_preview_that_cannot_be_kept_is_a_warning(server):
    temp = server.base / "temp"
    temp.mkdir(exist_ok=True)
    temp.rename(aside := temp.with_name("temp_aside"))
    temp.touch()
    try:
        options = {"opacity": 0.85, "renderer": "torch"}
        shown = node("ChampPreviewMotion", motion=["2", 0], body=["1", 0], **options)
        kept = node("SaveImage", images=["3", 0], filename_prefix="champ/shaded")
        report = node("ChampMotionReport", motion=["2", 0])
        entry = server.run({**motion(), "3": shown, "4": kept, "5": report, "6": node("PreviewAny", source=["5", 0])})
        assert not {"3", "5"} & set(entry["outputs"]) and len(entry["outputs"]["4"]["images"]) == 4
        assert "built-in walk" in text(entry, "6")
        log = server.log.read_text(errors="replace")
        assert "[Champ] There is no preview: champ_" in log and "There is no preview: It cannot be saved in" in log
    finally:
        temp.unlink()
        aside.rename(temp)


def test_a_long_built_in_motion_is_refused_or_cancelled(server):
    assert "last 69 minutes, but a built-in motion may last 60" in refused(server, {
        **motion(frames=100_000, fps=24.0), "3": node("PreviewAny", source=["2", 0])
    })  # fmt: skip
    long = {**motion(frames=80_000, fps=24.0, **SMALL), "3": node("PreviewAny", source=["2", 0])}
    entry = server.run(long, show=lambda nodes: nodes["2"]["value"] > 0 and server.request("/interrupt", {}))
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
