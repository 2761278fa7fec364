"""Trains Champ-Tiny on, from the weights that come with the pack: draws people, trains codec and networks, evaluates.

    python -m tools.train_tiny FOLDER [--minutes 9] [--workers 16] [--until moving]

Every step but one goes on where it was stopped, so that the same command, given again, brings the run to its end, on a
machine with a graphics card or without. With --minutes it stops itself in time; what was learned since the last
checkpoint is lost then. The codec has no checkpoints and begins anew, so that the minutes must be enough for all of it.
The steps are those of docs/training.md; another folder begins anew."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "champ" / "assets" / "models"
PACK = 256  # samples that one process draws at a time
HOW = (
    "--optimizer muon --schedule cosine --beta2 0.99 --mean 0.98 --precision bf16 --betas linear --person 1 "
    "--save-every 50 --preview-steps 6 --preview-cfg 1"
)
# Small pictures, then large ones: size, first sample, samples, share of close framings, frames of a clip.
PEOPLE = {
    "p128": [(128, 20000, 4096, 0.55, 1)],
    "p256": [(256, 40000, 3072, 0.4, 1), (256, 50000, 240, 0.4, 24)],
}
STAGES = {
    "small": f"stage1 --data p128 --steps 3000 --batch 8 --draws 8 --lr 3e-3 --warmup 20 --matching 0.1 {HOW}",
    "large": f"stage1 --data p256 --steps 1500 --batch 4 --draws 8 --lr 2e-3 --warmup 10 --matching 0.1 {HOW}",
    "moving": f"stage2 --data p256 --steps 400 --batch 1 --lr 1.5e-3 --warmup 5 --frames 24 --positions 24 "
    f"--same-noise 0.7 {HOW}",
}


class Late(Exception):
    """There is no time left."""


class Run:
    """Commands of `python -m champ.train` in a folder, as long as there is time."""

    def __init__(self, folder: Path, minutes: float | None):
        self.folder = folder
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    def __call__(self, words: str) -> None:
        command = [sys.executable, "-m", "champ.train", *shlex.split(words)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SHIPPED.parents[2]), *sys.path])}
        left = None if self.end is None else self.end - time.monotonic()
        print(time.strftime("%H:%M:%S"), words, flush=True)
        try:
            subprocess.run(command, cwd=self.folder, env=environment, check=True, timeout=left)
        except subprocess.TimeoutExpired:
            raise Late from None


def draw(run: Run, workers: int) -> None:
    words = [
        f"prepare --data {data} --size {size} --first {start} --count {count} --close {close} --frames {frames}"
        for data, parts in PEOPLE.items()
        for size, first, total, close, frames in parts
        for start, count in packs(first, total, max(1, PACK // frames))
    ]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, words))


def packs(first: int, total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + total, size):
        yield start, min(size, first + total - start)


def train(run: Run, until: str) -> None:
    networks, vae = SHIPPED / "champ" / "champ_tiny", SHIPPED / "vae" / "champ_tiny_vae.safetensors"
    if not (run.folder / "codec.safetensors").exists():
        run(f"codec --data p128 --out codec.safetensors --init {vae} --crop 64 --batch 16 --steps 20000")
    for data in PEOPLE:
        run(f"encode --data {data} --vae codec.safetensors")
    start = f"--init {networks} --transformers"
    for name, words in STAGES.items():
        run(f"{words} --vae codec.safetensors --out {name} {start}")
        start = f"--init {name}/model"
        if name == until:
            break
    run(f"export --networks {name}/model --out set --about license=Apache-2.0")
    measured = "--clips 12 --frames 8 --size 256 --steps 10 --cfg 1 --noise 'same in every frame'"
    run(f"evaluate --networks set --vae codec.safetensors --out sheets {measured}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw people")
    parser.add_argument("--until", choices=list(STAGES), default=list(STAGES)[-1], help="the last stage to train")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run = Run(options.folder.resolve(), options.minutes)
    try:
        draw(run, options.workers)
        train(run, options.until)
    except Late:
        print("Time is up; the same command goes on from here.")


if __name__ == "__main__":
    main()
