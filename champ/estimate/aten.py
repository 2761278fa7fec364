"""The operators that traced TorchScript may call: torch's own by name, with wrappers for those that create tensors,
convert types, or need a check."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .graph import bounded, guarded, multiplied, reshaped, same, sigmoid

# Operators that compute with tensors.
PLAIN = """
    abs adaptive_avg_pool2d add add_ addmm amax amin avg_pool2d baddbmm bmm cat ceil chunk clamp clamp_ clamp_max
    clamp_min clip constant_pad_nd contiguous conv2d convolution copy_ detach div div_ elu eq erf exp expand
    expand_as flatten flip floor floor_divide frobenius_norm ge gelu gt hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ layer_norm le leaky_relu leaky_relu_ linalg_norm linalg_vector_norm linear log
    logical_and logical_not logical_or lt matmul max_pool2d maximum mean meshgrid minimum mish mm narrow ne neg norm
    pad permute pixel_shuffle pixel_unshuffle pow prod reciprocal relu relu6 relu_ remainder repeat resolve_conj
    resolve_neg round rsqrt rsub select sigmoid_ silu silu_ slice softmax softplus split split_with_sizes sqrt
    square squeeze stack sub sub_ sum t tanh tile transpose true_divide unbind unflatten unsqueeze
    upsample_bilinear2d upsample_nearest2d view_as where
""".split()
BOOL = 11
INTEGERS = {0, 1, 2, 3, 4, BOOL}  # torch's types of numbers, by TorchScript's codes
FLOATS = {5, 6, 7, 15}


def _type(code: int | None) -> torch.dtype | None:
    """Floats are of 32 bits, until they meet what depends on the pictures; integers of 64."""
    if code is None:
        return None
    if code not in INTEGERS | FLOATS:
        raise ValueError(f"numbers of type {code}")
    return torch.float32 if code in FLOATS else torch.bool if code == BOOL else torch.int64


def _to(x: Tensor, *target: Any, dtype: int | None = None, **options: Any) -> Tensor:
    """Converts only between floats and integers: ComfyUI decides on device and precision."""
    if target and isinstance(target[0], Tensor):
        return _as(x, target[0])
    codes = [value for value in (*target, dtype) if type(value) is int]
    kind = _type(codes[0]) if codes else None
    if kind is None or kind.is_floating_point and x.is_floating_point():
        return x
    if x.is_meta and not kind.is_floating_point:
        raise ValueError("integers that depend on the picture")
    return x.to(kind)


def _as(x: Tensor, other: Tensor) -> Tensor:
    return _to(x, 6 if other.is_floating_point() else BOOL if other.dtype == torch.bool else 4)


def _constant(name: str) -> Callable[..., Tensor]:
    function = getattr(torch.ops.aten, name)

    def make(*args: Any, dtype: int | None = None, **options: Any) -> Tensor:
        args = tuple(_number(Tensor.item)(arg) if isinstance(arg, Tensor) else arg for arg in args)
        bounded(function(*args, dtype=_type(dtype), device="meta"))
        made = function(*args, dtype=_type(dtype), device="cpu")
        return made.float() if made.is_floating_point() else made

    return make


def _filled(value: float) -> Callable[..., Tensor]:
    def fill(x: Tensor, *given: float, dtype: int | None = None, **options: Any) -> Tensor:
        return torch.full_like(x, given[0] if given else value, dtype=_type(dtype) or x.dtype)

    return fill


def _batch_norm(*args: Any) -> Tensor:
    x, weight, bias, mean, variance, training, _, epsilon, *_ = args
    if training:
        raise ValueError("it is a network in training")
    return functional.batch_norm(x, mean, variance, weight, bias, eps=epsilon)


def _no_dropout(x: Tensor, share: float, training: bool) -> Tensor:
    if training:
        raise ValueError("it is a network in training")
    return x


def _number(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, Tensor) and (value.is_meta or value.is_floating_point()):
            raise ValueError("a number that depends on the picture")
        return kind(value)

    return convert


OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: guarded(getattr(torch.ops.aten, name)) for name in PLAIN},
    **{name: _constant(name) for name in ("arange", "full", "linspace", "ones", "scalar_tensor", "zeros")},
    **{name: _no_dropout for name in ("dropout", "dropout_", "feature_dropout")},
    **{name: same for name in ("alias", "lift_fresh", "lift_fresh_copy")},
    "_convolution": guarded(lambda *args: torch.convolution(*args[:9])),  # the rest is about cuDNN
    "batch_norm": guarded(_batch_norm),
    "clone": lambda x, *options, **more: x.clone(),
    "dim": lambda x: x.ndim,
    "full_like": _filled(0.0),
    "int": _number(int),
    "float": _number(float),
    "len": len,
    "mul": multiplied,
    "mul_": guarded(torch.ops.aten.mul_),
    "NumToTensor": torch.tensor,
    "ones_like": _filled(1.0),
    "reshape": reshaped,
    "reshape_as": lambda x, other: x.reshape(other.shape),
    "sigmoid": sigmoid,
    "size": lambda x, *axis: x.shape[axis[0]] if axis else list(x.shape),
    "to": _to,
    "type_as": _as,
    "view": reshaped,
    "zeros_like": _filled(0.0),
    "__getitem__": lambda values, index: values[index],
}  # fmt: skip
