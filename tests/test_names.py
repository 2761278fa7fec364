"""One name means one thing: classes and functions that other modules see, in the whole pack."""

import ast
from collections import defaultdict
from pathlib import Path

PACK = Path(__file__).parents[1]
# Each program has a main; both pose networks are asked alike; both servers of pages have routes.
SHARED = {"main", "find_poses", "add_routes"}


def public(file: Path) -> set[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)}
    return {name for name in names if not name.startswith("_")} - SHARED


def test_no_two_classes_or_functions_have_one_name():
    where = defaultdict(list)
    for folder in ("champ", "nodes"):
        for file in sorted((PACK / folder).rglob("*.py")):
            for name in public(file):
                where[name].append(str(file.relative_to(PACK)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}
