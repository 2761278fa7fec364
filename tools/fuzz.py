"""Feeds damaged and hostile files to all readers, each in a child with limits of time and memory, and prints a table.

    python -m tools.fuzz [--seconds 60] [--seed 0] [--only motions] [--keep folder]

First come the files that were made to do harm, then mutations of good ones until the time is used up, the same for the
same seed. Each file must be read, or refused in one sentence that names it."""

import argparse
import io
import itertools
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .fuzz_cases import HARM, Files, Reader, readers, zipped

CPU_SECONDS = 10  # that one file may take
WALL_SECONDS = 120  # on a busy machine, or waiting for something
TIMES, MORE = 4, 200 << 20  # memory: this many times the file, and so many bytes more
ADDRESSES = 4 << 30  # bytes of addresses, beyond which an allocation fails
BAD = ("ran", "crashes", "hangs", "over memory", "unclear")
SENTENCE = 1000  # characters
GOOD = "good"
LINUX = sys.platform == "linux"


# Mutations. What a checksum protects is mutated inside it, or the reader would look no further than the checksum.


def mutated(files: Files, draw: random.Random) -> Files:
    """The same files with a few bytes of one of them changed."""
    name = draw.choice([name for name, content in files.items() if content])
    content = files[name]
    assert content is not None
    inside = next((way for start, way in INSIDE.items() if content.startswith(start)), _changed)
    return {**files, name: (inside if draw.random() < 0.7 else _changed)(content, draw)}


def _changed(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = draw.randrange(len(changed) + 1)
        if draw.random() < 0.5:  # where descriptions stand
            place = min(place, draw.randrange(1, 400))
        match draw.randrange(8):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << draw.randrange(8)
            case 1 if changed:
                changed[place % len(changed)] = draw.randrange(256)
            case 2:
                changed[place : place + draw.choice((1, 2, 4, 8))] = b""
            case 3:
                changed[place:place] = draw.randbytes(draw.choice((1, 2, 4, 8)))
            case 4:
                width = draw.choice((1, 2, 4, 8))
                most = (1 << 8 * width) - 1
                value = draw.choice((0, 1, most, most >> 1, (most >> 1) + 1, draw.randrange(most)))
                changed[place : place + width] = value.to_bytes(width, draw.choice(("little", "big")))
            case 5:
                other = draw.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + draw.choice((4, 16, 64))]
            case 6:
                digits = draw.choice((b"0", b"-1", b"99999999999", b"1e300", b"nan", b"1" * 50))
                changed[place : place + len(digits)] = digits
            case _ if draw.random() < 0.2:
                del changed[place:]
    return bytes(changed)


def _in_zip(data: bytes, draw: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        method = archive.infolist()[0].compress_type
    weights = [20 if name.endswith((".pkl", ".py")) else 1 for name in members]
    name = draw.choices(list(members), weights)[0]
    members[name] = _changed(members[name], draw)
    return zipped(members, method)


def _in_png(data: bytes, draw: random.Random) -> bytes:
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    number = draw.randrange(len(chunks))
    chunks[number] = chunks[number][0], _changed(chunks[number][1], draw)
    return data[:8] + b"".join(
        len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
        for name, content in chunks
    )


def _in_zlib(data: bytes, draw: random.Random) -> bytes:
    return zlib.compress(_changed(zlib.decompress(data), draw))


INSIDE = {b"PK\3\4": _in_zip, b"\x89PNG": _in_png, b"\x78": _in_zlib}


# One file in a child.


@dataclass(frozen=True)
class Case:
    reader: str
    what: str
    make: Callable[[], Files]


def cases(all_readers: dict[str, Reader], seed: int) -> Iterator[Case]:
    """Every good file, half of it, and every hostile one; then mutations without end, the readers taking turns."""
    for name, reader in all_readers.items():
        for files in reader.seeds:
            first = next(iter(files))
            yield Case(name, f"{GOOD} {first}", lambda files=files: files)
            yield Case(name, f"half of {first}", lambda files=files, first=first: {**files, first: _half(files[first])})
        for what, files in reader.hostile.items():
            yield Case(name, what, lambda files=files: files)
    for number in itertools.count():
        for name, reader in all_readers.items():
            draw = random.Random(f"{seed}/{name}/{number}")
            yield Case(
                name, f"mutation {number}", lambda seeds=reader.seeds, draw=draw: mutated(draw.choice(seeds), draw)
            )


def fixed_cases(all_readers: dict[str, Reader]) -> int:
    return sum(2 * len(reader.seeds) + len(reader.hostile) for reader in all_readers.values())


def _half(content: bytes | None) -> bytes:
    return (content or b"")[: len(content or b"") // 2]


def run_case(reader: Reader, case: Case, place: Path) -> dict[str, Any]:
    """What became of a file; the caller is a child that may die of it."""
    files = case.make()
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
    path, size = place / next(iter(files)), sum(len(content or b"") for content in files.values())
    del files
    before = _memory("VmRSS", fresh=True)
    outcome, message = "read", ""
    try:
        reader.read(path)
    except ValueError as error:
        message = str(error)
        outcome = "said" if is_clear(message, reader, path) else "unclear"
    except Exception as error:
        outcome, message = "unclear", f"{type(error).__name__}: {error}"
    used = _memory("VmHWM") - before
    if outcome == "said" and case.what.startswith(GOOD):
        outcome, message = "unclear", f"a good file was refused: {message}"
    if used > TIMES * size + MORE or "not enough memory" in message:
        outcome, message = "over memory", f"{used >> 20} MB for a file of {size >> 10} kB; {message}"
    if HARM.exists():
        HARM.unlink()
        outcome = "ran"
    return {"outcome": outcome, "message": message[:500], "used": used, "size": size}


def is_clear(message: str, reader: Reader, path: Path) -> bool:
    """One sentence that names the file, or its folder, and ends as sentences do."""
    place = str(path.parent)
    named = message.startswith((path.name, *reader.names)) or place in message or str(path.parents[1]) in message
    other = any(part in message for part in ("weights_only", "Traceback", "Error", "\n", " at 0x"))
    return named and not other and message.endswith(".") and len(message) < SENTENCE + len(place)


def _memory(line: str, fresh: bool = False) -> int:
    """Bytes of memory that this process has (VmRSS), or had at most (VmHWM) since it was asked afresh."""
    if not LINUX:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0]) << 10


