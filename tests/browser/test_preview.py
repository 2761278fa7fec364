"""A moving preview is in its node, also when nothing happens after the run and nobody touches the editor."""

# As the editor does it: the preview becomes part of the node while the node is drawn, and the node is large enough.
SHOW = """
async () => {
  const pause = (time) => new Promise((done) => setTimeout(done, time));
  app.graph.clear();
  const node = LiteGraph.createNode("ChampPreviewMotion");
  app.graph.add(node);
  node.setSize([320, 460]);
  await pause(1000);
  const preview = document.createElement("div");
  preview.id = "moving";
  node.onDrawBackground = function () {
    delete this.onDrawBackground;
    this.addDOMWidget("preview", "img", preview, { getMinHeight: () => 200 });
  };
  node.setDirtyCanvas(true, true);
  await pause(1000);
  return preview.getBoundingClientRect().width / window.innerWidth;
}
"""


def test_a_moving_preview_stays_in_its_node(page):
    assert 0 < page.evaluate(SHOW) < 0.5
    assert page.complaints == []
