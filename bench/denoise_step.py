"""One evaluation of the denoiser for positive and negative, beside the arithmetic of the official implementation.

    python dev.py bench denoise_step           # two small UNets
    python dev.py bench denoise_step --full    # the size of SD1.5, 512x512, and ours in bfloat16; 12 GB and 15 minutes

All run on the same weights with the same kernels, in turns, on one CPU thread; seconds are the processor's."""

import argparse
import statistics
import sys
from dataclasses import dataclass

import torch
from _memory import GB, peak
from _random_models import CASES, PASSES, Step, Tokens, random_guidance, random_model, random_net, random_reference, use
from torch import Tensor

SD15 = (320, 640, 1280, 1280)
OURS, OFFICIAL, BFLOAT16 = "ours", "official arithmetic", "ours, bfloat16"


@dataclass
class Kind:
    """One way to evaluate the denoiser."""

    step: Step
    run: object
    official: bool = False

    def __call__(self) -> tuple[float, Tensor]:
        use(self.step.model, self.official)
        return self.step(self.run)


def kinds(channels: tuple[int, ...], size: int, frames: int, half: bool) -> dict[str, Kind]:
    model, reference = random_model(channels), random_reference(random_net(channels), size, size)
    step = Step(model, random_guidance(channels, frames, size, size))
    found = {
        OURS: Kind(step, reference.run(model.model_sampling, keep=True)),
        OFFICIAL: Kind(step, Tokens(reference), official=True),
    }
    if half:
        copy = random_model(channels, torch.bfloat16)
        copy.diffusion_model.load_state_dict(model.diffusion_model.state_dict())
        found[BFLOAT16] = Kind(step.on(copy), reference.run(copy.model_sampling, keep=True))
    return found


def compare(name: str, channels: tuple[int, ...], size: int, frames: int, passes: int, half: bool) -> None:
    """Prints a line for each kind."""
    todo = kinds(channels, size, frames, half)
    memory, made = {}, {}
    for kind, evaluate in todo.items():  # the first evaluation does not count
        with peak(every=0.02) as memory[kind]:
            _, made[kind] = evaluate()
    times: dict[str, list[float]] = {kind: [] for kind in todo}
    for i in range(passes):
        for kind, evaluate in todo.items():
            times[kind].append(evaluate()[0])
            if half:  # a pass takes a minute
                print(f"{kind}, pass {i + 1}: {times[kind][-1]:.2f} s", file=sys.stderr, flush=True)
    for kind, seconds in times.items():
        ratio = statistics.median(b / a for a, b in zip(seconds, times[OFFICIAL]))
        difference = float((made[kind] - made[OFFICIAL]).norm() / made[OFFICIAL].norm())
        cells = (
            f"{statistics.median(seconds):.2f}",
            f"{ratio:.2f}",
            f"{difference:.0e}",
            f"{memory[kind].own / GB:.2f}",
        )
        print(f"| {name} | {frames} of {size}x{size} | {kind} | {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the size of SD1.5 instead of small ones")
    parser.add_argument("--frames", type=int, default=2, help="with --full")
    parser.add_argument("--passes", type=int, default=PASSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, median of {options.passes} passes in turns")
    print("| UNet | clip | | s | times as fast | difference | working memory (GB) |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, channels, size, frames in [("SD1.5", SD15, 512, options.frames)] if options.full else CASES:
        compare(name, channels, size, frames, options.passes, options.full)


if __name__ == "__main__":
    main()
