"""What the registry would publish works in a bare ComfyUI that has only the two requirements files installed."""

import json
import lzma
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dev
from champ.server import Failure

from .watching import WatchingServer

SYNTHETIC_SMPL = Path(__file__).parents[1] / "data" / "smpl" / "SMPL_plain_proto4.pkl.xz"
HIDE = Path(__file__).parent / "hide"
ALWAYS_THERE = {"pip"}  # every new environment has it

# Loads the pack the way ComfyUI does, once everything that ComfyUI itself has imported by then is there.
IMPORT_PACK = """
import asyncio, json, sys, time
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config  # before nodes, which puts a folder with another utils in front
import nodes, server
loop = asyncio.new_event_loop()
server.PromptServer(loop)
start = time.process_time()
loaded = loop.run_until_complete(nodes.load_custom_node(PACK))
print(json.dumps({"loaded": loaded, "seconds": time.process_time() - start}))
"""


def requirements(file: Path) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def closure(wanted: list[Requirement]) -> set[str]:
    """The installed distributions that pip would bring for these requirements."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needed = [Requirement(text) for text in requires(name) or ()]
            except PackageNotFoundError:
                continue
            found.add(name)
            wanted += [r for r in needed if not r.marker or r.marker.evaluate({"extra": extra})]
    return found


@pytest.fixture(scope="module")
def bare(comfyui) -> dict[str, str]:
    """The environment variables under which Python sees only the two requirements files' packages."""
    host = [Requirement(name) for name in dev.HOST_PACKAGES]
    kept = closure([*host, *requirements(comfyui / "requirements.txt"), *requirements(dev.ROOT / "requirements.txt")])
    hidden = {canonicalize_name(d.metadata["Name"]) for d in distributions()} - kept - ALWAYS_THERE
    modules = [
        module
        for module, owners in packages_distributions().items()
        if all(canonicalize_name(owner) in hidden for owner in owners)
    ]
    hide = json.dumps({"modules": modules, "distributions": sorted(hidden)})
    return {"PYTHONPATH": str(HIDE), "CHAMP_HIDE": hide}


def unpack(archive: list[str], custom_nodes: Path) -> Path:
    pack = custom_nodes / dev.PACK
    for file in archive:
        (pack / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dev.ROOT / file, pack / file)
    return pack


def python(code: str, bare: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # `-c` puts the working directory first on the path, as `python main.py` does with main.py's.
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **bare}, capture_output=True, text=True, timeout=300)


def test_archive_has_what_the_pack_needs_and_no_more(archive):
    top = {file.partition("/")[0] for file in archive}
    wanted = "__init__.py pyproject.toml requirements.txt LICENSE README.md champ js locales nodes"
    assert set(wanted.split()) <= top
    assert not top & {"tests", "bench", "tools", "dev.py", ".ci", ".github"}
    assert any(file.startswith("js/docs/") for file in archive)
    assert sum((dev.ROOT / file).stat().st_size for file in archive) < 50e6  # Champ-Tiny is 24e6, BlazePose 19e6


def test_the_bare_environment_is_bare(bare, tmp_path):
    code = """
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
for name in ("torch", "smplx", "cv2", "yaml", "aiohttp"):
    assert find_spec(name), name
for name in ("pytest", "ruff", "playwright", "mypy", "champ"):
    assert not find_spec(name), name
version("torch")
try:
    version("pytest")
except PackageNotFoundError:
    print("bare")
"""
    result = python(code, bare, tmp_path)
    assert result.stdout.strip() == "bare", result.stderr


@pytest.fixture(scope="module")
def installed(archive, bare, comfyui, device_options, tmp_path_factory):
    """A server with the published archive. It does not find smplx, which is for non-commercial use only, and shows no
    latent previews."""
    base = tmp_path_factory.mktemp("installed")
    unpack(archive, base / "custom_nodes")
    hidden = json.loads(bare["CHAMP_HIDE"])
    hidden["modules"].append("smplx")
    environment = {**bare, "CHAMP_HIDE": json.dumps(hidden)}
    no_previews = "--preview-method=none"
    with WatchingServer(comfyui, base, *device_options, no_previews, environment=environment) as running:
        yield running


def test_published_archive_registers_every_node(installed, server):
    nodes = installed.json("/object_info")
    here = {name for name, info in nodes.items() if info["python_module"] == f"custom_nodes.{dev.PACK}"}
    expected = {name for name, info in server.json("/object_info").items() if dev.PACK in info["python_module"]}
    assert here == expected and here, installed.log.read_text(errors="replace")


def test_quick_start_runs_from_the_archive_without_smplx(installed):
    prompt = json.loads(dev.QUICK_START.read_text(encoding="utf-8"))
    size = {"width": 144, "height": 192}
    few = {"ChampExamplePerson": size, "ChampBuiltInMotion": {"frames": 2, **size}, "ChampSampler": {"steps": 2}}
    for node in prompt.values():
        node["inputs"] |= few.get(node["class_type"], {})
    installed.run(prompt)
    assert installed.pictures == 0


def test_an_smpl_file_without_smplx_says_what_to_install(installed):
    folder = installed.base / "models" / "smpl"
    folder.mkdir(parents=True)
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(lzma.decompress(SYNTHETIC_SMPL.read_bytes()))
    prompt = {
        "1": {"class_type": "ChampLoadSMPL", "inputs": {"model_name": "SMPL_NEUTRAL.pkl", "beta_0": 0, "beta_1": 0}},
        "2": {"class_type": "ChampBuiltInMotion", "inputs": {"body": ["1", 0], "motion": "walk", "frames": 1,
              "fps": 24, "loop": True, "travel": False, "width": 64, "height": 64}},
        "3": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["2", 0], "body": ["1", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }  # fmt: skip
    with pytest.raises(Failure, match="pip install smplx.*or choose the free body"):
        installed.run(prompt)


def test_import_is_quick_and_reads_no_weights(archive, bare, comfyui, device_options, tmp_path):
    """Measured in CPU time, which other work on the machine does not change; every asset is emptied
    before, so that reading one would fail."""
    pack = unpack(archive, tmp_path / "custom_nodes")
    emptied = [file for file in (pack / "champ" / "assets").rglob("*") if file.is_file()]
    for file in emptied:
        file.write_bytes(b"")
    code = f"PACK = {str(pack)!r}\n{IMPORT_PACK}"
    options = ["--base-directory", str(tmp_path), "--database-url", "sqlite:///:memory:", *device_options]
    result = python(code, bare, comfyui, *options)
    assert emptied and result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["loaded"], result.stderr
    assert report["seconds"] < 2
