"""Processor time of finding one person and the keypoints in a frame at full network size, on one thread: with networks
as they are read from a file of each format, and with the same TorchScript file run by torch itself.

The networks are YOLOX-L and the RTMPose-l that DWPose uses, with random weights, because speed does not depend on what
they learnt. The ONNX files are written here, which needs the package onnx; without it they are left out.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from champ.estimate.detect import decode_boxes, letterbox, suppress
from champ.estimate.dwpose import HEIGHT, POINTS, WIDTH, crop_person
from champ.estimate.dwpose import decode_keypoints as decode_simcc
from champ.estimate.network import read_network

# Not as a module of `tests`: ComfyUI has a package of that name.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "estimate"))

from full_dwpose import RtmPose, YoloX, filled, traced  # noqa: E402

PASSES = 5
AROUND = "boxes, crops, keypoints"


def clock(call: Callable[[], object]) -> float:
    """Milliseconds of the processor."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def export(network: nn.Module, example: Tensor, file: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (example,), str(file), opset_version=11, dynamo=False)
    except torch.onnx.OnnxExporterError as error:
        print(f"ONNX is left out: {error}")
        return False
    return True


def runs_of(name: str, network: nn.Module, seen: Tensor, folder: Path) -> dict[str, Callable[[], object]]:
    """The network in every form, as functions without arguments, which all give the same."""
    script = torch.jit.load(str(traced(network, tuple(seen.shape), folder / f"{name}.torchscript.pt"))).eval()
    torch.save({"model": network.state_dict()}, folder / f"{name}.pth")
    runs: dict[str, Callable[[], Any]] = {"torch.jit": partial(script, seen)}
    forms = [".torchscript.pt", ".pth"] + [".onnx"] * export(network, seen, folder / f"{name}.onnx")
    for form in forms:
        read = read_network(folder / f"{name}{form}")
        read.check(*seen.shape[2:])
        runs[form] = partial(read.forward, seen)
    expected, *others = ([found] if isinstance(found, Tensor) else found for found in (run() for run in runs.values()))
    for found in others:
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=1e-3)
    return runs


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    picture = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    square, box = letterbox(picture)[0], np.array([400, 50, 700, 700, 0.9])
    inputs = {"YOLOX-L": (YoloX(), square), "DWPose": (RtmPose(), crop_person(picture, box))}
    found = np.zeros((8400, 85), dtype=np.float32)
    found[8200:8240, 4:6] = 1  # as many cells as a real person makes answer
    simcc = [np.random.rand(1, POINTS, 2 * length) for length in (WIDTH, HEIGHT)]

    def around() -> None:
        letterbox(picture)
        suppress(*decode_boxes(found))
        crop_person(picture, box)
        decode_simcc(simcc, box[None])

    calls: dict[tuple[str, str], Callable[[], object]] = {(AROUND, "numpy and OpenCV"): around}
    with tempfile.TemporaryDirectory() as folder:
        for name, (network, seen) in inputs.items():
            print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} million parameters, random")
            runs = runs_of(name, filled(network), torch.from_numpy(seen)[None].float(), Path(folder))
            calls |= {(name, form): run for form, run in runs.items()}
    # Round by round, so that all of them get their share of what else the machine does.
    rounds = [{key: clock(call) for key, call in calls.items()} for _ in range(1 + PASSES)][1:]
    print(f"\none person in 1280 x 720, one thread of the CPU, torch {torch.__version__}\n")
    print(f"| what | through | least of {PASSES} (ms) | median | to torch.jit |\n|---|---|---|---|---|")
    for name, form in calls:
        spent = [times[name, form] for times in rounds]
        ratio = "" if name == AROUND else f"{_ratio(rounds, [name], form):.2f}"
        print(f"| {name} | {form} | {min(spent):.0f} | {np.median(spent):.0f} | {ratio} |")
    print()
    for form in dict.fromkeys(form for name, form in calls if name != AROUND):
        least = sum(min(times[name, form] for times in rounds) for name in inputs)
        print(f"both networks, {form}: {least:.0f} ms, {_ratio(rounds, list(inputs), form):.2f} of torch.jit's time")


def _ratio(rounds: list[dict], names: list[str], form: str) -> float:
    """Of the time of a form to that of torch.jit, in the same round; the median of the rounds."""
    sums = [[sum(times[name, through] for name in names) for through in (form, "torch.jit")] for times in rounds]
    return float(np.median([a / b for a, b in sums]))


if __name__ == "__main__":
    main()
