"""Pickles: what Python writes is read as it is, nothing in them runs, and no number in them makes anything large."""

import pickle
import struct
import tracemalloc
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from champ.files.arrays import NAMES, to_array
from champ.files.errors import DamagedError, RefusedError
from champ.files.pickles import Node, Unpickler
from champ.files.room import Room

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes, names: str = NAMES):
    return Unpickler(data, names).load()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values(protocol):
    value = {
        "numbers": [0, 1, -1, 255, 256, 65536, -70000, 2**31, -(2**40), 10**30, 1.5, float("inf"), True, False, None],
        "text": ["", "a", "ä\n'\"\\", "\ud800", "舞" * 300],
        "nested": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[], [1]], {1: {2: 3}}),
        3.5: {None: 1, True: 2},
    }
    value["again"] = value["nested"]
    found = read(pickle.dumps(value, protocol))
    assert found == value and found["again"] is found["nested"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dicts_of_other_kinds(protocol):
    counts = defaultdict(dict, {1: {2: "x"}})
    ordered = OrderedDict([("b", 1), ("a", counts)])
    found = read(pickle.dumps(ordered, protocol))
    assert type(found) is dict and list(found) == ["b", "a"] and found["a"] == {1: {2: "x"}}


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_bytes_and_sets(protocol):
    found = read(pickle.dumps([b"ab", b"c" * 300], protocol))
    assert [bytes(value) for value in found] == [b"ab", b"c" * 300]
    if protocol >= 4:
        assert [sorted(value) for value in read(pickle.dumps([{1, 2}, frozenset({3})], protocol))] == [[1, 2], [3]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f8", "i1", "u4", "?"])
def test_arrays(protocol, order, dtype):
    array = np.asarray(np.arange(60).reshape(3, 4, 5), dtype, order)
    found = to_array(read(pickle.dumps(array, protocol)))
    assert found.dtype == array.dtype and np.array_equal(found, array)
    number = to_array(read(pickle.dumps(array[1, 2, 3], protocol)))
    assert number == array[1, 2, 3] and number.dtype.kind == array.dtype.kind


def test_python_2():
    """Strings as repr and with lengths, an OrderedDict with its members as arguments, ids from 1 on."""
    assert read(b"(S'a\\xff\\n'\np1\nI01\nL5L\nU\x02b\xffg1\nt.") == ("a\xff\n", True, 5, "b\xff", "a\xff\n")
    ordered = b"ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS'x'\np4\naI1\naatp5\nRp6\n."
    assert read(ordered) == {"x": 1}


def test_several_in_one_file():
    data = b"".join(pickle.dumps(i) for i in range(3))
    reader = Unpickler(data, NAMES)
    assert [reader.load() for _ in range(3)] == [0, 1, 2] and reader.position == len(data)


def test_nothing_is_called():
    found = read(b"cos\nsystem\n(Vtouch harm\ntR.", r"os\.system")
    assert isinstance(found, Node) and (found.name, found.args) == ("os.system", ("touch harm",))
    with pytest.raises(RefusedError, match="^os.system$"):
        read(b"cos\nsystem\n(Vtouch harm\ntR.")


@pytest.mark.parametrize("name", ["collections.defaultdict", "collections.OrderedDict", "numpy.ndarray"])
def test_a_file_changes_nothing_for_the_next(name):
    module, kind = name.split(".")
    head = f"c{module}\n{kind}\n".encode()
    for attack in (b"}(Vpop\nI1\nVstate\nI2\nub.", b"(N}(Vname\nI1\nutb."):
        with pytest.raises(DamagedError):
            read(head + attack)
    assert read(pickle.dumps(defaultdict(dict, {1: 2}))) == {1: 2}
    assert np.array_equal(to_array(read(pickle.dumps(np.arange(3)))), np.arange(3))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
LARGE = {
    "a number of what is remembered": b"\x80\x02Nr\x00\x00\x00\x20" + b"0N.",
    "a far number of what is remembered": b"Np999999999999999\n.",
}
HOSTILE = {
    "a long string": b"X\xff\xff\xff\x7fabc.",
    "a longer string": b"\x8d" + struct.pack("<Q", 1 << 62) + b"abc.",
    "long bytes": b"\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "a long bytearray": b"\x96" + struct.pack("<Q", 1 << 63) + b"abc.",
    "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "a long integer": b"\x8b\xff\xff\xff\x7f1.",
    "an integer of many digits": b"I" + b"9" * 5000 + b"\n.",
    "a line without end": b"V" + b"a" * 1000,
    "no end": b"(lp0\n",
    "nothing on the stack": b".",
    "too little on the stack": b"\x87.",
    "no mark": b"t.",
    "an unknown instruction": b"\xff.",
    "an extension": b"\x82\x01.",
    "a buffer from outside": b"\x97.",
    "a newer protocol": b"\x80\x06N.",
    "an id from outside": b"Vx\nQ.",
    "an odd number of members": b"(I1\nd.",
    "keys that cannot be keys": b"}]Ns.",
    "keys that collide": b"}" + b"\x8a\x08" + struct.pack("<q", (1 << 61) - 1) + b"Ns.",
    "tuples for keys": b"})Ns.",
    "state for a number": b"I1\n}b.",
    "state for a list": b"]}b.",
    "a call of a string": b"Vx\n)R.",
    "arguments that are no tuple": b"cnumpy\nndarray\n]R.",
    "a name that is no string": b"I1\nI2\n\x93.",
    "what was never remembered": b"g7\n.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_instructions_end_in_an_error_and_take_nothing(name):
    tracemalloc.start()
    try:
        with pytest.raises(Exception) as caught:
            read(HOSTILE[name])
        assert not isinstance(caught.value, MemoryError)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LARGE)
def test_what_is_remembered_takes_no_more_than_it_is(name):
    tracemalloc.start()
    try:
        assert read(LARGE[name]) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


CROWDS = {
    "lists": b"]", "dicts": b"}", "dicts with a member": b"}NNs", "lists in lists": b"]Na", "marks": b"(",
    "tuples": b"N\x85", "remembered": b"N\x94", "floats": b"Gabcdefgh", "strings": b"\x8c\x02ab",
    "long strings": b"X\x04\x00\x00\x00\xf0\x9f\x92\x83", "integers": b"\x8b\x04\x00\x00\x00abcd", "bytes": b"C\x01a",
    "objects": b"h\x00)R", "objects with state": b"h\x00)R}b", "kinds of dict": b"h\x01)R", "sets": b"\x8f",
    "empty tuples": b"(t", "large tuples": b"(NNNNNNNNt", "copies of a long list": b"h\x01h\x02R",
}  # fmt: skip
BEGIN = b"\x80\x04cnumpy\nndarray\n\x94ccollections\nOrderedDict\n\x94((" + b"NN\x86" * 200 + b"l\x85\x940"


@pytest.mark.parametrize("name", CROWDS)
def test_every_value_is_paid_for_before_it_is_made(name, monkeypatch):
    """Each kind of value as often as fits: what they take is never much more than what is allowed."""
    monkeypatch.setattr("champ.files.room.MORE", 1 << 20)
    data = BEGIN + CROWDS[name] * (100_000 // len(CROWDS[name]))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="far more memory|ends in the middle"):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.15 * Room(len(data)).left


def test_lists_in_lists_are_counted_before_they_become_an_array():
    loop: list = [1]
    loop.append(loop)
    wide: list = [1, 2]
    for _ in range(6):
        wide = [wide] * 100
    for value in (loop, wide, [["x"]], [None]):
        with pytest.raises(DamagedError, match="it holds lists of"):
            to_array(value)
    assert np.array_equal(to_array([[1, 2], (3.5, True)]), [[1, 2], [3.5, 1]])
