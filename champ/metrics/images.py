"""Image metrics, frame by frame: L1, PSNR, SSIM, flicker.

Pictures are uint8 (F, H, W, 3). A mask (F, H, W), true where it counts, restricts a metric to the person or, negated,
to the background. Everything is computed in float64.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ImageMeasure = Callable[[Tensor, Tensor, Tensor | None], Tensor]

WINDOW = 7  # pixels; SSIM's square window
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
IDENTICAL = 100.0  # the benchmark's PSNR of equal pictures


def l1(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of each frame, in grey levels divided by 255."""
    return _each(lambda a, b, m: _mean((a - b).abs(), m) / 255, made, true, mask)


def psnr(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """10 log10(255^2 / mean squared difference) of each frame in decibels, infinite for equal ones."""
    return _each(lambda a, b, m: 10 * torch.log10(255**2 / _mean((a - b) ** 2, m)), made, true, mask)


def ssim(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity of each frame: windows of 7x7 pixels inside the picture, the mean over the colours.

    With a mask the windows count whose middle is in it."""
    margin = WINDOW // 2

    def one(a: Tensor, b: Tensor, m: Tensor | None) -> Tensor:
        inner = None if m is None else m[margin:-margin, margin:-margin]
        return _mean(ssim_map(a, b), inner)

    return _each(one, made, true, mask)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Returns the SSIM of each window of two pictures (H, W, C), with the sample covariance: (H - 6, W - 6, C)."""
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"A picture of {a.shape[1]}x{a.shape[0]} pixels is too small for SSIM; use at least 7x7.")

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x.permute(2, 0, 1), WINDOW, stride=1).permute(1, 2, 0)

    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    ua, ub = mean(a), mean(b)
    va, vb, vab = (
        unbiased * (mean(x * y) - ux * uy) for x, y, ux, uy in ((a, a, ua, ua), (b, b, ub, ub), (a, b, ua, ub))
    )
    return (2 * ua * ub + C1) * (2 * vab + C2) / ((ua**2 + ub**2 + C1) * (va + vb + C2))


def flicker(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Difference of the frame-to-frame changes, for all frames but the last: mean |(a[t+1] - a[t]) - (b[t+1] - b[t])| /
    255."""
    check_pair(made, true, mask)

    def change(clip: Tensor, t: int) -> Tensor:
        return clip[t + 1].double() - clip[t].double()

    values = [
        _mean((change(made, t) - change(true, t)).abs(), None if mask is None else mask[t] & mask[t + 1]) / 255
        for t in range(len(made) - 1)
    ]
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)


def benchmark_l1(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """The benchmark's L1: the mean difference in grey levels, divided by the number of pixels; it falls with the
    picture size."""
    pixels = true.shape[1] * true.shape[2]
    return l1(made, true, mask) * 255 / pixels


def benchmark_psnr(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """PSNR as the benchmark computed it until April 2024: differences and their squares overflow in 8 bits."""

    def one(a: Tensor, b: Tensor, m: Tensor | None) -> Tensor:
        wrapped = (a - b).remainder(256) ** 2 % 256
        error = _mean(wrapped, m)
        return error.new_tensor(IDENTICAL) if error == 0 else 20 * torch.log10(255 / error.sqrt())

    return _each(one, made, true, mask)


def benchmark_psnr_star(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """The benchmark's PSNR without the overflow, which papers mark with a star; 100 for equal frames."""
    values = psnr(made, true, mask)
    return values.masked_fill(values.isinf(), IDENTICAL)


def benchmark_ssim(made: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """The benchmark's SSIM: of the grey pictures."""

    def grey(clip: Tensor) -> Tensor:
        frames = [cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2GRAY) for frame in clip.cpu()]
        return torch.from_numpy(np.stack(frames))[..., None]

    return ssim(grey(made), grey(true), mask)


def check_pair(made: Tensor, true: Tensor, mask: Tensor | None = None) -> None:
    if made.shape != true.shape:
        raise ValueError(
            f"The pictures to measure are {_size(made)} and the true ones {_size(true)}; connect clips with as many "
            "frames of the same size."
        )
    if mask is not None and mask.shape != made.shape[:3]:
        raise ValueError(
            f"The mask is {tuple(mask.shape)} (frames, height, width) but the pictures are {tuple(made.shape[:3])}; "
            "connect one mask for each picture, of the same size."
        )


def iou(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of each of the silhouettes (F, H, W)."""
    return (found & true).sum((1, 2)) / (found | true).sum((1, 2))


def _each(measure: ImageMeasure, made: Tensor, true: Tensor, mask: Tensor | None) -> Tensor:
    check_pair(made, true, mask)
    masks = [None] * len(made) if mask is None else list(mask)
    return torch.stack([measure(a.double(), b.double(), m) for a, b, m in zip(made, true, masks)])


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Averages over pixels and colours; NaN if the mask is empty."""
    return values.mean() if mask is None else values[mask].mean()


def _size(clip: Tensor) -> str:
    return f"{len(clip)} of {clip.shape[2]}x{clip.shape[1]}"
