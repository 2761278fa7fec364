"""The most memory that a server's process takes while a row is made."""

import http.client
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..server import Failure, Server

INTERVAL = 1.0  # seconds between two looks


@contextmanager
def watched(server: Server, graphics: bool) -> Iterator[dict[str, int | None]]:
    """Gives bytes of main and of graphics memory, which are complete when the block ends.

    Linux keeps the peak of the main memory itself; elsewhere, and on the graphics card, it is the most seen."""
    peak: dict[str, int | None] = {"main": None, "graphics": None}
    process = Path(f"/proc/{server.process.pid}")
    if exact := sys.platform == "linux":
        (process / "clear_refs").write_text("5")  # forgets the peak of earlier rows
    over = threading.Event()

    def look() -> None:
        while True:
            with suppress(Failure, OSError, ValueError, http.client.HTTPException):
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
        for line in (process / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak["main"] = 1024 * int(line.split()[1])


def _raise(peak: dict[str, int | None], kind: str, size: int) -> None:
    peak[kind] = max(size, peak[kind] or 0)
