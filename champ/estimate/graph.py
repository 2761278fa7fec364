"""A network as a list of steps from a fixed set of operators, built by the readers of ONNX and TorchScript. Only these
operators ever run, and none before the memory and the work of all of them are known."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..files.errors import DamagedError

MAX_STEPS = 20_000  # YOLOX-L has 400, or 700 after repeated conversion
# For each picture:
MAX_VALUES = 2**26  # numbers in memory at once; YOLOX-L needs 2**24
MAX_WORK = 2**40  # multiply-adds; YOLOX-L takes 2**36
MAX_CONSTANT = 2**17  # numbers of a shape, an index or a grid made only of constants
MAX_PARTS = 1000  # values in the arguments or in the result of a step; YOLOX needs 20

CHECKING = ContextVar("CHECKING", default=False)  # whether only shapes are computed

# Operators whose work per result is not constant, in ONNX and in torch.
CONVOLUTIONS = {"Conv", "_convolution", "conv2d", "convolution"}
PRODUCTS = {"Gemm", "MatMul", "addmm", "baddbmm", "bmm", "linear", "matmul", "mm"}
NORMALIZATIONS = {"BatchNormalization", "batch_norm"}
POOLINGS = {"AveragePool", "MaxPool", "avg_pool2d", "max_pool2d"}


Kind = TypeVar("Kind")


class Ref(str):
    """The name of a value, among the arguments of a step."""


class Step(NamedTuple):
    operator: str  # its name in the file
    function: Callable[..., Any]
    args: Sequence[Any]  # constants, Refs, and lists of both
    kwargs: dict[str, Any]
    outputs: Sequence[str]  # one name: the result as it is; several: its parts


class Graph(nn.Module):
    """Maps pictures to a tuple of tensors.

    Floats are weights, which ComfyUI moves and casts; a result is on the device of its arguments. Shapes, indices and
    grids are small and stay on the CPU until they are combined with values from the pictures (see `together`).
    """

    def __init__(self, steps: list[Step], picture: str, outputs: list[str], tensors: dict[str, Tensor]):
        super().__init__()
        if len(steps) > MAX_STEPS:
            raise DamagedError(f"it has more than {MAX_STEPS} steps")
        tensors = dict(tensors)
        steps = fused(steps, outputs, tensors)
        self.steps, self.picture, self.outputs = steps, picture, outputs
        used = [list(_all(Ref, [step.args, *step.kwargs.values()])) for step in steps]
        tensors = {name: tensors[name] for name in dict.fromkeys(chain(*used)) if name in tensors}
        # Copied, so that the file is not needed any more.
        self.host = {name: tensor.clone() for name, tensor in tensors.items() if not tensor.is_floating_point()}
        self.names = [name for name in tensors if name not in self.host]
        floats = [tensors[name].to(torch.float32, copy=True) for name in self.names]
        self.weights = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in floats)
        last: dict[str, int] = {name: i for i, names in enumerate(used) for name in names}
        self.done: list[list[str]] = [[] for _ in steps]  # values that are not needed after a step
        for i, step in enumerate(steps):
            for name in {*step.outputs} - {*outputs}:
                self.done[last.get(name, i)].append(name)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        values = {self.picture: pictures, **dict(zip(self.names, self.weights)), **self.host}
        deque(self._walk(values), maxlen=0)
        return tuple(values[name] for name in self.outputs)

    @torch.inference_mode(False)  # in which tensors know whether they were changed
    @torch.no_grad()
    def check(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Returns the output shapes for pictures of a shape, without computing anything else.

        Raises a DamagedError if the graph cannot be computed, or takes more memory or time than any network of its
        kind.
        """
        pictures = torch.empty(tuple(shape), device="meta")
        weights = {name: torch.empty(weight.shape, device="meta") for name, weight in zip(self.names, self.weights)}
        held = weights | {name: tensor.clone() for name, tensor in self.host.items()}
        versions = [tensor._version for tensor in held.values()]
        values: dict[str, Any] = {self.picture: pictures, **held}
        token = CHECKING.set(True)
        try:
            self._measure(values, len(pictures))
        finally:
            CHECKING.reset(token)
        if [tensor._version for tensor in held.values()] != versions:
            raise DamagedError("it changes its own weights")
        results = [values.get(name) for name in self.outputs]
        if not results or not all(isinstance(result, Tensor) and result.is_meta for result in results):
            raise DamagedError("its output does not depend on the picture")
        return [tuple(result.shape) for result in results if isinstance(result, Tensor)]

    def _measure(self, values: dict[str, Any], count: int) -> None:
        """Walks through the steps, and raises if they exceed the limits for `count` pictures."""
        walk, size, work = self._walk(values), 0, 0
        for number, step in enumerate(self.steps, 1):
            try:
                args, made, dropped = next(walk)
                size += sum(map(_size, made))
                work += sum(map(_size, made)) * _terms(step, args)
                if size > MAX_VALUES * count or work > MAX_WORK * count:
                    raise ValueError("it needs more memory or time than any network of its kind")
                size -= sum(map(_size, dropped))
            except Exception as error:  # operators raise anything for invalid arguments
                reason = " ".join(str(error).split())[:200]
                raise DamagedError(f"its step {number}, {step.operator}, fails ({reason})") from None

    def _walk(self, values: dict[str, Any]) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
        """Yields, after each step, its arguments, its results, and the values that are not needed any more."""
        for step, done in zip(self.steps, self.done):
            args = [_filled(arg, values) for arg in step.args]
            result = step.function(*args, **{key: _filled(arg, values) for key, arg in step.kwargs.items()})
            made = [result] if len(step.outputs) == 1 else list(result)
            if len(made) != len(step.outputs):
                raise ValueError(f"it gives {len(made)} values instead of {len(step.outputs)}")
            values.update(zip(step.outputs, made))
            yield args, made, [values.pop(name) for name in done]
            del args, result, made  # frees their memory before the next step


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps an operator: its arguments are moved together, and constants are checked for size before they are made."""

    def run(*args: Any, **kwargs: Any) -> Any:
        args = together(args)
        if CHECKING.get() and not any(tensor.is_meta for tensor in _all(Tensor, args)):
            bounded(function(*_moved(args, lambda tensor: tensor.to("meta")), **kwargs))
        return function(*args, **kwargs)

    return run


sigmoid, multiplied, silu = map(guarded, (torch.ops.aten.sigmoid, torch.ops.aten.mul, torch.ops.aten.silu))


def fused(steps: list[Step], outputs: Sequence[str], tensors: dict[str, Tensor]) -> list[Step]:
    """Fuses steps, which saves passes through memory."""
    users = Counter(ref for step in steps for ref in _all(Ref, [step.args, *step.kwargs.values()])) + Counter(outputs)
    found: list[Step] = []
    for step in steps:
        if found and users[found[-1].outputs[0]] == 1:
            joined = _swish(found[-1], step) or _normalized(found[-1], step, tensors)
            if joined:
                found.pop()
                step = joined
        found.append(step)
    return found


def _swish(before: Step, step: Step) -> Step | None:
    """Fuses x sigmoid(x) to SiLU."""
    if before.function is sigmoid and step.function is multiplied:
        x, weight = before.args[0], before.outputs[0]
        if list(step.args) in ([x, weight], [weight, x]):
            return Step("SiLU", silu, [x], {}, step.outputs)
    return None


def _normalized(before: Step, step: Step, tensors: dict[str, Tensor]) -> Step | None:
    """Folds a batch normalisation into the weights of the convolution before it."""
    if before.operator not in CONVOLUTIONS or step.operator not in NORMALIZATIONS:
        return None
    x, kernel, bias, *rest = [*before.args, None] if len(before.args) == 2 else before.args
    names = [kernel, *step.args[1:5]] + ([] if bias is None else [bias])
    transposed = before.operator != "Conv" and before.operator != "conv2d" and rest[3]
    if step.args[0] != before.outputs[0] or transposed or not all(isinstance(name, str) for name in names):
        return None
    weight, *others = (tensors.get(name) for name in names)
    if weight is None or any(other is None or other.shape != weight.shape[:1] for other in others):
        return None
    gain, shift, mean, variance, *added = (other.float() for other in others if other is not None)
    epsilon = step.kwargs.get("epsilon", 1e-5) if step.operator == "BatchNormalization" else step.args[7]
    scale = gain / (variance + epsilon).sqrt()
    name = before.outputs[0]
    tensors[f"{name} weight"] = weight.float() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    tensors[f"{name} bias"] = shift + ((added[0] if added else 0) - mean) * scale
    args = [x, Ref(f"{name} weight"), Ref(f"{name} bias"), *rest]
    return before._replace(args=args, outputs=step.outputs)


def together(args: Any) -> Any:
    """Moves tensors made of constants to the device of those made of pictures."""
    tensors = list(_all(Tensor, args))
    lead = next((tensor for tensor in tensors if tensor.device.type != "cpu"), None)
    lead = lead if lead is not None else next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    if lead is None:
        return args

    def beside(tensor: Tensor) -> Tensor:
        floats = tensor.is_floating_point() and lead.is_floating_point()
        return tensor.to(lead.device, lead.dtype if floats else tensor.dtype)

    return _moved(args, beside)


def bounded(value: Any) -> None:
    """Refuses constants of more numbers than any network needs."""
    if sum(tensor.numel() for tensor in _all(Tensor, value)) > MAX_CONSTANT:
        raise ValueError("it makes constants that are larger than any network needs")


def _all(kind: type[Kind], value: Any) -> Iterator[Kind]:
    """Yields what is of a kind in lists of lists. A list may be contained in others many times, so what is in them is
    counted. No other walk through the same lists comes before this one."""
    waiting, count = [value], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, kind):
            yield part
        elif isinstance(part, (list, tuple)):
            count += len(part)
            if count > MAX_PARTS:
                raise DamagedError(f"it has lists of more than {MAX_PARTS} values")
            waiting += reversed(part)


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return move(value)
    return type(value)(_moved(part, move) for part in value) if isinstance(value, (list, tuple)) else value


def same(value: Any) -> Any:
    return value


def reshaped(x: Tensor, shape: Sequence[int], pictures: Tensor, batch: int) -> Tensor:
    """Reshapes; if `shape` contains the batch size of the file, the batch size of the pictures replaces it."""
    shape = list(shape)
    if shape and shape[0] == batch and len(x) == len(pictures):
        shape[0] = len(pictures)
    return x.reshape(shape)


def _filled(arg: Any, values: dict[str, Any]) -> Any:
    if isinstance(arg, Ref):
        return values[arg]
    if isinstance(arg, (list, tuple)):
        return [_filled(part, values) for part in arg]
    return arg


def _size(value: Any) -> int:
    """Counts the numbers in a value; large constants are refused."""
    bounded([tensor for tensor in _all(Tensor, value) if not tensor.is_meta])
    return sum(tensor.numel() for tensor in _all(Tensor, value))


def _terms(step: Step, args: Sequence[Any]) -> int:
    """Returns the largest number of products or values per number of a result."""
    if step.operator in CONVOLUTIONS:
        return args[1][0].numel()
    if step.operator in PRODUCTS:
        return max(length for tensor in _all(Tensor, args) for length in tensor.shape)
    if step.operator in POOLINGS:
        return math.prod(step.kwargs.get("kernel_shape") or args[1])
    return 1
