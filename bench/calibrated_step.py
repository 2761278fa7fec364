"""What calibration costs: one evaluation of the denoiser for positive and negative with and without it, and the passes
of ReferenceNet before sampling.

Every frame has a warp of its own, which is the most there can be. The paper's masking is also measured as it was at
first: with a bias for every query and key, row by row. The evaluations alternate, on one CPU thread."""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from unittest.mock import patch

import torch
from _random_models import CASES, PASSES, Step, random_guidance, random_model, random_net, random_reference

from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.model import attention
from champ.model.reference import Reference

MASKED, AT_FIRST = "masking: paper, groups of 4", "masking: paper, with a bias"


def by_rows(own, heads, sources, split, options):
    """Attends with a bias that hides sources from the queries that do not read them."""
    rows = enumerate(zip(*(x.split(1) for x in own)))
    return torch.cat([attention._attend(row, heads, [s.row(i) for s in sources], options) for i, row in rows])


def as_at_first(kind: str):
    return patch.object(attention, "_attend_in_groups", by_rows) if kind == AT_FIRST else nullcontext()


def measure(
    channels: tuple[int, ...],
    size: int,
    frames: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    passes: int = PASSES,
) -> tuple[dict[str, list[float]], float]:
    """Seconds of each evaluation by kind, and of one pass of ReferenceNet."""
    side, model = size // 8, random_model(channels, dtype, None, device)
    net = random_net(channels, dtype, device)
    reference = random_reference(net, size, size)
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    seen = [random_reference(net, size, size).tokens for _ in range(frames)]
    seconds = (clock() - start) / frames

    person = torch.zeros(side, side)
    person[:, side // 4 : side // 2] = 1
    warps = tuple(Warp({p: x.half() for p, x in t.items()}, torch.ones(side, side), person) for t in seen)
    own = {field.name: getattr(reference, field.name) for field in fields(Reference)}

    def calibrated(group: int, masked: bool):
        people = person.expand(frames, -1, -1) if masked else None
        calibration = Calibration(
            warps, tuple(range(frames)), groups_of([0] * frames, group), 0,
            people=people, person=person if masked else None,
        )  # fmt: skip
        return CalibratedReference(**own, calibration=calibration, width=size, height=size)

    kinds = {
        "without": reference,
        "groups of 4": calibrated(4, False),
        "no groups": calibrated(1, False),
        MASKED: calibrated(4, True),
    }
    runs = {name: kind.run(model.model_sampling, True) for name, kind in kinds.items()}
    runs[AT_FIRST] = runs[MASKED]
    step = Step(model, random_guidance(channels, frames, size, size), device)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(passes + 1):
        for name, run in runs.items():
            with as_at_first(name):
                found[name].append(step(run)[0])
    return {name: times[1:] for name, times in found.items()}, seconds  # the first evaluation does not count


def rows(found: dict[str, list[float]], seconds: float, frames: int) -> Iterator[tuple[str, ...]]:
    """Yields the kind, the seconds of an evaluation, their ratio to those without, and the passes of ReferenceNet."""
    for kind, times in found.items():
        ratio = statistics.median(b / a for a, b in zip(found["without"], times))
        passes = "0" if kind == "without" else f"{frames} ({frames * seconds:.2f})"
        yield kind, f"{statistics.median(times):.3f}", f"{ratio:.2f}", passes


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of the UNets, the smallest first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, median of {options.passes} alternating evaluations")
    print("| UNet | frames | calibration | evaluation (s) | ratio | passes of ReferenceNet (s) |")
    print("|---|---|---|---|---|---|")
    for name, channels, size, frames in CASES[: options.cases]:
        for row in rows(*measure(channels, size, frames, passes=options.passes), frames):
            print(f"| {name} | {frames} of {size}x{size} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
