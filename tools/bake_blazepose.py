"""Bakes champ/assets/blazepose.safetensors, BlazePose's networks, from the files in the package mediapipe 0.10.21.

    pip download --no-deps mediapipe==0.10.21 && pip install tflite
    python -m tools.bake_blazepose mediapipe-0.10.21-*.whl champ/assets/blazepose.safetensors

Development only: mediapipe is not installed, a wheel is an archive. The numbers stay as they are, float16; those that
are stored without their zeros get them back. What only leads to outputs that are not used (the silhouette, which hand
it is, a hand's metres) is left out.
"""

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tflite
import torch
from numpy import ndarray as Array
from safetensors.torch import save_file
from torch import Tensor, nn

from champ.estimate.blazepose.networks import BlazePoseNetworks

LICENCE = "Apache-2.0; BlazePose GHUM 3D and MediaPipe's hand and face models, (c) The MediaPipe Authors"
FLOATS = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}


class Source(NamedTuple):
    file: str  # in the package
    outputs: tuple[str, ...]  # in the order of the class


OUTPUTS = ("Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4")
SOURCES = {
    "person": Source("pose_detection/pose_detection", OUTPUTS[:2]),
    "body": Source("pose_landmark/pose_landmark_full", (OUTPUTS[0], OUTPUTS[1], OUTPUTS[3], OUTPUTS[4])),
    "hand": Source("hand_landmark/hand_landmark_full", OUTPUTS[:2]),
    "face": Source("face_landmark/face_landmark", ("conv2d_21", "conv2d_31")),
}


class Layer(NamedTuple):
    kind: int  # tflite.BuiltinOperator
    weight: Array
    bias: Array | None


class Graph:
    """A .tflite file: a list of operators on numbered tensors."""

    def __init__(self, content: bytes):
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph = self.model.Subgraphs(0)
        operators = [self.graph.Operators(i) for i in range(self.graph.OperatorsLength())]
        self.made_by = {int(i): operator for operator in operators for i in operator.OutputsAsNumpy()}

    def kind(self, operator: tflite.Operator) -> int:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())

    def layers(self, outputs: tuple[str, ...]) -> Iterator[Layer]:
        """What has weights, in the order in which each output in turn needs it."""
        names = {self.graph.Tensors(i).Name().decode(): int(i) for i in self.graph.OutputsAsNumpy()}
        done: set[int] = set()

        def before(tensor: int) -> Iterator[Layer]:
            operator = self.made_by.get(tensor)
            if operator is None or tensor in done:
                return
            done.add(tensor)
            inputs = operator.InputsAsNumpy().tolist()
            for i in inputs:
                yield from before(i)
            kind = self.kind(operator)
            if kind in WEIGHTED:
                yield Layer(kind, self.numbers(inputs[1]), self.numbers(inputs[2]) if len(inputs) > 2 else None)

        for name in outputs:
            yield from before(names[name])

    def numbers(self, index: int) -> Array:
        """The constant behind a tensor, which other operators may unpack."""
        while index in self.made_by:
            index = int(self.made_by[index].InputsAsNumpy()[0])
        tensor = self.graph.Tensors(index)
        values = self.model.Buffers(tensor.Buffer()).DataAsNumpy().view(FLOATS[tensor.Type()])
        shape = tensor.ShapeAsNumpy()
        return values.reshape(shape) if tensor.Sparsity() is None else densified(values, shape, tensor.Sparsity())


WEIGHTED = {
    tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D,
    tflite.BuiltinOperator.FULLY_CONNECTED, tflite.BuiltinOperator.PRELU,
}  # fmt: skip


def densified(values: Array, shape: Array, sparsity: tflite.SparsityParameters) -> Array:
    """With its zeros: for each combination of the other axes a part of the last axis's numbers and their places."""
    last = sparsity.DimMetadata(sparsity.DimMetadataLength() - 1)
    ends = vector(last.ArraySegmentsType(), last.ArraySegments())
    places = vector(last.ArrayIndicesType(), last.ArrayIndices())
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    dense = np.zeros((len(ends) - 1, shape[-1]), values.dtype)
    dense[rows, places] = values
    return dense.reshape(shape)


def vector(kind: int, table) -> Array:
    numbers = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }[kind]()
    numbers.Init(table.Bytes, table.Pos)
    return numbers.ValuesAsNumpy().astype(np.int64)


def as_in_torch(layer: Layer) -> dict[str, Tensor]:
    weight = layer.weight
    if layer.kind == tflite.BuiltinOperator.CONV_2D:  # out, rows, columns, in
        weight = weight.transpose(0, 3, 1, 2)
    elif layer.kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:  # 1, rows, columns, out
        weight = weight.transpose(3, 0, 1, 2)
    elif layer.kind == tflite.BuiltinOperator.PRELU:
        weight = weight.ravel()
    state = {"weight": torch.from_numpy(weight.copy())}
    return state if layer.bias is None else {**state, "bias": torch.from_numpy(layer.bias.copy())}


def bake(graph: Graph, outputs: tuple[str, ...], network: nn.Module) -> dict[str, Tensor]:
    """The state of a network: of layers of the same shape both have as many, and in the same order."""
    waiting: dict[tuple, list[dict[str, Tensor]]] = {}
    for layer in graph.layers(outputs):
        state = as_in_torch(layer)
        waiting.setdefault(tuple(state["weight"].shape), []).append(state)
    baked = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.PReLU):
            state = waiting[tuple(module.weight.shape)].pop(0)
            baked.update({f"{name}.{key}": value for key, value in state.items()})
    left = [shape for shape, states in waiting.items() if states]
    assert not left, f"no layers for weights of the shapes {left}"
    return baked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    networks, state = BlazePoseNetworks(), {}
    with zipfile.ZipFile(options.wheel) as wheel:
        for name, source in SOURCES.items():
            graph = Graph(wheel.read(f"mediapipe/modules/{source.file}.tflite"))
            baked = bake(graph, source.outputs, getattr(networks, name))
            state.update({f"{name}.{key}": value for key, value in baked.items()})
    save_file(state, options.output, metadata={"licence": LICENCE})
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
