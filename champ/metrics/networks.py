"""The networks behind LPIPS, FID-VID and FVD, with the names of the tensors in their published files.

VGG16 as in torchvision, I3D (arXiv 1705.07750) as in the PyTorch port of it, ResNet-50 in 3D (arXiv 1711.09577)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# VGG16's convolutions, by their numbers in torchvision, and the features that LPIPS compares: after the last of each
# group.
VGG = ((0, 3, 64), (2, 64, 64)), ((5, 64, 128), (7, 128, 128)), ((10, 128, 256), (12, 256, 256), (14, 256, 256)), \
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)), ((24, 512, 512), (26, 512, 512), (28, 512, 512))  # fmt: skip


class VGG16(nn.Module):
    """The five feature maps of VGG16 that LPIPS compares."""

    def __init__(self):
        super().__init__()
        self.features = nn.ModuleDict(
            {str(number): nn.Conv2d(a, b, 3, padding=1) for group in VGG for number, a, b in group}
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, group in enumerate(VGG):
            x = F.max_pool2d(x, 2) if i else x
            for number, _, _ in group:
                x = self.features[str(number)](x).relu()
            maps.append(x)
        return maps


def pad_as_tensorflow(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pads x with zeros to ceil(size / stride) results like TensorFlow: an odd zero goes to the end."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride))):
        total = max(k - (size % s or s), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Unit(nn.Module):
    """I3D's convolution, batch norm and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(channels, out, self.kernel, self.stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv3d(pad_as_tensorflow(x, self.kernel, self.stride))).relu()


class SamePool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_as_tensorflow(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and 3x3; pooling and 1x1."""

    def __init__(self, channels: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int):
        super().__init__()
        self.b0 = Unit(channels, b0)
        self.b1a, self.b1b = Unit(channels, b1a), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(channels, b2a), Unit(b2a, b2b, 3)
        self.b3a, self.b3b = SamePool((3, 3, 3), (1, 1, 1)), Unit(channels, b3b)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class I3D(nn.Sequential):
    """The 400 logits of Kinetics for clips (B, 3, T, 224, 224) in -1..1; FVD compares them."""

    def __init__(self):
        super().__init__()
        wide, all_ways = ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))
        layers = {
            "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
            "MaxPool3d_2a_3x3": SamePool(*wide),
            "Conv3d_2b_1x1": Unit(64, 64),
            "Conv3d_2c_3x3": Unit(64, 192, 3),
            "MaxPool3d_3a_3x3": SamePool(*wide),
            "Mixed_3b": Mixed(192, 64, 96, 128, 16, 32, 32),
            "Mixed_3c": Mixed(256, 128, 128, 192, 32, 96, 64),
            "MaxPool3d_4a_3x3": SamePool(*all_ways),
            "Mixed_4b": Mixed(480, 192, 96, 208, 16, 48, 64),
            "Mixed_4c": Mixed(512, 160, 112, 224, 24, 64, 64),
            "Mixed_4d": Mixed(512, 128, 128, 256, 24, 64, 64),
            "Mixed_4e": Mixed(512, 112, 144, 288, 32, 64, 64),
            "Mixed_4f": Mixed(528, 256, 160, 320, 32, 128, 128),
            "MaxPool3d_5a_2x2": SamePool((2, 2, 2), (2, 2, 2)),
            "Mixed_5b": Mixed(832, 256, 160, 320, 32, 128, 128),
            "Mixed_5c": Mixed(832, 384, 192, 384, 48, 128, 128),
            "logits": Logits(),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)


class Logits(nn.Module):
    """Means over 7x7 windows, a linear layer, and the mean over the remaining time and space."""

    def __init__(self):
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(F.avg_pool3d(x, (1, 7, 7), 1)).mean((2, 3, 4))


class Bottleneck3D(nn.Module):
    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv3d(channels, width, 1, bias=False), nn.BatchNorm3d(width)
        self.conv2, self.bn2 = nn.Conv3d(width, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width)
        self.conv3, self.bn3 = nn.Conv3d(width, out, 1, bias=False), nn.BatchNorm3d(out)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x)).relu()


class ResNet3D(nn.Module):
    """The 2048 features that FID-VID compares, for clips (B, 3, 16, 112, 112) minus the mean colour."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        channels = 64
        for i, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512))):
            strides = [2 if i else 1, *[1] * (blocks - 1)]
            inputs = [channels, *[4 * width] * (blocks - 1)]
            layer = nn.Sequential(*(Bottleneck3D(c, width, s) for c, s in zip(inputs, strides)))
            setattr(self, f"layer{i + 1}", layer)
            channels = 4 * width

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
        return x.mean((2, 3, 4))
