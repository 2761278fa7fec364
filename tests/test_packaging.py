"""pyproject.toml is complete for the ComfyUI registry and leaves the user's environment alone."""

import re

from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

import dev

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PYPROJECT = tomllib.loads((dev.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_requirements_file_says_the_same():
    assert (dev.ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n") == [*PROJECT["dependencies"], ""]


def test_dependencies_do_not_restrict_the_environment():
    names = [Requirement(text).name for text in PROJECT["dependencies"]]
    assert all(not Requirement(text).specifier for text in PROJECT["dependencies"])
    assert not any(name.startswith(("torch", "onnxruntime")) for name in names)
    assert sum(name.startswith("opencv") for name in names) == 1


def test_registry_fields():
    assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,99}", PROJECT["name"]) and "comfyui" not in PROJECT["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"]) and Version(PROJECT["version"]) > Version("0")
    assert PROJECT["license"] == {"file": "LICENSE"}
    assert "Apache License" in (dev.ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (dev.ROOT / PROJECT["readme"]).is_file()
    assert PROJECT["urls"]["Repository"].startswith("https://github.com/")
    comfy = PYPROJECT["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert comfy["requires-comfyui"] == ">=" + ".".join(map(str, dev.MIN_COMFYUI))


def test_icon_and_banner_have_the_shapes_that_the_registry_wants():
    """Its pages load them from the repository, not from the archive."""
    for key, fits in (
        ("Icon", lambda width, height: width == height <= 400),
        ("Banner", lambda width, height: 9 * width == 21 * height),
    ):
        base, _, file = PYPROJECT["tool"]["comfy"][key].partition("/ComfyUI-Champ/main/")
        assert base == "https://raw.githubusercontent.com/comfyui-champ"
        with Image.open(dev.ROOT / file) as picture:
            assert fits(*picture.size), picture.size


def test_classifiers_are_the_registrys():
    accelerators = {"AMD ROCm", "Apple Metal", "Intel Arc", "NVIDIA CUDA"}
    listed = [text for text in PROJECT["classifiers"] if text.startswith("Environment")]
    assert {text.removeprefix("Environment :: GPU :: ") for text in listed} == accelerators
    assert "Operating System :: OS Independent" in PROJECT["classifiers"]
