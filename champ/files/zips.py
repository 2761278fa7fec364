"""Reads zip archives as torch and NumPy write them: member by member, each within limits."""

import struct
import zlib
from mmap import mmap
from typing import NamedTuple

from .errors import DamagedError
from .room import Room

Bytes = bytes | bytearray | mmap

MEMBERS = 50_000
STEP = 1 << 16  # bytes unpacked at once

END, END_64, LOCATOR_64, CENTRAL, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
FULL = 0xFFFFFFFF  # marks a number that is stored in a 64-bit field elsewhere
STORED, DEFLATED = 0, 8


class Member(NamedTuple):
    method: int
    checksum: int
    packed: int  # bytes in the file
    size: int  # bytes when unpacked
    header: int  # where the member begins


def inflate(data: Bytes, room: Room, kind: int = zlib.MAX_WBITS) -> bytearray:
    """Decompresses zlib data; `kind` is zlib's window size, which also selects gzip or raw deflate."""
    unpacker, unpacked = zlib.decompressobj(kind), bytearray()
    for start in range(0, len(data), STEP):
        waiting = data[start : start + STEP]
        while waiting and not unpacker.eof:
            part = unpacker.decompress(waiting, STEP)
            room.pay(len(part))
            unpacked += part
            waiting = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise DamagedError("it ends in the middle")
    return unpacked


class Archive:
    """The members of a zip archive by name. Nothing is unpacked or copied before it is requested."""

    def __init__(self, data: Bytes, room: Room | None = None):
        self.data, self.room = data, room or Room(len(data))
        self.members: dict[str, Member] = {}
        count, start, stop = _directory(data)
        if count > MEMBERS:
            raise DamagedError(f"it claims {count} members, and {MEMBERS} are the limit")
        packed = 0
        for _ in range(count):
            name, member, start = _entry(data, start, stop)
            if name in self.members:
                raise DamagedError(f"it holds {name[:80]!r} twice")
            packed += member.packed
            self.members[name] = member
        if packed > len(data):
            raise DamagedError("its members are larger than the file")

    def span(self, name: str) -> tuple[int, int]:
        """Returns begin and end of a member's packed bytes in the file."""
        if name not in self.members:
            raise DamagedError(f"it holds no {name[:80]}")
        member = self.members[name]
        header = self.data[member.header : member.header + 30]
        if len(header) < 30 or header[:4] != LOCAL:
            raise DamagedError("it ends in the middle")
        start = member.header + 30 + sum(struct.unpack("<HH", header[26:]))  # after its name and extra field
        if start + member.packed > len(self.data):
            raise DamagedError("it ends in the middle")
        return start, start + member.packed

    def stored_span(self, name: str) -> tuple[int, int]:
        """Returns begin and end of a member that is stored without compression."""
        start, stop = self.span(name)
        if self.members[name].method != STORED or self.members[name].size != stop - start:
            raise DamagedError("its numbers are compressed")
        return start, stop

    def read(self, name: str) -> Bytes:
        """Reads a member's bytes."""
        start, stop = self.span(name)
        member = self.members[name]
        if member.method == STORED:
            self.room.pay(member.packed)
            content: Bytes = self.data[start:stop]
        elif member.method == DEFLATED:
            content = inflate(self.data[start:stop], self.room, -zlib.MAX_WBITS)
        else:
            raise DamagedError(f"it is compressed by a method that this pack does not know ({member.method})")
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise DamagedError("one of its checksums is wrong")
        return content


def _directory(data: Bytes) -> tuple[int, int, int]:
    """Returns the number of members in the directory at the end of the file, and its begin and end."""
    tail_start = max(0, len(data) - (1 << 16) - 22)
    tail = data[tail_start:]
    found = tail.rfind(END)
    if found < 0 or len(tail) - found < 22:
        raise DamagedError("it ends in the middle" if data[:4] == LOCAL else "it is not a zip archive")
    stop = tail_start + found
    count, size, start = struct.unpack_from("<HLL", tail, found + 10)
    if stop >= 20 and data[stop - 20 : stop - 16] == LOCATOR_64:
        (place,) = struct.unpack("<Q", data[stop - 12 : stop - 4])
        record = data[place : place + 56]
        if len(record) < 56 or record[:4] != END_64:
            raise DamagedError("its directory is damaged")
        count, size, start = struct.unpack_from("<QQQ", record, 32)
    if start + size > stop:
        raise DamagedError("its directory is damaged")
    return count, start, start + size


def _entry(data: Bytes, start: int, stop: int) -> tuple[str, Member, int]:
    """Reads one member of the directory; also returns where the next one begins."""
    fields = data[start : start + 46]
    if len(fields) < 46 or fields[:4] != CENTRAL:
        raise DamagedError("its directory is damaged")
    flags, method = struct.unpack_from("<HH", fields, 8)
    checksum, packed, size, name_length, extra_length, comment = struct.unpack_from("<LLLHHH", fields, 16)
    (header,) = struct.unpack_from("<L", fields, 42)
    name_start, extra_start = start + 46, start + 46 + name_length
    next_start = extra_start + extra_length + comment
    if next_start > stop:
        raise DamagedError("its directory is damaged")
    if flags & 1:
        raise DamagedError("it is encrypted")
    name = data[name_start:extra_start].decode("utf-8" if flags & 0x800 else "cp437")
    if FULL in (packed, size, header):
        wide = _wide(data[extra_start : extra_start + extra_length])
        size, packed, header = (next(wide) if value == FULL else value for value in (size, packed, header))
    return name, Member(method, checksum, packed, size, header), next_start


def _wide(extra: Bytes):
    """Reads the 64-bit numbers in the extra field of a member."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            values = extra[position + 4 : position + 4 + length]
            for (value,) in struct.iter_unpack("<Q", values[: len(values) // 8 * 8]):
                yield value
        position += 4 + length
    raise DamagedError("its directory is damaged")
