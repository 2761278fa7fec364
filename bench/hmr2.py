"""HMR2 at its full size with random weights, beside the arithmetic of 4D-Humans, and the transfer of a person's shape.

4D-Humans cannot be installed beside a present torch, so its steps are made again here: scipy's blur of the whole
picture, channel by channel, and OpenCV's warp of it; the network called for one crop after another, in float32, with a
softmax that is written out. Both share one set of weights. On the CPU everything runs on one thread, and its time is
that of the processor, which others at work on the machine do not lengthen.

The paper gives 0.06 s and 3.24 GB of graphics memory for its parametric shape transfer."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import psutil
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from champ.body.free import free_body_betas, load_free_body
from champ.estimate import hmr2
from champ.estimate.crops import MEAN, STD, Square, crop_square
from champ.estimate.hmr2 import HMR2Net, HMR2Sizes
from champ.motion.presets import make_motion
from champ.motion.transfer import transfer

OFFICIAL = HMR2Sizes(1280, 32, 5120, 16, 1024, 6, 1024, 512, 8)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOCK = time.perf_counter if DEVICE.type == "cuda" else time.process_time
PASSES = 3
# Type and crops at a time of our passes.
OURS = [(torch.float32, 16), (torch.float16, 16), (torch.bfloat16, 16)] if DEVICE.type == "cuda" else [
    (torch.float32, 1), (torch.bfloat16, 1)
]  # fmt: skip
FRAMES = 240


def seconds(call: Callable[[], object], passes: int) -> float:
    times = []
    for _ in range(passes):
        start = CLOCK()
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(CLOCK() - start)
    return statistics.median(times)


def written_out(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(-2)


def random_network() -> HMR2Net:
    net = HMR2Net(OFFICIAL, device="meta").to_empty(device="cpu")
    noise = torch.randn(1 << 20)
    for name, values in net.state_dict().items():
        if values.ndim > 1:
            flat = values.view(-1)
            for start in range(0, len(flat), len(noise)):
                part = flat[start : start + len(noise)]
                part.copy_(noise[: len(part)] * values[0].numel() ** -0.5)
        else:
            values.fill_(name.endswith("weight"))
    return net.to(DEVICE).requires_grad_(False)


def networks() -> None:
    net, crops = random_network(), torch.randn(16, 3, 256, 256, device=DEVICE)
    ours = hmr2.multi_head

    def run(attention: Callable, batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        hmr2.multi_head = attention
        return net(crops[:batch].to(dtype)).rotations

    theirs = run(written_out)
    print(f"\none crop through the network, on {torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'the CPU'}")
    print("| ours | crops at a time | s per crop | official, float32, one crop (s) | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    official: list[float] = []
    for dtype, batch in OURS:
        net.to(dtype)
        off = (run(ours, batch, dtype)[:1] - theirs).abs().max().item()
        times = []
        for _ in range(PASSES):
            times.append(seconds(partial(run, ours, batch, dtype), 1) / batch)
            if dtype == torch.float32:
                official.append(seconds(partial(run, written_out), 1))
        spent, beside = statistics.median(times), statistics.median(official)
        name = str(dtype).removeprefix("torch.")
        print(f"| {name} | {batch} | {spent:.3f} | {beside:.3f} | {beside / spent:.2f} | {off:.0e} |", flush=True)


def official_crop(picture: np.ndarray, square: Square) -> np.ndarray:
    sigma = (square.size / 512 - 1) / 2
    seen = picture.astype(np.float64)
    if square.size / 512 > 1.1:
        seen = np.stack([gaussian_filter(seen[..., c], sigma, mode="nearest") for c in range(3)], axis=2)
    scale = 256 / square.size
    matrix = np.array([[scale, 0, 128 - scale * square.x], [0, scale, 128 - scale * square.y]])
    return (cv2.warpAffine(seen, matrix, (256, 256)).transpose(2, 0, 1) - MEAN[:, None, None]) / STD[:, None, None]


def crops() -> None:
    print("\ncutting and blurring one crop (CPU)")
    print("| picture | square | ours (ms) | official (ms) | ratio | largest difference |\n|---|---|---|---|---|---|")
    for (width, height), size in (((512, 768), 700.0), ((1920, 1080), 500.0), ((1920, 1080), 1000.0)):
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        square = Square(width / 2, height / 2, size)
        off = np.abs(crop_square(picture, square).numpy() - official_crop(picture, square)).max()
        ours, theirs = (1000 * seconds(partial(cut, picture, square), 7) for cut in (crop_square, official_crop))
        name = f"{width}x{height} | {size:.0f}"
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} | {off:.3f} |")


def shape_transfer() -> None:
    body = load_free_body()
    driving = make_motion("walk", body, FRAMES, 30.0, travel=True)
    person = body.with_betas(free_body_betas(gender=1.0, height=1.6))
    reference = make_motion("turntable", person, 1, 30.0)
    spent = seconds(lambda: transfer(driving, reference, body), 7)
    memory = psutil.Process().memory_info().rss / 1024**3
    print(f"shape and place of the reference put into {FRAMES} frames (CPU): {1000 * spent:.1f} ms, ", end="")
    print(f"{1e6 * spent / FRAMES:.0f} us a frame; the process has {memory:.2f} GB of main memory, torch included.")
    print("The paper: 60 ms and 3.24 GB of graphics memory.")


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, OpenCV {cv2.__version__}")
    shape_transfer()
    crops()
    networks()


if __name__ == "__main__":
    main()
