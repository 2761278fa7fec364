"""Speed of the synthetic people on one thread, beside the render pass alone: the four maps of the same motions.

Processor time, not time on the clock, so that a busy machine counts less; a sample also draws its reference picture.
"""

import time
from collections.abc import Callable

import torch

from champ.people.samples import SyntheticPeople
from champ.render.guidance import render_guidance

CLIPS = ((128, 1, 24), (128, 24, 2), (256, 24, 1))  # size, frames, samples
PASSES = 3


def seconds(call: Callable[[], object]) -> float:
    """Of the fastest pass."""
    call()
    spent = []
    for _ in range(PASSES):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent)


def row(size: int, frames: int, count: int) -> str:
    people = SyntheticPeople(size, frames=frames)
    samples = [people.sample(i) for i in range(count)]
    ours = seconds(lambda: [people.sample(i) for i in range(count)]) / count
    maps = seconds(lambda: [render_guidance(sample.body, sample.motion) for sample in samples]) / count
    rates = f"{frames / ours:.0f} | {(frames + 1) / ours:.0f} | {frames / maps:.0f}"
    return f"| {size} | {frames} | {1000 * ours:.0f} | {rates} | {ours / maps:.2f} |"


def main() -> None:
    torch.set_num_threads(1)
    print(f"CPU, one thread, torch {torch.__version__}, best of {PASSES}\n")
    print("| size | frames a sample | ms a sample | frames/s | pictures/s | maps alone, frames/s | time / maps alone |")
    print("|---|---|---|---|---|---|---|")
    for clip in CLIPS:
        print(row(*clip))


if __name__ == "__main__":
    main()
