"""The button on a loader lists the official files, fetches the one that is pressed, and the node then offers it."""

import numpy as np
import pytest

from champ.weights import FILES

FILE = "champ/animate_anyone/denoising_unet.pth"
CONTENT = np.random.default_rng(2).bytes(40_000)

# An empty graph with the loader on it; where its button is on the screen.
BUTTON = """
async () => {
  await app.loadGraphData({ version: 0.4, last_node_id: 0, last_link_id: 0, nodes: [], links: [] });
  const node = LiteGraph.createNode("ChampLoadModel");
  app.graph.add(node);
  node.pos = [100, 100];
  app.canvas.ds.reset();
  app.canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 500));
  const widget = node.widgets.find((widget) => widget.name === "Download files...");
  const rect = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = app.canvas.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
  return [rect.x + x, rect.y + y];
}
"""
CHOICE = """
() => {
  const [node] = app.graph.nodes;
  return [node.widgets[0].value, node.widgets[0].options.values];
}
"""


@pytest.fixture
def no_sets(server):
    """Without the checkpoint sets that other tests may have put there."""
    folder = server.base / "models" / "champ"
    aside = folder.with_name("champ_aside")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    folder.mkdir()
    yield folder
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()
    aside.rename(folder)


def test_a_file_is_fetched_and_offered(page, server, hub, no_sets, screenshots):
    for name in ("denoising_unet.pth", "pose_guider.pth"):
        hub.files[f"/patrolli/AnimateAnyone/resolve/main/{name}"] = CONTENT
    hub.gate.clear()
    asked = len(hub.asked)
    page.evaluate("async () => await app.refreshComboInNodes()")  # the sets are gone
    page.mouse.click(*page.evaluate(BUTTON))
    dialog = page.locator("dialog.champ-download")
    row = dialog.locator("li", has_text=FILE)
    row.get_by_role("button", name="Download").wait_for()
    page.screenshot(path=screenshots / "download_dialog.png")
    assert "about 3.44 GB" in row.text_content() and "licence: Apache-2.0" in row.text_content()
    assert row.get_by_role("link").get_attribute("href") == "https://huggingface.co/patrolli/AnimateAnyone"
    assert page.evaluate(CHOICE) == ["champ_tiny", ["champ_tiny"]]
    assert len(hub.asked) == asked, "something was fetched before the button was pressed"

    row.get_by_role("button", name="Download").click()
    row.get_by_text("0.0 MB of 0.0 MB").wait_for()
    after = dialog.locator("li", has_text="animate_anyone/pose_guider.pth")
    after.get_by_role("button", name="Download").click()
    after.get_by_text("waiting").wait_for()
    page.screenshot(path=screenshots / "download_running.png")
    with page.expect_response("**/champ/download/cancel"):
        row.get_by_role("button", name="Cancel").click()
    hub.gate.set()
    row.get_by_role("button", name="Download").wait_for()
    assert not (no_sets / "animate_anyone" / "denoising_unet.pth").exists()
    after.get_by_text("is there").wait_for()
    assert (no_sets / "animate_anyone" / "pose_guider.pth").read_bytes() == CONTENT

    row.get_by_role("button", name="Download").click()
    row.get_by_text("is there").wait_for()
    page.screenshot(path=screenshots / "download_done.png")
    assert (no_sets / "animate_anyone" / "denoising_unet.pth").read_bytes() == CONTENT
    page.wait_for_function("() => app.graph.nodes[0].widgets[0].options.values.includes('animate_anyone')")
    assert page.evaluate(CHOICE) == ["champ_tiny", ["animate_anyone", "champ_tiny"]]  # what was chosen stays
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert "Download files..." not in page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
    assert page.complaints == []


def test_an_empty_loader_of_comfyui_takes_what_arrives(page, server, hub):
    """Load CLIP Vision, to which one of the files belongs."""
    for file in (server.base / "models" / "clip_vision").glob("*"):
        file.unlink()
    hub.files["/fudan-generative-ai/champ/resolve/main/image_encoder/pytorch_model.bin"] = CONTENT
    page.evaluate("async () => await app.refreshComboInNodes()")
    button = page.evaluate(BUTTON)
    page.evaluate("() => app.graph.add(LiteGraph.createNode('CLIPVisionLoader'))")
    chosen = "() => app.graph.nodes.find((node) => node.type === 'CLIPVisionLoader').widgets[0].value"
    assert not page.evaluate(chosen)
    page.mouse.click(*button)
    row = page.locator("dialog.champ-download li", has_text="champ_image_encoder.bin")
    row.get_by_role("button", name="Download").click()
    page.wait_for_function(f"() => ({chosen})() === 'champ_image_encoder.bin'")
    assert page.complaints == []


def test_a_failure_is_shown(page, server, hub, no_sets, screenshots):
    hub.files["/patrolli/AnimateAnyone/resolve/main/denoising_unet.pth"] = CONTENT
    page.mouse.click(*page.evaluate(BUTTON))
    row = page.locator("dialog.champ-download li", has_text=FILE)
    hub.announced = "0" * 64
    row.get_by_role("button", name="Download").click()
    row.get_by_text("wrong checksum and was removed").wait_for()
    hub.announced = None
    page.screenshot(path=screenshots / "download_failed.png")
    assert row.get_by_role("button", name="Download").is_enabled()


def test_all_files_of_a_model_are_fetched_by_one_button(page, server, hub, no_sets):
    hub.files["/patrolli/AnimateAnyone/resolve/main/denoising_unet.pth"] = CONTENT
    hub.gate.clear()
    page.mouse.click(*page.evaluate(BUTTON))
    dialog = page.locator("dialog.champ-download")
    dialog.get_by_role("button", name="Download all of Champ (").wait_for()
    button = dialog.get_by_role("button", name="Download all of Animate Anyone (8.70 GB)")
    button.click()
    button.wait_for(state="hidden")
    asked = dialog.locator("li", has=page.get_by_role("button", name="Cancel"))
    needed = {file.name for file in FILES if "Animate Anyone" in file.models}
    there = {*dialog.locator("li", has_text="is there").locator("b").all_text_contents()}
    assert {*asked.locator("b").all_text_contents()} == needed - there and FILE in needed - there
    with page.expect_response("**/champ/download/cancel"):  # of the first one, which is being fetched; the others wait
        for row in reversed(asked.all()):
            row.get_by_role("button", name="Cancel").click()
    hub.gate.set()
    dialog.locator("li", has_text=FILE).get_by_role("button", name="Download").wait_for()
    assert page.complaints == []
