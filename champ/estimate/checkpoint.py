"""HMR2's checkpoints on disk: the official Lightning files, and copies of them as safetensors."""

import mmap
import os
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import Node, RefusedError, SafeUnpickler

SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt")
OFFICIAL = "epoch=35-step=1000000.ckpt"
TENSOR = "torch._utils._rebuild_tensor_v2"
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
}

StateDict = dict[str, Tensor]


def read_hmr2(path: str | Path) -> tuple[StateDict, dict[str, str]]:
    """The tensors of a file, which stay on disk until they are used, and what a safetensors file says about itself.

    Of a training checkpoint only the weights are taken; nothing else in it is even made."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
        return _read_torch(path), {}
    except RefusedError as error:
        raise ValueError(
            f"{path.name} was refused and nothing in it was run: it calls {error}, which no checkpoint of HMR2 does; "
            f"get {OFFICIAL} from the authors of 4D-Humans."
        ) from None
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(
            f"{path.name} cannot be read as a checkpoint of HMR2, it is damaged or not complete; download it again."
        ) from error


def half_copy(path: str | Path, write: Callable[[Path], None]) -> Path:
    """The copy in half precision beside a checkpoint, made by `write` when it is not there or older."""
    path = Path(path)
    copy = path.with_name(f"{path.stem}_fp16.safetensors")
    if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
        partial = copy.with_suffix(".part")
        try:
            write(partial)
            os.replace(partial, copy)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ValueError(
                f"{copy.name} cannot be written beside {path.name} ({error}); make room for it, or switch the half "
                "precision copy off."
            ) from None
    return copy


def save_half(path: Path, state: StateDict, heads: int, decoder_heads: int) -> None:
    """Weights as float16, with the numbers of heads, which no shape tells."""
    halves = {key: value.to(torch.float16).contiguous() for key, value in state.items()}
    save_file(halves, path, {"heads": str(heads), "decoder_heads": str(decoder_heads)})


class _Members:
    """For objects that were dicts or lists: what is put into them is dropped."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _CheckpointUnpickler(SafeUnpickler):
    """Also what Lightning saves beside the weights: configurations of yacs and omegaconf, states of training."""

    names = re.compile(
        rf"{SafeUnpickler.names.pattern}|(torch|yacs|omegaconf|pytorch_lightning|lightning|pathlib|typing)\..*"
        r"|(__builtin__|builtins)\.(dict|list|tuple|int|float|str|bool|getattr)|collections\.defaultdict"
    )

    def find_class(self, module: str, name: str) -> type:
        found = super().find_class(module, name)
        return found if found is OrderedDict else type(name, (_Members, found), {})

    def persistent_load(self, pid: tuple) -> tuple[str, str]:
        _, storage, key, _, _ = pid
        return storage.name, key


def _read_torch(path: Path) -> StateDict:
    """The tensors of torch's zip format: data.pkl describes them, and their numbers are the files data/<key>."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = entry.removesuffix(".pkl")
        with archive.open(entry) as pickled:
            content = _CheckpointUnpickler(pickled).load()
        content = content.get("state_dict", content)
        # Pages are read when a tensor is used, and belong to the file until something is written to them.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

        def tensor(node: Node) -> Tensor:
            (storage, key), offset, size, stride, *_ = node.args
            info = archive.getinfo(f"{folder}/{key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its numbers are compressed")
            dtype = DTYPES[storage]
            lengths = struct.unpack_from("<HH", pages, info.header_offset + 26)  # of name and extra field
            start = info.header_offset + 30 + sum(lengths)
            flat = torch.frombuffer(pages, dtype=dtype, count=info.file_size // dtype.itemsize, offset=start)
            return flat.as_strided(size, stride, offset)

        nodes = {key: value for key, value in content.items() if isinstance(value, Node) and value.name == TENSOR}
        return {key: tensor(node) for key, node in nodes.items() if node.args[0][0] in DTYPES}
