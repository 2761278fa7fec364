"""The fuzzer: it tells what goes wrong, and nothing goes wrong with the pack's readers."""

import os
import subprocess
import sys

import pytest

import dev

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer's children are forked")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

PLANTED = """
import os
from pathlib import Path
from tools import fuzz
from tools.fuzz_cases import HARM, Reader

fuzz.CPU_SECONDS = 2  # of which 400 MB take a fourth where much else runs

def runs(path): HARM.write_text("x")
def crashes(path): os.abort()
def hangs(path):
    while True: pass
def grows(path): return bytearray(400 << 20)
def asks(path): bytearray(1 << 40)
def raises(path): raise KeyError("x")
def mumbles(path): raise ValueError("it is damaged.")
def advises(path): raise ValueError(f"{path.name}: set weights_only=False.")
def refuses(path): raise ValueError(f"{path.name} is refused; choose another.")
def reads(path): pass

functions = (runs, crashes, hangs, grows, asks, raises, mumbles, advises, refuses, reads)
readers = {f.__name__: Reader(f, [], {"bad": {"x": b"1"}, "worse": {"x": b"2"}}) for f in functions}
fuzzer = fuzz.Fuzzer(readers)
fuzzer.run(0, fuzz.fixed_cases(readers))
print(fuzzer.table())
for name, outcomes in fuzzer.outcomes.items():
    print("=", name, *outcomes, *outcomes.values())
"""


def test_it_tells_what_goes_wrong():
    done = subprocess.run(
        [sys.executable, "-c", PLANTED], cwd=dev.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    found = dict(line[2:].split(" ", 1) for line in done.stdout.splitlines() if line.startswith("="))
    assert found == {
        "runs": "ran 2", "crashes": "crashes 2", "hangs": "hangs 2", "grows": "over memory 2", "asks": "unclear 2",
        "raises": "unclear 2", "mumbles": "unclear 2", "advises": "unclear 2", "refuses": "said 2", "reads": "read 2",
    }, done.stdout + done.stderr  # fmt: skip


def test_the_readers_withstand_it():
    """Every hostile file, and mutations for the rest of the time."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.fuzz", "--seconds", "20"],
        cwd=dev.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "motions" in done.stdout and "crashes" in done.stdout
