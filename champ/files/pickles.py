"""Reads pickles as data: an interpreter that imports and calls nothing, and limits memory.

Classes and functions become names; calls and objects become nodes. Every value is charged to the file's memory budget
before it is made.
"""

import codecs
import re
import struct
from collections.abc import Callable
from typing import Any

from .errors import DamagedError, RefusedError
from .room import Room
from .zips import Bytes

STOP = ord(".")

STEPS = 20_000_000  # instructions
TEXT = 128 << 20  # bytes of one string, which may take four times as much memory
DIGITS = 1000  # of one integer
NAME = 300  # characters in the name of a class or function
KEY = 1 << 60  # larger integers can be chosen so that all of them collide in a dict

DICTS = {f"collections.{kind}" for kind in ("OrderedDict", "defaultdict")} | {"builtins.dict", "__builtin__.dict"}


class Name:
    """A class or function that a pickle mentions."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Node:
    """One object of a pickle: the name of its class or function, the arguments, the state."""

    __slots__ = ("name", "args", "state")

    def __init__(self, name: str, args: tuple):
        self.name, self.args = name, args
        self.state: Any = None

    @property
    def kind(self) -> str:
        """The class of the object; protocols 0 and 1 wrap it in a call of _reconstructor."""
        return self.args[0].name if self.name.endswith("._reconstructor") else self.name


class Unpickler:
    """Reads the pickles in `data` one after the other; `position` is where the next one begins.

    The names of classes and functions must match `names`. Dicts of any kind become dicts, sets become lists. Items that
    an object of another class holds as a list or dict are dropped. Strings of Python 2 are read as latin1. Its long
    strings and long bytes stay in the file, as memoryviews.
    """

    def __init__(self, data: Bytes, names: str, position: int = 0, room: Room | None = None):
        self.data, self.names, self.position = data, re.compile(names), position
        self.room = room or Room(len(data))
        self.view = memoryview(data)

    def persistent(self, pid: Any) -> Any:
        """Resolves an id that refers to something outside the pickle."""
        raise DamagedError("it refers to something outside itself")

    def built(self, node: Node) -> None:
        """Called for every node whose state has been read; `position` is behind it."""

    def load(self) -> Any:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.far: dict[int, Any] = {}  # values whose number is far above the others
        data, end, room = self.data, len(self.data), self.room
        for _ in range(STEPS):
            if self.position >= end:
                raise DamagedError("it ends in the middle")
            code = data[self.position]
            self.position += 1
            if code == STOP:
                return self.stack.pop()
            if (instruction := TABLE[code]) is None:
                raise DamagedError("it is damaged")
            price, run = instruction
            room.left -= price
            if room.left < 0:
                room.pay(0)
            run(self)
        raise DamagedError(f"it has more than {STEPS} instructions")

    def take(self, count: int) -> bytes:
        """Reads the next bytes of the file."""
        return bytes(self.take_view(count))

    def take_view(self, count: int) -> memoryview:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise DamagedError("it ends in the middle")
        return self.view[start : self.position]

    def take_length(self, width: int) -> int:
        if width > 1:
            return int.from_bytes(self.take(width), "little")
        self.position += 1
        return self.data[self.position - 1]

    def take_line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise DamagedError("it ends in the middle")
        line = self.take(end - self.position)
        self.position += 1
        return line

    def take_text(self, length: int) -> str:
        if length > TEXT:
            raise DamagedError("it holds a string that is too long")
        text = str(self.take_view(length), "utf-8", "surrogatepass")
        self.room.pay(length if text.isascii() else 4 * length + 32)
        return text

    def above_mark(self) -> list[Any]:
        """Pops the values above the last mark."""
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def find(self, module: str, name: str) -> Name:
        full = f"{module}.{name}"
        if full not in DICTS and (len(full) > NAME or not self.names.fullmatch(full)):
            raise RefusedError(ascii(full[:NAME])[1:-1])
        return Name(full)

    def make(self, callee: Any, args: Any) -> Any:
        """Makes the value or node of a call or an object."""
        if not isinstance(callee, Name) or not isinstance(args, tuple):
            raise DamagedError("it is damaged")
        if callee.name not in DICTS:
            return Node(callee.name, args)
        made: dict = {}
        if args and isinstance(args[0], list):  # Python 2 passes the members of an OrderedDict here
            for key, value in args[0]:
                self.put(made, key, value)
        return made

    def put(self, target: Any, key: Any, value: Any) -> None:
        self.room.pay(110)
        if isinstance(target, Node):
            return
        if isinstance(key, int) and not -KEY < key < KEY or isinstance(key, tuple | memoryview):
            raise DamagedError("it has keys that are neither names nor numbers")
        if not isinstance(target, dict):
            raise DamagedError("it is damaged")
        target[key] = value

    def extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, list):
            target += values
        elif not isinstance(target, Node):
            raise DamagedError("it is damaged")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Node):
            target.state = state
            self.built(target)
        elif not isinstance(target, dict):
            raise DamagedError("it is damaged")


def _integer(digits: bytes) -> int:
    if len(digits) > DIGITS:
        raise DamagedError("it holds an integer that is too long")
    return int(digits)


def _push(make: Callable[[Unpickler], Any]) -> Callable[[Unpickler], None]:
    def run(reader: Unpickler) -> None:
        reader.stack.append(make(reader))

    return run


def _number(layout: str) -> Callable[[Unpickler], None]:
    size = struct.calcsize(layout)
    return _push(lambda reader: struct.unpack(layout, reader.take_view(size))[0])


def _int(reader: Unpickler) -> int | bool:
    line = reader.take_line()
    return line == b"01" if line in (b"00", b"01") else _integer(line)


def _long(width: int) -> Callable[[Unpickler], None]:
    def make(reader: Unpickler) -> int:
        length = reader.take_length(width)
        if length > DIGITS:
            raise DamagedError("it holds an integer that is too long")
        return int.from_bytes(reader.take(length), "little", signed=True)

    return _push(make)


def _text(width: int) -> Callable[[Unpickler], None]:
    return _push(lambda reader: reader.take_text(reader.take_length(width)))


def _unicode(reader: Unpickler) -> str:
    line = reader.take_line()
    if len(line) > TEXT:
        raise DamagedError("it holds a string that is too long")
    reader.room.pay(4 * len(line))
    return str(line, "raw-unicode-escape")


def _quoted(reader: Unpickler) -> str:
    """Reads a string that Python 2 wrote as its repr."""
    line = reader.take_line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise DamagedError("it is damaged")
    reader.room.pay(3 * len(line))
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")  # type: ignore[attr-defined]


def _bytes(width: int) -> Callable[[Unpickler], None]:
    """Reads bytes; long ones are not copied."""

    def make(reader: Unpickler) -> bytes | memoryview:
        length = reader.take_length(width)
        if width > 1:
            return reader.take_view(length)
        reader.room.pay(length)
        return reader.take(length)

    return _push(make)


def _short_string(reader: Unpickler) -> str:
    length = reader.take_length(1)
    reader.room.pay(length)
    return reader.take(length).decode("latin1")


def _tuple(count: int) -> Callable[[Unpickler], None]:
    def run(reader: Unpickler) -> None:
        if len(reader.stack) < count:
            raise DamagedError("it is damaged")
        reader.stack[-count:] = [tuple(reader.stack[-count:])]

    return run


def _marked_tuple(reader: Unpickler) -> tuple:
    return tuple(reader.above_mark())


def _marked_dict(reader: Unpickler) -> dict:
    values = reader.above_mark()
    made: dict = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        reader.put(made, key, value)
    return made


def _setitems(reader: Unpickler) -> None:
    values = reader.above_mark()
    for key, value in zip(values[::2], values[1::2], strict=True):
        reader.put(reader.stack[-1], key, value)


def _setitem(reader: Unpickler) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.put(reader.stack[-1], key, value)


def _append(reader: Unpickler) -> None:
    value = reader.stack.pop()
    reader.extend(reader.stack[-1], [value])


def _appends(reader: Unpickler) -> None:
    values = reader.above_mark()
    reader.extend(reader.stack[-1], values)


def _find_line(reader: Unpickler) -> Name:
    module = reader.take_line().decode()
    return reader.find(module, reader.take_line().decode())


def _find_stacked(reader: Unpickler) -> Name:
    name, module = reader.stack.pop(), reader.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DamagedError("it is damaged")
    return reader.find(module, name)


def _call(reader: Unpickler) -> Any:
    args = reader.stack.pop()
    return reader.make(reader.stack.pop(), args)


def _call_with_keywords(reader: Unpickler) -> Any:
    reader.stack.pop()
    return _call(reader)


def _call_marked(reader: Unpickler) -> Any:
    callee, *args = reader.above_mark()
    return reader.make(callee, tuple(args))


def _put(number: Callable[[Unpickler], int]) -> Callable[[Unpickler], None]:
    """Stores a value in the memo. Python numbers them consecutively from 0 or 1; skipped numbers count against the
    budget."""

    def run(reader: Unpickler) -> None:
        key, value, memo = number(reader), reader.stack[-1], reader.memo
        if key < len(memo):
            memo[key] = value
        elif key <= len(memo) + 1:
            memo += [value] * (key + 1 - len(memo))
        else:
            reader.room.pay(100)
            reader.far[key] = value

    return run


def _memoize(reader: Unpickler) -> None:
    reader.memo.append(reader.stack[-1])


def _get(number: Callable[[Unpickler], int]) -> Callable[[Unpickler], None]:
    def make(reader: Unpickler) -> Any:
        key = number(reader)
        return reader.memo[key] if key < len(reader.memo) else reader.far[key]

    return _push(make)


def _frame(reader: Unpickler) -> None:
    if reader.take_length(8) > len(reader.data) - reader.position:
        raise DamagedError("it ends in the middle")


def _protocol(reader: Unpickler) -> None:
    if reader.take_length(1) > 5:
        raise DamagedError("it was written by a newer Python than this pack knows")


# For each instruction, its measured cost in bytes of memory, and what it does. Values with a length are charged by that
# length as well. Values on the stack are charged where they are stored later.
INSTRUCTIONS: dict[bytes, tuple[int, Callable[[Unpickler], Any]]] = {
    b"\x80": (0, _protocol),
    b"\x95": (0, _frame),
    b"(": (10, lambda reader: reader.marks.append(len(reader.stack))),
    b"0": (0, lambda reader: reader.stack.pop()),
    b"1": (0, lambda reader: reader.above_mark()),
    b"2": (8, lambda reader: reader.stack.append(reader.stack[-1])),
    b"N": (8, _push(lambda reader: None)),
    b"\x88": (8, _push(lambda reader: True)),
    b"\x89": (8, _push(lambda reader: False)),
    b"I": (40, _push(_int)),
    b"J": (40, _number("<i")),
    b"K": (8, _push(lambda reader: reader.take_length(1))),
    b"M": (40, _push(lambda reader: reader.take_length(2))),
    b"L": (40 + DIGITS // 2, _push(lambda reader: _integer(reader.take_line().rstrip(b"L")))),
    b"\x8a": (40 + DIGITS // 4, _long(1)),
    b"\x8b": (40 + DIGITS, _long(4)),
    b"F": (32, _push(lambda reader: float(reader.take_line()))),
    b"G": (32, _number(">d")),
    b"S": (60, _push(_quoted)),
    b"T": (200, _bytes(4)),
    b"U": (60, _push(_short_string)),
    b"V": (64, _push(_unicode)),
    b"\x8c": (64, _text(1)),
    b"X": (64, _text(4)),
    b"\x8d": (64, _text(8)),
    b"C": (44, _bytes(1)),
    b"B": (200, _bytes(4)),
    b"\x8e": (200, _bytes(8)),
    b"\x96": (200, _bytes(8)),
    b")": (8, _push(lambda reader: ())),
    b"\x85": (48, _tuple(1)),
    b"\x86": (48, _tuple(2)),
    b"\x87": (48, _tuple(3)),
    b"t": (40, _push(_marked_tuple)),
    b"]": (70, _push(lambda reader: [])),
    b"l": (70, _push(lambda reader: reader.above_mark())),
    b"a": (24, _append),
    b"e": (24, _appends),
    b"}": (72, _push(lambda reader: {})),
    b"d": (72, _push(_marked_dict)),
    b"s": (32, _setitem),
    b"u": (32, _setitems),
    b"\x8f": (70, _push(lambda reader: [])),
    b"\x90": (24, _appends),
    b"\x91": (70, _push(lambda reader: reader.above_mark())),
    b"c": (200, _push(_find_line)),
    b"\x93": (200, _push(_find_stacked)),
    b"R": (56, _push(_call)),
    b"\x81": (56, _push(_call)),
    b"\x92": (56, _push(_call_with_keywords)),
    b"o": (100, _push(_call_marked)),
    b"i": (140, lambda reader: reader.stack.append(reader.make(_find_line(reader), tuple(reader.above_mark())))),
    b"b": (0, lambda reader: reader.build()),
    b"p": (16, _put(lambda reader: _integer(reader.take_line()))),
    b"q": (16, _put(lambda reader: reader.take_length(1))),
    b"r": (16, _put(lambda reader: reader.take_length(4))),
    b"\x94": (8, _memoize),
    b"g": (8, _get(lambda reader: _integer(reader.take_line()))),
    b"h": (8, _get(lambda reader: reader.take_length(1))),
    b"j": (8, _get(lambda reader: reader.take_length(4))),
    b"P": (8, _push(lambda reader: reader.persistent(reader.take_line().decode()))),
    b"Q": (8, _push(lambda reader: reader.persistent(reader.stack.pop()))),
}
TABLE = [INSTRUCTIONS.get(bytes([code])) for code in range(256)]
