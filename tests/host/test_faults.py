"""Each stage and what can go wrong in it: a message, a usable host, memory back at its level, and a next run whose
result is bit-identical to that of an undisturbed one."""

import hashlib
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import dev
from champ.server import Failure, Server

from .small_models import HEIGHT, WIDTH, install, small
from .watching import WatchingServer


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def sampling() -> dict:
    """Built-in motion, maps, guidance, reference, calibration, sampler, in pictures without loss."""
    prompt = small("calibrated_reference", ChampBuiltInMotion={"frames": 3}, ChampSampler={"length": 2})
    prompt["17"] = node("SaveImage", images=["16", 0], filename_prefix="faults/sampling")
    del prompt["18"], prompt["19"]
    return prompt


def estimation() -> dict:
    """A video to keypoints, a motion, its maps in a folder, and the body in files."""
    size = {"weight_dtype": "default", "half_precision_copy": False}
    return {
        "20": node("LoadVideo", file="dance.mp4"),
        "21": node("GetVideoComponents", video=["20", 0]),
        "1": node("ImageFromBatch", image=["21", 0], batch_index=0, length=4),
        "2": node("ChampLoadDWPose", detector="yolox_l.onnx", pose_network="dw-ll_ucoco_384.onnx"),
        "3": node("ChampEstimatePose", clip=["1", 0], dwpose=["2", 0]),
        "4": node("ChampFollowPerson", pose_keypoints=["3", 0], clip=["1", 0], person="largest", number=0),
        "5": node("ChampLoadHMR2", model_name="epoch=35-step=1000000.ckpt", **size),
        "6": node("ChampEstimateMotion", hmr2=["5", 0], clip=["1", 0], pose_keypoints=["4", 0], fps=12),
        "7": node("ChampFitMotion", pose_keypoints=["4", 0], fps=12),
        "8": node("ChampTransferMotion", driving=["6", 0], reference=["7", 0], body=["10", 0], placement="follow",
                  figure_scale=0.0),
        "9": node("ChampCamera", motion=["8", 0], body=["10", 0], width=WIDTH, height=HEIGHT, azimuth="0",
                  elevation="0", fill=0.8, fov=2.93, follow=False),
        "10": node("ChampFreeBody", gender=0.5, age=30, height=1.7, weight=0.5, muscle=0.5, proportions=0.5),
        "11": node("ChampRenderMaps", motion=["9", 0], body=["10", 0]),
        "12": node("SaveImage", images=["11", 1], filename_prefix="faults/estimation"),
        "13": node("ChampPreviewMotion", motion=["9", 0], body=["10", 0], opacity=1.0, renderer="torch"),
        "14": node("ChampSaveGLB", motion=["9", 0], name="faults/body"),
        "15": node("ChampMeasure", images=["11", 1], truth=["13", 0], protocol="clean", lpips=False, fid_vid=False,
                   fvd=False),
    }  # fmt: skip


MOTION = dev.ROOT / "tests" / "data" / "motion" / "smpls_group.npz"
SLACK = 100_000  # bytes that a run may leave: tables that are made once
PROMPTS = {"sampling": sampling, "estimation": estimation}
STAGES = [
    *(("sampling", f"Champ{name}") for name in (
        "RenderMaps", "EncodeGuidance", "EncodeReference", "CalibrateReference", "Sampler")),
    *(("estimation", f"Champ{name}") for name in (
        "EstimatePose", "EstimateMotion", "FitMotion", "RenderMaps", "PreviewMotion", "SaveGLB", "Measure")),
]  # fmt: skip


def result(server, entry: dict) -> str:
    """A checksum of the pictures that a run saved, without the workflow that ComfyUI writes into the files."""
    digest = hashlib.sha256()
    items = [item for id in sorted(entry["outputs"]) for item in entry["outputs"][id].get("images", ())]
    for item in items:
        if item["type"] == "output" and item["filename"].endswith(".png"):
            with Image.open(server.base / "output" / item["subfolder"] / item["filename"]) as picture:
                digest.update(picture.tobytes())
    return digest.hexdigest()


def forget(server, level: int = 0) -> int:
    """Unloads all models and forgets all results; the bytes of the tensors that are left.

    The server does it between two runs, soon after it is asked."""
    server.request("/free", {"unload_models": True, "free_memory": True})
    for wait in (0.3, 1, 3, 6):
        time.sleep(wait)
        left = server.json("/test_faults/state")["tensor_bytes"]
        if not level or left <= level:
            break
    return left


class Undisturbed:
    """What a prompt gives when nothing happens, and what its nodes run."""

    def __init__(self, server, name: str):
        prompt = PROMPTS[name]()
        server.json("/test_faults/watch", [n["class_type"] for n in prompt.values() if n["class_type"][:5] == "Champ"])
        self.result = result(server, server.run(prompt))
        self.counts = server.json("/test_faults/state")["counts"].copy()


