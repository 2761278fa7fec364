"""The peak of a process's memory, on systems that keep it and on those that do not."""

import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from champ.batch import memory

SIZE = 60_000_000
CODE = f"""
import sys
for _ in sys.stdin:
    taken = bytearray({SIZE})
    print(len(taken), flush=True)
    sys.stdin.readline()
    del taken
    print(0, flush=True)
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen]:
    """A process that takes and returns memory, a line each."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as made:
        yield made
        made.stdin.close()


def tell(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()


def peak_while_it_works(process: subprocess.Popen, wait: float = 0.0) -> int | None:
    with memory.watched(SimpleNamespace(process=process), graphics=False) as peak:
        tell(process)
        time.sleep(wait)
        tell(process)
    return peak["main"]


def idle_peak(process: subprocess.Popen) -> int | None:
    with memory.watched(SimpleNamespace(process=process), graphics=False) as peak:
        time.sleep(0.05)
    return peak["main"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the peak")
def test_linux_keeps_the_peak(process):
    assert SIZE < peak_while_it_works(process)
    assert 1_000_000 < idle_peak(process) < SIZE


@pytest.mark.parametrize("kind", ["none", "read only"])
def test_where_the_system_does_not_keep_the_peak_it_is_the_most_seen(process, monkeypatch, tmp_path, kind):
    """As in gVisor and WSL 1. Whoever may write everywhere cannot write a folder either."""
    if kind == "read only":
        (tmp_path / str(process.pid) / "clear_refs").mkdir(parents=True)
    monkeypatch.setattr(memory, "PROCESSES", tmp_path)
    monkeypatch.setattr(memory, "INTERVAL", 0.02)
    assert SIZE < peak_while_it_works(process, wait=0.5)
    assert 1_000_000 < idle_peak(process) < SIZE


def test_a_process_that_has_ended_costs_nothing_but_the_number(process):
    with memory.watched(SimpleNamespace(process=process), graphics=False) as peak:
        process.kill()
        process.wait()
    assert peak["graphics"] is None
