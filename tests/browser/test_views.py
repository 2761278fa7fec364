"""The 3D view and the player: changed, turned, played and scrubbed as a person does it, in both renderers."""

import json

import pytest

from .conftest import DANCE, editor

PROMPT = {
    **DANCE,
    "3": {"class_type": "ChampPreviewMotion", "inputs": {"motion": ["2", 0], "body": ["1", 0], "opacity": 0.85,
          "renderer": "torch"}},
}  # fmt: skip
# Opens nodes side by side, the others far below; the oldest Vue nodes only keep places that come with the workflow.
OPEN = """
async ([prompt, shown]) => {
  await app.loadApiJson(prompt, "views");
  const workflow = JSON.parse(JSON.stringify(app.graph.serialize()));
  for (const node of workflow.nodes) {
    const place = shown.indexOf(node.type);
    node.pos = place < 0 ? [120 + 400 * (node.id % 5), 2000 + 700 * Math.floor(node.id / 5)] : [120 + 420 * place, 120];
    if (place >= 0) node.size = [380, node.size[1] + 80];
  }
  await app.loadGraphData(workflow);
  app.canvas.ds.reset();
  app.canvas.setDirty(true, true);
}
"""
CHANGE = """
() => {
  const node = app.graph.nodes.find((node) => node.type === "ChampBuiltInMotion");
  node.widgets.find((widget) => widget.name === "frames").value = 30;
}
"""
# How much of the canvas of a player is not background, and a number that changes with the picture.
LOOK = """
(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [bright, sum] = [0, 0];
  for (let i = 0; i < data.length; i += 4) {
    bright += data[i] > 110 && data[i] > data[i + 2];
    sum = (sum * 31 + data[i]) % 1000000007;
  }
  return [(4 * bright) / data.length, sum];
}
"""


@pytest.fixture(scope="module", params=["canvas", "Vue"])
def renderer(request) -> str:
    """What draws the nodes: a canvas, or elements of the page."""
    return request.param


@pytest.fixture(scope="module")
def page(chromium, server, renderer):
    """One editor for each."""
    with editor(chromium, server, {"Comfy.VueNodes.Enabled": renderer == "Vue"}) as page:
        yield page


def settled(page, stage) -> int:
    """The number of the picture when it has stopped to change."""
    last = stage.evaluate(LOOK)[1]
    for _ in range(60):
        page.wait_for_timeout(500)
        number = stage.evaluate(LOOK)[1]
        if number == last:
            return number
        last = number
    raise AssertionError("the picture does not come to rest")


def pause(player) -> None:
    """Stops a player; those before it in this page may have stopped it already: there is one clock for a length."""
    button = player.get_by_title("Play or pause")
    if button.inner_text() == "❚❚":
        button.click()


def changed(page, stage, before: int) -> int:
    """The number of the picture when it has changed and stopped again."""
    for _ in range(60):
        if stage.evaluate(LOOK)[1] != before:
            return settled(page, stage)
        page.wait_for_timeout(250)
    raise AssertionError("the picture does not change")


PLACED = {
    "1": {"class_type": "ChampExamplePerson", "inputs": {"person": 3, "width": 96, "height": 128}},
    "2": {"class_type": "ChampBuiltInMotion", "inputs": {"body": ["1", 3], "motion": "dance", "frames": 30, "fps": 12,
          "loop": True, "travel": False, "width": 96, "height": 128}},
    "3": {"class_type": "ChampTransferMotion", "inputs": {"driving": ["2", 0], "reference": ["1", 2], "body": ["1", 3],
          "reference_image": ["1", 0], "placement": "follow", "figure_scale": 0.0}},
    "4": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["3", 0], "body": ["1", 3]}},
    "5": {"class_type": "TestCrowd", "inputs": {"left": ["4", 5], "right": ["4", 5], "shift": 40}},
    "6": {"class_type": "ChampFollowPerson", "inputs": {"pose_keypoints": ["5", 0], "person": "largest", "number": 0}},
    "7": {"class_type": "ChampEncodeGuidance", "inputs": {"depth": ["4", 0], "width": 0, "height": 0,
          "depth_strength": 1, "normal_strength": 1, "semantic_map_strength": 1, "dwpose_strength": 1, "start": 0,
          "end": 1}},
    "8": {"class_type": "ChampApply", "inputs": {"guidance": ["7", 0], "betas": "linear"}},
    "9": {"class_type": "ChampSampler", "inputs": {"latent": ["8", 3], "seed": 1, "steps": 10, "cfg": 3.5, "denoise": 1,
          "noise": "per frame", "length": 24, "overlap": 4, "schedule": "open", "weights": "ramps"}},
}  # fmt: skip
VALUES = """
(type) => Object.fromEntries(app.graph.nodes.find((node) => node.type === type).widgets.map((w) => [w.name, w.value]))
"""
PERSON = """
() => {
  const node = app.graph.nodes.find((node) => node.type === "ChampFollowPerson");
  const widget = node.widgets.find((widget) => widget.name === "person");
  widget.value = "number";
  widget.callback?.("number", app.canvas, node);
}
"""


def drag(page, start: tuple[float, float], way: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + way[0], start[1] + way[1], steps=4)
    page.mouse.up()


