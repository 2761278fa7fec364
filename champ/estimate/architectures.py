"""Builds the graphs of YOLOX and RTMPose for their training checkpoints, which hold only weights.

Layers are found by their official names; the tensors show width and depth.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..files.errors import DamagedError
from ..files.tensors import tensors_in
from .graph import Graph, Ref, Step, multiplied, sigmoid, silu

YOLOX_EPSILON = 1e-3  # of batch normalisation
RTMPOSE_EPSILON = 1e-5
MAX_DEPTH = 12  # layers within layers
LEAST_LENGTH = 1e-5  # of a token, where RTMPose divides by it


def read_checkpoint(file: Path) -> Graph:
    state = _student(tensors_in(file, nested=("state_dict", "model"), prefix="module."))
    if "head.cls_preds.0.weight" in state:
        return _yolox(_Layers(state, YOLOX_EPSILON))
    if "head.cls_x.weight" in state:
        return _rtmpose(_Layers(state, RTMPOSE_EPSILON))
    raise DamagedError("it holds neither YOLOX nor RTMPose")


def _student(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Selects the student's weights from a DWPose checkpoint. The second stage of the training, where both networks
    have one size, trains a new head for the teacher's backbone."""
    backbones = [
        {key.removeprefix(who): value.shape for key, value in state.items() if key.startswith(f"{who}backbone.")}
        for who in ("teacher.", "student.")
    ]
    if not backbones[1]:
        return state
    parts = ("teacher.backbone.", "student.head.") if backbones[0] == backbones[1] else ("student.",)
    return {key.partition(".")[2]: value for key, value in state.items() if key.startswith(parts)}


