"""How far a long piece of work is, said by whoever does it to whoever asked; who listens may raise to stop it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[int, int], None]  # how much is done, and of how much

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside, the listener hears of the work, and nobody else does."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def advance(done: int, total: int) -> None:
    """Says that `done` of `total` is done, to the listener if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)


@contextmanager
def portion(first: int, length: int, total: int) -> Iterator[None]:
    """What is done inside is `length` of the `total` of a larger piece of work, from `first` on."""
    outer = _listener.get()
    if outer is None:
        yield
        return

    def inside(done: int, of: int) -> None:
        outer(first + length * done // max(of, 1), total)

    with listening(inside):
        yield


def counted(items: Sequence[Item]) -> Iterator[Item]:
    """The items, each of them done when the next one is asked for."""
    for done, item in enumerate(items):
        advance(done, len(items))
        yield item


def printed() -> Listener:
    """A listener that prints a line for each step."""
    last = -1

    def listener(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            print(time.strftime("%H:%M:%S"), f"{done} of {total}", flush=True)

    return listener
