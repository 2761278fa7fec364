"""Digests of files and folders, by which they are recognised later."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files.companions import tram_camera

BLOCK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Contents:
    sha256: str
    bytes: int
    modified: int  # nanoseconds; of the latest file of a folder

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
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file


def digest(file: Path) -> str:
    total = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def contents(path: Path) -> Contents:
    """Records a file or folder; for a folder, or a file to which others belong, the digest of all names and digests."""
    size, modified = size_and_time(path)
    files = list(files_of(path))
    if files == [("", path)]:
        return Contents(digest(path), size, modified)
    listed = "".join(f"{name}\0{digest(file)}\n" for name, file in files)
    return Contents(hashlib.sha256(listed.encode()).hexdigest(), size, modified)


def size_and_time(path: Path) -> tuple[int, int]:
    stats = [file.stat() for _, file in files_of(path)]
    return sum(one.st_size for one in stats), max((one.st_mtime_ns for one in stats), default=0)


def is_same(path: Path, recorded: dict) -> bool:
    """Returns whether a path holds what was recorded; it is read only if its time has changed."""
    try:
        size, modified = size_and_time(path)
        return size == recorded["bytes"] and (
            modified == recorded["modified"] or contents(path).sha256 == recorded["sha256"]
        )
    except OSError:
        return False
