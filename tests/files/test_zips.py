"""Zip archives and packed streams: what zipfile and zlib write is read, and nothing unpacks without a limit."""

import gzip
import io
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from champ.files.arrays import read_npy, read_npz
from champ.files.errors import DamagedError
from champ.files.room import Room
from champ.files.zips import Archive, inflate


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members(method):
    members = {"a/b": b"x" * 1000, "ü": bytes(range(256)), "empty": b""}
    archive = Archive(zipped(members, method))
    assert {name: bytes(archive.read(name)) for name in archive.members} == members
    if method == zipfile.ZIP_STORED:
        start, stop = archive.stored_span("ü")
        assert archive.data[start:stop] == members["ü"]
    else:
        with pytest.raises(DamagedError, match="compressed"):
            archive.stored_span("a/b")


def test_sizes_of_64_bits():
    """As numpy and torch write them, who do not know yet how long a member becomes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"abc")
    plain = file.getvalue()
    assert Archive(plain).read("a") == b"abc"
    # The same with a directory of 64 bits, which zipfile writes only behind 4 GB.
    start, count = plain.index(b"PK\1\2"), 1
    stop = plain.index(b"PK\5\6")
    entry = bytearray(plain[start:stop])
    entry[20:28], entry[42:46] = b"\xff" * 8, b"\xff" * 4
    extra = b"\1\0\x18\0" + (3).to_bytes(8, "little") * 2 + (0).to_bytes(8, "little")
    entry[30:32] = len(extra).to_bytes(2, "little")
    entry += extra
    record = b"PK\6\6" + (44).to_bytes(8, "little") + bytes(12)
    record += b"".join(n.to_bytes(8, "little") for n in (count, count, len(entry), start))
    locator = b"PK\6\7" + bytes(4) + (start + len(entry)).to_bytes(8, "little") + bytes(4)
    end = b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    assert Archive(plain[:start] + bytes(entry) + record + locator + end).read("a") == b"abc"


def test_a_bomb_is_stopped_while_it_is_unpacked(monkeypatch):
    monkeypatch.setattr("champ.files.room.MORE", 1 << 20)
    bomb = bytes(50 << 20)
    packed = {
        "zip": (zipped({"a": bomb}, zipfile.ZIP_DEFLATED), lambda data: Archive(data).read("a")),
        "zlib": (zlib.compress(bomb), lambda data: inflate(data, Room(len(data)))),
        "gzip": (gzip.compress(bomb), lambda data: inflate(data, Room(len(data)), 31)),
    }
    del bomb
    for name, (data, run) in packed.items():
        tracemalloc.start()
        try:
            with pytest.raises(DamagedError, match="far more memory"):
                run(data)
            assert tracemalloc.get_traced_memory()[1] < 3 << 20, name
        finally:
            tracemalloc.stop()


def test_many_members_share_what_the_file_may_take(monkeypatch):
    monkeypatch.setattr("champ.files.room.MORE", 1 << 20)
    archive = Archive(zipped({str(i): bytes(600_000) for i in range(9)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(DamagedError, match="far more memory"):
        [archive.read(name) for name in archive.members]


def damaged(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def test_what_a_directory_claims_is_checked():
    whole = zipped({"a": b"abc", "b": b"abc"})
    central, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    twice = whole.replace(b"b", b"a")
    cases = {
        "it is not a zip archive": b"x" * 100,
        "it ends in the middle": whole[:-30],
        "claims 65535 members": damaged(whole, end + 10, b"\xff\xff"),
        "directory is damaged": damaged(whole, end + 10, b"\x03\x00"),
        "twice": twice,
        "encrypted": damaged(whole, central + 8, b"\x01"),
        "larger than the file": damaged(whole, central + 20, b"\x00\x00\x01\x00\x00\x00\x01\x00"),
    }
    for reason, data in cases.items():
        with pytest.raises(DamagedError, match=reason):
            Archive(data)
    for place, value, reason in (
        (whole.index(b"abc"), b"xyz", "checksum"),
        (central + 24, b"\x05", "checksum"),
        (central + 42, b"\xff\xff\xff\x00", "ends in the middle"),
        (central + 10, b"\x0c", "this pack does not know"),
    ):
        with pytest.raises(DamagedError, match=reason):
            Archive(damaged(whole, place, value)).read("a")


@pytest.mark.parametrize("array", [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3), np.zeros((0, 4)),
    np.array("female"), np.arange(3, dtype=">i2"), np.array([True, False]), np.array([b"ab", b"c"]),
])  # fmt: skip
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_of_numpy(array, write):
    file = io.BytesIO()
    write(file, a=array, b=np.zeros(2))
    found = read_npz(file.getvalue(), only=("a",))
    assert list(found) == ["a"] and found["a"].dtype == array.dtype and np.array_equal(found["a"], array)


def test_members_that_are_no_arrays_are_passed_over():
    file = io.BytesIO()
    np.save(file, np.ones(2))
    found = read_npz(zipped({"readme.txt": b"hello", "a.npy": file.getvalue(), "folder/": b""}))
    assert list(found) == ["a"]


@pytest.mark.parametrize("header", [
    "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999,), }\n",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)*99, }\n",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }\n",
    "{'descr': '<f99', 'fortran_order': False, 'shape': (1,), }\n",
    "{'descr': '<V8', 'fortran_order': False, 'shape': (1,), }\n",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1" * 60 + "), ]\n",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1L1,), }\n",
    "(" * 5000,
    " " * 60_000,
])  # fmt: skip
def test_what_a_header_claims_is_checked(header):
    data = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)
    with pytest.raises((DamagedError, ValueError)):
        read_npy(data)