def _child(all_readers: dict[str, Reader], waiting: Iterator[Case], pipe: int, folder: Path) -> None:
    """Works through the files until it is stopped, and tells of each what it is and what became of it."""
    if LINUX:
        addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for number, case in enumerate(waiting):
        os.write(pipe, json.dumps([case.reader, case.what]).encode() + b"\n")
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        place = folder / f"{os.getpid()}_{number}"
        result = run_case(all_readers[case.reader], case, place)
        signal.setitimer(signal.ITIMER_PROF, 0)
        shutil.rmtree(place)
        os.write(pipe, json.dumps({**result, "seconds": time.process_time() - start}).encode() + b"\n")


# All files, and what became of them.


class Fuzzer:
    def __init__(self, all_readers: dict[str, Reader], seed: int = 0):
        self.readers, self.seed = all_readers, seed
        self.outcomes = {name: Counter() for name in all_readers}
        self.worst = dict.fromkeys(all_readers, 0.0)  # seconds
        self.bad: list[tuple[Case, str, str]] = []  # what came out wrong, how, and what was said
        self.seconds = 0.0

    def run(self, seconds: float, enough: int) -> None:
        """Feeds at least `enough` files, and more until they have taken so many seconds of the processor."""
        done = 0
        with tempfile.TemporaryDirectory() as folder:
            while done < enough or self.seconds < seconds:
                done += self._run_child(done, seconds, enough, Path(folder))

    def _run_child(self, done: int, seconds: float, enough: int, folder: Path) -> int:
        """Lets a child work until it dies or all is done; how many files it took."""
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            try:
                os.close(reading)
                _child(self.readers, itertools.islice(cases(self.readers, self.seed), done, None), writing, folder)
            finally:
                os._exit(1)
        os.close(writing)
        count, lines, waiting = 0, _lines(reading), itertools.islice(cases(self.readers, self.seed), done, None)
        case, result = None, None
        while done + count < enough or self.seconds < seconds:
            if (line := next(lines, None)) is None:
                break
            if isinstance(line, list):
                case, result = next(waiting), None
            else:
                result = line
                self._count(case, result)
                count += 1
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        if case is not None and result is None:
            hung = os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGKILL) if os.WIFSIGNALED(status) else False
            message = f"{CPU_SECONDS} s and no end" if hung else f"the child ended with {status}"
            self._count(case, {"outcome": "hangs" if hung else "crashes", "message": message, "seconds": CPU_SECONDS})
            count += 1
        return count

    def _count(self, case: Case, result: dict[str, Any]) -> None:
        self.outcomes[case.reader][result["outcome"]] += 1
        self.seconds += result["seconds"]
        self.worst[case.reader] = max(self.worst[case.reader], result["seconds"])
        if result["outcome"] in BAD:
            self.bad.append((case, result["outcome"], result["message"]))

    def table(self) -> str:
        columns = ("cases", "read", "said", *BAD)
        rows = [("reader", *columns, "longest")]
        for name, outcomes in self.outcomes.items():
            counts = (sum(outcomes.values()), *(outcomes[column] for column in columns[1:]))
            rows.append((name, *map(str, counts), f"{self.worst[name]:.2f} s"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def _lines(pipe: int) -> Iterator[Any]:
    """What a child tells, until it ends or is silent for too long."""
    rest = b""
    while select.select([pipe], [], [], WALL_SECONDS)[0] and (part := os.read(pipe, 1 << 16)):
        *whole, rest = (rest + part).split(b"\n")
        yield from map(json.loads, whole)


def keep(folder: Path, bad: list[tuple[Case, str, str]]) -> None:
    """Writes the files that came out wrong, to be looked at."""
    for number, (case, *_) in enumerate(bad):
        for name, content in case.make().items():
            path = folder / f"{number:03}_{case.reader}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if content is None else path.write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the processor; the hostile files always run")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--only", nargs="+", help="readers, by their names in the table")
    parser.add_argument("--keep", type=Path, help="a folder for the files that came out wrong")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # threads do not survive a fork
    chosen = {name: reader for name, reader in readers().items() if not options.only or name in options.only}
    fuzzer = Fuzzer(chosen, options.seed)
    try:
        fuzzer.run(options.seconds, fixed_cases(chosen))
    except KeyboardInterrupt:
        print("interrupted")
    print(fuzzer.table())
    for case, outcome, message in fuzzer.bad:
        print(f"{outcome}: {case.reader}, {case.what}: {message}")
    if options.keep:
        keep(options.keep, fuzzer.bad)
    return 1 if fuzzer.bad else 0


if __name__ == "__main__":
    sys.exit(main())
