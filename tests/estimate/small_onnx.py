"""Writes ONNX files byte by byte, also such as no exporter makes."""

import struct

import numpy as np


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, array: np.ndarray, **more: bytes) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    shape = b"".join(field(1, length) for length in array.shape)
    return shape + field(2, kind) + field(8, name) + field(9, array.tobytes())


def attribute(name: str, value: int | float | str | list[int] | bytes) -> bytes:
    if isinstance(value, list):
        return field(1, name) + b"".join(field(8, number) for number in value) + field(20, 7)
    number, kind = {int: (3, 2), float: (2, 1), str: (4, 3), bytes: (5, 4)}[type(value)]
    return field(1, name) + field(number, value) + field(20, kind)


def node(operator: str, inputs: str, outputs: str, **attributes) -> bytes:
    """`inputs` and `outputs` are names with spaces between them."""
    names = b"".join(field(1, name) for name in inputs.split()) + b"".join(field(2, name) for name in outputs.split())
    return names + field(4, operator) + b"".join(field(5, attribute(*item)) for item in attributes.items())


def value(name: str, *shape: int) -> bytes:
    axes = b"".join(field(1, field(1, length)) for length in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, axes)))


def model(nodes: list[bytes], tensors: list[bytes] = (), outputs: str = "y", size: int = 16, opset: int = 11) -> bytes:
    """Of one input, x, for one picture."""
    graph = b"".join(field(1, entry) for entry in nodes) + field(2, "graph")
    graph += b"".join(field(5, entry) for entry in tensors) + field(11, value("x", 1, 3, size, size))
    graph += b"".join(field(12, value(name)) for name in outputs.split())
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, opset))


def ints(name: str, *numbers: int) -> bytes:
    return tensor(name, np.array(numbers, np.int64))


def floats(name: str, *shape: int) -> bytes:
    return tensor(name, np.random.default_rng(len(name)).normal(size=shape).astype(np.float32))


def many_operators() -> bytes:
    """A network of 16 pixels with a bit of everything that exporters write."""
    nodes = [
        node("Conv", "x w b", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], group=1, dilations=[1, 1]),
        node("BatchNormalization", "c scale shift mean variance", "n", epsilon=0.001),
        node("Sigmoid", "n", "g"),
        node("Mul", "n g", "a"),
        node("MaxPool", "a", "m", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        node("Concat", "a m", "k", axis=1),
        node("Resize", "k none scales", "r", mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
        node("Shape", "r", "s"),
        node("Gather", "s zero", "first", axis=0),
        node("Unsqueeze", "first", "lead", axes=[0]),
        node("Concat", "lead rest", "shape", axis=0),
        node("Reshape", "r shape", "flat"),
        node("Slice", "flat starts ends axes steps", "part"),
        node("Split", "part", "p q", axis=1, split=[4, 4]),
        node("Transpose", "q", "t", perm=[0, 2, 1]),
        node("MatMul", "p t", "product"),
        node("ReduceL2", "product", "length", axes=[2], keepdims=1),
        node("Clip", "length low high", "safe"),
        node("Div", "product safe", "d"),
        node("Pad", "d pads", "y", mode="constant"),
    ]  # fmt: skip
    tensors = [
        floats("w", 4, 3, 3, 3), floats("b", 4), *(floats(name, 4) for name in ("scale", "shift", "mean")),
        tensor("variance", np.full(4, 2.0, np.float32)), tensor("none", np.zeros(0, np.float32)),
        tensor("scales", np.array([1, 1, 2, 2], np.float32)), tensor("zero", np.array(0)), ints("rest", 8, -1),
        ints("starts", 0), ints("ends", 100), ints("axes", 2), ints("steps", 2),
        tensor("low", np.array(1e-5, np.float32)), tensor("high", np.array(1e9, np.float32)),
        ints("pads", 0, 0, 1, 0, 0, 1),
    ]  # fmt: skip
    return model(nodes, tensors)
