"""Everything that can only be known on a graphics card, in at most eight minutes on one CUDA card.

    python dev.py bench gpu              # the tests that need a card, and the tables
    python dev.py bench gpu --rehearse   # the same code on the CPU, with models and clips of small size

The networks have the full sizes of SD1.5, HMR2 and DWPose and random weights: nothing has to be downloaded. The end
names what no time was left for."""

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import calibrated_step
import torch
from _random_models import Step, Tokens, random_guidance, random_model, random_net, random_reference, use

import comfy.ldm.modules.attention as host  # found by _random_models # isort: skip
import comfy.model_management as management  # isort: skip

from champ.body.free import load_free_body
from champ.model import attention
from champ.model.denoiser import ChampModel
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
from champ.render.rasterize import rasterizer_device

ROOT = Path(__file__).parents[1]
GB = 1024**3
MINUTES = 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Scale:
    """Sizes of what is measured."""

    channels: tuple[int, ...]
    squares: tuple[int, int]  # width and height of the smaller clips
    tall: tuple[int, int]
    windows: tuple[int, int]
    passes: int
    half: torch.dtype


FULL = Scale((320, 640, 1280, 1280), (512, 512), (512, 768), (16, 24), 3, torch.float16)
SMALL = Scale((32, 64, 64, 64), (64, 64), (64, 128), (2, 3), 1, torch.bfloat16)


