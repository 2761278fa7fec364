"""No function is so long, or is given so much, that one has to scroll or to count."""

import ast
from functools import cache
from pathlib import Path

PACK = Path(__file__).parents[1]
LINES, PARAMETERS = 60, 7


@cache
def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    found = []
    for place in ("champ", "nodes", "bench", "tools", "tests", "dev.py"):
        for file in sorted((PACK / place).rglob("*.py")) or [PACK / place]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.append((f"{file.relative_to(PACK)}: {node.name}", node))
    return found


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [given.arg for given in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_function_is_longer_than_a_page():
    long = {  # what a node's schema says is a list, not a program
        name: node.end_lineno - node.lineno + 1 for name, node in functions() if node.name != "define_schema"
    }
    assert {name: lines for name, lines in long.items() if lines > LINES} == {}


def test_no_function_is_given_more_than_seven_things():
    many = {name: parameters(node) for name, node in functions() if node.name != "execute"}  # it has a node's inputs
    assert {name: count for name, count in many.items() if count > PARAMETERS} == {}
