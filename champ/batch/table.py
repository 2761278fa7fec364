"""The table of a batch: CSV, JSON lines or Parquet, a row for each clip."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ..server import Failure

COMMENT = "#"  # columns that begin with it are the user's own notes
DELIMITERS = ",;\t"  # spreadsheets write what their country uses


@dataclass(frozen=True)
class Row:
    """One line of the table; cells that are empty are left out."""

    place: str  # such as "line 4"
    cells: dict[str, object]


class Problems:
    """All errors of a table, so that they can be fixed together."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}

    def add(self, place: str, message: str) -> None:
        self.places.setdefault(message, []).append(place)

    def __bool__(self) -> bool:
        return bool(self.places)

    def lines(self) -> list[str]:
        """Returns a sentence for each kind of error, with the rows that have it."""
        return [f"{_listed(places)}: {text}".removeprefix(": ") for text, places in self.places.items()]

    def stop(self, what: str) -> None:
        if self:
            raise Failure("\n    ".join([f"{what}; nothing was started:", *self.lines()]))


def _listed(places: Iterable[str]) -> str:
    """Such as "line 2, line 5 to 1001": a thousand rows may have the same error."""
    runs: list[list[str]] = []
    for place in filter(None, places):
        if runs and _number(place) == _number(runs[-1][-1]) + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(f"{run[0]} to {_number(run[-1])}" if len(run) > 2 else ", ".join(run) for run in runs)


def _number(place: str) -> int:
    return int(place.rpartition(" ")[2])


def read_table(path: Path) -> list[Row]:
    """Reads the rows of a file; its ending says the format."""
    readers: dict[str, Callable[[Path, Problems], Iterable[Row]]] = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Failure(f"{path} does not end in {', '.join(readers)}: give a table in one of these formats")
    if not path.is_file():
        raise Failure(f"there is no table {path}")
    problems = Problems()
    rows = [row for row in reader(path, problems) if row.cells]
    problems.stop(f"{path} cannot be read as a table")
    if not rows:
        raise Failure(f"{path} has no rows")
    return rows


def _filled(cells: Iterable[tuple[str, object]]) -> dict[str, object]:
    return {
        name: value
        for name, value in cells
        if name and not (value is None or value == "" or value != value or name.startswith(COMMENT))  # NaN != NaN
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not UTF-8 (byte {error.start}): save the table as CSV UTF-8") from None


def _read_csv(path: Path, problems: Problems) -> Iterable[Row]:
    text = _text(path)
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, problems)
        before = reader.line_num
        for values in reader:
            place, before = f"line {before + 1}", reader.line_num
            if any(value and not name for name, value in zip_longest(header, values)):
                problems.add(place, "a cell is in a column that has no name in the first line")
            yield Row(place, _filled(zip(header, (value.strip() for value in values))))
    except csv.Error as error:
        problems.add(f"line {reader.line_num}", f"is not CSV ({error})")


def _check_header(header: list[str], problems: Problems) -> None:
    for name in dict.fromkeys(name for name in header if name and header.count(name) > 1):
        problems.add("line 1", f"two columns are called {name!r}")


def _read_json_lines(path: Path, problems: Problems) -> Iterable[Row]:
    for i, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            problems.add(f"line {i}", f"is not JSON ({error})")
            continue
        if not isinstance(cells, list) or not all(isinstance(pair, tuple) for pair in cells):
            problems.add(f"line {i}", 'is not an object such as {"name": "anna", "reference": "anna.png"}')
            continue
        names = [name for name, _ in cells]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            problems.add(f"line {i}", f"has {name!r} twice")
        yield Row(f"line {i}", _filled(cells))


def _read_parquet(path: Path, problems: Problems) -> Iterable[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Failure(
            "Parquet tables are read by pyarrow, which is not installed: pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise Failure(f"{path} is not a Parquet file: {error}") from None
    _check_header(list(table.column_names), problems)
    return [Row(f"row {i}", _filled(cells.items())) for i, cells in enumerate(table.to_pylist(), 1)]
