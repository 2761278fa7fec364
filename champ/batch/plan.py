"""A table and a workflow become tasks, or the list of all that is wrong with them. Nothing is started here."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..server import Failure
from .table import Problems, Row
from .workflow import (
    RESULT,
    ROLES,
    STAGES,
    Info,
    Point,
    Slot,
    Workflow,
    convert,
    find_input,
    find_role,
    is_link,
    path_slots,
    slot,
)

NAME, TRUTH, TRUTH_MASK = "name", "truth", "truth_mask"
MAP_FOLDERS = ("depth", "normal", "semantic_map", "dwpose")
SHOWN = 80  # characters of a path that is too long
SAVED_IMAGES = "images"  # the input of Save Guidance Maps without which training has no pictures


@dataclass(frozen=True)
class Task:
    """A row that can be made: everything that a worker has to know of it."""

    name: str
    cells: Mapping[str, object]  # as they are in the table
    values: Mapping[Point, object] = field(default_factory=dict)
    files: Mapping[Point, Path] = field(default_factory=dict)
    truth: Path | None = None
    truth_mask: Path | None = None

    def named(self) -> dict[Point, object]:
        """The row's values, with files by their names: what a workflow says to whoever has them in the input folder."""
        return {**self.values, **{point: path.name for point, path in self.files.items()}}


@dataclass(frozen=True)
class Places:
    """Where the files lie whose names are not paths."""

    table: Path  # paths in the table begin here
    inputs: Path  # ComfyUI's input folder, for what the workflow itself names


def plan(rows: Sequence[Row], workflow: Workflow, info: Info, places: Places, measure: bool = False) -> list[Task]:
    """Returns the tasks of a table; all its errors are raised as one Failure."""
    problems = Problems()
    _check_nodes(workflow, info, problems)
    problems.stop(f"the workflow {workflow.name} cannot run here")
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    slots = _find_slots(workflow, info, list(columns), problems)
    _check_constants(workflow, info, {slot.point for slot in slots.values()}, problems)
    if measure:
        _check_measurable(workflow, info, TRUTH in columns, problems)
    rest = [one for one in path_slots(workflow, info) if not is_link(workflow.nodes[one.node]["inputs"][one.input])]
    tasks = [_task(row, slots, rest, workflow, places, problems) for row in rows]
    _check_names(rows, problems)
    problems.stop("the table has errors")
    return tasks


def for_stage(workflow: Workflow, stage: str | None) -> Workflow:
    """Returns the part of the workflow that a stage needs, which is all of it without one."""
    if stage is None:
        return workflow
    part = workflow.only(stage)
    saving = [about for about in part.nodes.values() if about["class_type"] == STAGES[stage][0]]
    if len(saving) != 1:
        raise Failure(
            f"--stage maps needs one Save Guidance Maps in {workflow.name}, but it has {len(saving) or 'none'}"
        )
    if SAVED_IMAGES not in saving[0]["inputs"]:
        raise Failure(
            f"--stage maps: connect the video's frames to `images` of Save Guidance Maps in {workflow.name}, because "
            "training needs them beside the maps"
        )
    return part


def result_node(workflow: Workflow, info: Info) -> str | None:
    """Finds the node that saves what is shown and measured: the only one, or the one with the title `result`."""
    savers = workflow.savers(info)
    titled = [node for node in savers if workflow.title(node).casefold() == RESULT]
    chosen = titled or savers
    return chosen[0] if len(chosen) == 1 else None


def _check_nodes(workflow: Workflow, info: Info, problems: Problems) -> None:
    for about in workflow.nodes.values():
        if about["class_type"] not in info:
            problems.add("", f"the workers have no node {about['class_type']}: install its pack there")
    for node, about in workflow.nodes.items():
        for name, value in about["inputs"].items():
            if is_link(value) and value[0] not in workflow.nodes:
                problems.add("", f"{workflow.known_by((node, name))} is linked to node {value[0]}, which is not there")
    if not workflow.savers(info):
        problems.add("", "it has no node that saves anything")


def _find_slots(workflow: Workflow, info: Info, columns: list[str], problems: Problems) -> dict[str, Slot]:
    """Finds the input that each column fills."""
    slots: dict[str, Slot] = {}
    for column in columns:
        if column in (NAME, TRUTH, TRUTH_MASK):
            continue
        try:
            found = find_role(workflow, info, column) if column in ROLES else find_input(workflow, info, column)
        except ValueError as error:
            problems.add("", str(error))
            continue
        for other, taken in slots.items():
            if taken.point == found.point:
                problems.add("", f"columns {other!r} and {column!r} go to the same input")
        slots[column] = found
    if NAME not in columns:
        problems.add("", f"there is no column {NAME!r}: give every row a name, its results go by it")
    return slots


