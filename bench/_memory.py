"""Memory of a process, as Linux counts it."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GB = 1e9


@dataclass
class Peak:
    """Bytes at the peak of a block, more than before it."""

    own: int = 0  # memory of the process alone
    all: int = 0  # and pages of mapped files, which the system takes back when it needs them


def resident(process: int | str = "self") -> tuple[int, int]:
    """Returns the bytes of a process's own memory, and with the files it has mapped."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    own, files, shared = (1024 * int(lines[f"Rss{name}"].split()[0]) for name in ("Anon", "File", "Shmem"))
    return own + shared, own + shared + files


def trim() -> None:
    """Gives back what the C library keeps of freed memory."""
    ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def peak(process: int | str = "self", every: float = 0.005) -> Iterator[Peak]:
    """Looks at a process's memory all the time; what it yields is right when the block has ended."""
    if process == "self":
        trim()
    found, ended = Peak(), threading.Event()
    before = resident(process)

    def look() -> None:
        own, everything = resident(process)
        found.own, found.all = max(found.own, own - before[0]), max(found.all, everything - before[1])

    def watch() -> None:
        while not ended.wait(every):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        look()
