"""NumPy arrays: as pickles describe them, and in .npy and .npz files."""

import re
import struct
from collections.abc import Container
from typing import Any

import numpy as np

from .errors import LISTED, DamagedError
from .pickles import Node, Unpickler
from .room import Room
from .zips import Archive, Bytes

# Names that NumPy's own arrays and numbers need, and names that any pickle of Python 2 or 3 may contain.
NAMES = (
    r"numpy(\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|\.ndarray|\.dtype)"
    r"|(copy_reg|copyreg)\._reconstructor|(__builtin__|builtins)\.(object|set|frozenset)|_codecs\.encode"
)
LONGEST = 1_000_000  # numbers in lists of lists
ALL_LISTS = 10_000_000  # numbers in all lists of a file, counted each time that one is converted: some seconds
AXES = 8
HEADER = 10_000  # bytes
MAGIC = b"\x93NUMPY"
FIELDS = re.compile(
    r"\{'descr': '([<>|=])(\w{1,6})', 'fortran_order': (True|False), 'shape': \(([\dL, ]{0,200})\),? \}\s*"
)


def dtype_of(code: str, order: str, text: bool = False) -> np.dtype:
    """Returns the dtype of a code such as "f4" (a letter and a number of bytes) and a byte order, "<" or ">"."""
    if not re.fullmatch(r"[biuf][1248]" + (r"|[SU]\d{1,4}" if text else ""), code) or order not in "<>|=":
        raise DamagedError(f"it holds an array of {ascii(code[:20])[1:-1]}, which is not numeric")
    return np.dtype(order + code)


def array_from(raw: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    """Returns bytes as an array of this shape, without a copy."""
    if isinstance(raw, Node) and raw.name == "_codecs.encode":  # Python 3 writes this in protocol 2
        raw = raw.args[0]
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(shape, tuple) or len(shape) > AXES or order not in ("C", "F"):
        raise DamagedError("it is damaged")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def to_array(value: Any) -> np.ndarray:
    """Converts a NumPy node, a list or a number to an array; arrays of objects are refused."""
    if isinstance(value, list | tuple):
        return _listed(value)
    if not isinstance(value, Node):
        return np.asarray(value)
    if value.name.endswith("._frombuffer"):  # protocol 5
        raw, dtype, shape, order = value.args
    elif value.name.endswith("._reconstruct"):
        _, shape, dtype, fortran, raw = value.state
        order = "F" if fortran else "C"
    elif value.name.endswith(".scalar"):
        dtype, raw = value.args
        return array_from(raw, _described(dtype, text=True), (), "C")
    else:
        raise DamagedError(f"it holds {value.name[:80]} instead of an array")
    return array_from(raw, _described(dtype), shape, order)


def _described(node: Any, text: bool = False) -> np.dtype:
    if not isinstance(node, Node) or not node.name.endswith(".dtype"):
        raise DamagedError("it is damaged")
    return dtype_of(node.args[0], node.state[1], text)


def _listed(values: list | tuple) -> np.ndarray:
    """Converts lists of lists of numbers. A list may be contained in others many times, so the numbers are counted
    first; and a file may ask for the same list again and again, so all of them together are, too."""
    count, waiting = 0, [(values, 1)]
    while waiting:
        inner, axes = waiting.pop()
        count += len(inner)
        if not inner and axes > 1:
            raise DamagedError("it holds lists of empty lists")
        if axes > AXES or count > LONGEST:
            raise DamagedError(f"it holds lists of more than {LONGEST} numbers")
        if (before := LISTED.get()) is not None:
            LISTED.set(before + len(inner))
            if before > ALL_LISTS:
                raise DamagedError("it holds the same lists again and again")
        for value in inner:
            if isinstance(value, list | tuple):
                waiting.append((value, axes + 1))
            elif not isinstance(value, int | float):
                raise DamagedError("it holds lists of values that are not numbers")
    return np.asarray(values)


def object_members(value: Any) -> list:
    """Returns the members of an array of Python objects."""
    if isinstance(value, Node):
        value = value.state[4]
    if not isinstance(value, list | np.ndarray):
        raise DamagedError("it is damaged")
    return list(value)


def read_npy(data: Bytes, names: str = NAMES, room: Room | None = None) -> Any:
    """Reads the array of a .npy file; an array of objects is returned as the node of its pickle."""
    version = data[6:8]
    wide = version in (b"\2\0", b"\3\0")
    if data[:6] != MAGIC or not wide and version != b"\1\0":
        raise DamagedError("it is not a NumPy array")
    start = 12 if wide else 10
    (length,) = struct.unpack("<I" if wide else "<H", data[8:start])
    if length > HEADER:
        raise DamagedError("its header is too long")
    found = FIELDS.fullmatch(bytes(data[start : start + length]).decode("latin1"))
    if not found:
        raise DamagedError("its header is damaged, or it is an array of records")
    order, code, fortran, lengths = found.groups()
    if code == "O":
        return Unpickler(data, names, start + length, room).load()
    axes = [axis.strip().removesuffix("L") for axis in lengths.split(",") if axis.strip()]
    if any(not re.fullmatch(r"\d{1,15}", axis) for axis in axes):
        raise DamagedError("its header is damaged")
    dtype, shape = dtype_of(code, order, text=True), tuple(map(int, axes))
    return array_from(memoryview(data)[start + length :], dtype, shape, "F" if fortran == "True" else "C")


def read_npz(data: Bytes, names: str = NAMES, only: Container[str] | None = None) -> dict[str, Any]:
    """Reads the arrays of a .npz file by their names, or only the wanted ones."""
    archive = Archive(data)
    wanted = [(name.removesuffix(".npy"), name) for name in archive.members if name.endswith(".npy")]
    return {
        short: read_npy(archive.read(name), names, archive.room)
        for short, name in wanted
        if only is None or short in only
    }
