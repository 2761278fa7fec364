"""Reads networks in ONNX files as data: a small reader of protocol buffers, and each operator in torch.

Every length is checked against the available bytes; tensors in other files and subgraphs are refused.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..files.errors import DamagedError
from .graph import MAX_STEPS, Graph, Ref, Step, bounded, guarded, multiplied, reshaped, same, sigmoid

MAX_FIELDS = 1_000_000  # of all messages in a file; YOLOX-L has 10,000
BOOL, BFLOAT16 = 9, 16
INTEGERS = {2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", BOOL: "u1"}
DTYPES = {**INTEGERS, 1: "<f4", 10: "<f2", 11: "<f8", BFLOAT16: "<i2"}
# Inputs that configure an operator: shapes, bounds, scales.
SETTINGS = {"Clip": (1, 2), "Pad": (1, 2, 3), "Range": (0, 1, 2), "Resize": (1, 2, 3), "Upsample": (1,)}


def read_onnx(file: Path) -> tuple[Graph, int | None]:
    """Reads the network, and its batch size if the file contains one."""
    reader = _Reader()
    content = memoryview(np.fromfile(file, dtype=np.uint8))  # type: ignore[arg-type]
    model = reader.message(content)
    if not model[7] or not any(reader.message(graph)[1] for graph in model[7]):
        raise DamagedError("it is not an ONNX network")
    versions = {_text(entry[1]): _int(entry[2]) for entry in map(reader.message, model[8])}
    return _Network(reader, model[7][0], versions.get("", versions.get("ai.onnx", 0))).graph()


class _Reader:
    """Reads messages of protocol buffers as the values of each field by its number.

    Integers are ints; strings, messages, floats and packed numbers are views of the file's bytes.
    """

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def message(self, content: memoryview) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        at = 0
        while at < len(content):
            self._count(1)
            tag, at = _varint(content, at)
            kind = tag & 7
            if kind == 0:
                value, at = _varint(content, at)
                found[tag >> 3].append(value)
                continue
            if kind not in (1, 2, 5):
                raise DamagedError("it is damaged")
            length, at = _varint(content, at) if kind == 2 else (8 if kind == 1 else 4, at)
            if length > len(content) - at:
                raise DamagedError("it is damaged or incomplete")
            found[tag >> 3].append(content[at : at + length])
            at += length
        return found

    def ints(self, values: list[Any]) -> list[int]:
        """Reads a repeated integer, written one by one or packed."""
        found = []
        for value in values:
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                self._count(1)
                number, at = _varint(value, at)
                found.append(number)
        return [number - 2**64 if number >= 2**63 else number for number in found]

    def tensor(self, content: memoryview) -> Tensor:
        """Reads a tensor whose numbers are in the file itself; a path in the file is never opened."""
        message = self.message(content)
        if message[13] or _int(message[14]):
            raise DamagedError("it keeps its numbers in other files, which are not opened; get it as a single file")
        shape, kind = self.ints(message[1]), _int(message[2])
        if kind not in DTYPES or any(length < 0 for length in shape):
            raise DamagedError("it has a tensor that no network needs")
        dtype = np.dtype(DTYPES[kind])
        if message[5] or message[7]:  # float16 values are written as integers with the same bits
            bits = dtype if kind in INTEGERS else np.dtype("<u2")
            numbers = np.array(self.ints(message[5] + message[7]), np.int64).astype(bits).view(dtype)
        else:
            raw = b"".join(message[9] or message[4] or message[10])
            if len(raw) != math.prod(shape) * dtype.itemsize:
                raise DamagedError("it is damaged: a tensor has more or fewer numbers than its shape says")
            numbers = np.frombuffer(raw, dtype)
        tensor = torch.from_numpy(numbers.astype(dtype.newbyteorder("="))).reshape(shape)
        if kind in INTEGERS:
            return tensor.bool() if kind == BOOL else tensor.long()
        return (tensor.view(torch.bfloat16) if kind == BFLOAT16 else tensor).float()

    def _count(self, parts: int) -> None:
        self.left -= parts
        if self.left < 0:
            raise DamagedError("it has more parts than any such network")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(content):
            break
        byte = content[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (2**64 - 1), at
    raise DamagedError("it is damaged or incomplete")


def _int(values: list[Any]) -> int:
    """Reads an optional integer field."""
    return values[-1] if values else 0


def _text(values: list[Any]) -> str:
    return bytes(values[-1]).decode("utf-8", "replace") if values else ""


class _Network:
    """One graph: its steps and its tensors."""

    def __init__(self, reader: _Reader, content: memoryview, opset: int):
        self.reader, self.opset = reader, opset
        self.message = reader.message(content)
        self.tensors: dict[str, Tensor] = {}
        for tensor in self.message[5]:
            self.tensors[_text(reader.message(tensor)[8])] = reader.tensor(tensor)

    def graph(self) -> tuple[Graph, int | None]:
        inputs = [self.reader.message(value) for value in self.message[11]]
        inputs = [value for value in inputs if _text(value[1]) not in self.tensors]
        if len(inputs) != 1:
            raise DamagedError(f"it takes {len(inputs)} inputs, but should take pictures alone")
        picture, batch = _text(inputs[0][1]), self._batch(inputs[0])
        outputs = [_text(self.reader.message(value)[1]) for value in self.message[12]]
        if len(self.message[1]) > MAX_STEPS:
            raise DamagedError(f"it has more than {MAX_STEPS} steps")
        steps = [step for node in self.message[1] for step in self._steps(self.reader.message(node), picture, batch)]
        return Graph(steps, picture, outputs, self.tensors), batch

    def _batch(self, value: dict[int, list[Any]]) -> int | None:
        """Returns the first dimension of an input's shape; None if it is open."""
        for field in (2, 1, 2, 1):  # type, tensor's type, shape, length
            if not value[field]:
                return None
            value = self.reader.message(value[field][0])
        return _int(value[1]) or None

    def _steps(self, node: dict[int, list[Any]], picture: str, batch: int | None) -> list[Step]:
        operator = _text(node[4])
        names = [bytes(name).decode("utf-8", "replace") for name in node[1]]
        outputs = [bytes(name).decode("utf-8", "replace") for name in node[2]]
        attributes = dict(self._attribute(attribute) for attribute in node[5])
        if operator == "Constant":
            [value] = attributes.values()
            self.tensors[outputs[0]] = value if isinstance(value, Tensor) else torch.tensor(value)
            return []
        if operator not in OPERATORS or _text(node[7]) not in ("", "ai.onnx"):
            raise DamagedError(f"it uses the operator {operator!r}, which YOLOX and DWPose do not need")
        args: list[Any] = [Ref(name) if name else None for name in names]
        for i in SETTINGS.get(operator, ()):
            if i < len(args) and names[i] in self.tensors:
                args[i] = self.tensors[names[i]]
        if operator == "Softmax" and self.opset < 13:
            raise DamagedError("it uses the softmax of an old version of ONNX")
        if operator == "Split" and len(args) < 2 and "split" not in attributes:
            attributes["num_outputs"] = len(outputs)
        if operator == "Reshape":
            args += [Ref(picture), batch or 1]
        outputs = outputs[: max(1, sum(map(bool, outputs)))]
        return [Step(operator, OPERATORS[operator], args, attributes, outputs)]

    def _attribute(self, content: memoryview) -> tuple[str, Any]:
        message = self.reader.message(content)
        name, kind = _text(message[1]), _int(message[20])
        if kind == 1 or not kind and message[2]:
            return name, float(np.frombuffer(message[2][-1], "<f4")[0])
        if kind == 2 or not kind and message[3]:
            return name, next(iter(self.reader.ints(message[3])), 0)
        if kind == 3 or not kind and message[4]:
            return name, _text(message[4])
        if kind == 4 or not kind and message[5]:
            return name, self.reader.tensor(message[5][-1])
        if kind == 6 or not kind and message[7]:
            return name, np.frombuffer(b"".join(message[7]), "<f4").tolist()
        if kind == 7 or not kind and message[8]:
            return name, self.reader.ints(message[8])
        raise DamagedError(f"its attribute {name!r} has a type that no network needs")


