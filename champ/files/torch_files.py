"""Reads torch's files: its zip format, and its format before version 1.6. Tensors stay in the file until they are used.
torch's own reader is not used."""

import math
import re
import struct
from functools import cached_property
from mmap import mmap
from typing import Any

import torch
from torch import Tensor

from .arrays import NAMES as ARRAY_NAMES
from .errors import DamagedError
from .pickles import Name, Node, Unpickler
from .room import Room
from .zips import Archive, Bytes

# Tensors, and what trainers save beside the weights: configurations, callbacks, states of optimisers.
NAMES = (
    rf"{ARRAY_NAMES}|(torch|yacs|omegaconf|pytorch_lightning|lightning|mmengine|mmcv|pathlib|typing|argparse)\.[\w.]+"
    r"|(__builtin__|builtins)\.(list|tuple|int|float|complex|str|bytes|bool|slice|getattr)"
)
LEGACY = 0x1950A86A20F9469CFC6C  # the beginning of files of torch before 1.6
AXES = 16
ALIGNED = 16  # bytes; numbers with another alignment are copied out of the file

DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}  # fmt: skip
# Types without a storage class, by their names in a pickle.
NEWER = {
    f"torch.{name}": getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
    if hasattr(torch, name)
}
PARAMETERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_from_type_v2", *PARAMETERS}


