"""Every node of the pack is there in a real ComfyUI, and explains itself."""

import ast
import functools
import json

import pytest

import dev


def declared_ids() -> list[str]:
    """The node_id of every schema written in nodes/, so that a node left out of its module's list is missed."""
    return sorted(
        node.value.value
        for file in (dev.ROOT / "nodes").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "node_id" and isinstance(node.value, ast.Constant)
    )


@functools.cache
def declared_advanced() -> dict[str, set[str]]:
    """The inputs of each node that its schema calls rare."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (dev.ROOT / "nodes").glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    about = [{k.arg: k.value for k in call.keywords} for call in calls]
    return {
        given["node_id"].value: set(ast.literal_eval(given["advanced"])) if "advanced" in given else set()
        for given in about
        if isinstance(given.get("node_id"), ast.Constant)
    }


@pytest.fixture(scope="module")
def registered(server) -> dict[str, dict]:
    nodes = server.json("/object_info")
    return {name: info for name, info in nodes.items() if info["python_module"] == f"custom_nodes.{dev.PACK}"}


def inputs_of(info: dict) -> dict[str, dict]:
    """The options of each input that a user sees."""
    found = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: spec[1] if len(spec) > 1 else {} for name, spec in found.items()}


def test_all_declared_nodes_are_registered(registered):
    assert registered, "ComfyUI did not load the pack"
    assert sorted(registered) == declared_ids()


def test_extension_scripts_are_served(server):
    scripts = [f"/extensions/{dev.PACK}/{file.relative_to(dev.ROOT / 'js').as_posix()}"
               for file in (dev.ROOT / "js").rglob("*.js")]  # fmt: skip
    served = server.json("/extensions")
    assert set(scripts) <= set(served)
    assert all(server.request(script)[0] == 200 for script in scripts)


@pytest.mark.parametrize("node_id", declared_ids())
def test_node_describes_itself(registered, node_id):
    info = registered[node_id]
    assert node_id.startswith("Champ")
    assert info["display_name"] not in (None, "", node_id)
    assert info["category"].split("/")[0] == "Champ"
    assert len(info["description"]) >= 20
    without = [name for name, options in inputs_of(info).items() if not options.get("tooltip")]
    without += [name for name, text in zip(info["output_name"], info["output_tooltips"], strict=True) if not text]
    assert not without, f"no tooltip: {without}"


def test_newer_hosts_hear_other_names_and_rare_inputs(server, registered):
    """And older ones nothing that they do not know."""
    core = [info for name, info in server.json("/object_info").items() if name not in registered]
    know_names = any(info.get("search_aliases") for info in core)
    # Older hosts know rare inputs of older kinds of nodes alone, which says nothing about ours.
    know_rare = any(options.get("advanced") for info in registered.values() for options in inputs_of(info).values())
    assert know_rare or not know_names
    for name, info in registered.items():
        names = info.get("search_aliases", [])
        assert (3 <= len(names) == len({name.lower() for name in names})) if know_names else not names, name
        rare = {key for key, options in inputs_of(info).items() if options.get("advanced")}
        assert rare == (declared_advanced()[name] if know_rare else set()), name
        assert declared_advanced()[name] < {*inputs_of(info), "something that is always shown"}, name
    if know_names:
        dance = {name for name, info in registered.items() if "dance" in " ".join(info["search_aliases"]).lower()}
        assert {"ChampBuiltInMotion", "ChampLoadMotion", "ChampSampler"} <= dance


@pytest.mark.parametrize("node_id", declared_ids())
def test_help_page_covers_the_node(server, registered, node_id):
    status, body = server.request(f"/extensions/{dev.PACK}/docs/{node_id}.md")
    assert status == 200
    page = body.decode("utf-8")
    assert page.startswith(f"# {registered[node_id]['display_name']}\n")
    assert len(page) >= 300
    names = [*inputs_of(registered[node_id]), *registered[node_id]["output_name"]]
    missing = [name for name in names if name.lower().replace("_", " ") not in page.lower().replace("_", " ")]
    assert not missing, f"not in the help page: {missing}"


def test_every_node_has_a_place_in_an_example():
    files = (dev.ROOT / "example_workflows" / "api").glob("*.json")
    used = {node["class_type"] for file in files for node in json.loads(file.read_text(encoding="utf-8")).values()}
    assert set(declared_ids()) <= used
