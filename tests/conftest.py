"""A real ComfyUI for the tests that want one: started once, on a free port, with this checkout as its custom node."""

import lzma
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import dev

SYNTHETIC_SMPL = Path(__file__).parent / "data" / "smpl" / "SMPL_plain_proto4.pkl.xz"

# `python dev.py test` and CI end us with SIGTERM; like Ctrl-C, it must not leave a server behind.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of ComfyUI's own files."""
    path = Path(os.environ.get("COMFYUI_PATH") or dev.HOST / "ComfyUI").resolve()
    if not (path / "main.py").exists():
        pytest.skip("no ComfyUI: run the tests with `python dev.py test`, or set COMFYUI_PATH")
    return path


@pytest.fixture(scope="session")
def device_options() -> list[str]:
    import torch

    return [] if torch.cuda.is_available() else ["--cpu"]


@pytest.fixture(scope="session")
def server(comfyui, device_options, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    dev.link_pack(base / "custom_nodes")
    shutil.copy(dev.ROOT / "tests" / "host" / "small_controlnet.py", base / "custom_nodes")
    # The small synthetic body stands in for the licensed file that users put there.
    smpl = base / "models" / "smpl" / "SMPL_NEUTRAL.pkl"
    smpl.parent.mkdir(parents=True)
    smpl.write_bytes(lzma.decompress(SYNTHETIC_SMPL.read_bytes()))
    with dev.Server(comfyui, base, *device_options, python=sys.executable) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the server's log beside a failure."""
    report = yield
    running = getattr(item, "funcargs", {}).get("server")
    if report.failed and running is not None:
        lines = running.log.read_text(errors="replace").splitlines()
        report.sections.append(("ComfyUI's log", "\n".join(lines[-40:])))
    return report