def _ints(value: Any) -> list[int]:
    """Reads a list of integers, such as a shape, from a tensor or an attribute."""
    return value.flatten().tolist() if isinstance(value, Tensor) else list(value or ())


def _number(value: Any) -> float | None:
    return value.item() if isinstance(value, Tensor) else value


def _padded(
    x: Tensor, pads: Sequence[int], auto_pad: str, fill: float, limit: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """Applies the part of a padding that torch's own (height, width, up to `limit`) cannot express."""
    if auto_pad not in ("NOTSET", "VALID") or x.ndim != 4:
        raise ValueError(f"padding {auto_pad!r} of {x.ndim} axes")
    top, left, bottom, right = pads or (0, 0, 0, 0)
    if (top, left) == (bottom, right) and top <= limit[0] and left <= limit[1]:
        return x, [top, left]
    return functional.pad(x, [left, right, top, bottom], value=fill), [0, 0]


@dataclass(frozen=True)
class SlidingWindow:
    """What slides over a picture, and how."""

    auto_pad: str = "NOTSET"
    dilations: Any = None
    kernel_shape: Any = None
    pads: Any = None
    strides: Any = None


def _sliding(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Gathers the attributes of a sliding window into one argument of an operator."""

    def operator(*tensors: Tensor, **attributes: Any) -> Tensor:
        given = [field.name for field in fields(SlidingWindow) if field.name in attributes]
        window = SlidingWindow(**{name: attributes.pop(name) for name in given})
        return run(*tensors, window=window, **attributes)

    return operator


@_sliding
def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, window: SlidingWindow, group=1) -> Tensor:
    x, padding = _padded(x, window.pads, window.auto_pad, 0.0, x.shape[2:])
    return functional.conv2d(x, weight, bias, window.strides or 1, padding, window.dilations or 1, group)


@_sliding
def _max_pool(x: Tensor, *, window: SlidingWindow, ceil_mode=0, storage_order=0) -> Tensor:
    x, padding = _padded(x, window.pads, window.auto_pad, -math.inf, [length // 2 for length in window.kernel_shape])
    return functional.max_pool2d(
        x, window.kernel_shape, window.strides or 1, padding, window.dilations or 1, bool(ceil_mode)
    )


@_sliding
def _average_pool(x: Tensor, *, window: SlidingWindow, ceil_mode=0, count_include_pad=0) -> Tensor:
    top, left, bottom, right = window.pads or (0, 0, 0, 0)
    same = window.auto_pad in ("NOTSET", "VALID") and (top, left) == (bottom, right)
    if not same or window.dilations is not None or x.ndim != 4:
        raise ValueError("padding that is not the same on both sides")
    return functional.avg_pool2d(
        x, window.kernel_shape, window.strides or 1, [top, left], bool(ceil_mode), bool(count_include_pad)
    )


def _without(*names: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Leaves out attributes that change nothing in the cases that an operator knows."""

    def wrap(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def operator(*tensors: Any, **attributes: Any) -> Tensor:
            return run(*tensors, **{name: value for name, value in attributes.items() if name not in names})

        return operator

    return wrap


def _batch_norm(x: Tensor, *learned: Tensor, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1) -> Tensor:
    weight, bias, mean, variance = learned
    if training_mode or not spatial:
        raise ValueError("a network in training")
    return functional.batch_norm(x, mean, variance, weight, bias, eps=epsilon)


@_without("cubic_coeff_a", "exclude_outside", "extrapolation_value")
def _resize(
    x: Tensor, *settings: Any, mode="nearest", coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor", antialias=0, keep_aspect_ratio_policy="stretch",
) -> Tensor:  # fmt: skip
    """Resizes by scales (the second of three settings, or the only one), or to a size (the third)."""
    scales = _ints(settings[1] if len(settings) > 1 else settings[0])
    if scales:
        size = [length * scale for length, scale in zip(x.shape, scales, strict=True)]
    else:
        size = _ints(settings[2])
    whole = all(new % old == 0 and new > 1 for new, old in zip(size[-2:], x.shape[-2:]))
    if x.ndim != 4 or not whole or size[:2] != list(x.shape[:2]) or antialias or keep_aspect_ratio_policy != "stretch":
        raise ValueError(f"resizing from {list(x.shape)} to {size}")
    size = [int(length) for length in size[-2:]]
    place = coordinate_transformation_mode.removeprefix("pytorch_")
    if mode == "nearest" and ((place, nearest_mode) == ("asymmetric", "floor") or (
            place == "half_pixel" and nearest_mode.startswith("round_"))):  # fmt: skip
        return guarded(lambda x: functional.interpolate(x, size))(x)
    if mode == "linear" and place in ("half_pixel", "align_corners"):
        aligned = place == "align_corners"
        return guarded(lambda x: functional.interpolate(x, size, mode="bilinear", align_corners=aligned))(x)
    raise ValueError(f"resizing {mode}, {place}, {nearest_mode}")


def _upsample(x: Tensor, scales: Any = None, *, mode="nearest", **attributes) -> Tensor:
    return _resize(x, attributes.get("scales", scales), mode=mode, coordinate_transformation_mode="asymmetric",
                   nearest_mode="floor")  # fmt: skip


def _clip(x: Tensor, low: Any = None, high: Any = None, **bounds) -> Tensor:
    limits = _number(bounds.get("min", low)), _number(bounds.get("max", high))
    return x if limits == (None, None) else x.clamp(*limits)


def _cast(x: Tensor, *, to: int, saturate=1) -> Tensor:
    if to in INTEGERS:
        if x.is_meta:
            raise ValueError("integers that depend on the picture")
        return x.bool() if to == BOOL else x.long()
    if to not in DTYPES:
        raise ValueError(f"type {to}")
    return x if x.is_floating_point() else x.float()


def _gather(x: Tensor, indices: Tensor, *, axis=0) -> Tensor:
    if indices.is_meta or indices.is_floating_point():
        raise ValueError("indices that depend on the picture")
    length = x.shape[axis]
    if indices.numel() and not -length <= int(indices.min()) <= int(indices.max()) < length:
        raise ValueError(f"indices outside of {length}")
    axis %= x.ndim
    found = guarded(lambda x: x.index_select(axis, indices.flatten().remainder(max(1, length)).to(x.device)))(x)
    return found.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _slice(x: Tensor, starts=None, ends=None, axes=None, steps=None, **attributes) -> Tensor:
    starts, ends = _ints(attributes.get("starts", starts)), _ints(attributes.get("ends", ends))
    axes = _ints(attributes.get("axes", axes)) or range(len(starts))
    for start, end, axis, step in zip(starts, ends, axes, _ints(steps) or [1] * len(starts), strict=True):
        chosen = range(x.shape[axis])[start:end:step]
        x = x.index_select(axis, torch.tensor(chosen, device=x.device)) if step < 0 else _stepped(x, axis, chosen)
    return x


def _stepped(x: Tensor, axis: int, chosen: range) -> Tensor:
    return torch.ops.aten.slice(x, axis, chosen.start, chosen.stop, chosen.step)


def _split(x: Tensor, lengths: Any = None, *, axis=0, split=None, num_outputs=0) -> Sequence[Tensor]:
    sizes = _ints(split if lengths is None else lengths)
    if num_outputs and not sizes:
        return x.split(-(-x.shape[axis] // num_outputs), axis)
    return x.split(sizes, axis)


def _reshape(x: Tensor, shape: Tensor, pictures: Tensor, batch: int, *, allowzero=0) -> Tensor:
    lengths = _ints(shape)
    if not allowzero:
        lengths = [length or x.shape[i] for i, length in enumerate(lengths)]
    return reshaped(x, lengths, pictures, batch)


def _flatten(x: Tensor, *, axis=1) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(x: Tensor, axes: Any = None, **attributes) -> Tensor:
    axes = _ints(attributes.get("axes", axes))
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def _unsqueeze(x: Tensor, axes: Any = None, **attributes) -> Tensor:
    axes = _ints(attributes.get("axes", axes))
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_ints(shape))))


def _pad(x: Tensor, pads: Any = None, fill: Any = None, axes: Any = None, *, mode="constant", **attributes) -> Tensor:
    pads, fill = _ints(attributes.get("pads", pads)), _number(attributes.get("value", fill)) or 0.0
    if mode != "constant" or axes is not None:
        raise ValueError(f"padding {mode!r}")
    half = len(pads) // 2
    sides = [side for pair in zip(pads[half - 1 :: -1], pads[: half - 1 : -1]) for side in pair]
    return guarded(lambda x: functional.pad(x, sides, value=fill))(x)


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return guarded(lambda x: x.repeat(_ints(repeats)))(x)


def _shape(x: Tensor, *, start=0, end=None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    value = torch.zeros(1) if value is None else value
    return value.reshape(()).expand(_ints(shape))


def _range(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    bounds = [_number(value) for value in (start, end, step)]
    bounded(torch.arange(*bounds, device="meta"))
    return torch.arange(*bounds)


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha=1.0, beta=1.0, transA=0, transB=0) -> Tensor:
    product = (a.t() if transA else a) @ (b.t() if transB else b)
    product = product * alpha if alpha != 1 else product
    return product if c is None else product + (c * beta if beta != 1 else c)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, given: Any = None, *, axes=None, keepdims=1, noop_with_empty_axes=0) -> Tensor:
        axes = _ints(given if axes is None else axes)
        if not axes and noop_with_empty_axes:
            return x
        return function(x, dim=axes or list(range(x.ndim)), keepdim=bool(keepdims))

    return reduce


def _product(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _over_channels(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(x, dim=list(range(2, x.ndim)), keepdim=True)


def _chained(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Extends an operator of two values to any number."""

    def chain(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return chain


def _divided(a: Tensor, b: Tensor) -> Tensor:
    whole = not a.is_floating_point() and not b.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


ON_TENSORS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Ceil": torch.ceil,
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Conv": _conv,
    "Div": _divided,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Flatten": _flatten,
    "Floor": torch.floor,
    "Gemm": _gemm,
    "GlobalAveragePool": _over_channels(torch.mean),
    "GlobalMaxPool": _over_channels(torch.amax),
    "Greater": torch.gt,
    "HardSigmoid": lambda x, *, alpha=0.2, beta=0.5: (x * alpha + beta).clamp(0, 1),
    "HardSwish": functional.hardswish,
    "LeakyRelu": lambda x, *, alpha=0.01: functional.leaky_relu(x, alpha),
    "Less": torch.lt,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": _chained(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _chained(torch.minimum),
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Softmax": lambda x, *, axis=-1: x.softmax(axis),
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Transpose": lambda x, *, perm=None: x.permute(perm or list(range(x.ndim))[::-1]),
    "Where": torch.where,
}
OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: guarded(function) for name, function in ON_TENSORS.items()},
    # With settings, which may be tensors, too.
    "Cast": _cast,
    "Clip": _clip,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": lambda x, ratio=None, training=None, **attributes: x,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": same,
    "Mul": multiplied,
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduced(torch.linalg.vector_norm),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": sigmoid,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
    "Upsample": _upsample,
}
