"""BlazePose's networks: people in a picture, 33 points of one person, 21 of a hand, 468 of a face.

All are small: a separable convolution is a depthwise one, which looks at each channel alone, and a 1x1 after it. Batch
normalisation is in the weights, which tools/bake_blazepose.py takes from the published files: layers of the same shape
are in the order in which these compute one output after another."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

FILE = Path(__file__).parents[2] / "assets" / "blazepose.safetensors"
BATCH = 16  # crops at once
PERSON, BODY, HAND, FACE = 224, 256, 224, 192  # pixels, of the square that each network takes
POINTS = 39  # 33 of a person, two for the crop of the next frame, four that are not used here
HAND_POINTS, FACE_POINTS = 21, 468
# EfficientNet-Lite0 up to its last block: kernel, stride and number of the blocks of each width after the first.
STAGES = ((3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4))


class Conv(nn.Conv2d):
    """A convolution whose output has the input's size divided by the stride.

    With stride 2 TensorFlow begins at the first pixel and looks beyond the last; `centred` is as in PyTorch."""

    def __init__(self, width: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, centred: bool = False):
        late = stride > 1 and not centred
        # To begin later than padding on both sides does, one row and one column are computed too many and dropped.
        padding = (kernel - stride) // 2 + stride if late else kernel // 2
        super().__init__(width, out, kernel, stride, padding, groups=groups)
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y[..., 1:, 1:] if self.late else y


def relu6(x: Tensor) -> Tensor:
    """Applies ReLU6 in place, which saves a fifth of the time on a CPU."""
    return F.relu6(x, inplace=True)


def depthwise(width: int, kernel: int = 3, stride: int = 1, centred: bool = False) -> Conv:
    return Conv(width, width, kernel, stride, width, centred)


class Bottleneck(nn.Module):
    """Widens, looks around and narrows; what came in is added where it has the same size."""

    def __init__(self, width: int, inner: int, out: int, kernel: int, stride: int, centred: bool):
        super().__init__()
        self.expand = Conv(width, inner)
        self.depth = depthwise(inner, kernel, stride, centred)
        self.project = Conv(inner, out)
        self.added = width == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(relu6(self.depth(relu6(self.expand(x)))))
        return x + y if self.added else y


class Features(NamedTuple):
    """Of the size of the picture divided by 4, 8, 16 and 32."""

    quarter: Tensor
    eighth: Tensor
    sixteenth: Tensor
    last: Tensor


class EfficientNet(nn.Module):
    """EfficientNet-Lite0 of six widths."""

    def __init__(self, widths: Sequence[int], centred: bool):
        super().__init__()
        self.stem = Conv(3, 24, 3, 2, centred=centred)
        self.depth = depthwise(24)
        self.project = Conv(24, widths[0])
        self.stages = nn.ModuleList()
        for number, (kernel, stride, count) in enumerate(STAGES):
            width, out = widths[number : number + 2]
            first = Bottleneck(width, width * (6 if number else 4), out, kernel, stride, centred)
            others = [Bottleneck(out, 6 * out, out, kernel, 1, centred) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *others))
        self.expand = Conv(widths[-1], 6 * widths[-1])
        self.last = depthwise(6 * widths[-1])

    def forward(self, x: Tensor) -> Features:
        x = self.project(relu6(self.depth(relu6(self.stem(x)))))
        quarter = self.stages[0](x)
        eighth = self.stages[1](quarter)
        sixteenth = self.stages[3](self.stages[2](eighth))
        last = relu6(self.last(relu6(self.expand(self.stages[4](sixteenth)))))
        return Features(quarter, eighth, sixteenth, last)


class Separable(nn.Module):
    """`between`: whether there is a ReLU6 between its two convolutions. There is none after them."""

    def __init__(self, width: int, out: int, stride: int = 1, between: bool = True, centred: bool = False):
        super().__init__()
        self.depth = depthwise(width, 3, stride, centred)
        self.point = Conv(width, out)
        self.between, self.stride = between, stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(x)
        return self.point(relu6(y) if self.between else y)


def smaller(x: Tensor, stride: int) -> Tensor:
    return F.max_pool2d(x, stride) if stride > 1 else x


class Residual(Separable):
    """A separable convolution that is added to what came in, made smaller as it is, and then a ReLU6."""

    def __init__(self, width: int, stride: int = 1, between: bool = True):
        super().__init__(width, width, stride, between)

    def forward(self, x: Tensor) -> Tensor:
        return relu6(smaller(x, self.stride) + super().forward(x))


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def to_squares(x: Tensor) -> Tensor:
    """Moves quarters of the channels to squares of 2x2 pixels; PyTorch's pixel_shuffle takes neighbours of four
    channels."""
    count, width, rows, columns = x.shape
    x = x.view(count, 2, 2, width // 4, rows, columns).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(count, width // 4, 2 * rows, 2 * columns)


class PersonDetector(nn.Module):
    """People of any size: crops (N, 3, 224, 224) in -1..1 to boxes with four points (N, 2254, 12), in pixels from the
    anchors, and the logits of their scores (N, 2254)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNet((16, 24, 40, 80, 112, 192), centred=True)
        self.lateral = nn.ModuleList([Separable(112, 192, between=False), Separable(40, 96, between=False)])
        self.narrow = nn.ModuleList([Conv(1152, 192), Conv(192, 96)])
        self.refine = nn.ModuleList(
            nn.Sequential(Residual(width, between=False), Residual(width, between=False)) for width in (192, 96)
        )
        heads = ((24, 2), (48, 2), (288, 6))  # channels and anchors of each pixel, finest first
        self.boxes = nn.ModuleList(Separable(w, 12 * n, 2, between=False, centred=True) for w, n in heads)
        self.scores = nn.ModuleList(Separable(w, n, 2, between=False, centred=True) for w, n in heads)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(crops)
        levels = [features.last]
        for lateral, narrow, refine, beside in zip(
            self.lateral, self.narrow, self.refine, (features.sixteenth, features.eighth)
        ):
            # The 1x1 convolution comes before the enlarging, which is the same and less to do.
            x = relu6(twice(narrow(levels[0]))) + relu6(lateral(beside))
            levels.insert(0, refine(x))
        levels = [to_squares(level) for level in levels]

        def flat(heads: nn.ModuleList, numbers: int) -> Tensor:
            maps = [head(level).permute(0, 2, 3, 1) for head, level in zip(heads, levels)]
            return torch.cat([m.reshape(len(crops), -1, numbers) for m in maps], dim=1)

        return flat(self.boxes, 12), flat(self.scores, 1)[..., 0]