@dataclass
class Report:
    """Prints tables, and knows how much time is left."""

    end: float
    left_out: list[str] = field(default_factory=list)

    def table(self, title: str, *columns: str) -> None:
        print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    def part(self, name: str, seconds: float, measure: Callable[[], None]) -> None:
        """Measures a part if so many seconds are left; what fails is told, and the rest goes on."""
        if time.monotonic() + seconds > self.end:
            self.left_out.append(name)
            return
        try:
            measure()
        except Exception as error:
            print(f"\n{name} failed: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def peak() -> Iterator[list[float]]:
    """Yields a list that holds the peak of graphics memory in GB at the end."""
    found: list[float] = []
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield found
    found.append(torch.cuda.max_memory_allocated() / GB if DEVICE == "cuda" else 0.0)


def clock(call: Callable[[], object], passes: int) -> float:
    """Median seconds, after one call that does not count."""
    times = []
    for _ in range(passes + 1):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class Denoiser:
    """A random denoiser and reference of a scale."""

    def __init__(self, scale: Scale, dtype: torch.dtype, cast: torch.dtype | None = None):
        self.scale = scale
        self.model: ChampModel = random_model(scale.channels, dtype, cast, DEVICE)
        self.net = random_net(scale.channels, cast or dtype, DEVICE)

    def step(self, frames: int, size: tuple[int, int], official: bool = False) -> tuple[float, float]:
        """Seconds of an evaluation for negative and positive, and the peak of graphics memory."""
        reference = random_reference(self.net, *size)
        step = Step(self.model, random_guidance(self.scale.channels, frames, *size), DEVICE)
        run = Tokens(reference) if official else reference.run(self.model.model_sampling, True)
        if official:
            use(self.model, True)
        try:
            with peak() as used:
                seconds = clock(lambda: step(run), self.scale.passes)
        finally:
            if official:
                use(self.model, False)
        return seconds, used[0]


def tests() -> None:
    print("\n**Tests that need a card**\n", flush=True)
    environment = {**os.environ, "CHAMP_REHEARSE": "1"} if DEVICE == "cpu" else None
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/card"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print("\n".join(result.stdout.splitlines()[-8:]), flush=True)


def windows(report: Report, scale: Scale) -> None:
    """Ours beside the official arithmetic, for each window and size; estimate is what ComfyUI makes room for."""
    denoiser = Denoiser(scale, scale.half)
    name = str(scale.half).removeprefix("torch.")
    report.table(
        f"One evaluation for negative and positive, {name}",
        *("frames", "size", "ours (s)", "official arithmetic (s)", "times as fast"),
        *("peak, ours (GB)", "peak, official (GB)", "ComfyUI's estimate without weights (GB)"),
    )
    for size in (scale.squares, scale.tall):
        for frames in scale.windows:
            ours, memory = denoiser.step(frames, size)
            try:
                theirs, more = denoiser.step(frames, size, official=True)
                beside = (f"{theirs:.3f}", f"{theirs / ours:.2f}", f"{memory:.2f}", f"{more:.2f}")
            except management.OOM_EXCEPTION:
                beside = ("out of memory", "", f"{memory:.2f}", "")
            estimate = denoiser.model.memory_required([2 * frames, 4, size[1] // 8, size[0] // 8]) / GB
            report.row(frames, f"{size[0]}x{size[1]}", f"{ours:.3f}", *beside, f"{estimate:.2f}")


def kinds(report: Report, scale: Scale) -> None:
    """Types of weights and of the computation."""
    report.table("Types", "weights", "computed in", "s", "peak (GB)")
    types: list[tuple[torch.dtype, torch.dtype | None]] = [
        (torch.float16, None), (torch.bfloat16, None), (torch.float8_e4m3fn, torch.bfloat16), (torch.float32, None)
    ]  # fmt: skip
    for dtype, cast in types:
        names = [str(kind).removeprefix("torch.") for kind in (dtype, cast or dtype)]
        try:
            seconds, memory = Denoiser(scale, dtype, cast).step(scale.windows[0], scale.squares)
            report.row(*names, f"{seconds:.3f}", f"{memory:.2f}")
        except (management.OOM_EXCEPTION, RuntimeError) as error:
            report.row(*names, str(error).splitlines()[0][:60], "")
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def compiled(report: Report, scale: Scale) -> None:
    denoiser = Denoiser(scale, scale.half)
    plain, _ = denoiser.step(scale.windows[0], scale.squares)
    start = time.monotonic()
    denoiser.model.diffusion_model = torch.compile(denoiser.model.diffusion_model, fullgraph=True)
    seconds, memory = denoiser.step(scale.windows[0], scale.squares)
    report.table("torch.compile", "", "s", "times as fast", "peak (GB)", "compiled and measured in (s)")
    report.row("plain", f"{plain:.3f}", "1.00", "", "")
    report.row(
        "compiled", f"{seconds:.3f}", f"{plain / seconds:.2f}", f"{memory:.2f}", f"{time.monotonic() - start:.0f}"
    )


def attentions() -> dict[str, Callable]:
    """ComfyUI's attentions that this installation has; torch's own is "pytorch"."""
    return {"pytorch": host.attention_pytorch, **host.REGISTERED_ATTENTION_FUNCTIONS}


def attention_table(report: Report, scale: Scale) -> None:
    """Each attention at the sizes of the denoiser's blocks: self-attention with a reference, and motion modules."""
    frames, (width, height) = scale.windows[0], scale.squares
    choices, heads = attentions(), [channels // 8 for channels in scale.channels[:3]]
    report.table("Attention alone, in ms", "head size", "rows", "queries", "keys", *choices)
    faster: dict[str, list[int]] = {name: [] for name in choices if name != "pytorch"}
    for level, channels in enumerate(scale.channels[:3]):
        tokens = (width // 8 >> level) * (height // 8 >> level)
        for rows, queries, keys in ((frames, tokens, 2 * tokens), (tokens, frames, frames)):
            q, k, v = (torch.randn(rows, n, channels, device=DEVICE, dtype=scale.half) for n in (queries, keys, keys))
            cells, seconds = [], {}
            for name, function in choices.items():
                try:
                    seconds[name] = clock(partial(function, q, k, v, 8), 5)
                    cells.append(f"{1000 * seconds[name]:.2f}")
                except Exception as error:
                    cells.append(type(error).__name__)
            report.row(channels // 8, rows, queries, keys, *cells)
            for name in faster if queries == tokens else ():
                if seconds.get(name, math.inf) < seconds.get("pytorch", math.inf):
                    faster[name].append(channels // 8)
    print("\nA choice is used for self-attention at these head sizes, and torch's own at the others:\n")
    for name, sizes in faster.items():
        used = [size for size in heads if size in attention.WORTH.get(choices[name].__name__, heads)]
        print(f"- {name}: {listed(used)}; here it is faster at {listed(sizes)}", flush=True)


def listed(sizes: list[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(sizes))) or "none"


def small_card(report: Report, scale: Scale) -> None:
    """The largest window on a card of which 8 GB are left, evaluated as ComfyUI would: together, else one by one."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 8 * GB / total))
    try:
        denoiser = Denoiser(scale, scale.half)
        del denoiser.net
        denoiser.net = random_net(scale.channels, scale.half, "cpu")
        torch.cuda.empty_cache()
        frames, size = scale.windows[1], scale.tall
        seconds, memory = denoiser.step(frames, size)
        result = (f"{seconds:.3f}", f"{memory:.2f}")
    except management.OOM_EXCEPTION:
        result = ("out of memory", "")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    report.table("8 GB", "frames", "size", "s", "peak (GB)")
    report.row(scale.windows[1], f"{scale.tall[0]}x{scale.tall[1]}", *result)


def maps(report: Report, scale: Scale) -> None:
    body = load_free_body()
    motion = make_motion("dance", body, 4 * scale.windows[1], 30.0, width=scale.squares[0], height=scale.squares[1])
    device = rasterizer_device(torch.device(DEVICE))
    report.table("Four maps and the mask", "where", "ms a frame", "peak (GB)")
    for where in dict.fromkeys((device, torch.device("cpu"))):
        with peak() as used:
            seconds = clock(partial(render_guidance, body, motion, device=where), 1)
        report.row(where, f"{1000 * seconds / len(motion):.2f}", f"{used[0]:.2f}")


def calibration(report: Report, scale: Scale) -> None:
    frames, size = scale.windows[0], scale.squares[0]
    found = calibrated_step.measure(scale.channels, size, frames, DEVICE, scale.half)
    report.table("Calibrated references", "kind", "evaluation (s)", "ratio", "passes of ReferenceNet (s)")
    for row in calibrated_step.rows(*found, frames):
        report.row(*row)


def pose_networks(report: Report, scale: Scale) -> None:
    """YOLOX-L and DWPose's network, for a picture and a person."""
    from tests.estimate.full_dwpose import RtmPose, YoloX, filled

    report.table("Pose networks, float16", "network", "input", "ms", "peak (GB)")
    for name, network, size in (("YOLOX-L", YoloX(), (640, 640)), ("DWPose", RtmPose(), (384, 288))):
        there = filled(network).to(DEVICE, torch.float16)
        seen = torch.rand(1, 3, *size, device=DEVICE, dtype=torch.float16)
        with peak() as used:
            seconds = clock(partial(there, seen), scale.passes)
        report.row(name, f"{size[1]}x{size[0]}", f"{1000 * seconds:.1f}", f"{used[0]:.2f}")


def hmr2(report: Report) -> None:
    """Its own benchmark, which uses the card."""
    print("\n**bench hmr2**", flush=True)
    limit = report.end - time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "bench" / "hmr2.py")], cwd=ROOT, timeout=limit)


def vae(report: Report, scale: Scale) -> None:
    """The VAE that comes with the pack; the official one has 84 million parameters and is not shipped."""
    import comfy.sd
    from safetensors.torch import load_file

    file = ROOT / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"
    codec = comfy.sd.VAE(sd=load_file(file))
    width, height = scale.squares
    latents = torch.randn(scale.windows[1], 4, height // 8, width // 8)
    with peak() as used:
        seconds = clock(lambda: codec.decode(latents), 1)
    report.table("Champ-Tiny's VAE", "frames", "decoding, ms a frame", "peak (GB)")
    report.row(len(latents), f"{1000 * seconds / len(latents):.2f}", f"{used[0]:.2f}")


def about() -> str:
    from comfyui_version import __version__ as version

    if DEVICE == "cpu":
        return f"Rehearsal on the CPU in small sizes, torch {torch.__version__}, ComfyUI {version}"
    card = torch.cuda.get_device_properties(0)
    cuda = torch.version.cuda or torch.version.hip
    return (
        f"{card.name}, {card.total_memory / GB:.1f} GB, torch {torch.__version__}, CUDA {cuda}, ComfyUI {version}, "
        f"attention: {attention.optimized_attention.__name__}"
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on the CPU if there is no card")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for everything")
    options = parser.parse_args()
    if DEVICE == "cpu" and not options.rehearse:
        print("There is no CUDA card here: nothing was measured. --rehearse runs the same code in small sizes.")
        return
    scale = SMALL if options.rehearse else FULL
    torch.manual_seed(0)
    report = Report(time.monotonic() + 60 * options.minutes)
    print(about(), flush=True)
    report.part("the tests that need a card", 60, tests)
    report.part("windows", 60, lambda: windows(report, scale))
    report.part("types", 40, lambda: kinds(report, scale))
    report.part("attention", 15, lambda: attention_table(report, scale))
    if DEVICE == "cuda":
        report.part("8 GB", 20, lambda: small_card(report, scale))
    report.part("calibration", 30, lambda: calibration(report, scale))
    report.part("maps", 20, lambda: maps(report, scale))
    report.part("VAE", 15, lambda: vae(report, scale))
    if DEVICE == "cuda":
        report.part("torch.compile", 120, lambda: compiled(report, scale))
        report.part("pose networks", 15, lambda: pose_networks(report, scale))
        report.part("HMR2", 60, lambda: hmr2(report))
    if report.left_out:
        print(f"\nNo time was left for: {', '.join(report.left_out)}.")


if __name__ == "__main__":
    main()
