"""The most memory that a server's process takes while a row is made."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..server import Failure, Server

INTERVAL = 1.0  # seconds between two looks
PROCESSES = Path("/proc")  # of Linux


@contextmanager
def watched(server: Server, graphics: bool) -> Iterator[dict[str, int | None]]:
    """Gives bytes of main and of graphics memory, which are complete when the block ends.

    Linux keeps the peak of the main memory itself; where it does not, and on the graphics card, it is the most seen."""
    peak: dict[str, int | None] = {"main": None, "graphics": None}
    exact = _forget_peak(server.process.pid)
    over = threading.Event()

    def look() -> None:
        while True:
            with suppress(Failure, OSError, ValueError, http.client.HTTPException, psutil.Error):
                if graphics:
                    _raise(peak, "graphics", server.json("/system_stats")["devices"][0]["torch_vram_total"])
                if not exact:
                    _raise(peak, "main", psutil.Process(server.process.pid).memory_info().rss)
            if over.wait(INTERVAL):
                return

    looking = threading.Thread(target=look, daemon=True)
    if graphics or not exact:
        looking.start()
    try:
        yield peak
    finally:
        over.set()
        if looking.is_alive():
            looking.join()
    if exact:
        peak["main"] = _peak(server.process.pid)


def _forget_peak(process: int) -> bool:
    """Lets Linux forget the peak of earlier rows; returns whether it did. gVisor and WSL 1 cannot."""
    try:
        (PROCESSES / str(process) / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak(process: int) -> int | None:
    with suppress(OSError):
        for line in (PROCESSES / str(process) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def _raise(peak: dict[str, int | None], kind: str, size: int) -> None:
    peak[kind] = max(size, peak[kind] or 0)
