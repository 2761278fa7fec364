"""Digests of files and folders, by which they are recognised later."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files.companions import tram_camera

BLOCK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Contents:
    sha256: str
    bytes: int
    stamp: str  # of names, sizes and times, by which it is known again without being read

    def to_json(self) -> dict:
        return asdict(self)


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder by their names in it, in their order; a file is its own, without a name, and what belongs
    to it has the name under which it may lie beside it."""
    if path.is_file():
        yield "", path
        if (camera := tram_camera(path)) is not None:
            yield camera.name, camera
    else:
        for file in sorted(_inside(path, frozenset())):
            yield file.relative_to(path).as_posix(), file


def _inside(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """The files below a folder, also through links to other folders, except those that lead back."""
    if (real := os.path.realpath(folder)) not in above:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from _inside(entry, above | {real})
            elif entry.is_file():
                yield entry


def digest(file: Path) -> str:
    total = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def contents(path: Path) -> Contents:
    """Records a file or folder; for a folder, or a file to which others belong, the digest of all names and digests."""
    size, stamp = size_and_stamp(path)
    files = list(files_of(path))
    if files == [("", path)]:
        return Contents(digest(path), size, stamp)
    return Contents(_digest_of_list(f"{name}\0{digest(file)}\n" for name, file in files), size, stamp)


def size_and_stamp(path: Path) -> tuple[int, str]:
    stats = [(name, file.stat()) for name, file in files_of(path)]
    stamp = _digest_of_list(f"{name}\0{one.st_size}\0{one.st_mtime_ns}\n" for name, one in stats)
    return sum(one.st_size for _, one in stats), stamp[:16]


def _digest_of_list(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode(errors="backslashreplace")).hexdigest()  # of names of any bytes


def is_same(path: Path, recorded: dict, elsewhere: bool = False) -> bool:
    """Returns whether a path holds what was recorded; it is read only if its names or times have changed, or if it may
    be `elsewhere`: what is unpacked from one archive often has the same time."""
    try:
        size, stamp = size_and_stamp(path)
        known = stamp == recorded.get("stamp") and not elsewhere
        return size == recorded["bytes"] and (known or contents(path).sha256 == recorded["sha256"])
    except OSError:
        return False
