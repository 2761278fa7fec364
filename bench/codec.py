"""Encoding and decoding with Champ-Tiny's VAE: the small networks that its file was made of, beside ComfyUI's TAESD
with the same file; medians of alternating runs, one thread."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.sd
import comfy.utils

from champ.train.latents import LATENT_FORMAT, ImageCodec

VAE = Path(__file__).parents[1] / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"
PICTURES, SIZE, RUNS = 8, 256, 5


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    ours, theirs = ImageCodec(VAE), comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE)))
    pictures = torch.randint(256, (PICTURES, SIZE, SIZE, 3), dtype=torch.uint8)
    latents = ours.encode(pictures)
    print(f"one thread, torch {torch.__version__}, {PICTURES} pictures of {SIZE}x{SIZE}, median of {RUNS}")
    print("| | small networks, s | TAESD, s | times as fast |")
    print("|---|---|---|---|")
    for name, small, full in (
        ("encode", lambda: ours.encode(pictures), lambda: theirs.encode(pictures.float() / 255)),
        ("decode", lambda: ours.decode(latents), lambda: theirs.decode(LATENT_FORMAT.process_out(latents))),
    ):
        pairs = [(seconds(small), seconds(full)) for _ in range(RUNS + 1)][1:]
        a, b = (statistics.median(times) for times in zip(*pairs))
        print(f"| {name} | {a:.2f} | {b:.2f} | {statistics.median(y / x for x, y in pairs):.1f} |")


if __name__ == "__main__":
    main()
