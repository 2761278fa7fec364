"""What a node has to say is read on the node, in both renderers."""

import pytest

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0x808080}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0x848484}},
    "3": {
        "class_type": "ChampMeasure",
        "inputs": {"images": ["1", 0], "truth": ["2", 0], "protocol": "clean", "lpips": False, "fid_vid": False,
                   "fvd": False},
    },
}  # fmt: skip
PAINT = """
(color) => {
  app.graph.nodes.find((node) => node.id == 2).widgets.find((widget) => widget.name === "color").value = color;
}
"""


@pytest.fixture(params=["canvas", "Vue"])
def settings(request) -> dict:
    return {"Comfy.VueNodes.Enabled": request.param == "Vue"}


def test_the_report_is_shown_and_not_saved(page, screenshots):
    page.evaluate("(prompt) => app.loadApiJson(prompt, 'measure')", PROMPT)
    report = page.locator(".champ-report")
    report.get_by_text("Stands here after a run.").wait_for()
    for color, text in ((0x868686, "PSNR: whole 32.57"), (0x848484, "PSNR: whole 36.09")):  # a second run changes it
        page.evaluate(PAINT, color)
        page.evaluate("() => app.queuePrompt(0, 1)")
        report.get_by_text(text).wait_for(timeout=30_000)
    page.screenshot(path=screenshots / "report.png")
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    [measure] = [node for node in prompt.values() if node["class_type"] == "ChampMeasure"]
    assert measure["inputs"].keys() == PROMPT["3"]["inputs"].keys()
    saved = page.evaluate("() => app.graph.serialize().nodes.find((n) => n.type === 'ChampMeasure').widgets_values")
    assert len(saved) == 4 or saved[4:] == [None], saved
    assert page.complaints == []
