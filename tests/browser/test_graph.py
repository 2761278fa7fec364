"""What leads to a node, as a run would see it: the views know it through whatever stands in between."""

import pytest

import dev

from .conftest import DANCE

PROMPT = {
    **DANCE,
    "3": {"class_type": "ChampRetimeMotion", "inputs": {"motion": ["2", 0], "fps": 12, "start": 0, "count": 5,
          "loop": False}},
    "4": {"class_type": "ChampPreviewMotion", "inputs": {"motion": ["3", 0], "body": ["1", 0], "opacity": 0.85,
          "renderer": "torch"}},
    "5": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["3", 0], "body": ["1", 0]}},
    "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
}  # fmt: skip
# What the page says of the nodes that lead to the preview, after something was done to the graph.
DESCRIBE = """
async ([pack, prompt]) => {
  const { describe } = await import(`/extensions/${pack}/motion.js`);
  const { everyNode, keyOf } = await import(`/extensions/${pack}/graph.js`);
  await app.loadApiJson(prompt, "graph");
  const node = (kind) => everyNode().find((node) => node.comfyClass === kind);
  const put = (kind) => {
    const made = LiteGraph.createNode(kind);
    app.graph.add(made);
    return made;
  };
  const wrap = (...kinds) => app.graph.convertToSubgraph(new Set(kinds.map(node))).node;
  const give = (from, to, name) => from.connect(0, to, to.inputs.findIndex((input) => input.name === name));
  const asked = (CHANGE)({ node, put, give, wrap });
  const from = asked ?? node("ChampPreviewMotion");
  const inside = everyNode().find((node) => node.graph !== app.graph)?.graph.id ?? "none";
  const told = JSON.stringify([describe(from), keyOf(from)]);
  return JSON.parse(told.replaceAll(inside, "inside"));
}
"""
# Each is a change, the nodes that lead to the preview afterwards, and where its motion comes from.
CHANGES = {
    "nothing": ("() => null", ["1", "2", "3", "4"], ["3", 0]),
    "a bypassed node": ('({ node }) => void (node("ChampRetimeMotion").mode = 4)', ["1", "2", "4"], ["2", 0]),
    "a muted node": ('({ node }) => void (node("ChampRetimeMotion").mode = 2)', ["1", "4"], None),
    "a reroute": (
        """({ node, put, give }) => {
          const reroute = put("Reroute");
          node("ChampRetimeMotion").connect(0, reroute, 0);
          give(reroute, node("ChampPreviewMotion"), "motion");
        }""",
        ["1", "2", "3", "4"],
        ["3", 0],
    ),
    "a subgraph before it": (
        '({ wrap }) => void wrap("ChampBuiltInMotion", "ChampRetimeMotion")',
        ["1", "4", "inside:2", "inside:3"],
        ["inside:3", 0],
    ),
    "a subgraph around it": (
        '({ node, wrap }) => (wrap("ChampPreviewMotion"), node("ChampPreviewMotion"))',
        ["1", "2", "3", "inside:4"],
        ["3", 0],
    ),
    "a bypassed node before a subgraph": (
        """({ node, wrap }) => {
          node("ChampRetimeMotion").mode = 4;
          wrap("ChampPreviewMotion");
          return node("ChampPreviewMotion");
        }""",
        ["1", "2", "inside:4"],
        ["2", 0],
    ),
}  # fmt: skip
VALUES = {
    "a node with a number": """({ node, put, give }) => {
      const number = put("PrimitiveInt");
      number.widgets[0].value = 17;
      give(number, node("ChampBuiltInMotion"), "frames");
    }""",
    "a primitive node": """({ node, put, give }) => {
      const number = put("PrimitiveNode");
      give(number, node("ChampBuiltInMotion"), "frames");
      number.widgets[0].value = 17;
    }""",
    "the widget of a subgraph": """({ wrap }) => {
      const made = wrap("ChampBuiltInMotion");
      const inner = made.subgraph.nodes[0];
      const slot = inner.inputs.findIndex((input) => input.name === "frames");
      const input = made.subgraph.addInput("frames", "INT");
      input.connect(inner.inputs[slot], inner);
      made.widgets.find((widget) => widget.name === "frames").value = 17;
    }""",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_view_knows_what_a_run_would_take(module_page, name):
    change, nodes, motion = CHANGES[name]
    described, key = module_page.evaluate(DESCRIBE.replace("CHANGE", change), [dev.PACK, PROMPT])
    assert sorted(described) == nodes
    assert described[key]["inputs"].get("motion") == motion
    module_page.wait_for_timeout(500)  # the timer has looked at what is left of the graph
    assert module_page.complaints == []


@pytest.mark.parametrize("name", VALUES)
def test_a_view_knows_values_from_outside(module_page, name):
    described, _ = module_page.evaluate(DESCRIBE.replace("CHANGE", VALUES[name]), [dev.PACK, PROMPT])
    [dance] = [node for node in described.values() if node.get("class_type") == "ChampBuiltInMotion"]
    assert dance["inputs"]["frames"] == 17
    assert module_page.complaints == []


def test_what_a_node_in_a_subgraph_made_is_shown_in_it(module_page):
    change = """({ node, wrap }) => {
      const holder = wrap("ChampRenderMaps");
      app.canvas.openSubgraph(holder.subgraph, holder);
      return node("ChampRenderMaps").graph.nodes[0];
    }"""
    module_page.evaluate(DESCRIBE.replace("CHANGE", change), [dev.PACK, PROMPT])
    module_page.evaluate("() => app.queuePrompt(0, 1)")
    module_page.locator(".champ-player").get_by_text("/ 5").wait_for(timeout=60_000)
    assert module_page.complaints == []
