"""Batches on a real Ray with real ComfyUI servers: two nodes of one core on this machine, and a Ray of its own for the
command. Rows are small; most tests share two warm workers."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dev
from champ.batch import command, report
from champ.batch import pool as ray_pool
from champ.batch.folder import BatchFolder
from champ.batch.jobs import Recipe, Setup
from champ.batch.plan import Places, for_stage, plan
from champ.batch.pool import Pool
from champ.batch.run import Measuring, Run
from champ.batch.table import read_table
from champ.batch.workflow import Workflow, read_workflow
from champ.server import Failure

from ..conftest import SMALL_DWPOSE, stand_ins

pytest.importorskip("ray", reason="batches need `pip install -e .[batch]`")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters are made for Linux")

EVENTS = Path(__file__).with_name("events.py")


def node(kind: str, title: str, **inputs) -> dict:
    return {"class_type": kind, "_meta": {"title": title}, "inputs": inputs}


def workflow(event: bool = True) -> dict:
    body = {"gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}
    size = {"width": 64, "height": 64}
    motion = {"motion": "walk", "frames": 3, "fps": 8.0, "loop": True, "travel": False}
    camera = {"azimuth": "0", "elevation": "0", "fill": 0.85, "fov": 2.93, "follow": False}
    nodes = {
        "1": node("ChampFreeBody", "Body", **body),
        "2": node("ChampBuiltInMotion", "Motion", body=["1", 0], **motion, **size),
        "3": node("ChampCamera", "Camera", motion=["2", 0], body=["1", 0], **camera, **size),
        "4": node("ChampRenderMaps", "Maps", motion=["3", 0], body=["1", 0]),
        "5": node("BatchTestEvent", "Event", images=["4", 1], event="none", file=""),
        "6": node("SaveImage", "Result", images=["5", 0], filename_prefix="normal"),
        "7": node("ChampSaveMotion", "Motion file", motion=["3", 0], name="motion", format="Champ (.safetensors)"),
    }
    if not event:
        del nodes["5"]
        nodes["6"]["inputs"]["images"] = ["4", 1]
    return nodes


MOTIONS, ANGLES = ("walk", "dance"), ("0", "40", "80", "120", "160", "200")
ROWS = [
    {"name": f"{motion}_{angle}", "Motion.motion": motion, "Camera.azimuth": angle}
    for angle in ANGLES
    for motion in MOTIONS
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Whose custom nodes and models the workers have."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("custom_nodes", "models", "input"):
        (folder / name).mkdir()
    shutil.copy(EVENTS, folder / "custom_nodes")
    shutil.copytree(SMALL_DWPOSE, folder / "models" / "dwpose")
    stand_ins(folder)
    return folder


@pytest.fixture(scope="module")
def settings():
    """Ray reports nothing, and keeps its files in a place with a short path, which its sockets need."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("TMPDIR", folder)  # for the folders of workers that are killed
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_enable_worker_prestart", "0")  # processes that nobody needs yet
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def cluster(settings):
    """Two nodes of one core, to which this process is connected."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_log_monitor": False}
    head = {**options, "include_dashboard": False, "no_monitor": True}
    try:
        made = Cluster(initialize_head=True, head_node_args=head)
    except Exception:  # Ray waits for half a minute, which may not be enough where others keep all cores busy
        made = Cluster(initialize_head=True, head_node_args=head)
    made.second = made.add_node(**options)
    made.wait_for_nodes()
    ray_pool.connect(made.address, ship=False)
    yield made
    ray_pool.disconnect()
    made.shutdown()


@dataclass(frozen=True)
class Waiting:
    """A batch of the command, whose second row waits for a file that does not come."""

    line: list[str]
    out: Path
    file: Path  # made by that row
    process: subprocess.Popen


@pytest.fixture(scope="module")
def waiting(comfyui, base, settings, tmp_path_factory):
    """Started early, so that it is there when its test comes."""
    place = tmp_path_factory.mktemp("command")
    nodes = {
        "1": node("LoadImage", "Person", image="none.png"),
        "2": node("ImageScaleBy", "Scale", image=["1", 0], upscale_method="area", scale_by=2.0),
        "3": node("BatchTestEvent", "Event", images=["2", 0], event="none", file=""),
        "4": node("SaveImage", "Result", images=["3", 0], filename_prefix="scaled"),
    }
    (place / "w.json").write_text(json.dumps(nodes))
    for level, name in enumerate(("anna", "bob")):
        Image.new("RGB", (8, 8), (level, 0, 0)).save(place / f"{name}.png")
    (place / "clips.csv").write_text(
        "name,reference,Scale.scale_by,Event.event,Event.file\n"
        f"first,anna.png,1,,\nwaits,anna.png,2,wait,{place / 'waits'}\nbob,bob.png,2,,\n"
    )
    line = [sys.executable, "-m", "champ.batch", str(place / "clips.csv"), "--workflow", str(place / "w.json")]
    line += ["--out", str(place / "out"), "--comfyui", str(comfyui), "--base", str(base), "--keep-free", "0"]
    options = ["--cpus", "1", "--workers", "1"]
    with subprocess.Popen([*line, *options], cwd=dev.ROOT) as process:
        yield Waiting(line, place / "out", place / "waits", process)
        process.kill()


@pytest.fixture(scope="module")
def pool(comfyui, base, cluster, waiting):
    share = ray_pool.choose_share(1)
    # With as many threads as the server has with which results are compared: they decide how sums are rounded.
    setup = Setup(comfyui, base, (*share.options, "--disable-metadata"), threads=torch.get_num_threads())
    made = Pool(setup, share)
    made.fill(2)  # both start at the same time
    yield made
    made.close()


class Batch:
    """A table's run on a pool; what it said, and what is in its folder."""

    stage: str | None = None
    measuring: Measuring | None = None

    def __init__(self, folder: Path, pool: Pool, info: dict):
        self.folder, self.pool, self.info = BatchFolder(folder), pool, info
        self.said: list[str] = []

    def run(self, rows: list[dict], nodes: dict | None = None) -> list[dict]:
        table = self.folder.folder.with_suffix(".jsonl")
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flow = Workflow("w.json", nodes or workflow())
        self.tasks = plan(read_table(table), flow, self.info, Places(table.parent, table.parent))
        options = command.parser().parse_args([str(table), "--out", str(self.folder.folder)])
        left, done = command.choose(self.tasks, flow, self.folder, options)
        recipe = Recipe.of(flow, self.info, self.stage)
        run = Run(self.folder, recipe, self.pool, self.said.append, self.measuring)
        self.made = [task.name for task in left]
        with self.folder.held():
            try:
                run.go(left, done)
            finally:
                rows = report.overview(self.folder, [task.name for task in self.tasks])
                report.write(self.folder, rows, "test")
        return rows

    def manifest(self, name: str) -> dict:
        found = self.folder.manifest(name)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def info(pool):
    return command.first_info(pool)


