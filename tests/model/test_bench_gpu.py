"""What bench/gpu.py does on a card that is slow, small or broken; its networks here are small ones on the CPU."""

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import COMFYUI

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import gpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="looks at what the CPU does")


@pytest.fixture
def report() -> gpu.Report:
    return gpu.Report(time.monotonic() + 100)


@pytest.fixture
def parts(monkeypatch) -> list[str]:
    """What has been measured of a, b and c, of which b fails."""
    measured: list[str] = []

    def part(name: str, error: Exception | None = None) -> gpu.Part:
        def measure(report, scale) -> None:
            measured.append(name)
            if error:
                raise error

        return gpu.Part(measure, 1)

    given = {"a": part("a"), "b": part("b", ValueError("no such\nattention")), "c": part("c")}
    monkeypatch.setattr(gpu, "PARTS", given)
    return measured


def test_a_part_that_fails_says_why_and_the_others_go_on(report, parts, capsys):
    gpu.measure_all(report, gpu.SMALL, list("abc"), pytest.fail)
    assert parts == ["a", "b", "c"] and not report.left_out
    assert capsys.readouterr().out.strip() == "b failed: ValueError: no such"
    assert gpu.in_a_line(AssertionError()) == "AssertionError: no message"


def test_a_card_that_does_not_answer_is_left_to_a_new_process(report, parts, monkeypatch):
    monkeypatch.setattr(gpu, "clean", lambda: parts[-1] != "b")
    gpu.measure_all(report, gpu.SMALL, list("abc"), lambda *names: parts.append(names))
    assert parts == ["a", "b", ("c",)]


def test_what_there_is_no_time_for_is_told(report, parts):
    gpu.PARTS["c"] = replace(gpu.PARTS["c"], evaluations=10)
    report.evaluation = 20.0
    gpu.measure_all(report, gpu.SMALL, list("abc"), pytest.fail)
    assert parts == ["a", "b"] and gpu.told(report) == "No time was left for: c."


def test_a_long_call_is_made_once(monkeypatch):
    now = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    calls: list[int] = []
    assert gpu.clock(lambda: calls.append(1), 3) == 6 and len(calls) == 2
    monkeypatch.setattr(gpu, "LONG", 1)
    assert gpu.clock(lambda: calls.append(1), 3) == 6 and len(calls) == 3
    monkeypatch.setattr(gpu, "LONG", math.inf)
    assert gpu.clock(lambda: calls.append(1), 3) == 6 and len(calls) == 7


def test_a_script_is_ended_in_time_and_its_status_counts(report, monkeypatch):
    with pytest.raises(RuntimeError, match="ended after 1 s"):
        gpu.script(report, 0, "-c", "import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match="status 3"):
        gpu.script(report, 20, "-c", "import os, sys; sys.exit(int(os.environ['STATUS']))", STATUS="3")
    monkeypatch.setenv("COMFYUI_PATH", os.path.relpath(COMFYUI))
    gpu.script(report, 60, "-c", "import os, champ; os.chdir('/'); assert os.path.exists(os.environ['COMFYUI_PATH'])")


class Full:
    """A denoiser for which the official arithmetic does not fit."""

    def __init__(self, *given) -> None: ...

    def step(self, frames, size, official=False):
        if official:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return 0.5, 2.0

    def estimate(self, frames, size) -> float:
        return 3.0


def test_what_does_not_fit_is_told_in_its_row(report, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "Denoiser", Full)
    gpu.windows(report, gpu.SMALL)
    rows = capsys.readouterr().out.splitlines()[-4:]
    assert rows[0] == "| 2 | 64x64 | 0.500 | out of memory |  | 2.00 |  | 3.00 |"
    assert rows[3].startswith("| 3 | 64x128 |")
    assert report.evaluation == 0.5 and not report.left_out
    report.end = time.monotonic()
    gpu.windows(report, gpu.SMALL)
    assert report.left_out == [f"{n} frames of {size}" for size in ("64x64", "64x128") for n in (2, 3)]


def test_a_small_card_evaluates_one_by_one(report, monkeypatch, capsys):
    """Twice as much is needed together, and ComfyUI wants one and a half times of that."""
    asked: list[bool] = []
    denoiser = gpu.Denoiser(gpu.SMALL, gpu.SMALL.half, None)
    needed = denoiser.model.memory_required(gpu.latents(6, gpu.SMALL.tall))
    monkeypatch.setattr(denoiser, "step", lambda *given, together: asked.append(together) or (0.5, 0.25))
    monkeypatch.setattr(gpu, "Denoiser", lambda *given: denoiser)
    for size, together in ((1.4 * needed, False), (1.6 * needed, True)):
        monkeypatch.setattr(gpu, "GB", size / 8)
        gpu.small_card(report, gpu.SMALL)
        row = f"| 3 | 64x128 | {'together' if together else 'one by one'} | 0.500 |"
        assert asked.pop() == together and row in capsys.readouterr().out


def test_apart_gives_the_same():
    torch.manual_seed(0)
    denoiser = gpu.Denoiser(gpu.SMALL, torch.float32, None, gpu.SMALL.squares)
    guidance = gpu.random_guidance(gpu.SMALL.channels, 2, *gpu.SMALL.squares)
    step = gpu.Step(denoiser.model, guidance)
    run = denoiser.references[gpu.SMALL.squares].run(denoiser.model.model_sampling, True)
    negative, positive = step.apart()
    both, one, other = (each(run)[1] for each in (step, negative, positive))
    torch.testing.assert_close(both, torch.cat([one, other]), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(one, other, atol=1e-2)


def test_pose_networks_are_found_beside_comfyuis_own_tests(report, capsys):
    with torch.inference_mode():
        gpu.pose_networks(report, gpu.SMALL)
    assert "| YOLOX | 96x96 |" in capsys.readouterr().out
