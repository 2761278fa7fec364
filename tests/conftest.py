"""A real ComfyUI for the tests that want one: started once, on a free port, with this checkout as its custom node."""

import lzma
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import dev
from champ.server import Server

from .hub import Hub

SYNTHETIC_SMPL = Path(__file__).parent / "data" / "smpl" / "SMPL_plain_proto4.pkl.xz"
SMALL_DWPOSE = Path(__file__).parent / "data" / "dwpose"
TWO_PEOPLE = Path(__file__).parent / "data" / "blazepose" / "two_people.mp4"
SMALL_HMR2 = Path(__file__).parent / "data" / "hmr2" / "network.safetensors"

# `python dev.py test` and CI end us with SIGTERM; like Ctrl-C, it must not leave a server behind.
signal.signal(signal.SIGTERM, signal.default_int_handler)


# In this order; beside the first, which starts servers of its own, come some that need none.
LONGEST = ["test_ray.py", "test_commands.py", "test_trainer.py", "test_sampler.py", "test_fuzz.py", "test_models.py",
           "test_faults.py", "test_workflows.py", "test_views.py", "test_quick_start.py"]  # fmt: skip


def pytest_collection_modifyitems(items):
    """Puts the longest files first, so that no process of two waits for one of them at the end."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of ComfyUI's own files."""
    path = Path(os.environ.get("COMFYUI_PATH") or dev.HOST / "ComfyUI").resolve()
    if not (path / "main.py").exists():
        pytest.skip("no ComfyUI: run the tests with `python dev.py test`, or set COMFYUI_PATH")
    return path


@pytest.fixture(scope="session")
def device_options() -> list[str]:
    return dev.device_options(dev.find_device(sys.executable))


@pytest.fixture(scope="session")
def hub():
    """Where the server would download from, so that no test leaves this machine."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def server(comfyui, device_options, hub, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    dev.link_pack(base / "custom_nodes")
    for pack in ("small_controlnet.py", "crowd.py", "cropped_video.py", "faults.py"):
        shutil.copy(dev.ROOT / "tests" / "host" / pack, base / "custom_nodes")
    # The small synthetic body stands in for the licensed file that users put there.
    smpl = base / "models" / "smpl" / "SMPL_NEUTRAL.pkl"
    smpl.parent.mkdir(parents=True)
    smpl.write_bytes(lzma.decompress(SYNTHETIC_SMPL.read_bytes()))
    # Small networks stand in for DWPose; what they find is the figure in this video.
    shutil.copytree(SMALL_DWPOSE, base / "models" / "dwpose", ignore=shutil.ignore_patterns("*.mp4"))
    (base / "input").mkdir(exist_ok=True)
    shutil.copy(SMALL_DWPOSE / "dance.mp4", base / "input")
    shutil.copy(TWO_PEOPLE, base / "input")
    stand_ins(base)
    hub_only = {"HF_ENDPOINT": hub.address}
    with Server(comfyui, base, *device_options, environment=hub_only) as running:
        yield running


def stand_ins(base: Path) -> None:
    """A small network in the place and the layout of HMR2's checkpoint, and people for reference pictures.

    The network is random; it is made to see everybody upright in a T-pose that fills the box, trembling a little."""
    import cv2
    import torch
    from safetensors.torch import load_file

    folder = base / "models" / "hmr2"
    folder.mkdir()
    state = load_file(SMALL_HMR2)
    for read, mean, value in (
        ("decpose", "body_pose", [1.0, 0, 0, 0, -1, 0] + 23 * [1.0, 0, 0, 0, 1, 0]),
        ("decshape", "betas", 10 * [0.0]),
        ("deccam", "cam", [1.1, 0, 0.15]),
    ):
        state[f"smpl_head.{read}.weight"] *= 0.02
        state[f"smpl_head.{read}.bias"] *= 0
        state[f"smpl_head.init_{mean}"][0] = torch.tensor(value)
    torch.save({"state_dict": state}, folder / "epoch=35-step=1000000.ckpt")
    _, picture = cv2.VideoCapture(str(SMALL_DWPOSE / "dance.mp4")).read()
    cv2.imwrite(str(base / "input" / "reference.png"), picture)
    _, picture = cv2.VideoCapture(str(TWO_PEOPLE)).read()
    cv2.imwrite(str(base / "input" / "person.png"), picture)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the server's log beside a failure."""
    report = yield
    running = getattr(item, "funcargs", {}).get("server")
    if report.failed and running is not None:
        lines = running.log.read_text(errors="replace").splitlines()
        report.sections.append(("ComfyUI's log", "\n".join(lines[-40:])))
    return report