def test_a_reference_is_placed_and_a_person_chosen_with_the_mouse(page, renderer, screenshots):
    shown = ["ChampTransferMotion", "ChampRenderMaps", "ChampFollowPerson", "ChampSampler"]
    placed = json.loads(json.dumps(PLACED))
    placed["1"]["inputs"]["person"] = len(renderer)  # ComfyUI sends no previews of nodes whose results it still has
    page.evaluate(OPEN, [placed, shown])
    windows = page.locator(".champ-windows")
    windows.get_by_text("40 evaluations of the model: 10 steps x 2 windows x 2.").wait_for()
    place = page.locator(".champ-player", has=page.get_by_text("place", exact=True))
    place.get_by_text("/ 30").wait_for()  # stands there from the first picture on
    pause(place)
    stage = place.locator("canvas.pick")
    before = settled(page, stage)
    box = stage.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag(page, middle, (box["height"] * 96 / 128 / 10, 0))  # a tenth of the picture's width
    values = page.evaluate(VALUES, "ChampTransferMotion")
    assert values["move_right"] == pytest.approx(10, abs=0.5) and abs(values["move_down"]) < 0.5, values
    page.mouse.wheel(0, 200)
    changed(page, stage, before)
    assert 50 < page.evaluate(VALUES, "ChampTransferMotion")["size"] < 90
    page.evaluate(CHANGE.replace("30", "60"))
    windows.get_by_text("60 frames of 96x128 in 3 windows").wait_for()

    page.evaluate("() => app.queuePrompt(0, 1)")
    people = page.locator(".champ-player", has=page.locator("canvas.pick")).filter(has_not_text="place")
    people.get_by_text("/ 60").wait_for(timeout=60_000)
    people.locator("input[type=range]").fill("0")
    page.locator(".champ-player button", has_text="depth").click()
    box = people.locator("canvas.pick").bounding_box()
    number = []
    wide = box["height"] * 96 / 128  # of the picture, in the middle
    for part in (0.55, 0.95):  # two people, side by side
        page.mouse.click(box["x"] + box["width"] / 2 + (part - 0.5) * wide, box["y"] + 0.6 * box["height"])
        number.append(page.evaluate(VALUES, "ChampFollowPerson")["number"])
    page.screenshot(path=screenshots / f"placed_{renderer}.png")
    assert sorted(number) == [0, 1] and page.evaluate(VALUES, "ChampFollowPerson")["person"] == "number"
    people.get_by_text("The next run follows number").wait_for()
    assert page.complaints == []


def test_what_the_mouse_did_is_undone_and_the_views_go_on(page, renderer, screenshots):
    shown = ["ChampTransferMotion", "ChampRenderMaps", "ChampFollowPerson", "ChampSampler"]
    placed = json.loads(json.dumps(PLACED))
    placed["1"]["inputs"]["person"] = 20 + len(renderer)
    page.evaluate(OPEN, [placed, shown])
    place = page.locator(".champ-player", has=page.get_by_text("place", exact=True))
    place.get_by_text("/ 30").wait_for()
    pause(place)
    stage = place.locator("canvas.pick")
    before = settled(page, stage)
    box = stage.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag(page, middle, (box["height"] * 96 / 128 / 10, 0))
    page.wait_for_timeout(200)  # ComfyUI takes changes within 50 milliseconds for one
    page.mouse.wheel(0, 200)
    changed(page, stage, before)
    page.wait_for_timeout(500)  # the wheel rests
    size = page.evaluate(VALUES, "ChampTransferMotion")["size"]
    for key, expected in (("z", 100), ("y", size)):
        page.keyboard.press(f"Control+{key}")
        for _ in range(20):
            page.wait_for_timeout(250)
            values = page.evaluate(VALUES, "ChampTransferMotion")
            if undone := values["size"] == expected and values["move_right"] == pytest.approx(10, abs=0.5):
                break
        assert undone, (key, values["size"], values["move_right"])

    page.evaluate(PERSON)
    place.get_by_text("/ 30").wait_for()
    page.mouse.click(*middle)  # in the view; the editor's shortcuts are still heard
    page.keyboard.press("Control+Enter")
    people = page.locator(".champ-player", has=page.locator("canvas.pick")).filter(has_not_text="place")
    people.get_by_text("/ 30").wait_for(timeout=60_000)
    page.locator(".champ-windows").get_by_text("30 frames of 96x128").wait_for()
    page.screenshot(path=screenshots / f"undone_{renderer}.png")
    assert page.complaints == []


def test_a_motion_is_turned_changed_and_played_before_and_after_it_is_run(page, renderer, screenshots):
    page.evaluate(OPEN, [PROMPT, ["ChampFreeBody", "ChampBuiltInMotion", "ChampPreviewMotion"]])
    made, shown = (page.locator(".champ-player").nth(i) for i in (0, 1))
    made.get_by_text("/ 20").wait_for()
    shown.get_by_text("/ 20").wait_for()
    stage = made.locator("canvas.turn")
    made.get_by_title("Play or pause").click()
    before = settled(page, stage)
    assert stage.evaluate(LOOK)[0] > 0.01, "no figure is drawn"

    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 90, box["y"] + box["height"] / 2 + 20, steps=4)
    page.mouse.up()
    turned = changed(page, stage, before)
    page.mouse.wheel(0, -300)
    changed(page, stage, turned)
    made.get_by_text("camera").click()

    page.evaluate(CHANGE)  # nothing is queued
    made.get_by_text("/ 30").wait_for()
    shown.get_by_text("/ 30").wait_for()
    page.screenshot(path=screenshots / f"view_{renderer}.png")

    page.evaluate("() => app.queuePrompt(0, 1)")
    shown.get_by_text("2D", exact=True).wait_for(timeout=60_000)
    shown.get_by_title("Play or pause").click()  # one clock for both: paused together
    slider = shown.locator("input[type=range]")
    slider.fill("7")
    made.get_by_text("7 / 30").wait_for()
    page.screenshot(path=screenshots / f"player_{renderer}.png")
    assert shown.locator("canvas").first.evaluate(LOOK)[0] > 0.0
    sent = page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
    assert "champ_view" not in sent
    assert page.complaints == []
