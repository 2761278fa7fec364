"""Progress of long work: the work reports it, the caller listens, and the listener may raise to stop the work."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Listener = Callable[[int, int], None]  # the amount done, and the total


class Stage(NamedTuple):
    """A part of the work in words, and what it counts; no unit if the numbers mean nothing to the user."""

    what: str
    unit: str = "frame"


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_stage: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block, only this listener is called."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def doing(what: str, unit: str = "frame") -> Iterator[None]:
    """Says what the work inside the block is, for a listener that asks."""
    token = _stage.set(Stage(what, unit))
    try:
        yield
    finally:
        _stage.reset(token)


def current_stage() -> Stage | None:
    return _stage.get()


def advance(done: int, total: int) -> None:
    """Reports to the listener, if there is one, that `done` of `total` is done."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)


@contextmanager
def portion(first: int, length: int, total: int) -> Iterator[None]:
    """Counts the work inside the block as `length` of the `total` of a larger piece of work, from `first` on."""
    outer = _listener.get()
    if outer is None:
        yield
        return

    def inside(done: int, of: int) -> None:
        outer(first + length * done // max(of, 1), total)

    with listening(inside):
        yield


def counted(items: Sequence[Item]) -> Iterator[Item]:
    """Yields the items; each one counts as done when the next one is requested."""
    for done, item in enumerate(items):
        advance(done, len(items))
        yield item


def lasting(seconds: float) -> str:
    """A time in words, as exact as an estimate is."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def line_of(stage: Stage, done: int, total: int, seconds: float) -> str:
    """The line about a stage of which `done` of `total` took these seconds."""
    far = f"{stage.unit} {done} of {total}" if stage.unit else f"{100 * done // max(total, 1)} %"
    left = f", about {lasting(seconds * (total - done) / done)} left" if 0 < done < total else ""
    return f"{stage.what}: {far}{left}"


def printed() -> Listener:
    """Returns a listener that prints a line for each step."""
    last = -1

    def listener(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            print(time.strftime("%H:%M:%S"), f"{done} of {total}", flush=True)

    return listener