@pytest.fixture(scope="module")
def undisturbed(server):
    install(server.base)
    return {name: Undisturbed(server, name) for name in PROMPTS}


@pytest.fixture(scope="module")
def level(server, undisturbed):
    """Bytes of tensors in the server when nothing is loaded."""
    forget(server)
    return forget(server)


def strike(server, prompt: dict, kind: str, fault: str, at: int) -> str:
    """Runs with a fault; how the run ended."""
    server.json("/test_faults/arm", {kind: [fault, at]})
    try:
        ended = server.run(prompt)["status"]["messages"][-1][0]
    except Failure as failure:
        ended = str(failure)
    assert server.json("/test_faults/arm", {}) == [kind]
    return ended


@pytest.mark.parametrize(("name", "kind"), STAGES, ids=lambda value: value.removeprefix("Champ"))
def test_a_stage_that_runs_out_of_memory_or_is_cancelled(server, undisturbed, level, name, kind):
    """Both strike when the stage has done two fifths of its work; what came before it stays in ComfyUI's cache."""
    prompt, good = PROMPTS[name](), undisturbed[name]
    at = max(1, int(0.4 * good.counts[kind]))
    ended = strike(server, prompt, kind, "out of memory", at)
    # Where a batch can be halved the run goes on, and what it gives is checked below.
    assert ended == "execution_success" or ended.startswith(f"{kind}: "), ended
    if ended == "execution_success":
        forget(server)
    assert strike(server, prompt, kind, "cancel", at) == "execution_interrupted"
    assert result(server, server.run(prompt)) == good.result
    assert forget(server, level + SLACK) <= level + SLACK


def sampler(prompt: dict) -> dict:
    return next(node for node in prompt.values() if node["class_type"] == "ChampSampler")["inputs"]


def test_two_prompts_at_once(server, undisturbed):
    def seeded(seed: int) -> str:
        prompt = sampling()
        sampler(prompt)["seed"] = seed
        return result(server, server.run(prompt))

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(seeded, (42, 43))
    assert first == undisturbed["sampling"].result != second


def saving() -> dict:
    """Sampling, and maps in a folder."""
    kinds = ("depth", "normal", "semantic_map", "dwpose", "mask")
    links = {name: ["10", i] for i, name in enumerate(kinds)}
    return {**sampling(), "20": node("ChampSaveMaps", folder="faults/killed", fps=8.0, **links)}


@pytest.fixture(scope="module")
def restarted(server, undisturbed, comfyui, device_options, tmp_path_factory):
    """A server after two that were killed, while saving and while sampling. It shows latent previews."""
    base = tmp_path_factory.mktemp("killed")
    for folder in ("models", "input"):
        (base / folder).symlink_to(server.base / folder, target_is_directory=True)
    dev.link_pack(base / "custom_nodes")

    def kill_at(running: Server, id: str):
        def show(nodes: dict) -> None:
            if nodes.get(id, {}).get("state") == "running" and nodes[id]["value"] > 0:
                running.process.kill()

        return show

    for id in ("20", "15"):
        with Server(comfyui, base, *device_options) as running, pytest.raises((Failure, OSError)):
            running.run(saving(), kill_at(running, id))
    with WatchingServer(comfyui, base, *device_options, "--preview-method", "latent2rgb") as running:
        yield running


def test_a_killed_server(restarted, undisturbed):
    """Nothing half-made is offered, and the next run is as always."""
    offered = restarted.json("/object_info/ChampLoadMaps")["ChampLoadMaps"]["input"]["required"]["folder"]
    faults = restarted.base / "output" / "faults"
    for folder in faults.glob("killed*"):  # of a run that had saved before it was killed
        listed = any(f"faults/{folder.name} [output]" in part for part in (offered[0], offered[1].get("options", ())))
        assert not listed or len(list((folder / "mask").iterdir())) == 3
    assert result(restarted, restarted.run(saving())) == undisturbed["sampling"].result


def test_previews_are_shown_while_sampling(restarted):
    before, prompt = restarted.pictures, sampling()
    sampler(prompt)["seed"] = 43
    restarted.run(prompt)
    assert restarted.pictures > before


