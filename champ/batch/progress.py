"""Progress of a batch, and the time that is left."""

import sys
import time
from collections.abc import Callable

QUIET = 10.0  # seconds between two lines where they cannot be overwritten


class Progress:
    def __init__(self, total: int, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.say, self.now = total, say, now
        self.made = self.aside = 0
        self.begun: float | None = None  # when the first row was given to a worker: starting them is not counted
        self.shown = ""
        self.last = now()

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.now()

    def done(self) -> None:
        self.made += 1

    def set_aside(self) -> None:
        self.aside += 1

    def left(self) -> int:
        return self.total - self.made - self.aside

    def line(self, busy: int) -> str:
        parts = [f"{self.made} of {self.total} done"]
        if self.aside:
            parts.append(f"{self.aside} set aside")
        parts.append(f"{busy} at work" if busy else "waiting for a worker")
        if self.made and self.begun is not None:
            rate = self.made / max(self.now() - self.begun, 1e-3)  # rows a second
            parts.append(per_time(rate))
            parts.append(f"about {duration(self.left() / rate)} left")
        return ", ".join(parts)

    def show(self, busy: int) -> None:
        line = self.line(busy)
        if line == self.shown:
            return
        if sys.stdout.isatty():
            print(f"\r[champ] {line:<90}", end="", flush=True)
        elif self.now() - self.last >= QUIET:
            self.say(line)
        else:
            return
        self.shown, self.last = line, self.now()

    def end(self) -> None:
        if sys.stdout.isatty() and self.shown:
            print()


def per_time(rate: float) -> str:
    """Words a rate in the time unit that is easiest to read."""
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3600)):
        if rate * seconds >= 1 or unit == "hour":
            return f"{rate * seconds:.1f} rows a {unit}"
    raise AssertionError


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
