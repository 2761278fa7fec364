"""Chinese and Japanese say all that English says, and nothing that is gone."""

import ast
import json
import re

import pytest

import dev
from champ.motion.presets import PRESETS
from champ.weights import FILES

LANGUAGES = ("ja", "zh")
# vue-i18n, through which the page takes these texts, gives them a meaning.
SPECIAL = re.compile(r"[{}@|]")


def texts(language: str, file: str) -> dict:
    return json.loads((dev.ROOT / "locales" / language / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def registered(server) -> dict[str, dict]:
    nodes = server.json("/object_info")
    return {name: info for name, info in nodes.items() if info["python_module"] == f"custom_nodes.{dev.PACK}"}


def inputs_of(info: dict) -> dict[str, str]:
    found = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: spec[1]["tooltip"] for name, spec in found.items()}


def sentences() -> set[str]:
    """All that the page says: literals in js/, files that can be downloaded, motions, and what the views are told."""
    scripts = "".join(file.read_text(encoding="utf-8") for file in (dev.ROOT / "js").glob("*.js"))
    said = {json.loads(text) for text in re.findall(r'translate\(("(?:[^"\\]|\\.)*")', scripts)}
    trees = [
        ast.parse((dev.ROOT / "nodes" / f"{name}.py").read_text(encoding="utf-8")) for name in ("timeline", "view")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node for node in nodes if getattr(node.func, "id", "") == "NotYet"]
    told = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    terms = {file.licence for file in FILES if " " in file.licence}
    return said | told | {file.what for file in FILES} | terms | set(PRESETS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_is_translated(server, registered, language):
    nodes = server.json("/i18n")[language]["nodeDefs"]
    assert nodes == texts(language, "nodeDefs.json")
    assert sorted(nodes) == sorted(registered)
    for name, info in registered.items():
        node = nodes[name]
        assert node.get("inputs", {}).keys() == inputs_of(info).keys(), name
        assert list(node["outputs"]) == [str(i) for i in range(len(info["output"]))] if info["output"] else True, name
        said = [node["display_name"], node["description"]]
        parts = [*node.get("inputs", {}).values(), *node.get("outputs", {}).values()]
        for part in parts:
            assert part.keys() == {"name", "tooltip"}, name
            said += part.values()
        assert all(said) and not any(map(SPECIAL.search, said)), name
        english = {info["description"], *inputs_of(info).values(), *info["output_tooltips"]}
        assert not english & set(said), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_of_the_page_is_translated(language):
    translated = texts(language, "main.json")["champ"]
    assert translated.keys() == sentences()
    placeholders = re.compile(r"\{\w+\}")
    for english, other in translated.items():
        assert other and sorted(placeholders.findall(english)) == sorted(placeholders.findall(other)), english


@pytest.mark.parametrize("language", LANGUAGES)
def test_categories_are_translated(registered, language):
    parts = {part for info in registered.values() for part in info["category"].split("/")}
    assert texts(language, "main.json")["nodeCategories"].keys() < parts  # ComfyUI itself knows the others


def test_every_node_has_a_chinese_help_page(server, registered):
    pages = {file.parent.name for file in (dev.ROOT / "js" / "docs").glob("*/zh.md")}
    assert pages == registered.keys()
    for name, node in texts("zh", "nodeDefs.json").items():
        status, body = server.request(f"/extensions/{dev.PACK}/docs/{name}/zh.md")
        page = body.decode("utf-8")
        assert status == 200 and page.startswith(f"# {node['display_name']}\n")
        parts = [*node.get("inputs", {}).values(), *node.get("outputs", {}).values()]
        missing = [part["name"] for part in parts if part["name"] not in page]
        assert not missing, f"not in the help page of {name}: {missing}"
