"""One evaluation of the denoiser for positive and negative, beside the arithmetic of the official implementation.

Both run on the same UNet with the same kernels, alternately, on one CPU thread."""

import statistics

import torch
from _random_models import (
    CASES,
    PASSES,
    Step,
    Tokens,
    random_guidance,
    random_model,
    random_net,
    random_reference,
    use,
)
from torch import Tensor


def compare(channels: tuple[int, ...], size: int, frames: int) -> tuple[list[tuple[float, float]], float]:
    """Seconds of our passes and of the official arithmetic's, and the relative difference of their results."""
    model, reference = random_model(channels), random_reference(random_net(channels), size, size)
    step = Step(model, random_guidance(channels, frames, size, size))
    runs = {False: reference.run(model.model_sampling, keep=True), True: Tokens(reference)}

    def predict(official: bool) -> tuple[float, Tensor]:
        use(model, official)
        return step(runs[official])

    (_, ours), (_, theirs) = predict(False), predict(True)
    times = [(predict(False)[0], predict(True)[0]) for _ in range(PASSES)]
    return times, float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, median of {PASSES} alternating passes")
    print("| UNet | channels | frames | ours (s) | official arithmetic (s) | ratio | difference |")
    print("|---|---|---|---|---|---|---|")
    for name, channels, size, frames in CASES:
        times, difference = compare(channels, size, frames)
        ours, theirs = (statistics.median(seconds) for seconds in zip(*times))
        ratio = statistics.median(b / a for a, b in times)
        clip = f"{frames} of {size}x{size}"
        print(f"| {name} | {channels} | {clip} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
