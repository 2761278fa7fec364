"""Imports go along the arrows of the picture in docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACK = Path(__file__).parents[1]
GROUND = {"files", "output", "progress", "frame_lists"}


def room(place: tuple[str, ...]) -> str:
    return place[1] if place[0] == "champ" else place[0]


def imports() -> Iterator[tuple[str, str, str]]:
    """Who imports, the file that does, and what is imported."""
    for folder in ("champ", "nodes"):
        for file in sorted((PACK / folder).rglob("*.py")):
            place = file.relative_to(PACK).with_suffix("").parts
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    of = place[: -node.level] + tuple((node.module or "").split(".") if node.module else ())
                    for other in [of] if node.module else [(*of, name.name) for name in node.names]:
                        if room(other) != room(place):
                            yield room(place), "/".join(place), room(other)


def behind(arrows: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    new = {start}
    while new:
        new = {end for one in new for end in arrows.get(one, ())} - found
        found |= new
    return found


def test_rooms_import_what_the_picture_says():
    arrows: dict[str, set[str]] = {}
    for start, end in re.findall(r"^    (\w+) --> (\w+)$", (PACK / "docs/architecture.md").read_text("utf-8"), re.M):
        arrows.setdefault(start, set()).add(end)
    assert len(arrows) > 8
    assert [one for one in arrows if one in behind(arrows, one)] == []
    wrong = [
        (file, other)
        for start, file, other in imports()
        if other not in (GROUND if start in GROUND else behind(arrows, start) | GROUND)
    ]
    assert wrong == []
    used = {(start, other) for start, _, other in imports()}
    assert [(start, end) for start, ends in arrows.items() for end in ends if (start, end) not in used] == []
