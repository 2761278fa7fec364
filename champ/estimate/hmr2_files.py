"""HMR2's checkpoints on disk: the official Lightning files, and copies of them as safetensors."""

import re
from collections.abc import Callable
from pathlib import Path

import torch

from ..files.errors import DamagedError, reading
from ..files.tensors import StateDict, read_safetensors, tensors_in
from ..output import whole, write_tensors

SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt")
OFFICIAL = "epoch=35-step=1000000.ckpt"


def read_hmr2(path: str | Path) -> tuple[StateDict, dict[str, str]]:
    """Reads the tensors of a file, which stay on disk until they are used, and the metadata of a safetensors file.

    Of a training checkpoint only the weights are read; nothing else in it is even created.
    """
    path = Path(path)
    with reading(path, "a checkpoint of HMR2", f"download {OFFICIAL} of 4D-Humans again"):
        if path.suffix.lower() != ".safetensors":
            return tensors_in(path, nested=("state_dict",)), {}
        state, about = read_safetensors(path)
        for name in ("heads", "decoder_heads"):
            if not re.fullmatch(r"[1-9]\d{0,2}", about.get(name, "1")):
                raise DamagedError(f"it claims {about[name][:20]!r} {name}")
        return state, about


def half_copy(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Returns the half-precision copy beside a checkpoint; `write` makes it if it is missing or older."""
    path = Path(path)
    copy = path.with_name(f"{path.stem}_fp16.safetensors")
    if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
        try:
            with whole(copy, replace=True) as made:
                write(made)
        except ValueError as error:
            raise ValueError(f"{error} Or turn half_precision_copy off.") from error
    return copy


def save_half(path: Path, state: StateDict, heads: int, decoder_heads: int) -> None:
    """Saves weights as float16, with the numbers of heads, which no tensor shape shows."""
    halves = {key: value.to(torch.float16) for key, value in state.items()}
    write_tensors(path, halves, {"heads": str(heads), "decoder_heads": str(decoder_heads)})
