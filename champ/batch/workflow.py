"""A workflow in API format whose inputs a table fills: where a column's values go, and what they may be."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..server import Failure

Prompt = dict[str, dict]  # node id -> {"class_type": ..., "inputs": {...}}
Info = Mapping[str, dict]  # ComfyUI's /object_info
Point = tuple[str, str]  # node id, name of an input

UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload")
# The columns that need not say where they go, and the nodes that take them; of other packs' nodes those for uploads do.
ROLES = {"reference": "Load Image", "video": "Load Video", "motion": "Load Motion", "maps": "Load Guidance Maps"}
ROLE_UPLOADS = {"reference": "image_upload", "video": "video_upload"}
ROLE_NODES = {"motion": "ChampLoadMotion", "maps": "ChampLoadMaps"}
OWN_FILES = {("ChampLoadMotion", "file"): "file", ("ChampLoadMaps", "folder"): "folder"}
STAGES = {"maps": ("ChampSaveMaps", "ChampSaveMotion")}  # which nodes a stage ends in
RESULT = "result"  # title of the node that saves the clip to be shown and measured, where there are several
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Slot:
    """An input that the table, or ComfyUI's input folder, fills."""

    node: str
    input: str
    kind: str  # INT, FLOAT, STRING, BOOLEAN, COMBO, file, folder, or another one, which is not looked at
    limits: dict = field(default_factory=dict)

    @property
    def point(self) -> Point:
        return self.node, self.input

    @property
    def is_path(self) -> bool:
        return self.kind in ("file", "folder")