@pytest.fixture
def batch(tmp_path, pool, info):
    return Batch(tmp_path / "out", pool, info)


def states(rows: list[dict]) -> dict[str, str]:
    return {row["name"]: row["state"] for row in rows}


def test_twelve_rows_and_a_poisonous_one(batch, server):
    poison, twin = {"name": "poison", "Event.event": "fail"}, {**ROWS[0], "name": "twin"}
    rows = batch.run([*ROWS[:5], poison, *ROWS[5:], twin])
    assert states(rows) == {row["name"]: "done" for row in [*ROWS, twin]} | {"poison": "failed"}
    aside = batch.folder.failed / "poison"
    assert (aside / "message.txt").read_text().count("this row is poisonous") == 3
    assert "RuntimeError: this row is poisonous" in (aside / "log.txt").read_text()
    with open(batch.folder.folder / "results.csv", newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)] == [row["name"] for row in rows]
    assert (batch.folder.folder / "report.html").read_text().count('src="clips/') == 13
    files = [{file.name for file in (batch.folder.clips / name).iterdir()} for name in ("walk_0", "twin")]
    assert files[0] == files[1]  # though ComfyUI knew all that the second one saves

    for row in ROWS[:3]:  # the same as on a server of its own, to the bit
        prompt = workflow(event=False)
        prompt["2"]["inputs"]["motion"], prompt["3"]["inputs"]["azimuth"] = row["Motion.motion"], row["Camera.azimuth"]
        prompt["6"]["inputs"]["filename_prefix"] = prompt["7"]["inputs"]["name"] = f"single/{row['name']}"
        outputs = server.run(prompt)["outputs"]
        single = server.base / "output" / "single"
        clip = batch.folder.clips / row["name"]
        pictures = sorted(clip.glob("*.png"))
        assert len(pictures) == len(outputs["6"]["images"]) == 3
        for picture, item in zip(pictures, outputs["6"]["images"]):
            assert np.array_equal(np.array(Image.open(picture)), np.array(Image.open(single / item["filename"])))
        ours, single_ones = (
            load_file(file) for file in (clip / "motion_00001.safetensors", single / f"{row['name']}_00001.safetensors")
        )
        assert ours.keys() == single_ones.keys() and all(torch.equal(ours[key], single_ones[key]) for key in ours)

    manifests = [batch.manifest(row["name"]) for row in ROWS]
    assert sum("Motion" in one["stages"] for one in manifests) <= 6  # of twelve: the others had it in the cache
    assert all("Maps" in one["stages"] and one["peak_memory"]["main"] > 10**8 for one in manifests)

    again = batch.run(ROWS)
    assert batch.made == [] and set(states(again).values()) == {"done"}
    assert [batch.manifest(row["name"]) for row in ROWS] == manifests


