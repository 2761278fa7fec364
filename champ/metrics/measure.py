"""All metrics of a clip against the true one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..progress import advance
from . import images, perceptual

Table = dict[str, dict[str, float]]  # metric -> part of the picture -> value

VGG_FILE, LPIPS_FILE = "vgg16-397923af.pth", "lpips_vgg.pth"
I3D_FILE, RESNET_FILE = "i3d_pretrained_400.pt", "resnet-50-kinetics.pth"

# For each protocol, the names of the metrics and how it computes them.
PROTOCOLS = {
    "clean": {"L1": images.l1, "PSNR": images.psnr, "SSIM": images.ssim},
    "benchmark": {
        "L1": images.benchmark_l1,
        "PSNR": images.benchmark_psnr,
        "PSNR*": images.benchmark_psnr_star,
        "SSIM": images.benchmark_ssim,
    },
}
# The metrics that need networks: their loaders, and their files.
NETWORKS: dict[str, tuple[Callable[..., nn.Module], list[str]]] = {
    "LPIPS": (perceptual.load_lpips, [VGG_FILE, LPIPS_FILE]),
    "FID-VID": (perceptual.load_resnet3d, [RESNET_FILE]),
    "FVD": (perceptual.load_i3d, [I3D_FILE]),
}


def parts(person: Tensor | None) -> dict[str, Tensor | None]:
    """Returns the parts to measure: the whole picture, and with a mask (F, H, W) also the person and the background."""
    return {"whole": None} if person is None else {"whole": None, "person": person, "background": ~person}


def by_frames(made: Tensor, true: Tensor, person: Tensor | None, protocol: str) -> Table:
    """Computes the metrics without networks for uint8 clips (F, H, W, 3)."""
    images.check_pair(made, true, person)
    table: Table = {}
    for name, measure in (PROTOCOLS[protocol] | {"flicker": images.flicker}).items():
        table[name] = {}
        for part, mask in parts(person).items():
            table[name][part] = mean(_frame_by_frame(measure, made, true, mask))
    return table


def by_network(
    name: str, network: nn.Module, made: Tensor, true: Tensor, person: Tensor | None, protocol: str
) -> dict[str, float]:
    """Computes one of NETWORKS; the distances between videos use only the whole picture."""
    if name != "LPIPS":
        distance = perceptual.fvd if name == "FVD" else perceptual.fid_vid
        return {"whole": distance(network, made, true)}  # type: ignore[operator]
    benchmark = protocol == "benchmark"
    return {
        part: mean(perceptual.lpips(network, made, true, mask, benchmark=benchmark))  # type: ignore
        for part, mask in parts(person).items()
    }


def mean(values: Tensor) -> float:
    """Averages over the frames that have a value; infinite (PSNR) only if all frames are equal."""
    finite = values[values.isfinite()]
    return float(finite.mean() if len(finite) else values.nanmean())


def _frame_by_frame(measure: images.ImageMeasure, made: Tensor, true: Tensor, mask: Tensor | None) -> Tensor:
    """A measure of every frame, or of every frame and the next."""
    values = []
    reach = 2 if measure is images.flicker else 1
    for i in range(len(made)):
        here = slice(i, i + reach)
        values.append(measure(made[here], true[here], None if mask is None else mask[here]))
        advance(i + 1, len(made))
    return torch.cat(values)
