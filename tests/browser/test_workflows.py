"""Every example workflow opens in the real frontend without a red node, and means the same as its API twin."""

import json

import pytest

import dev

FOLDER = dev.ROOT / "example_workflows"
EXAMPLES = sorted(file.stem for file in FOLDER.glob("*.json"))

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
SHOW = """
async () => {
  await app.extensionManager.command.execute("Comfy.Canvas.FitView");
  await new Promise((done) => setTimeout(done, 500));
}
"""


def read(*parts: str) -> dict:
    return json.loads(FOLDER.joinpath(*parts).read_text(encoding="utf-8"))


def test_an_unknown_node_is_noticed(page):
    workflow = {
        "version": 0.4,
        "last_node_id": 1,
        "last_link_id": 0,
        "links": [],
        "nodes": [{"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [200, 100], "flags": {}, "order": 0, "mode": 0,
                   "inputs": [], "outputs": [], "properties": {}, "widgets_values": []}],
    }  # fmt: skip
    assert page.evaluate(OPEN, workflow) == ["NoSuchNode"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_opens_and_sends_what_its_api_twin_says(page, screenshots, name):
    assert page.evaluate(OPEN, read(f"{name}.json")) == []
    page.evaluate(SHOW)
    page.screenshot(path=screenshots / f"{name}.png")
    assert not page.get_by_text("missing node", exact=False).is_visible()
    sent = json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
    twin = read("api", f"{name}.json")
    assert {id: node["class_type"] for id, node in sent.items()} == {id: twin[id]["class_type"] for id in twin}
    for id, node in twin.items():  # some of ComfyUI's own nodes send what they show as one more input
        assert {**sent[id]["inputs"], **node["inputs"]} == sent[id]["inputs"]
    assert page.complaints == []