def test_done_rows_are_measured_without_being_made_again(batch, tmp_path):
    batch.run(ROWS[:2])
    (tmp_path / "truth").mkdir()
    for file in (batch.folder.clips / ROWS[0]["name"]).glob("*.png"):
        shutil.copy(file, tmp_path / "truth")
    batch.measuring = Measuring("benchmark")
    first, second = batch.run([{**row, "truth": str(tmp_path / "truth")} for row in ROWS[:2]])
    assert batch.made == [] and set(states([first, second]).values()) == {"done"}
    assert second["PSNR*"] < first["PSNR*"] == 100 and first["L1"] == 0
    assert (batch.folder.folder / "measures.md").read_text().splitlines()[-1].startswith("| 2 | ")


def beginning(video: Path, path: Path, frames: int) -> Path:
    """The first frames of a video."""
    with av.open(str(video)) as source, av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", 24, options={"crf": "0"})
        stream.width, stream.height = source.streams.video[0].width, source.streams.video[0].height
        for frame in islice(source.decode(video=0), frames):
            made.mux(stream.encode(frame.reformat(format="yuv420p")))
        made.mux(stream.encode())
    return path


def test_maps_for_training(batch, comfyui, tmp_path):
    batch.stage = "maps"
    flow = for_stage(read_workflow(command.MAPS_WORKFLOW), "maps")
    video = beginning(SMALL_DWPOSE / "dance.mp4", tmp_path / "dance.mp4", 5)
    rows = batch.run([{"name": "dance", "video": str(video)}], flow.nodes)
    assert states(rows) == {"dance": "done"}
    clip = batch.folder.clips / "dance"
    assert (clip / "motion_00001.safetensors").exists() and (clip / "thumbnail.jpg").exists()
    sys.path.append(str(comfyui))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    from champ.train.data import find_videos

    [found] = find_videos(batch.folder.folder)  # which refuses folders that are not complete
    assert len(found) == len(list((clip / "images").iterdir())) == 5