class Storage:
    """The numbers of one or several tensors: their place in the file, and their type."""

    def __init__(self, kind: Any, count: Any):
        found = re.fullmatch(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage", getattr(kind, "name", ""))
        if not found or found[1] not in DTYPES or not isinstance(count, int) or count < 0:
            raise DamagedError("it is damaged")
        self.dtype, self.count = DTYPES[found[1]], count
        self.size = count * self.dtype.itemsize
        self.place: tuple[Bytes, int] | None = None

    def lies(self, data: Bytes, start: int, stop: int) -> None:
        """Sets the place of the bytes."""
        if self.size > stop - start:
            raise DamagedError("it claims more numbers than it holds")
        self.place = data, start

    @cached_property
    def bytes(self) -> Tensor:
        if self.place is None:
            raise DamagedError("it lacks the numbers of a tensor")
        data, start = self.place
        if not self.size:
            return torch.empty(0, dtype=torch.uint8)
        if isinstance(data, mmap) and start % ALIGNED == 0:
            return torch.frombuffer(data, dtype=torch.uint8, count=self.size, offset=start)
        return torch.frombuffer(bytearray(data[start : start + self.size]), dtype=torch.uint8)


class _TorchUnpickler(Unpickler):
    """Collects the storages that a pickle refers to; the reader of the file sets their places."""

    def __init__(self, data: Bytes, names: str, position: int = 0, room: Room | None = None):
        super().__init__(data, names, position, room)
        self.storages: dict[str, Storage] = {}

    def persistent(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise DamagedError("it refers to something outside itself")
        _, kind, key, _, count, *view = pid
        if not isinstance(key, str) or view not in ([], [None]):
            raise DamagedError("it was written by a version of torch that is too old")
        if key not in self.storages:
            self.room.pay(600)
            self.storages[key] = Storage(kind, count)
        return self.storages[key]


def is_tensor(value: Any) -> bool:
    """Tells whether a node of a pickle describes a tensor."""
    return isinstance(value, Node) and value.name.startswith("torch._") and value.name.rpartition(".")[2] in TENSORS


def to_tensor(node: Node) -> Tensor:
    """Makes the tensor that a node describes, over the bytes of the file."""
    name, args = node.name.rpartition(".")[2], node.args
    if name in PARAMETERS:
        return to_tensor(args[0])
    if name == "_rebuild_from_type_v2":  # a tensor with additional attributes
        function, _, inner, _ = args
        return to_tensor(Node(function.name, inner))
    if not is_tensor(node):
        raise DamagedError("it holds something else where a tensor belongs")
    storage, offset, size, stride = args[:4]
    if isinstance(storage, Node):  # a tensor that was pickled without torch.save
        storage = _pickled_storage(storage)
    if not isinstance(storage, Storage):
        raise DamagedError("it is damaged")
    dtype = storage.dtype
    if name == "_rebuild_tensor_v3":
        if not isinstance(args[6], Name) or args[6].name not in NEWER:
            raise DamagedError("it holds a type of numbers that this pack does not know")
        dtype = NEWER[args[6].name]
    return _view(storage.bytes[: storage.size // dtype.itemsize * dtype.itemsize].view(dtype), offset, size, stride)


def _view(numbers: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    """Makes a tensor of some of the numbers. If its elements share numbers, it is refused: it could have any size."""
    if not all(isinstance(axes, tuple) and len(axes) <= AXES for axes in (size, stride)) or len(size) != len(stride):
        raise DamagedError("it is damaged")
    if not all(isinstance(value, int) and 0 <= value < 1 << 62 for value in (offset, *size, *stride)):
        raise DamagedError("it is damaged")
    if 0 in size:
        return numbers.new_empty(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    shared = any(length > 1 and step == 0 for length, step in zip(size, stride))
    if last >= len(numbers) or math.prod(size) > len(numbers) or shared:
        raise DamagedError("it claims more numbers than it holds")
    return numbers.as_strided(size, stride, offset)


def with_tensors(value: Any, made: dict[int, Any] | None = None) -> Any:
    """Returns what torch.save has written: dicts, lists and tuples with tensors instead of nodes. The file is not
    needed any more."""
    made = {} if made is None else made
    if id(value) in made:
        return made[id(value)]
    if is_tensor(value):
        result: Any = to_tensor(value).clone()
    elif isinstance(value, Node):
        raise DamagedError(f"it holds {value.name[:80]}, which does not belong here")
    elif isinstance(value, dict):
        result = {key: with_tensors(inner, made) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(with_tensors(inner, made) for inner in value)
    else:
        return value
    made[id(value)] = result
    return result


def _pickled_storage(node: Node) -> Any:
    if node.name != "torch.storage._load_from_bytes":
        raise DamagedError("it is damaged")
    return read_torch(bytes(node.args[0]))


class TorchArchive:
    """torch's zip format: pickles that describe what was saved, and the numbers of the tensors beside them."""

    def __init__(self, data: Bytes):
        self.data, self.archive = data, Archive(data)
        self.root = next((name[:-8] for name in self.archive.members if name.endswith("/data.pkl")), None)
        if self.root is None:
            raise DamagedError("it is a zip archive, but not a torch file")
        if f"{self.root}byteorder" in self.archive.members and bytes(self.read("byteorder")) != b"little":
            raise DamagedError("it was written on a big-endian machine, which is not supported")

    def __contains__(self, name: str) -> bool:
        return f"{self.root}{name}" in self.archive.members

    def names(self, folder: str = "") -> list[str]:
        """Lists the members below a folder, such as "code/"."""
        start = f"{self.root}{folder}"
        return [name.removeprefix(str(self.root)) for name in self.archive.members if name.startswith(start)]

    def read(self, name: str) -> Bytes:
        return self.archive.read(f"{self.root}{name}")

    def load(self, name: str = "data.pkl", names: str = NAMES) -> Any:
        """Reads a pickle; use `to_tensor` on the nodes for which `is_tensor` is true."""
        reader = _TorchUnpickler(self.read(name), names, room=self.archive.room)
        value = reader.load()
        folder = name.removesuffix(".pkl")
        for key, storage in reader.storages.items():
            storage.lies(self.data, *self.archive.stored_span(f"{self.root}{folder}/{key}"))
        return value


def _read_legacy(data: Bytes, names: str) -> Any:
    """Reads the old format: pickles one after the other, then the numbers, each storage after its count."""
    reader = _TorchUnpickler(data, names)
    if reader.load() != LEGACY:
        raise DamagedError("it is a pickle, but not a torch file")
    reader.load()  # the version of the format
    about = reader.load()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise DamagedError("it was written on a big-endian machine, which is not supported")
    value, keys = reader.load(), reader.load()
    place = reader.position
    for key in keys:
        storage = reader.storages.get(key)
        if storage is None or struct.unpack("<q", data[place : place + 8]) != (storage.count,):
            raise DamagedError("it is damaged")
        place += 8
        storage.lies(data, place, len(data))
        place += storage.size
    return value


def read_torch(data: Bytes, names: str = NAMES) -> Any:
    """Reads what torch.save has written, with a node for each tensor."""
    if data[:4] == b"PK\3\4":
        archive = TorchArchive(data)
        if "constants.pkl" in archive:
            raise DamagedError("it is a network of TorchScript")
        return archive.load(names=names)
    if data[257:262] == b"ustar":
        raise DamagedError("it was written by a version of torch that is too old")
    return _read_legacy(data, names)
