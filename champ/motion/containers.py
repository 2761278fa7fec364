"""Reads files of other motion tools as dicts, lists and arrays, without running anything in them."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files.arrays import NAMES, array_from, dtype_of, read_npy, read_npz, to_array
from ..files.errors import DamagedError
from ..files.pickles import Node, Unpickler
from ..files.room import Room
from ..files.tensors import mapped
from ..files.torch_files import is_tensor, read_torch, to_tensor
from ..files.zips import Bytes, inflate

JSON_BYTES = 64 << 20
JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
# Also joblib's arrays, and torch's tensors.
MOTION_NAMES = rf"{NAMES}|{re.escape(JOBLIB_ARRAY)}|torch\._utils\._rebuild_tensor_v2|torch\.storage\._load_from_bytes"


class _JoblibUnpickler(Unpickler):
    """Also reads joblib's arrays, whose bytes follow their description in the file."""

    def __init__(self, data: Bytes, room: Room):
        super().__init__(data, MOTION_NAMES, room=room)

    def built(self, node: Node) -> None:
        if node.name != JOBLIB_ARRAY:
            return
        state = node.state
        if state.get("numpy_array_alignment_bytes") is not None:  # since joblib 1.2 there is padding, and its length
            self.take(self.take_length(1))
        dtype, shape = _dtype(state["dtype"]), tuple(state["shape"])
        raw = self.take_view(int(np.prod(shape, dtype=object)) * dtype.itemsize)
        node.state = array_from(raw, dtype, shape, state["order"])


def _dtype(node: Any) -> np.dtype:
    return dtype_of(node.args[0], node.state[1], text=True)


def numbers(value: Any) -> np.ndarray:
    """Converts an array, a tensor, a list or a number of a file to an array."""
    if isinstance(value, Node) and value.name == JOBLIB_ARRAY:
        return value.state
    return to_tensor(value).numpy() if is_tensor(value) else to_array(value)


def read_npy_file(path: Path) -> Any:
    """Reads a .npy file; a dict that np.save wrapped in an array without axes is returned as a dict."""
    value = read_npy(path.read_bytes(), MOTION_NAMES)
    return value.state[4][0] if isinstance(value, Node) else value


def _read_npz(path: Path) -> dict[str, Any]:
    return read_npz(path.read_bytes(), MOTION_NAMES)


def _read_joblib(path: Path) -> Any:
    data: Bytes = path.read_bytes()
    room = Room(len(data))
    if data[:1] == b"\x78":
        data = inflate(data, room)
    elif data[:2] == b"\x1f\x8b":
        data = inflate(data, room, 16 + zlib.MAX_WBITS)
    return _JoblibUnpickler(data, room).load()


def _read_torch(path: Path) -> Any:
    return read_torch(mapped(path))


def _read_json(path: Path) -> Any:
    if path.stat().st_size > JSON_BYTES:
        raise DamagedError(f"it has more than {JSON_BYTES >> 20} MB, and JSON of that size cannot be read")
    return json.loads(path.read_bytes())


READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    ".smpl": _read_npz,
    ".npy": read_npy_file,
    ".pkl": _read_joblib,
    ".pt": _read_torch,
    ".json": _read_json,
}
