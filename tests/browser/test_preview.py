"""A moving preview is in its node, also when nothing happens after the run and nobody touches the editor."""

import time

BODY = {"gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}
CLIP = {"motion": "walk", "frames": 2, "fps": 8.0, "loop": True, "travel": False, "width": 64, "height": 96}
PROMPT = {
    "1": {"class_type": "ChampFreeBody", "inputs": BODY},
    "2": {"class_type": "ChampBuiltInMotion", "inputs": {"body": ["1", 0], **CLIP}},
    "3": {
        "class_type": "ChampPreviewMotion",
        "inputs": {"motion": ["2", 0], "body": ["1", 0], "opacity": 1.0, "renderer": "torch"},
    },
}
# How much of the page's width the preview takes, 0 as long as there is none.
SHARE = """() => {
  const picture = document.querySelector(".dom-widget img");
  return picture ? picture.getBoundingClientRect().width / window.innerWidth : 0;
}"""
ROOM = "() => app.graph.nodes.forEach((n) => n.comfyClass === 'ChampPreviewMotion' && n.setSize([320, 460]))"


def late(route) -> None:
    time.sleep(1.5)  # the run is over by then
    route.continue_()


def test_a_moving_preview_stays_in_its_node(page):
    page.route("**/view?*", late)
    page.evaluate("(prompt) => app.loadApiJson(prompt, 'preview')", PROMPT)
    page.evaluate(ROOM)  # a node that is large enough is not drawn anew for its preview
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function(f"() => ({SHARE})() > 0", timeout=60_000)
    page.wait_for_timeout(1000)
    assert 0 < page.evaluate(SHARE) < 0.5
    assert page.complaints == []
