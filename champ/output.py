"""Writes outputs atomically: they are made in a temporary folder (room) beside their place, and moved there when
complete."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

# Of the name of a room. No loader looks for this suffix, but a folder inside may hold model files.
PREFIX, SUFFIX = ".champ_", ".part"
ABANDONED = 3600.0  # seconds without a change, after which a room is a leftover of a killed run

NO_RIGHT = "this account may not write there", "allow it to, or choose another folder"
FULL = "the disk is full", "free some space and try again"
REASONS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: ("the file is larger than this disk or system allows", "choose another disk, or make it smaller"),
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: ("that disk can only be read", "choose another folder"),
    errno.ENAMETOOLONG: ("its name or path is too long", "choose a shorter name"),
    errno.EEXIST: ("something of that name is already there", "choose another name"),
    errno.ENOTEMPTY: ("a folder of that name is already there", "choose another name"),
    errno.EISDIR: ("a folder of that name is already there", "choose another name, or move the folder away"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another folder, or move that file away"),
}


@contextmanager
def whole(target: str | Path, *, folder: bool = False, replace: bool = False) -> Iterator[Path]:
    """Yields a path without a suffix, at which to write a file (or an empty folder, to be filled).

    If the block succeeds, the result becomes `target`; if it fails, nothing is left. An existing output stays, which is
    an error, unless `replace` is set. Errors of the system become one sentence.
    """
    target = Path(target)
    room = None
    try:
        make_folder(target.parent)
        _remove_abandoned(target.parent)
        _check_place(target, folder, replace)
        room = _make_room(target.parent)
        made = room / "whole"
        if folder:
            made.mkdir()
        yield made
        if not folder:
            flush(made)
        _check_place(target, folder, replace)
        if target.is_dir() and replace:
            _exchange(made, target, room / "before")
        else:
            if target.is_dir():
                target.rmdir()  # it is empty; if it has changed meanwhile, this is an error
            os.replace(made, target)
    except Exception as error:
        problem = system_error(error)
        if problem is None:
            raise
        raise ValueError(not_saved(target, problem)) from error
    finally:
        if room is not None:
            shutil.rmtree(room, ignore_errors=True)


def is_part(name: str) -> bool:
    """Tells whether a folder of this name is a room in which something is being made."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the usual permissions; the library's writer restricts it to its owner."""
    from safetensors.torch import save_file  # torch is imported only to write tensors

    path.touch()
    permissions = stat.S_IMODE(path.stat().st_mode)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, dict(metadata) if metadata else None)
    path.chmod(permissions)


def save_tensors(
    file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, replace: bool = False
) -> None:
    with whole(file, replace=replace) as made:
        write_tensors(made, tensors, metadata)


def save_picture(file: Path, picture: np.ndarray) -> None:
    """Writes uint8 RGB (H, W, 3) as a PNG, replacing an older one."""
    with whole(file, replace=True) as made:
        Image.fromarray(picture).save(made, "PNG")


def system_error(error: BaseException | None) -> OSError | None:
    """Finds the system's error in a writer's error: safetensors puts it into its text, torch hides it."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, SafetensorError) and (found := re.search(r"os error (\d+)", str(error))):
        number = int(found[1])
        return OSError(number, os.strerror(number), None, number)
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return error.__context__
    return None


def not_saved(target: Path, error: OSError) -> str:
    """Returns the sentence for a file or folder that cannot be written."""
    reason, remedy = REASONS.get(error.errno or 0, (error.strerror or str(error), "try another folder"))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += f" ({_free_space(target) / 1e6:.0f} MB free)"
    folder = str(target.parent)
    shown = folder if len(folder) < 300 else f"{folder[:100]}...{folder[-100:]}"
    return f"{target.name} cannot be saved in {shown}: {reason}; {remedy}."


def _free_space(target: Path) -> int:
    place = next(folder for folder in target.absolute().parents if folder.is_dir())
    return shutil.disk_usage(place).free


def _check_place(target: Path, folder: bool, replace: bool) -> None:
    """Checks that the output can be moved to its place: it is free, an empty folder, or of the same kind and to be
    replaced."""
    if target.is_dir() != folder and target.exists():
        raise OSError(errno.EISDIR if target.is_dir() else errno.EEXIST, "")
    if target.exists() and not replace and not (folder and next(target.iterdir(), None) is None):
        raise OSError(errno.EEXIST, "")


def _make_room(folder: Path) -> Path:
    room = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    room.mkdir()  # a folder of tempfile, and on Windows what is moved out of it, would be private to its owner
    return room


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # the existing path is not a folder
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def flush(file: Path) -> None:
    """Waits for the disk, so that a named file is complete even after a power failure."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def _exchange(made: Path, target: Path, before: Path) -> None:
    """Replaces a folder by another one, which is not possible in one step."""
    os.replace(target, before)
    try:
        os.replace(made, target)
    except OSError:
        os.replace(before, target)
        raise


def _remove_abandoned(folder: Path) -> None:
    for room in folder.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            changed = max(path.lstat().st_mtime for path in (room, *room.rglob("*")))
            if time.time() - changed > ABANDONED:
                shutil.rmtree(room)
        except OSError:
            pass  # another process uses it, or we may not remove it
