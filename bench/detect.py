"""Time of finding one person and the keypoints in a frame at full network size, through OpenCV and TorchScript.

The networks are stand-ins: the layers of YOLOX-L and of the RTMPose-l that DWPose uses, with random weights, because
speed does not depend on what they learnt. OpenCV reads ONNX files; writing them here needs the package onnx.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from champ.estimate.detect import decode, letterbox, suppress
from champ.estimate.dwpose import HEIGHT, POINTS, WIDTH, crop
from champ.estimate.dwpose import decode as decode_simcc
from champ.estimate.network import read_network

PASSES = 5


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class Bottleneck(nn.Module):
    """YOLOX: 1x1, 3x3. CSPNeXt (`deep`): 3x3, 5x5 for each channel, 1x1."""

    def __init__(self, channels: int, add: bool, deep: bool):
        super().__init__()
        second = [conv(channels, channels, 5, groups=channels), conv(channels, channels)] if deep else []
        self.layers = nn.Sequential(
            conv(channels, channels, 3 if deep else 1), *(second or [conv(channels, channels, 3)])
        )
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.add else self.layers(x)


class Attention(nn.Module):
    """Of CSPNeXt: a weight for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x)


class Stage(nn.Module):
    """Cross-stage partial: half of the channels go through the bottlenecks."""

    def __init__(self, inputs: int, outputs: int, depth: int, add: bool = True, deep: bool = False):
        super().__init__()
        half = outputs // 2
        self.short, self.long = conv(inputs, half), conv(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, add, deep) for _ in range(depth)))
        self.last = nn.Sequential(Attention(outputs) if deep else nn.Identity(), conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.blocks(self.long(x)), self.short(x)], dim=1))


