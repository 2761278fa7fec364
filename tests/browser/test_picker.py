"""Built-in motions are chosen by their pictures, in the language of the settings, and people by theirs."""

import pytest

NODE = """
(kind) => {
  const node = LiteGraph.createNode(kind);
  app.graph.add(node);
  const button = node.widgets.find((widget) => widget.type === "button");
  button.callback();
  return button.label;
}
"""
PICTURES = """
() => Promise.all([...document.querySelectorAll("dialog.champ-picker img")].map((picture) => picture.decode()))
  .then((all) => all.length)
"""
CHOSEN = """
([kind, wanted]) => {
  const node = app.graph.nodes.find((node) => node.comfyClass === kind);
  return node.widgets.find(({ name }) => name === wanted).value;
}
"""


@pytest.mark.parametrize("settings", [{"Comfy.Locale": "zh"}], ids=["Chinese"])
def test_a_motion_is_chosen_by_its_picture(page, screenshots):
    assert page.evaluate(NODE, "ChampBuiltInMotion") == "按图片选择..."
    assert page.evaluate(PICTURES) == 16
    page.screenshot(path=screenshots / "picker.png")
    page.locator("dialog.champ-picker").get_by_role("button", name="深蹲").click()
    assert page.evaluate(CHOSEN, ["ChampBuiltInMotion", "motion"]) == "squats"
    assert page.locator("dialog.champ-picker").count() == 0
    assert not page.complaints


def test_a_person_is_chosen_by_picture(page):
    page.evaluate(NODE, "ChampExamplePerson")
    assert page.evaluate(PICTURES) == 30
    page.locator("dialog.champ-picker").get_by_role("button", name="8", exact=True).click()
    assert page.evaluate(CHOSEN, ["ChampExamplePerson", "person"]) == 8
    assert not page.complaints