@dataclass(frozen=True)
class Workflow:
    """The nodes of a file in API format."""

    name: str
    nodes: Prompt

    def title(self, node: str) -> str:
        about = self.nodes[node]
        return str(about.get("_meta", {}).get("title") or about["class_type"])

    def known_by(self, point: Point) -> str:
        """An input as columns name it."""
        node, name = point
        title = self.title(node)
        unique = sum(self.title(other) == title for other in self.nodes) == 1
        return f"{title if unique else node}.{name}"

    @property
    def digest(self) -> str:
        """Returns a digest of what is computed: titles and the order of the nodes do not count."""
        bare = {node: {"class": about["class_type"], **about["inputs"]} for node, about in self.nodes.items()}
        return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()

    def filled(self, values: Mapping[Point, object]) -> Prompt:
        """Returns the nodes with other values."""
        prompt = json.loads(json.dumps(self.nodes))
        for (node, name), value in values.items():
            prompt[node]["inputs"][name] = value
        return prompt

    def links(self, node: str) -> Iterator[str]:
        """Returns the nodes that this one takes its inputs from."""
        for value in self.nodes[node]["inputs"].values():
            if is_link(value) and value[0] in self.nodes:
                yield value[0]

    def above(self, node: str) -> set[str]:
        """Returns a node and everything it needs."""
        found, waiting = set(), [node]
        while waiting:
            if (here := waiting.pop()) not in found:
                found.add(here)
                waiting += self.links(here)
        return found

    def savers(self, info: Info) -> list[str]:
        return [node for node, about in self.nodes.items() if info.get(about["class_type"], {}).get("output_node")]

    def only(self, stage: str) -> "Workflow":
        """Returns the part of the workflow that leads to the last nodes of a stage."""
        ends = [node for node, about in self.nodes.items() if about["class_type"] in STAGES[stage]]
        kept = set().union(*map(self.above, ends))
        return Workflow(self.name, {node: about for node, about in self.nodes.items() if node in kept})


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def read_workflow(path: Path) -> Workflow:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure(f"there is no workflow {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Failure(f"{path} is not a workflow: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise Failure(f"{path} is a workflow as the canvas saves it: export it once more with Export (API)")
    if not isinstance(content, dict) or not content or not all(map(_is_node, content.values())):
        raise Failure(f"{path} is not a workflow in API format: save it in ComfyUI with Export (API)")
    return Workflow(path.name, content)


def _is_node(about: object) -> bool:
    return (
        isinstance(about, dict)
        and isinstance(about.get("class_type"), str)
        and isinstance(about.get("inputs"), dict)
        and isinstance(about.get("_meta", {}), dict)
    )


def specification(info: Info, kind: str, name: str) -> tuple[str, dict] | None:
    """Returns the type of an input, COMBO for any list, and its options; None if the node does not have it."""
    inputs = info[kind]["input"]
    for part in ("required", "optional"):
        known = inputs.get(part, {})
        if name in known:
            type_, options = known[name][0], dict(known[name][1]) if len(known[name]) > 1 else {}
            return ("COMBO", {**options, "options": type_}) if isinstance(type_, list) else (str(type_), options)
        parent = name.split(".")[0]  # inputs that appear with a choice are called after it: format.codec
        if parent != name and parent in known and str(known[parent][0]).startswith("COMFY_"):
            return "of a choice", {}
    return None


def slot(workflow: Workflow, info: Info, node: str, name: str) -> Slot | None:
    """Returns what may be put into an input; None if the node does not have it."""
    kind = workflow.nodes[node]["class_type"]
    found = specification(info, kind, name)
    if found is None:
        return None
    type_, options = found
    if (kind, name) in OWN_FILES:
        return Slot(node, name, OWN_FILES[kind, name])
    if any(options.get(upload) for upload in UPLOADS) and "remote" not in options:
        return Slot(node, name, "file")
    return Slot(node, name, type_, options)


def path_slots(workflow: Workflow, info: Info) -> list[Slot]:
    """Finds the inputs that name a file or a folder of ComfyUI's input folder."""
    found = (slot(workflow, info, node, name) for node, about in workflow.nodes.items() for name in about["inputs"])
    return [one for one in found if one is not None and one.is_path]


def find_role(workflow: Workflow, info: Info, role: str) -> Slot:
    """Finds the input of a column like `reference`; ValueError says why that cannot be told."""

    def takes(one: Slot) -> bool:
        kind = workflow.nodes[one.node]["class_type"]
        if role in ROLE_NODES:
            return kind == ROLE_NODES[role]
        _, options = specification(info, kind, one.input) or ("", {})
        return bool(options.get(ROLE_UPLOADS[role]))

    fitting = [one for one in path_slots(workflow, info) if takes(one)]
    titled = [one for one in fitting if workflow.title(one.node).casefold() == role]
    if len(titled or fitting) == 1:
        return (titled or fitting)[0]
    if not fitting:
        raise ValueError(f"column {role!r}: the workflow has no {ROLES[role]} that it could go to")
    names = ", ".join(workflow.known_by(one.point) for one in fitting)
    raise ValueError(f"column {role!r} could go to {names}: call the column so, or give one node the title {role!r}")


def find_input(workflow: Workflow, info: Info, column: str) -> Slot:
    """Finds the input that a column `title.input` or `node.input` names; ValueError says why there is none."""
    splits = [(column[:i], column[i + 1 :]) for i, letter in enumerate(column) if letter == "."]
    for left, name in splits:
        nodes = [left] if left in workflow.nodes else [n for n in workflow.nodes if workflow.title(n) == left]
        if len(nodes) > 1:
            ids = " or ".join(f"{node}.{name}" for node in nodes)
            raise ValueError(f"column {column!r}: several nodes are called {left!r}, so write {ids}")
        if nodes:
            return _input_of(workflow, info, column, nodes[0], name)
    columns = [*ROLES, *(workflow.known_by((n, name)) for n, a in workflow.nodes.items() for name in a["inputs"])]
    raise ValueError(f"column {column!r} is no input of the workflow{_perhaps(column, columns)}")


def _input_of(workflow: Workflow, info: Info, column: str, node: str, name: str) -> Slot:
    about = workflow.nodes[node]
    if about["class_type"] not in info:
        raise ValueError(f"column {column!r} is for a node that the workers do not have: {about['class_type']}")
    found = slot(workflow, info, node, name)
    if found is None:
        known = [n for part in ("required", "optional") for n in info[about["class_type"]]["input"].get(part, {})]
        raise ValueError(f"column {column!r}: the node has no input {name!r}{_perhaps(name, known)}")
    plain = found.kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or found.is_path
    if not plain and (name not in about["inputs"] or is_link(about["inputs"][name])):
        raise ValueError(f"column {column!r} is a socket of type {found.kind}, which no value of a table can fill")
    return found


def _perhaps(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 3, 0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def convert(slot: Slot, value: object) -> object:
    """Converts a cell to the input's type; ValueError says what was expected. Cells of CSV are text."""
    if slot.kind == "BOOLEAN":
        found = WORDS.get(str(value).lower())
        if found is None:
            raise ValueError(f"is {value!r} where true or false is expected")
        return found
    if slot.kind in ("INT", "FLOAT"):
        return _number(slot, value)
    if slot.kind == "COMBO":
        return _choice(slot.limits.get("options"), value)
    if slot.kind == "STRING" and not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"is {value!r} where text is expected")
        return str(value)
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"is {value!r} where a single value is expected")
    return value


def _number(slot: Slot, value: object) -> int | float:
    try:
        number = _whole(value) if slot.kind == "INT" else float(str(value))
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        wanted = "a whole number" if slot.kind == "INT" else "a number"
        raise ValueError(f"is {value!r} where {wanted} is expected") from None
    low, high = slot.limits.get("min"), slot.limits.get("max")
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"is {number} where {low} to {high} is possible")
    return number


def _whole(value: object) -> int:
    """Spreadsheets write 12.0 for 12; seeds have more digits than a float."""
    try:
        return int(str(value))
    except ValueError:
        number = float(str(value))
        if number != int(number):
            raise
        return int(number)


def _choice(options: object, value: object) -> object:
    if not isinstance(options, list):
        return value
    for option in options:
        if option == value or (isinstance(value, str) and str(option) == value):
            return option
    listed = ", ".join(map(str, options[:12])) + (", ..." if len(options) > 12 else "")
    raise ValueError(f"is {value!r}, which is not in the list: {listed or 'the list is empty'}")
