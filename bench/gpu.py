"""Everything that can only be known on a graphics card, in at most eight minutes on one CUDA card.

    python dev.py bench gpu                   # the tests that need a card, and the tables
    python dev.py bench gpu --only maps VAE   # some of the parts
    python dev.py bench gpu --rehearse        # the same code on the CPU, with models and clips of small size

The networks have the full sizes of SD1.5, HMR2 and DWPose and random weights: nothing has to be downloaded. A part that
fails says why, and the others go on. The end names what no time was left for.

Without dev.py, in the checkout, with any Python that has ComfyUI's requirements, OpenCV and, for the tests, pytest:

    PYTHONPATH=. COMFYUI_PATH=.host/ComfyUI python bench/gpu.py"""

import argparse
import contextlib
import gc
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import calibrated_step
import torch
from _random_models import Step, Tokens, random_guidance, random_model, random_net, random_reference, use

import comfy.ldm.modules.attention as host  # found by _random_models # isort: skip
import comfy.model_management as management  # isort: skip

from champ.model import attention
from champ.model.compat import is_oom
from champ.model.conditioning import GUIDANCE, REFERENCES
from champ.model.denoiser import HELD, ChampModel

ROOT = Path(__file__).resolve().parents[1]
GB = 1024**3
MINUTES = 8
GRACE = 5  # seconds before the end in which nothing is begun, and other processes are ended
LONG = 10  # seconds from which a call is not repeated
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Not as a module of `tests`: ComfyUI has a package of that name.
sys.path.append(str(ROOT / "tests" / "estimate"))


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


@dataclass(frozen=True)
class Part:
    """What is measured, if so much time is left for it: seconds, and evaluations of the smallest window."""

    measure: Callable[["Report", Scale], None]
    seconds: float
    evaluations: float = 0
    apart: bool = False  # in a process of its own, which can be ended when its time is up


@dataclass
class Report:
    """Prints tables, and knows how much time is left."""

    end: float
    left_out: list[str] = field(default_factory=list)
    evaluation: float = 0.0  # seconds of ours, for the smallest window
    now: str = ""  # the part that is measured

    def left(self) -> float:
        return self.end - time.monotonic()

    def room(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; if not, it is told at the end."""
        if seconds < self.left():
            return True
        self.left_out.append(what)
        return False

    def table(self, title: str, *columns: str) -> None:
        print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    def part(self, name: str, part: Part, run: Callable[[], None]) -> bool:
        """Measures a part if there is time; what fails is told. Returns whether others can go on in this process."""
        if not self.room(name, part.seconds + part.evaluations * self.evaluation):
            return True
        self.now = name
        try:
            run()
        except Exception as error:
            print(f"\n{name} failed: {in_a_line(error)}", flush=True)
        return clean()


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def clean() -> bool:
    """Frees the card; returns whether it still answers, as it does not after an illegal access to its memory."""
    gc.collect()
    try:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception as error:
        print(f"\nThe card does not answer this process any more: {in_a_line(error)}", flush=True)
        return False
    return True


def allocated() -> int:
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else 0


@contextlib.contextmanager
def peak() -> Iterator[list[float]]:
    """Yields a list that holds, at the end, the peak of graphics memory in GB beside what was there before."""
    found: list[float] = []
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = allocated()
    yield found
    found.append((torch.cuda.max_memory_allocated() - before) / GB if DEVICE == "cuda" else 0.0)


def clock(call: Callable[[], object], passes: int) -> float:
    """Median seconds, after one call that does not count; a long call is made once, and counts."""
    times: list[float] = []
    while len(times) <= passes and sum(times) < LONG:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)


def script(report: Report, seconds: float, *command: str, **environment: str) -> None:
    """Runs Python in the checkout, for so many seconds at most; what it prints is shown."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environment}
    if "COMFYUI_PATH" in environment:
        environment["COMFYUI_PATH"] = str(Path(environment["COMFYUI_PATH"]).resolve())
    limit = max(1.0, min(seconds, report.left()))
    try:
        status = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stderr=subprocess.STDOUT, timeout=limit
        ).returncode
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it was ended after {limit:.0f} s") from None
    if status:
        raise RuntimeError(f"it ended with status {status}")


