"""Throughput of batches: the same rows in one ComfyUI process, one after the other, and in a batch with one worker and
with two. Each process has one thread. What it takes to start is told apart from what a row takes.

With --stages instead: the processor's seconds in each node for a clip of ten seconds made by Champ-Tiny, and what a
cluster needs for a thousand of them."""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from champ.batch import pool as ray_pool
from champ.batch.command import first_info
from champ.batch.folder import BatchFolder
from champ.batch.jobs import Recipe, Setup
from champ.batch.plan import Places, Task, plan
from champ.batch.pool import Pool
from champ.batch.run import Limits, Run
from champ.batch.table import Row
from champ.batch.worker import Stages, lay_out
from champ.batch.workflow import Info, Prompt, Workflow
from champ.server import Server

ROOT = Path(__file__).parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
ROWS, FRAMES, SIZE = 16, 16, 128
OPTIONS = ("--cpu",)
CLIP, CLIPS, CARDS = 120, 1000, 20  # frames, clips and workers of --stages
LONG = {"frames": CLIP, "width": 256, "height": 256, "steps": 10, "cfg": 2.0}  # its inputs


def workflow() -> Workflow:
    """Maps of a clip: of the example, in which nothing is shared between the rows but the body."""
    nodes = json.loads((ROOT / "example_workflows" / "api" / "render_maps.json").read_text())
    nodes["2"]["inputs"] |= {"frames": FRAMES, "width": SIZE, "height": SIZE}
    nodes["3"]["inputs"] |= {"width": SIZE, "height": SIZE}
    return Workflow("render_maps.json", {node: about for node, about in nodes.items() if node != "4"})


def rows() -> list[Row]:
    return [Row(f"row {i}", {"name": f"row{i:02}", "Built-in Motion.fps": 8 + i}) for i in range(ROWS)]


@contextlib.contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    times[name] = time.perf_counter() - started


def alone(folder: Path, tasks: Callable[[Info], list[Task]]) -> dict[str, float]:
    times: dict[str, float] = {}
    folder.mkdir()
    lay_out(folder, COMFYUI)
    server = Server(COMFYUI, folder, *OPTIONS, environment={"OMP_NUM_THREADS": "1"})
    with timed(times, "start"):
        server.__enter__()
    try:
        found = tasks(server.json("/object_info"))
        with timed(times, "rows"):
            for task in found:
                server.run(workflow().filled(task.values))
    finally:
        server.stop()
    return times


def batch(folder: Path, tasks: Callable[[Info], list[Task]], workers: int) -> dict[str, float]:
    """With all workers started before the clock of the rows begins."""
    times: dict[str, float] = {}
    pool = Pool(Setup(COMFYUI, COMFYUI, OPTIONS, threads=1), ray_pool.choose_share(1))
    try:
        with timed(times, "start"):
            pool.fill(workers)
            info = first_info(pool)
            while len(pool.idle()) < workers:
                pool.wait(1)
        run = Run(BatchFolder(folder), Recipe.of(workflow(), info), pool, lambda line: None, limits=Limits(workers))
        found = tasks(info)
        with run.folder.held(), timed(times, "rows"):
            run.go(found)
    finally:
        pool.close()
    return times


class ProcessorTime(Stages):
    """Seconds of a server's processor instead of those of the clock, which other programs lengthen."""

    def __init__(self, prompt: Prompt, server: Server) -> None:
        super().__init__(prompt)
        self.process = psutil.Process(server.process.pid)

    def now(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


def stages() -> None:
    prompt = json.loads((ROOT / "example_workflows" / "api" / "quick_start.json").read_text())
    for node in prompt.values():
        node["inputs"] |= {name: value for name, value in LONG.items() if name in node["inputs"]}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "server")
        folder.mkdir()
        lay_out(folder, COMFYUI)
        with Server(COMFYUI, folder, *OPTIONS, environment={"OMP_NUM_THREADS": "1"}) as server:
            meter = ProcessorTime(prompt, server)
            server.run(prompt, meter.show)
    print(f"{CLIP} frames of 256x256 (10 s), Champ-Tiny, {prompt['10']['inputs']['steps']} steps, one core")
    print("| node | processor seconds |")
    print("|---|---|")
    for title, seconds in meter.seconds().items():
        print(f"| {title} | {seconds:.1f} |")
    total = sum(meter.seconds().values())
    print(f"| together | {total:.1f} |")
    print(
        f"{CLIPS} clips on {CARDS} such cores: {CLIPS} x {total:.1f} s / {CARDS} = {CLIPS * total / CARDS / 3600:.1f} h"
    )


def throughput() -> None:
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as place, contextlib.ExitStack() as after:
        folder = Path(place)
        os.environ["RAY_TMPDIR"] = place  # its sockets need short paths
        connecting: dict[str, float] = {}
        with timed(connecting, "start"):
            ray_pool.connect(None, ship=False)
        after.callback(ray_pool.disconnect)

        def tasks(info: Info) -> list[Task]:
            return plan(rows(), workflow(), info, Places(folder, folder))

        one = alone(folder / "alone", tasks)
        found = {"one process": one}
        for workers in (1, 2):
            name = f"batch, {workers} {'worker' if workers == 1 else 'workers'}"
            found[name] = batch(folder / f"batch{workers}", tasks, workers)
    print(f"{ROWS} rows: all maps of {FRAMES} frames of {SIZE}x{SIZE}, one thread for each process")
    print(f"Ray itself started in {connecting['start']:.1f} s")
    print("| | start-up, s | rows, s | rows a minute | times as fast |")
    print("|---|---|---|---|---|")
    for name, times in found.items():
        rate, faster = 60 * ROWS / times["rows"], one["rows"] / times["rows"]
        print(f"| {name} | {times['start']:.1f} | {times['rows']:.1f} | {rate:.0f} | {faster:.2f} |")


if __name__ == "__main__":
    stages() if "--stages" in sys.argv else throughput()
