"""Answers that come late, or not at all."""

import threading

from .conftest import DANCE

PROMPT = {
    **DANCE,
    "3": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["2", 0], "body": ["1", 0]}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
}  # fmt: skip
FRAMES = """
(frames) => {
  const node = app.graph.nodes.find((node) => node.comfyClass === "ChampBuiltInMotion");
  node.widgets.find((widget) => widget.name === "frames").value = frames;
}
"""
QUEUE = "() => app.queuePrompt(0, 1)"


def test_a_clip_that_comes_late_does_not_replace_a_newer_one(page):
    page.evaluate("(prompt) => app.loadApiJson(prompt, 'late')", PROMPT)
    maps = page.locator(".champ-player").nth(1)
    asked, held = threading.Event(), []

    def hold_the_first(route):
        if "champ" in route.request.url and not asked.is_set():
            asked.set()
            held.append(route)
        else:
            route.continue_()

    page.route("**/view?*", hold_the_first)
    page.evaluate(QUEUE)
    for _ in range(240):
        if held:
            break
        page.wait_for_timeout(250)
    page.evaluate(FRAMES, 30)
    page.evaluate(QUEUE)
    maps.get_by_text("/ 30").wait_for(timeout=60_000)
    held[0].continue_()
    page.wait_for_timeout(1500)
    assert maps.get_by_text("/ 30").is_visible() and page.complaints == []


def test_a_view_asks_again_if_the_server_did_not_answer(page):
    page.evaluate("(prompt) => app.loadApiJson(prompt, 'late')", PROMPT)
    made = page.locator(".champ-player").first
    made.get_by_text("/ 20").wait_for()
    page.route("**/champ/motion", lambda route: route.abort())
    page.evaluate(FRAMES, 30)
    made.get_by_text("Failed to fetch").wait_for()
    page.unroute("**/champ/motion")
    made.get_by_text("/ 30").wait_for(timeout=10_000)
    made.get_by_text("Failed to fetch").wait_for(state="hidden")
