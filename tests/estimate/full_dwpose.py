"""YOLOX and RTMPose as torch modules whose layers have the official names, in any width and depth: what the tests and
the benchmark trace, export and save in the layouts of the published files.

    python -m tests.estimate.full_dwpose

writes the small ONNX files of tests/data/networks (needs the package onnx)."""

import lzma
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from champ.estimate.onnx import _Reader

DATA = Path(__file__).parents[1] / "data" / "networks"


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, eps: float = 1e-5):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Pyramid(nn.Module):
    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.conv1 = Block(channels, channels // 2, eps=eps)
        self.conv2 = Block(channels // 2 * 4, channels, eps=eps)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1))


class Bottleneck(nn.Module):
    """Of YOLOX."""

    def __init__(self, channels: int, add: bool):
        super().__init__()
        self.conv1, self.conv2 = Block(channels, channels, eps=1e-3), Block(channels, channels, 3, eps=1e-3)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + x if self.add else y


class Stage(nn.Module):
    """Of YOLOX."""

    def __init__(self, inputs: int, outputs: int, depth: int, add: bool = False):
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2 = Block(inputs, half, eps=1e-3), Block(inputs, half, eps=1e-3)
        self.conv3 = Block(2 * half, outputs, eps=1e-3)
        self.m = nn.Sequential(*(Bottleneck(half, add) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))


class Focus(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv = Block(12, outputs, 3, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(corners, dim=1))


class Darknet(nn.Module):
    def __init__(self, width: float, depth: float):
        super().__init__()
        base, deep = int(64 * width), max(round(3 * depth), 1)
        self.stem = Focus(base)
        for i, (times, count) in enumerate(((2, deep), (4, 3 * deep), (8, 3 * deep), (16, deep))):
            channels, last = base * times, i == 3
            down = Block(channels // 2, channels, 3, 2, eps=1e-3)
            middle = [Pyramid(channels, 1e-3)] if last else []
            self.add_module(f"dark{i + 2}", nn.Sequential(down, *middle, Stage(channels, channels, count, not last)))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.dark2(self.stem(x))]
        for stage in (self.dark3, self.dark4, self.dark5):
            features.append(stage(features[-1]))
        return features[1:]


class Fpn(nn.Module):
    def __init__(self, width: float, depth: float):
        super().__init__()
        fine, middle, coarse = (int(channels * width) for channels in (256, 512, 1024))
        count = round(3 * depth)
        self.backbone = Darknet(width, depth)
        self.lateral_conv0, self.C3_p4 = Block(coarse, middle, eps=1e-3), Stage(2 * middle, middle, count)
        self.reduce_conv1, self.C3_p3 = Block(middle, fine, eps=1e-3), Stage(2 * fine, fine, count)
        self.bu_conv2, self.C3_n3 = Block(fine, fine, 3, 2, eps=1e-3), Stage(2 * fine, middle, count)
        self.bu_conv1, self.C3_n4 = Block(middle, middle, 3, 2, eps=1e-3), Stage(2 * middle, coarse, count)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.backbone(x)
        coarse = self.lateral_conv0(coarse)
        middle = self.C3_p4(torch.cat([interpolate(coarse, scale_factor=2.0), middle], dim=1))
        middle = self.reduce_conv1(middle)
        fine = self.C3_p3(torch.cat([interpolate(middle, scale_factor=2.0), fine], dim=1))
        middle = self.C3_n3(torch.cat([self.bu_conv2(fine), middle], dim=1))
        return fine, middle, self.C3_n4(torch.cat([self.bu_conv1(middle), coarse], dim=1))


class Head(nn.Module):
    """Of YOLOX: class and box in branches of their own."""

    def __init__(self, width: float, classes: int, decoded: bool):
        super().__init__()
        inner, self.decoded = int(256 * width), decoded

        def branch() -> nn.Sequential:
            return nn.Sequential(Block(inner, inner, 3, eps=1e-3), Block(inner, inner, 3, eps=1e-3))

        self.stems = nn.ModuleList(Block(int(c * width), inner, eps=1e-3) for c in (256, 512, 1024))
        self.cls_convs, self.reg_convs = (nn.ModuleList(branch() for _ in range(3)) for _ in range(2))
        self.cls_preds, self.reg_preds, self.obj_preds = (
            nn.ModuleList(nn.Conv2d(inner, count, 1) for _ in range(3)) for count in (classes, 4, 1)
        )

    def forward(self, features: Iterable[Tensor]) -> Tensor:
        found = []
        for i, x in enumerate(features):
            x = self.stems[i](x)
            boxes = self.reg_convs[i](x)
            parts = [self.reg_preds[i](boxes), self.obj_preds[i](boxes).sigmoid()]
            found.append(torch.cat([*parts, self.cls_preds[i](self.cls_convs[i](x)).sigmoid()], dim=1))
        values = torch.cat([x.flatten(2) for x in found], dim=2).permute(0, 2, 1)
        return self.in_pixels(values, found) if self.decoded else values

    def in_pixels(self, values: Tensor, found: list[Tensor]) -> Tensor:
        """As YOLOX does it for those who ask for that, in the file itself."""
        grids, strides = [], []
        for x, stride in zip(found, (8, 16, 32)):
            rows, columns = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
            grids.append(torch.stack([columns, rows], dim=2).view(1, -1, 2))
            strides.append(torch.full((1, grids[-1].shape[1], 1), stride))
        grid, stride = torch.cat(grids, dim=1).type_as(values), torch.cat(strides, dim=1).type_as(values)
        centre, size = (values[..., :2] + grid) * stride, torch.exp(values[..., 2:4]) * stride
        return torch.cat([centre, size, values[..., 4:]], dim=-1)


class YoloX(nn.Module):
    def __init__(self, width: float = 1.0, depth: float = 1.0, classes: int = 80, decoded: bool = False):
        super().__init__()
        self.backbone, self.head = Fpn(width, depth), Head(width, classes, decoded)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Separable(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise_conv = Block(channels, channels, 5, groups=channels)
        self.pointwise_conv = Block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class NextBlock(nn.Module):
    def __init__(self, channels: int, add: bool):
        super().__init__()
        self.conv1, self.conv2, self.add = Block(channels, channels, 3), Separable(channels), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + x if self.add else y


class ChannelAttention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.pool, self.fc, self.act = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Hardsigmoid(True)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.act(self.fc(self.pool(x)))


class NextStage(nn.Module):
    def __init__(self, channels: int, depth: int, add: bool):
        super().__init__()
        half = channels // 2
        self.main_conv, self.short_conv = Block(channels, half), Block(channels, half)
        self.blocks = nn.Sequential(*(NextBlock(half, add) for _ in range(depth)))
        self.attention, self.final_conv = ChannelAttention(2 * half), Block(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        return self.final_conv(self.attention(joined))


class CspNext(nn.Module):
    def __init__(self, width: float, depth: float):
        super().__init__()
        base = int(64 * width)
        self.stem = nn.Sequential(Block(3, base // 2, 3, 2), Block(base // 2, base // 2, 3), Block(base // 2, base, 3))
        for i, count in enumerate((3, 6, 6, 3)):
            channels, last = base << (i + 1), i == 3
            middle = [Pyramid(channels, 1e-5)] if last else []
            stage = NextStage(channels, max(round(count * depth), 1), not last)
            self.add_module(f"stage{i + 1}", nn.Sequential(Block(channels // 2, channels, 3, 2), *middle, stage))

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return x


class ScaleNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.g, self.scale = nn.Parameter(torch.ones(1)), width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        length = torch.norm(x, dim=2, keepdim=True) * self.scale
        return x / length.clamp(min=1e-5) * self.g


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    def __init__(self, width: int, key: int):
        super().__init__()
        self.o, self.uv = nn.Linear(2 * width, width, bias=False), nn.Linear(width, 4 * width + key, bias=False)
        self.gamma, self.beta = nn.Parameter(torch.rand(2, key)), nn.Parameter(torch.rand(2, key))
        self.ln, self.res_scale, self.act_fn = ScaleNorm(width), Scale(width), nn.SiLU(True)
        self.split, self.root = [2 * width, 2 * width, key], key**0.5

    def forward(self, x: Tensor) -> Tensor:
        u, v, base = torch.split(self.act_fn(self.uv(self.ln(x))), self.split, dim=2)
        q, k = torch.unbind(base.unsqueeze(2) * self.gamma[None, None, :] + self.beta, dim=2)
        weights = torch.square(torch.relu(torch.bmm(q, k.permute(0, 2, 1)) / self.root))
        return self.res_scale(x) + self.o(u * torch.bmm(weights, v))


class SimccHead(nn.Module):
    def __init__(self, channels: int, points: int, size: tuple[int, int], width: int, key: int):
        super().__init__()
        pixels = (size[0] // 32) * (size[1] // 32)
        self.final_layer = nn.Conv2d(channels, points, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(pixels), nn.Linear(pixels, width, bias=False))
        self.gau = GatedAttention(width, key)
        self.cls_x, self.cls_y = (nn.Linear(width, 2 * length, bias=False) for length in size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.gau(self.mlp(torch.flatten(self.final_layer(x), 2)))
        return self.cls_x(x), self.cls_y(x)


class RtmPose(nn.Module):
    def __init__(
        self, width: float = 1.0, depth: float = 1.0, points: int = 133, size: tuple[int, int] = (288, 384),
        tokens: tuple[int, int] = (256, 128),
    ):  # fmt: skip
        super().__init__()
        self.backbone, self.head = CspNext(width, depth), SimccHead(int(1024 * width), points, size, *tokens)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.backbone(input))


def weights(shapes: dict[str, Iterable[int]]) -> dict[str, Tensor]:
    """The same numbers for a name and a shape everywhere, in the size that layers of such names have."""
    found = {}
    for name, shape in shapes.items():
        shape = tuple(shape)
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) > 1 and name.endswith("weight"):
            numbers = draw.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
            numbers *= 0.01 if "reg_preds" in name else 1  # sizes of boxes are exponents
        elif name.endswith(("running_var", "bn.weight", "scale", ".g")):
            numbers = draw.uniform(0.5, 1.5, shape)
        else:
            numbers = draw.normal(size=shape) * 0.1
        found[name] = torch.from_numpy(np.asarray(numbers, np.float32))
    return found


def filled(network: nn.Module) -> nn.Module:
    state = {name: value.shape for name, value in network.state_dict().items() if value.is_floating_point()}
    network.load_state_dict(weights(state), strict=False)
    return network.eval()


def traced(network: nn.Module, shape: tuple[int, ...], file: Path) -> Path:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.rand(shape), check_trace=False).save(str(file))
    return file


# The sizes of the golden data.
SIZE, WIDTH, HEIGHT = 96, 96, 128


def small_yolox(decoded: bool = False) -> nn.Module:
    return filled(YoloX(1 / 16, 1 / 3, classes=3, decoded=decoded))


def small_rtmpose() -> nn.Module:
    return filled(RtmPose(1 / 16, 1 / 6, points=7, size=(WIDTH, HEIGHT), tokens=(16, 8)))


def pictures(count: int, height: int, width: int) -> Tensor:
    drawn = np.random.default_rng(1).uniform(-2, 2, (count, 3, height, width))
    return torch.from_numpy(drawn.astype(np.float32))


def onnx_file(name: str) -> bytes:
    """An ONNX file of tests/data/networks, whose tensors are kept there without their numbers."""
    content = bytearray(lzma.decompress((DATA / f"{name}.onnx.xz").read_bytes()))
    reader = _Reader()
    graph = reader.message(reader.message(memoryview(content))[7][0])
    for tensor in map(reader.message, graph[5]):
        shape, raw = reader.ints(tensor[1]), tensor[9][0]
        if len(raw) >= 4 and reader.ints(tensor[2]) == [1] and not any(raw):
            key = bytes(tensor[8][0]).decode() + (".weight" if len(shape) > 1 else ".bias")
            raw[:] = weights({key: shape})[key].numpy().tobytes()
    return bytes(content)


def write_onnx() -> None:
    exports = {
        "yolox": (small_yolox(), (1, 3, SIZE, SIZE), None),
        "yolox_decoded": (small_yolox(decoded=True), (1, 3, SIZE, SIZE), {"input": {0: "batch"}}),
        "rtmpose": (small_rtmpose(), (1, 3, HEIGHT, WIDTH), {"input": {0: "batch"}}),
    }
    for name, (network, shape, axes) in exports.items():
        for parameter in network.parameters():
            if parameter.ndim > 1 and len(parameter) > 2:
                parameter.data.zero_()  # takes no room, and is filled in by onnx_file
        file = DATA / f"{name}.onnx"
        torch.onnx.export(network, (torch.rand(shape),), file, opset_version=11, dynamo=False, input_names=["input"],
                          dynamic_axes=axes)  # fmt: skip
        (DATA / f"{name}.onnx.xz").write_bytes(lzma.compress(file.read_bytes()))
        file.unlink()


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    write_onnx()