def test_a_changed_row_is_not_replaced_unasked(batch):
    batch.run(ROWS[:1])
    with pytest.raises(Failure, match=r"1 rows in .*out were made with other inputs.*\(walk_0\).*--redo"):
        batch.run([{**ROWS[0], "Camera.azimuth": "5"}])


def wait_for(file: Path, process: subprocess.Popen | None = None) -> list[int]:
    deadline = time.monotonic() + 300  # on a machine that has other things to do
    while not file.exists():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.05)
    return [int(word) for word in file.read_text().split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def meanwhile(act: Callable[[], None], *files: Path) -> None:
    """Does something in another thread once these rows wait, and lets them go on."""

    def run() -> None:
        for file in files:
            wait_for(file)
        act()
        for file in files:
            file.with_name(f"{file.name}.go").touch()

    threading.Thread(target=run, daemon=True).start()


def test_a_killed_server_and_a_killed_worker_cost_one_try(batch, tmp_path):
    file, pids = tmp_path / "waits", []

    def kill():
        pids.extend(wait_for(file))
        os.kill(pids[1], signal.SIGKILL)  # the actor; its server ends with it

    meanwhile(kill, file)
    waits = {"name": "waits", "Event.event": "wait", "Event.file": str(file)}
    dies = {"name": "dies", "Event.event": "die once", "Event.file": str(tmp_path / "died")}
    assert set(states(batch.run([waits, dies, *ROWS[:2]])).values()) == {"done"}
    assert not any(map(is_running, pids))
    assert any("waits failed and will be tried again: the worker ended" in line for line in batch.said)
    assert any("dies failed and will be tried again: ComfyUI stopped" in line for line in batch.said)


def test_a_full_disk_stops_all(batch):
    with pytest.raises(Failure, match="the disk is full .*No space left on device.* free some space"):
        batch.run([{"name": "full", "Event.event": "fill the disk"}, *ROWS])
    while batch.pool.busy():  # the command would end the workers
        batch.pool.wait(1)
    rows = batch.run([{"name": "full", "Event.event": "none"}, *ROWS[:2]])
    assert set(states(rows).values()) == {"done"}


def test_a_node_that_goes_gives_its_row_back(batch, tmp_path, cluster):
    files = [tmp_path / "waits0", tmp_path / "waits1"]

    def goes():
        cluster.remove_node(cluster.second, allow_graceful=False)
        servers = [wait_for(file)[0] for file in files]
        while all(map(is_running, servers)):  # its worker notices, and the server ends with that
            time.sleep(0.05)

    meanwhile(goes, *files)
    rows = batch.run([{"name": file.name, "Event.event": "wait", "Event.file": str(file)} for file in files] + ROWS[:2])
    assert set(states(rows).values()) == {"done"}
    assert not any("is set aside" in line for line in batch.said)


def test_the_command_goes_on_where_it_was_killed(waiting, cluster, pool):
    """First with Ray on this machine alone, as the command starts it, then on a cluster to which files are sent."""
    pool.close()
    place = waiting.out / "clips"
    pids = wait_for(waiting.file, waiting.process)
    waiting.process.kill()
    waiting.process.wait()
    made = (place / "first" / "manifest.json").read_text()
    assert [path.name for path in place.iterdir()] == ["first"]
    deadline = time.monotonic() + 120
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    second = [*waiting.line, "--address", cluster.address, "--ship", "--cpus", "1"]
    told = subprocess.run(second, cwd=dev.ROOT, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "2 rows to make, 1 done before" in told.stdout and "3 rows: 3 done." in told.stdout
    assert (place / "first" / "manifest.json").read_text() == made
    picture = np.array(Image.open(place / "bob" / "scaled_00001_.png"))
    assert picture.shape == (16, 16, 3) and (picture == (1, 0, 0)).all()
    assert json.loads((place / "bob" / "manifest.json").read_text())["inputs"]["Person.image"]["file"] == "bob.png"
    assert {entry.name for entry in waiting.out.iterdir()} == {".lock", "clips", "results.csv", "report.html"}
