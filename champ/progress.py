"""Progress of long work: the work reports it, the caller listens, and the listener may raise to stop the work."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[int, int], None]  # the amount done, and the total

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block, only this listener is called."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


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


def printed() -> Listener:
    """Returns a listener that prints a line for each step."""
    last = -1

    def listener(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            print(time.strftime("%H:%M:%S"), f"{done} of {total}", flush=True)

    return listener