class _Layers:
    """Records layers as steps of a graph. Batch normalisation is folded into the convolution before it."""

    def __init__(self, state: dict[str, Tensor], epsilon: float):
        self.state, self.epsilon = state, epsilon
        parts = [key.split(".")[:MAX_DEPTH] for key in state]
        self.places = {".".join(path[:end]) for path in parts for end in range(1, len(path))}
        self.picture = Ref("pictures")
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensor] = {}

    def graph(self, *outputs: Ref) -> Graph:
        return Graph(self.steps, self.picture, list(outputs), self.tensors)

    def step(self, function: Callable[..., Any], *args: Any, parts: int = 0, **kwargs: Any) -> Any:
        names = [Ref(f"{len(self.steps)}.{i}") for i in range(max(1, parts))]
        self.steps.append(Step(getattr(function, "__name__", ""), function, args, kwargs, names))
        return names if parts else names[0]

    def tensor(self, name: str, value: Tensor | None = None) -> Ref:
        self.tensors[name] = self[name] if value is None else value
        return Ref(name)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.state:
            raise DamagedError(f"it lacks {name}")
        return self.state[name].float()

    def count(self, name: str) -> int:
        """Counts the numbered layers below a name."""
        return next(i for i in itertools.count() if f"{name}.{i}" not in self.places)

    def conv(self, x: Ref, name: str, stride: int = 1) -> Ref:
        """Adds a convolution with a bias."""
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        return self._conv(x, name, weight, bias, stride)

    def block(self, x: Ref, name: str, stride: int = 1) -> Ref:
        """Adds convolution, batch normalisation and SiLU."""
        scale = self[f"{name}.bn.weight"] / (self[f"{name}.bn.running_var"] + self.epsilon).sqrt()
        weight = self[f"{name}.conv.weight"]
        if weight.ndim != 4 or len(weight) != len(scale):
            raise DamagedError(f"its {name} has another shape than the official one")
        bias = self[f"{name}.bn.bias"] - self[f"{name}.bn.running_mean"] * scale
        return self.step(
            torch.ops.aten.silu_, self._conv(x, f"{name}.conv", weight * scale[:, None, None, None], bias, stride)
        )

    def _conv(self, x: Ref, name: str, weight: Tensor, bias: Tensor, stride: int) -> Ref:
        groups = len(weight) if weight.shape[1] == 1 else 1  # those for each channel, or for all of them
        args = [self.tensor(f"{name}.weight", weight), self.tensor(f"{name}.bias", bias)]
        return self.step(functional.conv2d, x, *args, stride, weight.shape[-1] // 2, 1, groups)

    def joined(self, *parts: Ref) -> Ref:
        return self.step(torch.cat, list(parts), 1)

    def linear(self, x: Ref, name: str) -> Ref:
        return self.step(functional.linear, x, self.tensor(f"{name}.weight"))

    def pyramid(self, x: Ref, name: str) -> Ref:
        """Adds max pooling of three sizes (spatial pyramid pooling)."""
        x = self.block(x, f"{name}.conv1")
        pools = [self.step(functional.max_pool2d, x, [size, size], 1, size // 2) for size in (5, 9, 13)]
        return self.block(self.joined(x, *pools), f"{name}.conv2")


def _yolox(net: _Layers) -> Graph:
    """Builds YOLOX; its raw output is decoded in detect.py."""

    def stage(x: Ref, name: str, add: bool) -> Ref:
        """Cross-stage partial: a part of the channels goes through bottlenecks."""
        first, second = net.block(x, f"{name}.conv1"), net.block(x, f"{name}.conv2")
        for i in range(net.count(f"{name}.m")):
            inner = net.block(net.block(first, f"{name}.m.{i}.conv1"), f"{name}.m.{i}.conv2")
            first = net.step(torch.add, inner, first) if add else inner
        return net.block(net.joined(first, second), f"{name}.conv3")

    def up(x: Ref) -> Ref:
        return net.step(functional.interpolate, x, scale_factor=2.0)

    back, pan = "backbone.backbone", "backbone"
    x = net.block(net.step(_corners, net.picture), f"{back}.stem.conv")
    x = stage(net.block(x, f"{back}.dark2.0", 2), f"{back}.dark2.1", add=True)
    fine = stage(net.block(x, f"{back}.dark3.0", 2), f"{back}.dark3.1", add=True)
    middle = stage(net.block(fine, f"{back}.dark4.0", 2), f"{back}.dark4.1", add=True)
    x = net.pyramid(net.block(middle, f"{back}.dark5.0", 2), f"{back}.dark5.1")
    coarse = net.block(stage(x, f"{back}.dark5.2", add=False), f"{pan}.lateral_conv0")
    middle = net.block(stage(net.joined(up(coarse), middle), f"{pan}.C3_p4", add=False), f"{pan}.reduce_conv1")
    fine = stage(net.joined(up(middle), fine), f"{pan}.C3_p3", add=False)
    middle = stage(net.joined(net.block(fine, f"{pan}.bu_conv2", 2), middle), f"{pan}.C3_n3", add=False)
    coarse = stage(net.joined(net.block(middle, f"{pan}.bu_conv1", 2), coarse), f"{pan}.C3_n4", add=False)
    found = []
    for i, x in enumerate((fine, middle, coarse)):
        classes = boxes = net.block(x, f"head.stems.{i}")
        for k in range(2):
            classes = net.block(classes, f"head.cls_convs.{i}.{k}")
            boxes = net.block(boxes, f"head.reg_convs.{i}.{k}")
        seen = [net.conv(boxes, f"head.obj_preds.{i}"), net.conv(classes, f"head.cls_preds.{i}")]
        values = [net.conv(boxes, f"head.reg_preds.{i}"), *(net.step(sigmoid, value) for value in seen)]
        found.append(net.step(torch.flatten, net.joined(*values), 2))
    return net.graph(net.step(torch.transpose, net.step(torch.cat, found, 2), 1, 2))


def _corners(pictures: Tensor) -> Tensor:
    """Moves blocks of 2x2 pixels to channels."""
    return torch.cat([pictures[..., top::2, left::2] for left in (0, 1) for top in (0, 1)], dim=1)


def _rtmpose(net: _Layers) -> Graph:
    """Builds RTMPose: the backbone CSPNeXt, and the head with a gated attention unit between the keypoints."""

    def stage(x: Ref, name: str, add: bool) -> Ref:
        long, short = net.block(x, f"{name}.main_conv"), net.block(x, f"{name}.short_conv")
        for i in range(net.count(f"{name}.blocks")):
            block = f"{name}.blocks.{i}"
            inner = net.block(net.block(long, f"{block}.conv1"), f"{block}.conv2.depthwise_conv")
            inner = net.block(inner, f"{block}.conv2.pointwise_conv")
            long = net.step(torch.add, inner, long) if add else inner
        x = net.joined(long, short)
        weights = net.conv(net.step(functional.adaptive_avg_pool2d, x, 1), f"{name}.attention.fc")
        return net.block(net.step(multiplied, x, net.step(functional.hardsigmoid, weights)), f"{name}.final_conv")

    x = net.picture
    for i in range(3):
        x = net.block(x, f"backbone.stem.{i}", 2 if i == 0 else 1)
    for i in range(1, 5):
        x = net.block(x, f"backbone.stage{i}.0", 2)
        if i == 4:
            x = net.pyramid(x, f"backbone.stage{i}.1")
        x = stage(x, f"backbone.stage{i}.{2 if i == 4 else 1}", add=i < 4)
    x = net.step(torch.flatten, net.conv(x, "head.final_layer"), 2)
    x = net.linear(net.step(_scaled, x, net.tensor("head.mlp.0.g")), "head.mlp.1")
    x = net.step(torch.add, net.step(multiplied, x, net.tensor("head.gau.res_scale.scale")), _attention(net, x))
    return net.graph(net.linear(x, "head.cls_x"), net.linear(x, "head.cls_y"))


def _attention(net: _Layers, x: Ref) -> Ref:
    gamma, beta = (net.tensor(f"head.gau.{name}") for name in ("gamma", "beta"))
    width, key = net["head.gau.o.weight"].shape[1], net["head.gau.gamma"].shape[1]
    x = net.linear(net.step(_scaled, x, net.tensor("head.gau.ln.g")), "head.gau.uv")
    gate, value, base = net.step(torch.split, net.step(silu, x), [width, width, key], -1, parts=3)
    return net.linear(net.step(_gated, gate, value, base, gamma, beta), "head.gau.o")


def _scaled(tokens: Tensor, gain: Tensor) -> Tensor:
    """Normalises tokens by their root mean square."""
    length = tokens.norm(dim=-1, keepdim=True) / math.sqrt(tokens.shape[-1])
    return tokens / length.clamp(min=LEAST_LENGTH) * gain


def _gated(gate: Tensor, value: Tensor, base: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    query, key = (base * gamma[i] + beta[i] for i in range(2))
    products = (query @ key.transpose(1, 2) / math.sqrt(base.shape[-1])).relu()
    return gate * (products.square() @ value)