class Denoiser:
    """A random denoiser of a scale, and what ReferenceNet, which is gone by then, has seen in each size."""

    def __init__(self, scale: Scale, dtype: torch.dtype, cast: torch.dtype | None, *sizes: tuple[int, int]):
        self.scale = scale
        net = random_net(scale.channels, cast or dtype, DEVICE)
        self.references = {size: random_reference(net, *size) for size in sizes}
        del net
        self.model: ChampModel = random_model(scale.channels, dtype, cast, DEVICE)

    def step(
        self, frames: int, size: tuple[int, int], official: bool = False, together: bool = True
    ) -> tuple[float, float]:
        """Seconds of an evaluation for negative and positive, and the peak of graphics memory beside the weights."""
        reference = self.references[size]
        with peak() as used:
            step = Step(self.model, random_guidance(self.scale.channels, frames, *size), DEVICE)
            steps = [step] if together else step.apart()
            run = Tokens(reference) if official else reference.run(self.model.model_sampling, True)
            if official:
                use(self.model, True)
            try:
                seconds = clock(lambda: [one(run) for one in steps], self.scale.passes)
            finally:
                if official:
                    use(self.model, False)
        return seconds, used[0]

    def estimate(self, frames: int, size: tuple[int, int]) -> float:
        """GB for which ComfyUI makes room beside the weights."""
        guidance = random_guidance(self.scale.channels, frames, *size)
        negative = {GUIDANCE: guidance}
        positive = {**negative, REFERENCES: (self.references[size],)}
        held = [self.model.extra_conds_shapes(**given)[HELD] for given in (negative, positive)]
        return self.model.memory_required(latents(2 * frames, size), cond_shapes={HELD: held}) / GB


