"""Reads named tensors from any file that has them: safetensors, or torch's files."""

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from .errors import DamagedError, reading
from .torch_files import is_tensor, read_torch, to_tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # in order of preference
HEADER = 16 << 20  # bytes of the header of a safetensors file
StateDict = dict[str, Tensor]  # of a network, by the names of its parts


def read_tensors(
    path: str | Path,
    nested: Sequence[str] = (),
    prefix: str = "",
    what: str = "a file of tensors",
    advice: str = "download it again",
) -> dict[str, Tensor]:
    """Reads the tensors of a .safetensors, .pth, .pt, .bin or .ckpt file; the format is recognised by the content.

    The tensors stay in the file until they are used. `nested` are names under which a training checkpoint may keep
    them; everything else in it stays unread. `prefix` is removed from names that have it. All problems raise one
    ValueError: it cannot be read as `what`: the reason; `advice`.
    """
    path = Path(path)
    with reading(path, what, advice):
        return tensors_in(path, nested, prefix)


def tensors_in(path: Path, nested: Sequence[str] = (), prefix: str = "") -> dict[str, Tensor]:
    """Reads tensors like read_tensors, but without its error message: for use within `reading`."""
    if _is_safetensors(path):
        found, _ = read_safetensors(path)
    else:
        values = _unwrapped(read_torch(mapped(path)), nested)
        found = {str(key): to_tensor(value) for key, value in values.items() if is_tensor(value)}
        if not found:
            raise DamagedError("it holds no named tensors")
    return {key.removeprefix(prefix): value for key, value in found.items()}


def mapped(path: Path) -> mmap.mmap:
    """Maps a file into memory, copy-on-write: bytes are read when they are used, and changes never reach the file."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the metadata of a safetensors file; for use within `reading`."""
    if not _is_safetensors(path):
        raise DamagedError("it is damaged")
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) < 9 or head[8:] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    if length > path.stat().st_size - 8:
        raise DamagedError("it ends in the middle")
    if length > HEADER:
        raise DamagedError("its header is too long")
    return True


def _unwrapped(values: Any, nested: Sequence[str]) -> dict[Any, Any]:
    """Unwraps the dict of tensors from the dicts that training puts around it."""
    for _ in nested:
        inner = next((values[name] for name in nested if name in values), None) if isinstance(values, dict) else None
        if not isinstance(inner, dict):
            break
        values = inner
    if not isinstance(values, dict):
        raise DamagedError("it holds no named tensors")
    return values