class Pyramid(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.first, self.last = conv(channels, channels // 2), conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))


def backbone(depths: tuple[int, ...], deep: bool) -> nn.ModuleList:
    """From a stem's 64 channels to 1024 in four stages, each half the size of the one before."""
    stages = nn.ModuleList()
    for i, depth in enumerate(depths):
        inputs, outputs, last = 64 << i, 128 << i, i == 3
        pyramid = [Pyramid(outputs)] if last else []
        stage = Stage(outputs, outputs, depth, add=not last, deep=deep)
        stages.append(nn.Sequential(conv(inputs, outputs, 3, 2), *pyramid, stage))
    return stages


class Head(nn.Module):
    """Of YOLOX: class and box in branches of their own."""

    def __init__(self, channels: int):
        super().__init__()
        self.stem = conv(channels, 256)
        self.classes, self.boxes = (nn.Sequential(conv(256, 256, 3), conv(256, 256, 3)) for _ in range(2))
        self.score, self.box, self.object = nn.Conv2d(256, 80, 1), nn.Conv2d(256, 4, 1), nn.Conv2d(256, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        boxes = self.boxes(x)
        parts = [self.box(boxes), self.object(boxes).sigmoid(), self.score(self.classes(x)).sigmoid()]
        return torch.cat(parts, dim=1).flatten(2)


class YoloX(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.stages = conv(12, 64, 3), backbone((3, 9, 9, 3), deep=False)
        self.lateral, self.reduce = conv(1024, 512), conv(512, 256)
        self.up = nn.ModuleList([Stage(1024, 512, 3, add=False), Stage(512, 256, 3, add=False)])
        self.down = nn.ModuleList([Stage(512, 512, 3, add=False), Stage(1024, 1024, 3, add=False)])
        self.strided = nn.ModuleList([conv(256, 256, 3, 2), conv(512, 512, 3, 2)])
        self.heads = nn.ModuleList(Head(channels) for channels in (256, 512, 1024))

    def forward(self, images: Tensor) -> Tensor:
        corners = [images[..., ::2, ::2], images[..., 1::2, ::2], images[..., ::2, 1::2], images[..., 1::2, 1::2]]
        x = self.stem(torch.cat(corners, dim=1))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        _, fine, middle, coarse = features
        coarse = self.lateral(coarse)
        middle = self.reduce(self.up[0](torch.cat([interpolate(coarse, scale_factor=2.0), middle], dim=1)))
        fine = self.up[1](torch.cat([interpolate(middle, scale_factor=2.0), fine], dim=1))
        middle = self.down[0](torch.cat([self.strided[0](fine), middle], dim=1))
        coarse = self.down[1](torch.cat([self.strided[1](middle), coarse], dim=1))
        return torch.cat([head(x) for head, x in zip(self.heads, (fine, middle, coarse))], dim=2).transpose(1, 2)


class GatedAttention(nn.Module):
    """Of RTMPose's head: 133 tokens of 256 numbers, squared positive parts of the products as weights."""

    def __init__(self, width: int = 256, key: int = 128):
        super().__init__()
        self.inward, self.outward = (
            nn.Linear(width, 4 * width + key, bias=False),
            nn.Linear(2 * width, width, bias=False),
        )
        self.gamma, self.beta = nn.Parameter(torch.rand(2, key)), nn.Parameter(torch.rand(2, key))
        self.norm, self.split = Scale(), [2 * width, 2 * width, key]

    def forward(self, x: Tensor) -> Tensor:
        u, v, base = silu(self.inward(self.norm(x))).split(self.split, dim=-1)
        query, key = base * self.gamma[0] + self.beta[0], base * self.gamma[1] + self.beta[1]
        weights = (query @ key.transpose(1, 2) / 11.3137).relu().square()
        return x + self.outward(u * (weights @ v))


class Scale(nn.Module):
    """Divides a token by its length."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)


class RtmPose(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 32, 3, 2), conv(32, 32, 3), conv(32, 64, 3))
        self.stages = nn.Sequential(*backbone((3, 6, 6, 3), deep=True))
        self.points = nn.Conv2d(1024, POINTS, 7, padding=3)
        self.tokens = nn.Sequential(Scale(), nn.Linear(WIDTH * HEIGHT // 32**2, 256, bias=False), GatedAttention())
        self.x, self.y = nn.Linear(256, 2 * WIDTH, bias=False), nn.Linear(256, 2 * HEIGHT, bias=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(self.points(self.stages(self.stem(crops))).flatten(2))
        return self.x(tokens), self.y(tokens)


def clock(call: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def write(network: nn.Module, shape: tuple[int, ...], file: Path) -> None:
    example = torch.rand(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if file.suffix == ".onnx":
            torch.onnx.export(network, (example,), str(file), opset_version=11, dynamo=False)
        else:
            torch.jit.trace(network, example).save(str(file))


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    picture = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    square, box = letterbox(picture)[0], np.array([400, 50, 700, 700, 0.9])
    person = crop(picture, box)
    networks = {"YOLOX-L": (YoloX(), square[None]), "DWPose": (RtmPose(), person[None])}
    for name, (network, _) in networks.items():
        network.eval()
        print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} million parameters, random")
    found = np.zeros((1, 8400, 85), dtype=np.float32)
    found[0, 8200:8240, 4:6] = 1  # as many cells as a real person makes answer
    simcc = [np.random.rand(1, POINTS, 2 * length) for length in (WIDTH, HEIGHT)]

    def around() -> None:
        letterbox(picture)
        suppress(*decode(found))
        crop(picture, box)
        decode_simcc(simcc, box[None])

    calls: dict[tuple[str, str], Callable[[], object]] = {("boxes, crops, keypoints", "numpy and OpenCV"): around}
    with tempfile.TemporaryDirectory() as folder:
        for through, suffix in (("TorchScript", ".pt"), ("OpenCV", ".onnx")):
            for name, (network, pictures) in networks.items():
                file = Path(folder, name + suffix)
                try:
                    write(network, pictures.shape, file)
                except torch.onnx.OnnxExporterError as error:
                    print(f"\nOpenCV is left out: {error}")
                    break
                calls[name, through] = partial(read_network(file), pictures)
    # Round by round, so that all of them get their share of what else the machine does.
    rounds = [{key: clock(call) for key, call in calls.items()} for _ in range(1 + PASSES)][1:]
    print(f"\none person in 1280 x 720, CPU, one thread, OpenCV {cv2.__version__}, torch {torch.__version__}\n")
    print(f"| what | through | best of {PASSES} (ms) | median |\n|---|---|---|---|")
    for name, through in calls:
        spent = [times[name, through] for times in rounds]
        print(f"| {name} | {through} | {min(spent):.0f} | {np.median(spent):.0f} |")
    sums = {
        through: [sum(times[key] for key in calls if key[1] == through) for times in rounds]
        for through in ("TorchScript", "OpenCV")
    }
    print()
    for through, spent in sums.items():
        if min(spent) > 0:
            print(
                f"both networks through {through}: {min(spent):.0f} ms, {1000 / min(spent):.2f} frames a second at best"
            )
    ratios = [a / b for a, b in zip(sums["OpenCV"], sums["TorchScript"])]
    if min(ratios) > 0:
        print(f"OpenCV / TorchScript: {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
