"""Reads the files of other motion tools as dicts, lists and arrays; nothing that a file mentions is run."""

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..files import Node, RefusedError, SafeUnpickler, to_array

JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
TENSOR = "torch._utils._rebuild_tensor_v2"
STORAGE = "torch.storage._load_from_bytes"


class _Table(dict):
    """What a defaultdict held, without its function."""

    def __init__(self, *_: Any):
        super().__init__()


class _MotionUnpickler(SafeUnpickler):
    """Also joblib's arrays, whose bytes stand in the file behind the description, and torch's tensors."""

    names = re.compile(
        rf"{SafeUnpickler.names.pattern}|(__builtin__|builtins)\.dict"
        + "".join("|" + re.escape(name) for name in (JOBLIB_ARRAY, TENSOR, STORAGE))
    )

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin1")
        self.file = file  # a BytesIO has no peek, so that the unpickler never reads ahead of an array

    def find_class(self, module: str, name: str) -> type:
        if f"{module}.{name}" == "collections.defaultdict":
            return _Table
        found = super().find_class(module, name)
        if f"{module}.{name}" == JOBLIB_ARRAY:
            file = self.file
            found.__setstate__ = lambda node, state: setattr(node, "state", _array_behind(file, state))  # type: ignore
        return found


def _dtype(node: Any) -> np.dtype:
    return np.dtype(node.args[0]).newbyteorder(node.state[1])


def _array_behind(file: BinaryIO, state: dict) -> np.ndarray:
    """joblib's layout: since 1.2 one byte that counts the padding, the padding; then the numbers."""
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    dtype, shape = _dtype(state["dtype"]), tuple(state["shape"])
    count = int(np.prod(shape, dtype=object))
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return flat.reshape(shape, order=state["order"])


def numbers(value: Any) -> np.ndarray:
    """The array that stands in a file as an array, a tensor, a list or a number."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if not isinstance(value, Node):
        return np.asarray(value)
    if value.name == JOBLIB_ARRAY:
        return value.state
    if value.name == TENSOR:
        storage, offset, size, stride, *_ = value.args
        held = torch.load(io.BytesIO(storage.args[0]), map_location="cpu", weights_only=True)
        return torch._utils._rebuild_tensor(held, offset, size, stride).numpy()
    if value.name.endswith(".scalar"):
        dtype, raw = value.args
        raw = raw.args[0] if isinstance(raw, Node) else raw
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, _dtype(dtype))[0]
    return to_array(value)


def objects(value: Any) -> list:
    """The members of an array of Python objects."""
    return list(value.state[4]) if isinstance(value, Node) else list(value)


def _read_npy(data: bytes) -> Any:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if header(file)[2].hasobject:
        return _MotionUnpickler(file).load()
    return np.load(io.BytesIO(data), allow_pickle=False)


def read_npy_file(path: Path) -> Any:
    """A dict in an array without axes, as np.save writes it, is that dict."""
    value = _read_npy(path.read_bytes())
    return objects(value)[0] if isinstance(value, Node) else value


def _read_npz(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): _read_npy(archive.read(name)) for name in archive.namelist()}


def _read_joblib(path: Path) -> Any:
    data = path.read_bytes()
    if data[:1] == b"\x78":
        data = zlib.decompress(data)
    elif data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return _MotionUnpickler(io.BytesIO(data)).load()


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if name := re.search(r"GLOBAL:? (\S+)", str(error)):  # torch's own restricted reader does not know it
            raise RefusedError(name[1]) from None
        raise


READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    ".smpl": _read_npz,
    ".npy": read_npy_file,
    ".pkl": _read_joblib,
    ".pt": _read_torch,
}