def latents(rows: int, size: tuple[int, int]) -> list[int]:
    return [rows, 4, size[1] // 8, size[0] // 8]


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def suits(dtype: torch.dtype) -> bool:
    """Whether ComfyUI would compute in this type on this card; old ones take minutes for float16."""
    asked = {torch.float16: management.should_use_fp16, torch.bfloat16: management.should_use_bf16}
    return DEVICE == "cpu" or dtype not in asked or asked[dtype](torch.device(DEVICE))


def tests(report: Report, scale: Scale) -> None:
    print("\n**Tests that need a card**\n", flush=True)
    if importlib.util.find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed")
    rehearse = {"CHAMP_REHEARSE": "1"} if DEVICE == "cpu" else {}
    script(report, 120, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "tests/card", **rehearse)


def windows(report: Report, scale: Scale) -> None:
    """Ours beside the official arithmetic, for each window and size; estimate is what ComfyUI makes room for."""
    denoiser = Denoiser(scale, scale.half, None, scale.squares, scale.tall)
    report.table(
        f"One evaluation for negative and positive, {named(scale.half)}",
        *("frames", "size", "ours (s)", "official arithmetic (s)", "times as fast"),
        *("peak beside the weights, ours (GB)", "official (GB)", "ComfyUI's estimate (GB)"),
    )
    pace = 0.0  # seconds a pixel of the row before
    for size in (scale.squares, scale.tall):
        for frames in scale.windows:
            pixels, name = frames * math.prod(size), f"{frames} frames of {size[0]}x{size[1]}"
            if not report.room(name, pace * pixels):
                continue
            start = time.monotonic()
            found = attempt(denoiser.step, frames, size), attempt(denoiser.step, frames, size, official=True)
            ours, theirs = (((None, None) if isinstance(one, str) else one) for one in found)
            cells = [one if isinstance(one, str) else f"{one[0]:.3f}" for one in found]
            faster = f"{theirs[0] / ours[0]:.2f}" if ours[0] and theirs[0] else ""
            peaks = ["" if one[1] is None else f"{one[1]:.2f}" for one in (ours, theirs)]
            report.row(frames, name.split()[-1], *cells, faster, *peaks, f"{denoiser.estimate(frames, size):.2f}")
            pace = (time.monotonic() - start) / pixels
            report.evaluation = report.evaluation or ours[0] or 0.0


def attempt(call: Callable, *args, **kwargs):
    """Returns what a call gives, or why it gives nothing."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return "out of memory" if is_oom(error) else in_a_line(error)[:60]
    finally:
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def kinds(report: Report, scale: Scale) -> None:
    """Types of weights and of the computation."""
    report.table("Types", "weights", "computed in", "s", "peak beside the weights (GB)")
    types: list[tuple[torch.dtype, torch.dtype | None]] = [
        (torch.float16, None), (torch.bfloat16, None), (torch.float8_e4m3fn, torch.bfloat16), (torch.float32, None)
    ]  # fmt: skip
    spent = 0.0
    for dtype, cast in types:
        names, start = [named(kind) for kind in (dtype, cast or dtype)], time.monotonic()
        if not suits(cast or dtype):
            report.row(*names, "ComfyUI does not compute in it on this card", "")
        elif report.room(f"the type {names[0]}", 2 * spent):
            found = attempt(lambda: Denoiser(scale, dtype, cast, scale.squares).step(scale.windows[0], scale.squares))  # noqa: B023
            report.row(*names, *((found, "") if isinstance(found, str) else (f"{found[0]:.3f}", f"{found[1]:.2f}")))
            spent = time.monotonic() - start
        clean()


def compiled(report: Report, scale: Scale) -> None:
    denoiser = Denoiser(scale, scale.half, None, scale.squares)
    given = scale.windows[0], scale.squares
    plain, memory = denoiser.step(*given)
    report.table("torch.compile", "", "s", "times as fast", "peak beside the weights (GB)", "compiled in (s)")
    report.row("plain", f"{plain:.3f}", "1.00", f"{memory:.2f}", "")
    backend = "inductor" if DEVICE == "cuda" else "eager"  # which would take minutes on a CPU
    denoiser.model.diffusion_model = torch.compile(denoiser.model.diffusion_model, fullgraph=True, backend=backend)
    start = time.monotonic()
    denoiser.step(*given)
    compiling = time.monotonic() - start
    seconds, memory = denoiser.step(*given)
    report.row(backend, f"{seconds:.3f}", f"{plain / seconds:.2f}", f"{memory:.2f}", f"{compiling:.0f}")


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
            found = {name: attempt(clock, partial(function, q, k, v, 8), 5) for name, function in choices.items()}
            seconds = {name: math.inf if isinstance(one, str) else one for name, one in found.items()}
            cells = [one if isinstance(one, str) else f"{1000 * one:.2f}" for one in found.values()]
            report.row(channels // 8, rows, queries, keys, *cells)
            for name in faster if queries == tokens else ():
                if seconds[name] < seconds["pytorch"]:
                    faster[name].append(channels // 8)
    print("\nA choice is used for self-attention at these head sizes, and torch's own at the others:\n")
    for name, sizes in faster.items():
        used = [size for size in heads if size in attention.WORTH.get(choices[name].__name__, heads)]
        print(f"- {name}: {listed(used)}; here it is faster at {listed(sizes)}", flush=True)


def listed(sizes: list[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(sizes))) or "none"


@contextlib.contextmanager
def card_of(size: int) -> Iterator[None]:
    """Gives torch no more graphics memory than so many bytes, and lets ComfyUI see that."""
    known = management.get_free_memory

    def free(dev=None, torch_free_too=False):
        total, own = known(dev, True)
        total = min(total, size - allocated())
        return (total, own) if torch_free_too else total

    total = torch.cuda.get_device_properties(0).total_memory if DEVICE == "cuda" else size
    if DEVICE == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))
    try:
        with patch.object(management, "get_free_memory", free):
            yield
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


def small_card(report: Report, scale: Scale) -> None:
    """The largest window on a card of which 8 GB are left, evaluated as ComfyUI would: together, else one by one."""
    frames, size = scale.windows[1], scale.tall
    columns = "frames", "size", "negative and positive", "s", "weights (GB)", "peak beside the weights (GB)"
    with card_of(8 * GB):
        denoiser = Denoiser(scale, scale.half, None, size)
        clean()
        weights, needed = allocated() / GB, denoiser.model.memory_required(latents(2 * frames, size))
        together = 1.5 * needed < management.get_free_memory(torch.device(DEVICE))
        found = attempt(denoiser.step, frames, size, together=together)
    report.table("8 GB, with all weights on the card", *columns)
    cells = (found, f"{weights:.2f}", "") if isinstance(found, str) else (
        f"{found[0]:.3f}", f"{weights:.2f}", f"{found[1]:.2f}"
    )  # fmt: skip
    report.row(frames, f"{size[0]}x{size[1]}", "together" if together else "one by one", *cells)


def maps(report: Report, scale: Scale) -> None:
    from champ.body.free import load_free_body
    from champ.motion.presets import make_motion
    from champ.render.guidance import render_guidance
    from champ.render.rasterize import rasterizer_device

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
    found = calibrated_step.measure(scale.channels, size, frames, DEVICE, scale.half, min(2, scale.passes))
    report.table("Calibrated references", "kind", "evaluation (s)", "ratio", "passes of ReferenceNet (s)")
    for row in calibrated_step.rows(*found, frames):
        report.row(*row)


def pose_networks(report: Report, scale: Scale) -> None:
    """YOLOX-L and DWPose's network, for a picture and a person."""
    import full_dwpose

    if scale is SMALL:
        side, people = full_dwpose.SIZE, (full_dwpose.HEIGHT, full_dwpose.WIDTH)
        networks = [("YOLOX", full_dwpose.small_yolox(), (side, side)), ("DWPose", full_dwpose.small_rtmpose(), people)]
    else:
        yolox, rtmpose = (full_dwpose.filled(kind()) for kind in (full_dwpose.YoloX, full_dwpose.RtmPose))
        networks = [("YOLOX-L", yolox, (640, 640)), ("DWPose", rtmpose, (384, 288))]
    report.table(f"Pose networks, {named(scale.half)}", "network", "input", "ms", "peak beside the weights (GB)")
    for name, network, size in networks:
        there = network.to(DEVICE, scale.half)
        seen = torch.rand(1, 3, *size, device=DEVICE, dtype=scale.half)
        with peak() as used:
            seconds = clock(partial(there, seen), scale.passes)
        report.row(name, f"{size[1]}x{size[0]}", f"{1000 * seconds:.1f}", f"{used[0]:.2f}")


def hmr2(report: Report, scale: Scale) -> None:
    """Its own benchmark, which uses the card."""
    print("\n**bench hmr2**\n", flush=True)
    script(report, 120, str(ROOT / "bench" / "hmr2.py"))


def vae(report: Report, scale: Scale) -> None:
    """The VAE that comes with the pack; the official one has 84 million parameters and is not shipped."""
    import comfy.sd
    from safetensors.torch import load_file

    file = ROOT / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"
    codec = comfy.sd.VAE(sd=load_file(file))
    width, height = scale.squares
    noise = torch.randn(scale.windows[1], 4, height // 8, width // 8)
    with peak() as used:
        seconds = clock(lambda: codec.decode(noise), 1)
    report.table("Champ-Tiny's VAE", "frames", "decoding, ms a frame", "peak (GB)")
    report.row(len(noise), f"{1000 * seconds / len(noise):.2f}", f"{used[0]:.2f}")


# Those that other processes may have to take over come last.
PARTS = {
    "tests": Part(tests, 30),
    "windows": Part(windows, 30),
    "types": Part(kinds, 20, evaluations=16),
    "attention": Part(attention_table, 10),
    "8 GB": Part(small_card, 10, evaluations=12),
    "calibration": Part(calibration, 15, evaluations=20),
    "maps": Part(maps, 15),
    "VAE": Part(vae, 10),
    "pose networks": Part(pose_networks, 15),
    "HMR2": Part(hmr2, 40),
    "torch.compile": Part(compiled, 60, evaluations=10, apart=True),
}


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


def again(report: Report, rehearse: bool, *names: str) -> None:
    """Measures parts in a new process."""
    options = ["--minutes", f"{(report.left() + GRACE) / 60:.3f}", *["--rehearse"] * rehearse, "--only", *names]
    script(report, report.left(), str(Path(__file__).resolve()), *options)


def measure_all(report: Report, scale: Scale, names: Sequence[str], apart: Callable[..., None]) -> None:
    """Measures one part after the other; `apart` measures parts in a new process."""
    for i, name in enumerate(names):
        part, rest = PARTS[name], names[i + 1 :]
        run = partial(apart, name) if part.apart and len(names) > 1 else partial(part.measure, report, scale)
        if not report.part(name, part, run):
            if rest:
                report.part(
                    "the rest, in a new process,", replace(part, seconds=0, evaluations=0), partial(apart, *rest)
                )
            return


def stop(report: Report) -> None:
    """Ends this process whatever it is doing, because a card cannot be interrupted."""
    print(f"\nTime is over in the middle of: {report.now}. {told(report)}", flush=True)
    os._exit(1)


def told(report: Report) -> str:
    return f"No time was left for: {', '.join(report.left_out)}." if report.left_out else ""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on the CPU if there is no card")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for everything")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}")
    options = parser.parse_args()
    if DEVICE == "cpu" and not options.rehearse:
        print("There is no CUDA card here: nothing was measured. --rehearse runs the same code in small sizes.")
        return
    half = FULL.half if suits(FULL.half) else torch.float32
    scale = SMALL if options.rehearse else replace(FULL, half=half)
    torch.manual_seed(0)
    report = Report(time.monotonic() + 60 * options.minutes - GRACE)
    guard = threading.Timer(60 * options.minutes, stop, [report])
    guard.daemon = True
    guard.start()
    print(about(), flush=True)
    names = options.only or [name for name in PARTS if name != "HMR2" or DEVICE == "cuda"]
    apart = partial(again, report, options.rehearse)
    measure_all(report, scale, names, apart)
    if report.left_out:
        print(f"\n{told(report)}")


if __name__ == "__main__":
    main()
