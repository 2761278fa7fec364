"""Main memory of a server that makes a long clip, beside what its nodes put out.

    python dev.py bench long_clip                                           # 600 frames of 256x384
    python dev.py bench long_clip --frames 1500 --width 512 --height 768    # a minute, 50 GB

The workflow is the template *long video* with a mask for the semantic maps: from a motion to maps, guidance, sampling
in windows, decoded pictures and a video file. ComfyUI keeps what each node puts out until the workflow ends, so that
must find room; the table tells how much more was held. Only Linux tells what is measured here."""

import argparse
import copy
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from _memory import GB, resident

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

import dev  # noqa: E402
from champ.server import Server  # noqa: E402

WORKFLOW = ROOT / "example_workflows" / "api" / "long_video.json"
LEFT_OUT = ("SaveAnimatedWEBP", "ChampCompareGrid")
SHORT = 24  # frames of the first clip, after which the server has loaded what it needs
CHANNELS = 64  # of Champ-Tiny's guidance
EVERY = 0.02  # seconds


def workflow(options: argparse.Namespace, frames: int) -> dict:
    prompt = {k: v for k, v in json.loads(WORKFLOW.read_text()).items() if v["class_type"] not in LEFT_OUT}
    sizes = {"frames": frames, "width": options.width, "height": options.height, "steps": options.steps}
    for node in prompt.values():
        inputs = node["inputs"]
        inputs |= {key: value for key, value in sizes.items() if key in inputs}
        if node["class_type"] == "ChampEncodeGuidance":
            inputs["mask"] = [inputs["depth"][0], 4]
    return prompt


def put_out(kind: str, frames: int, width: int, height: int) -> int:
    """Counts the bytes that a node puts out for so many frames."""
    pixels = frames * width * height
    latent = pixels // 64 * 4 * 4
    return {
        "ChampRenderMaps": pixels * (4 * 12 + 4),
        "ChampEncodeGuidance": pixels // 64 * CHANNELS * 4,
        "ChampApply": latent,
        "ChampSampler": latent,
        "VAEDecode": pixels * 12,
    }.get(kind, 0)


class Watch:
    """Looks at the memory of a server all the time, and at the node that is at work."""

    def __init__(self, server: Server, prompt: dict):
        self.server, self.kinds = server, {key: node["class_type"] for key, node in prompt.items()}
        self.seen: dict[str, list[int]] = {}  # bytes before the node, at its peak and at its end
        self.peak, self.node = 0, ""

    def told(self, nodes: dict) -> None:
        for key, state in nodes.items():
            if state.get("state") == "running":
                self.node = self.kinds[key.split(".")[0]]

    def run(self, prompt: dict) -> None:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(EVERY):
                held, _ = resident(self.server.process.pid)
                self.peak = max(self.peak, held)
                found = self.seen.setdefault(self.node, [held, held, held])
                found[1:] = max(found[1], held), held

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            self.server.run(prompt, show=self.told, timeout=3600)
        finally:
            ended.set()
            watcher.join()


def rows(watch: Watch, counted: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Yields for each node what it puts out, by how much the memory grew, and what was held in between, in GB."""
    for kind, (before, peak, after) in watch.seen.items():
        if kind in counted or peak - before > 0.05 * GB:
            sizes = (counted.get(kind, 0), after - before, peak - max(before, after))
            yield kind, *(f"{size / GB:.2f}" for size in sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--comfyui", type=Path, default=dev.HOST / "ComfyUI")
    options = parser.parse_args()
    size = options.width, options.height
    with dev.temporary_server(options.comfyui) as server:
        server.run(workflow(options, SHORT), timeout=3600)
        server.request("/free", {"free_memory": True})
        threading.Event().wait(2)
        rest, _ = resident(server.process.pid)
        prompt = workflow(options, options.frames)
        watch = Watch(server, prompt)
        watch.run(copy.deepcopy(prompt))
    kinds = dict.fromkeys(node["class_type"] for node in prompt.values())
    counted = {kind: held for kind in kinds if (held := put_out(kind, options.frames, *size))}
    print(f"{options.frames} frames of {size[0]}x{size[1]}, {options.steps} steps; all in GB")
    print("| node | puts out | memory grows by | held in between |\n|---|---|---|---|")
    for row in rows(watch, counted):
        print(f"| {' | '.join(row)} |")
    total = sum(counted.values())
    print(
        f"peak {watch.peak / GB:.2f}, of which {rest / GB:.2f} were held before, and {total / GB:.2f} are put out: "
        f"{(watch.peak - rest - total) / GB:.2f} more"
    )


if __name__ == "__main__":
    main()