@pytest.fixture
def little_disk(server):
    """A folder in the server's output folder with room for 32 kB."""
    folder = server.base / "output" / "little"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("a full disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


SAVERS = {
    "maps": ("ChampSaveMaps", {"folder": "little/maps", "fps": 8.0, "depth": ["3", 0], "normal": ["3", 1]}),
    "motion": ("ChampSaveMotion", {"name": "little/m", "format": "Champ (.safetensors)", "motion": ["2", 0]}),
    "amass": ("ChampSaveMotion", {"name": "little/m", "format": "AMASS (.npz)", "motion": ["2", 0]}),
    "body": ("ChampSaveGLB", {"name": "little/m", "motion": ["2", 0]}),
}


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("what", SAVERS)
def test_a_disk_that_takes_nothing(server, little_disk, what, fault):
    """It is said in a sentence, nothing is left on it, and elsewhere the same is saved."""
    kind, inputs = SAVERS[what]
    walk = {"motion": "walk", "frames": 400, "fps": 24.0, "loop": True, "travel": False, "width": 256, "height": 256}
    prompt = {
        "1": node("ChampFreeBody", gender=0.5, age=30, height=1.7, weight=0.5, muscle=0.5, proportions=0.5),
        "2": node("ChampBuiltInMotion", body=["1", 0], **walk),
        "3": node("ChampRenderMaps", motion=["4", 0], body=["1", 0]),
        "4": node("ChampRetimeMotion", motion=["2", 0], start=0, count=12, fps=0.0, speed=1.0, repeat="off", total=1),
        "5": node(kind, **inputs),
    }
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", little_disk], check=True)
    with pytest.raises(Failure, match="space|full" if fault == "full" else "can only be read") as failure:
        server.run(prompt)
    assert "Errno" not in str(failure.value) and "little" in str(failure.value)
    assert not list(little_disk.iterdir())
    prompt["5"]["inputs"] |= {key: value.replace("little", "faults") for key, value in inputs.items() if value in
                              ("little/maps", "little/m")}  # fmt: skip
    server.run(prompt)


def loaders(base: Path) -> dict[str, tuple[Path, str, dict]]:
    """For each node that reads files: a good file, and the place and inputs under which a damaged copy is chosen."""
    models = base / "models"
    golden = models / "champ" / "champ"
    return {
        "checkpoint set": (golden / "denoising_unet.safetensors", "models/champ/damaged/denoising_unet.safetensors",
                           node("ChampLoadModel", checkpoint_set="damaged", motion_module="from the set",
                                weight_dtype="default")),
        "SMPL": (models / "smpl" / "SMPL_NEUTRAL.pkl", "models/smpl/damaged.pkl",
                 node("ChampLoadSMPL", model_name="damaged.pkl", beta_0=0, beta_1=0)),
        "HMR2": (models / "hmr2" / "epoch=35-step=1000000.ckpt", "models/hmr2/damaged.ckpt",
                 node("ChampLoadHMR2", model_name="damaged.ckpt", weight_dtype="default", half_precision_copy=False)),
        "DWPose": (models / "dwpose" / "yolox_l.onnx", "models/dwpose/damaged.onnx",
                   node("ChampLoadDWPose", detector="damaged.onnx", pose_network="dw-ll_ucoco_384.onnx")),
        "motion": (MOTION, "input/damaged.npz",
                   node("ChampLoadMotion", file="damaged.npz", person=0, width=64, height=96, fps=30.0)),
        "maps": (base / "output" / "champ" / "small_00001" / "depth" / "0000.png", "input/damaged/depth/0000.png",
                 node("ChampLoadMaps", folder="damaged", start=0, count=0)),
    }  # fmt: skip


def damaged(kind: str, content: bytes) -> bytes:
    return {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "web page": b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167540\n",
        "another format": b"GIF89a" + content[6:],
    }[kind]


RAW = re.compile(
    r"weights_only|Errno|Traceback|list index|has no attribute|codec can't|struct|KeyError|NoneType|unpickl|magic|"
    r"HeaderTooLarge|byte|0x"
)


@pytest.mark.parametrize("damage", ["empty", "cut", "web page", "pointer", "another format"])
@pytest.mark.parametrize("kind", ["checkpoint set", "SMPL", "HMR2", "DWPose", "motion", "maps"])
def test_a_damaged_file_is_said(server, undisturbed, kind, damage):
    good, place, loader = loaders(server.base)[kind]
    file = server.base / place
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "checkpoint set":
        for other in good.parent.iterdir():
            if other.name != file.name and not (file.parent / other.name).exists():
                (file.parent / other.name).symlink_to(other)
    file.write_bytes(damaged(damage, good.read_bytes()))
    prompt = {"1": loader, "2": node("PreviewAny", source=["1", 0])}
    with pytest.raises(Failure) as failure:
        server.run(prompt)
    if file.parent.name in ("damaged", "depth"):
        shutil.rmtree(server.base.joinpath(*Path(place).parts[:-1]))
    else:
        file.unlink()
    said = str(failure.value)
    assert file.name in said, said
    assert not RAW.search(said), said
    assert len(said) < 400
