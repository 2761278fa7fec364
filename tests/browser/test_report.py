"""What a node has to say is read on the node."""

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0x808080}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0x848484}},
    "3": {
        "class_type": "ChampMeasure",
        "inputs": {"images": ["1", 0], "truth": ["2", 0], "protocol": "clean", "lpips": False, "fid_vid": False,
                   "fvd": False},
    },
}  # fmt: skip
MEASURE = "app.graph.nodes.find((node) => node.comfyClass === 'ChampMeasure')"
TEXT = f"{MEASURE}.widgets.find((widget) => widget.name === 'champ_report')?.value"


def test_the_report_is_shown_and_not_saved(page, screenshots):
    page.evaluate("(prompt) => app.loadApiJson(prompt, 'measure')", PROMPT)
    for _ in range(2):  # a second run changes the text, and adds nothing
        page.evaluate("() => app.queuePrompt(0, 1)")
        page.wait_for_function(f"() => {TEXT}", timeout=30_000)
    page.screenshot(path=screenshots / "report.png")
    assert "PSNR: whole 36.09" in page.evaluate(f"() => {TEXT}")
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    [measure] = [node for node in prompt.values() if node["class_type"] == "ChampMeasure"]
    assert measure["inputs"].keys() == PROMPT["3"]["inputs"].keys()
    saved = page.evaluate("() => app.graph.serialize().nodes.find((n) => n.type === 'ChampMeasure').widgets_values")
    assert len(saved) == 4 or saved[4:] == [None], saved
    assert page.complaints == []
