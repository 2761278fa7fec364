"""One step of training networks of Champ-Tiny's sizes on the processor, in several ways; medians of alternating steps,
one thread.

The pictures are noise: the time of a step does not depend on what is in them. `draws` are noises for each picture, for
which the encoders and ReferenceNet run once. Where the processor multiplies bf16, attention in bf16, written out in
champ/model/attention.py, is compared with torch's own, in bf16 and in float32, and bf16 with float32."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

from accelerate.state import AcceleratorState
from comfy.ldm.modules.attention import attention_pytorch

from champ.model import attention, guidance
from champ.model.config import UNetSizes
from champ.model.families import ENCODED_MAPS
from champ.model.guidance import EncoderSizes
from champ.train.batches import Batch
from champ.train.fresh import fresh_networks, motion_sizes
from champ.train.networks import Champ, Sizes
from champ.train.objective import Objective
from champ.train.precision import bf16_slowdown
from champ.train.stages import choose_parameters
from champ.train.trainer import Settings, Trainer

STEPS = 5
SIZE = 256  # pixels
UNET = UNetSizes(4, (64, 128), 1, (False, True), 32, linear=False)  # those of Champ-Tiny
TINY = Sizes(UNET, EncoderSizes((8, 16, 32, 32), 64, attention=True), motion_sizes(UNET, 32, middle=False))


class Noise:
    """Samples of noise."""

    def __init__(self, frames: int):
        self.frames = frames

    def __len__(self) -> int:
        return 1

    def read(self, indices, generator) -> Batch:
        count, side = len(indices), SIZE // 8
        maps = {
            name: torch.randint(256, (count, self.frames, SIZE, SIZE, 3), dtype=torch.uint8) for name in ENCODED_MAPS
        }
        return Batch(torch.randn(count, self.frames, 4, side, side), maps, torch.randn(count, 4, side, side))

    def batch(self, read: Batch) -> Batch:
        return read


def plain(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None, options=None) -> Tensor:
    return attention_pytorch(q, k, v, heads, mask=bias)


def in_float32(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None, options=None) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return attention_pytorch(q.float(), k.float(), v.float(), heads, mask=bias)


def trainer(stage: str, frames: int, precision: str, batch: int, draws: int, optimizer: str = "adamw") -> Trainer:
    AcceleratorState._reset_state(reset_partial_state=True)  # it allows one precision in a process
    model = Champ(fresh_networks(TINY if stage == "stage2" else replace(TINY, motion=None), 0))
    choose_parameters(model, stage, freeze=False)
    settings = Settings(10_000, batch, draws, precision=precision, optimizer=optimizer)
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(model, Noise(frames), Objective(drop=0), settings, Path(folder))


def seconds(one: Trainer, attend: Callable[..., Tensor]) -> float:
    ours = attention.softmax_attention
    attention.softmax_attention = guidance.softmax_attention = attend
    try:
        started = time.perf_counter()
        one.train_step()
        return time.perf_counter() - started
    finally:
        attention.softmax_attention = guidance.softmax_attention = ours


def main() -> None:
    torch.set_num_threads(1)
    ours = attention.softmax_attention
    bf16 = bf16_slowdown() < 1
    precision, name = ("bf16", "bf16") if bf16 else ("no", "fp32")
    ways = [
        (f"stage 1, {name}, 4 draws", trainer("stage1", 1, precision, 4, 4), ours, 16),
        (f"stage 1, {name}, 4 draws, Muon", trainer("stage1", 1, precision, 4, 4, "muon"), ours, 16),
        (f"stage 1, {name}, 1 draw", trainer("stage1", 1, precision, 16, 1), ours, 16),
        (f"stage 2, {name}", trainer("stage2", 16, precision, 1, 1), ours, 16),
    ]
    if bf16:
        ways += [
            ("stage 1, bf16, 4 draws, torch's attention", trainer("stage1", 1, "bf16", 4, 4), plain, 16),
            (
                "stage 1, bf16, 4 draws, torch's attention in float32",
                trainer("stage1", 1, "bf16", 4, 4),
                in_float32,
                16,
            ),
            ("stage 1, fp32, 4 draws", trainer("stage1", 1, "no", 4, 4), ours, 16),
            ("stage 2, fp32", trainer("stage2", 16, "no", 1, 1), ours, 16),
        ]
    else:
        print("This processor has no instructions for bf16: the rows with it are left out.")
    times: dict[str, list[float]] = {name: [] for name, *_ in ways}
    for round_ in range(STEPS + 1):
        for name, one, attend, _ in ways:
            taken = seconds(one, attend)
            if round_:
                times[name].append(taken)
    print(f"one thread, torch {torch.__version__}, {SIZE}x{SIZE} pixels, median of {STEPS} alternating steps")
    print("| step | s | noisy pictures/s | time against the first of its stage |")
    print("|---|---|---|---|")
    first: dict[str, str] = {}
    for name, _, _, pictures in ways:
        base = first.setdefault(name[:7], name)
        middle = statistics.median(times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], times[base]))
        print(f"| {name} | {middle:.2f} | {pictures / middle:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