def _check_constants(workflow: Workflow, info: Info, varied: set[Point], problems: Problems) -> None:
    """Checks that what the workflow itself chooses from lists, such as model files, exists."""
    for node, about in workflow.nodes.items():
        for name, value in about["inputs"].items():
            found = slot(workflow, info, node, name)
            if found is None or found.kind != "COMBO" or is_link(value) or (node, name) in varied:
                continue
            try:
                convert(found, value)
            except ValueError as error:
                problems.add("", f"the workflow's {workflow.known_by((node, name))} {error}")


def _check_measurable(workflow: Workflow, info: Info, has_truth: bool, problems: Problems) -> None:
    if not has_truth:
        problems.add("", f"--measure needs a column {TRUTH!r} with the true clips")
    if result_node(workflow, info) is None:
        names = ", ".join(map(workflow.title, workflow.savers(info)))
        problems.add("", f"--measure: several nodes save something ({names}); give one of them the title {RESULT!r}")


def _task(
    row: Row, slots: Mapping[str, Slot], rest: Sequence[Slot], workflow: Workflow, places: Places, problems: Problems
) -> Task:
    values: dict[Point, object] = {}
    files: dict[Point, Path] = {}
    truths: dict[str, Path] = {}
    given = set()
    for column, cell in row.cells.items():
        one = slots.get(column)
        try:
            if column in (TRUTH, TRUTH_MASK):
                truths[column] = _path(places.table, cell, "file or folder")
            elif one is not None:
                given.add(one.point)
                if one.is_path:
                    files[one.point] = _path(places.table, cell, one.kind)
                else:
                    values[one.point] = convert(one, cell)
        except ValueError as error:
            problems.add(row.place, f"{column} {error}")
    for one in rest:
        if one.point not in given:
            try:
                files[one.point] = _constant(places.inputs, workflow.nodes[one.node]["inputs"][one.input], one.kind)
            except ValueError as error:
                known = workflow.known_by(one.point)
                problems.add(row.place, f"gives nothing for {known}, and the workflow's own {error}")
    return Task(str(row.cells.get(NAME, "")), row.cells, values, files, **truths)


def _path(start: Path, value: object, kind: str, home: bool = True) -> Path:
    """A file or folder of the table; it may lie anywhere, because who wrote the table runs the command."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"is {value!r} where the path of a {kind} is expected")
    path = start / (os.path.expanduser(value) if home else value)  # which leaves ~name where nobody is called so
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # is_dir() and exists() of newer Pythons keep all errors to themselves
        maps = kind == "folder" and any((path / name).is_dir() for name in MAP_FOLDERS)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"  # JSON can write halves of characters
        shown = value if len(value) <= SHOWN else f"{value[:SHOWN]}..."
        raise ValueError(f"is {shown!r}, which cannot be opened ({reason}): give another path") from None
    if kind == "file" and path.is_dir():
        raise ValueError(f"{value} is a folder where a file is expected")
    if kind == "folder" and not maps:
        there = "has none of the folders" if path.is_dir() else "is not there; it needs some of the folders"
        raise ValueError(f"{value} {there} {', '.join(MAP_FOLDERS)}")
    if not path.exists():
        raise ValueError(f"{value} is not there")
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"{value} is empty")
    return Path(os.path.abspath(path))


def _constant(inputs: Path, value: object, kind: str) -> Path:
    """What a workflow names lies in ComfyUI's input folder: a workflow may come from anyone."""
    parts = re.split(r"[/\\]", str(value))
    if any(part in ("", "..") or re.search(r"[:\0]", part) for part in parts):
        raise ValueError(f"{value!r} is no name of ComfyUI's input folder")
    try:
        return _path(inputs, "/".join(parts), kind, home=False)
    except ValueError as error:
        raise ValueError(f"{error} (in {inputs})") from None


def _check_names(rows: Sequence[Row], problems: Problems) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        name = str(row.cells.get(NAME, ""))
        if not name:
            problems.add(row.place, "has no name")
        elif not is_name(name):
            problems.add(row.place, f"name {name!r} cannot be the name of a folder: use letters, digits, - and _")
        elif (other := first.setdefault(_alike(name), row)) is not row:
            problems.add(row.place, f"name {name!r} is that of {other.place}, too")


def is_name(text: str) -> bool:
    """Returns whether every system accepts this as the name of a folder, and nothing but a name."""
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", text, re.IGNORECASE)
    fits = len(text.encode(errors="replace")) <= 150 and text.isprintable()
    return fits and not device and bool(re.fullmatch(r'[^\W_]([^<>:"/\\|?*]*[^<>:"/\\|?*. ])?', text))


def _alike(name: str) -> str:
    """Returns a key that is equal for names that some systems cannot distinguish."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