class SeenBody(NamedTuple):
    """The output for one person in each crop."""

    points: Tensor  # (N, 39, 5) x, y, z in pixels of the crop, logits of being visible and of being in the crop
    presence: Tensor  # (N,) 0..1 of somebody being there
    heat: Tensor  # (N, 39, 64, 64) logits of where the points are
    world: Tensor  # (N, 39, 3) metres from the middle of the hips, as the crop is turned: x right, y down, z away


class BodyPoints(nn.Module):
    """The points of a person who fills crops (N, 3, 256, 256) in 0..1, hips in the middle, upright."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNet((16, 24, 32, 64, 88, 144), centred=True)
        self.narrow = Separable(864, 288)
        blocks = [Residual(288, stride) for stride in (2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.points, self.world, self.presence = (nn.Conv2d(288, n, 2) for n in (5 * POINTS, 3 * POINTS, 1))
        self.lateral = nn.ModuleList(Separable(width, 48) for width in (864, 88, 32, 24))
        self.heat = Conv(48, POINTS)

    def forward(self, crops: Tensor) -> SeenBody:
        features = self.backbone(crops)
        coarse, *others = (features.last, features.sixteenth, features.eighth, features.quarter)
        fine = relu6(self.lateral[0](coarse))
        for lateral, beside in zip(self.lateral[1:], others):
            fine = twice(fine) + relu6(lateral(beside))
        x = self.blocks(relu6(self.narrow(coarse)))
        points, world = self.points(x).view(-1, POINTS, 5), self.world(x).view(-1, POINTS, 3)
        return SeenBody(points, self.presence(x).sigmoid().view(-1), self.heat(fine), world)


class HandPoints(nn.Module):
    """Crops (N, 3, 224, 224) in 0..1 to 21 points (N, 21, 3) in their pixels and whether a hand is there (N,) 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNet((16, 24, 40, 80, 112, 192), centred=False)
        self.presence = nn.Linear(1152, 1)
        self.points = nn.Linear(1152, 3 * HAND_POINTS)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(crops).last.mean((2, 3))
        return self.points(x).view(-1, HAND_POINTS, 3), self.presence(x).sigmoid().view(-1)


def with_channels(x: Tensor, width: int) -> Tensor:
    """Adds channels of zeros."""
    return F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1]))


class FaceBlock(Separable):
    def __init__(self, width: int, out: int, stride: int = 1):
        super().__init__(width, out, stride, between=False)
        self.act = nn.PReLU(out)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return self.act(y + with_channels(smaller(x, self.stride), y.shape[1]))


class FacePoints(nn.Module):
    """Crops (N, 3, 192, 192) in 0..1 to 468 points (N, 468, 3) in their pixels and whether it is a face (N,) 0..1."""

    def __init__(self) -> None:
        super().__init__()
        widths, blocks = (16, 16, 32, 64, 128, 128), []
        for number, (width, out) in enumerate(zip(widths, widths[1:])):
            blocks += [FaceBlock(width, out, 2 if number else 1), FaceBlock(out, out)]
            if number:
                blocks.append(FaceBlock(out, out))
        self.blocks = nn.Sequential(Conv(3, 16, 3, 2), nn.PReLU(16), *blocks)

        def head(count: int, numbers: int) -> nn.Sequential:
            return nn.Sequential(
                FaceBlock(128, 128, 2), *(FaceBlock(128, 128) for _ in range(count)),
                Conv(128, 32), nn.PReLU(32), FaceBlock(32, 32), nn.Conv2d(32, numbers, 3),
            )  # fmt: skip

        self.points, self.presence = head(2, 3 * FACE_POINTS), head(0, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(crops)
        return self.points(x).view(-1, FACE_POINTS, 3), self.presence(x).sigmoid().view(-1)


class BlazePoseNetworks(nn.Module):
    """All four, for crops as they are cut from pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.person, self.body, self.hand, self.face = PersonDetector(), BodyPoints(), HandPoints(), FacePoints()

    @torch.inference_mode()
    def see(self, name: str, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one of the networks on uint8 crops (size, size, 3)."""
        network = getattr(self, name)
        weight = next(network.parameters())
        outputs = []
        for start in range(0, len(crops), BATCH):
            batch = torch.from_numpy(np.stack(crops[start : start + BATCH])).to(weight.device)
            batch = batch.permute(0, 3, 1, 2).to(weight.dtype).div_(255)  # channels stay last in memory
            found = network(batch.mul_(2).sub_(1) if name == "person" else batch)
            outputs.append([values.float().cpu().numpy() for values in found])
        return [np.concatenate(parts) for parts in zip(*outputs)]


def read_networks(file: Path = FILE) -> BlazePoseNetworks:
    """Reads the networks with the weights of the pack, in float32 on the CPU."""
    networks = BlazePoseNetworks()
    networks.load_state_dict(load_file(file))
    return networks.eval().requires_grad_(False).to(memory_format=torch.channels_last)
