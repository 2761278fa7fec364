"""Our subgraphs are offered as nodes, and what is in them is whole."""

import json

import dev

BLUEPRINTS = sorted((dev.ROOT / "subgraphs").glob("*.json"))
OPEN = """
async (workflow) => {
  await app.loadGraphData(workflow);
  const [node] = app.graph.nodes;
  const inside = node.subgraph.nodes;
  const red = inside.filter((part) => part.has_errors || !(part.type in LiteGraph.registered_node_types));
  return [red.map((part) => part.type), node.inputs.map((input) => input.label), node.widgets.map((w) => w.name)];
}
"""


def test_the_blueprints_are_offered_and_open(page, server, screenshots):
    offered = {about["name"] for about in server.json("/global_subgraphs").values()}
    assert len(BLUEPRINTS) == 4 and {file.stem for file in BLUEPRINTS} <= offered
    for file in BLUEPRINTS:
        red, inputs, widgets = page.evaluate(OPEN, json.loads(file.read_text(encoding="utf-8")))
        assert red == [] and inputs and widgets, file.name
    page.screenshot(path=screenshots / "blueprint.png")
    assert page.complaints == []
