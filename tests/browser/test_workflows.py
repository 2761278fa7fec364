"""Every example workflow opens in the real frontend without a red node, and means the same as its API twin."""

import json

import pytest

import dev

FOLDER = dev.ROOT / "example_workflows"
EXAMPLES = sorted(file.stem for file in FOLDER.joinpath("api").glob("*.json"))

# Loads a workflow and returns the type of every node that is unknown to the frontend or marked as faulty.
OPEN = """
async (workflow) => {
  await app.loadGraphData(workflow);
  const red = [];
  const visit = (graph) => graph.nodes.forEach((node) => {
    if (node.subgraph) visit(node.subgraph);
    else if (node.has_errors || !(node.type in LiteGraph.registered_node_types)) red.push(node.type);
  });
  visit(app.graph);
  return red;
}
"""


def read(name: str, folder: str = "") -> dict:
    """The workflow for scripts, or the one for the editor, which its description gives a title."""
    if not folder:
        description = (FOLDER / "api" / f"{name}.md").read_text(encoding="utf-8")
        name = description.splitlines()[0].removeprefix("# ")
    return json.loads((FOLDER / folder / f"{name}.json").read_text(encoding="utf-8"))


def known_to(server, prompt: dict) -> None:
    """Skips what this ComfyUI has not, and leaves inputs out that newer versions have."""
    known = server.json("/object_info")
    if unknown := {node["class_type"] for node in prompt.values()} - known.keys():
        assert not any(name.startswith("Champ") for name in unknown), unknown
        pytest.skip(f"this ComfyUI has no {', '.join(unknown)}")
    for node in prompt.values():
        if "resolution_steps" not in known[node["class_type"]]["input"].get("required", {}):  # newer than 0.3.75
            node["inputs"].pop("resolution_steps", None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_opens_and_sends_what_its_api_twin_says(module_page, server, screenshots, name):
    page = module_page
    twin = read(name, "api")
    known_to(server, twin)
    assert page.evaluate(OPEN, read(name)) == []
    page.screenshot(path=screenshots / f"{name}.png")
    # The first group is in sight, and its text is not too small to be drawn.
    assert page.evaluate("() => app.canvas.ds.scale") >= 0.6
    left, top = page.evaluate("() => app.canvas.ds.convertOffsetToCanvas([...app.graph.groups[0].pos])")
    assert 0 < left < 1000 and 0 < top < 500
    assert not page.get_by_text("missing node", exact=False).is_visible()
    sent = json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
    assert {id: node["class_type"] for id, node in sent.items()} == {id: twin[id]["class_type"] for id in twin}
    for id, node in twin.items():  # some of ComfyUI's own nodes send what they show as one more input
        assert {**sent[id]["inputs"], **node["inputs"]} == sent[id]["inputs"]
    assert page.complaints == []


def test_an_unknown_node_is_noticed(module_page):
    workflow = {
        "version": 0.4,
        "last_node_id": 1,
        "last_link_id": 0,
        "links": [],
        "nodes": [{"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [200, 100], "flags": {}, "order": 0, "mode": 0,
                   "inputs": [], "outputs": [], "properties": {}, "widgets_values": []}],
    }  # fmt: skip
    assert module_page.evaluate(OPEN, workflow) == ["NoSuchNode"]
