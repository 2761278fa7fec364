"""Runs the quick start again and again in one ComfyUI server, then a long clip, and shows what memory it holds.

    python -m tools.soak --runs 50 --frames 1000

Prints a line for each run: seconds, and the server's memory when it has let go of models and results. The memory of the
last runs must be that of the first ones, and the long clip may add no more than its own pictures."""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import psutil

import dev
from champ.server import Failure, Server

SMALL = {"frames": 8, "steps": 2, "width": 128, "height": 128}
SLACK = 50e6  # bytes by which the memory of two equal runs may differ
PICTURE = 12  # bytes of a pixel in a picture of ComfyUI's
CLIPS = 8  # pictures of a long clip that ComfyUI's cache may hold at once: five maps, the result, and their copies


def small(prompt: dict, **changes: object) -> dict:
    """The quick start in small sizes. Its pictures are saved one by one: to compress a thousand as one animation takes
    longer than to make them, and says nothing of this pack."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        if node["class_type"] == "SaveAnimatedWEBP":
            node |= {"class_type": "PreviewImage", "inputs": {"images": node["inputs"]["images"]}}
        node["inputs"] |= {key: value for key, value in {**SMALL, **changes}.items() if key in node["inputs"]}
    saved = {"SaveVideo", "CreateVideo"}
    return {key: node for key, node in prompt.items() if node["class_type"] not in saved}


def resident(server: Server) -> int:
    """Bytes that the server holds in memory, once it has been told to let go of what it can."""
    server.request("/free", {"unload_models": True, "free_memory": True})
    time.sleep(2)
    return psutil.Process(server.process.pid).memory_info().rss


def run(server: Server, prompt: dict) -> tuple[float, int]:
    started = time.monotonic()
    server.run(prompt)
    return time.monotonic() - started, resident(server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--frames", type=int, default=1000, help="of the long clip; 0 leaves it out")
    parser.add_argument("--comfyui", type=Path, default=dev.HOST / "ComfyUI")
    options = parser.parse_args()
    quick_start = json.loads(dev.QUICK_START.read_text(encoding="utf-8"))
    held: list[int] = []
    with dev.temporary_server(options.comfyui) as server:
        print("| run | seconds | memory (MB) |\n|---|---|---|")
        for i in range(options.runs):
            seconds, memory = run(server, small(quick_start, seed=i))
            held.append(memory)
            print(f"| {i + 1} | {seconds:.1f} | {memory / 1e6:.0f} |", flush=True)
        if options.frames:
            seconds, memory = run(server, small(quick_start, frames=options.frames))
            print(f"| {options.frames} frames | {seconds:.1f} | {memory / 1e6:.0f} |")
            allowed = held[-1] + SLACK + CLIPS * PICTURE * options.frames * SMALL["width"] * SMALL["height"]
            if memory > allowed:
                raise Failure(f"a clip of {options.frames} frames leaves {memory / 1e6:.0f} MB")
    if len(held) >= 20:
        early, late = (statistics.median(part) for part in (held[5:10], held[-5:]))
        print(f"runs 6 to 10: {early / 1e6:.0f} MB, the last five: {late / 1e6:.0f} MB")
        if late > early + SLACK:
            raise Failure(f"the memory grows by {(late - early) / 1e6 / (len(held) - 10):.1f} MB a run")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"error: {failure}")
