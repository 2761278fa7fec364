"""What a newcomer does: open the quick start, run it, choose another motion, run it again; then a video and a photo."""

import io
import json

import numpy as np
from PIL import Image, ImageSequence

import dev

[QUICK_START], [YOUR_VIDEO] = ((dev.ROOT / "example_workflows").glob(f"Champ {name}*.json") for name in ("01", "02a"))
# Sets widgets of nodes, as typing into them does: {type of node: {widget: value}}.
CHOOSE = """
(choices) => app.graph.nodes.forEach((node) => {
  for (const [name, value] of Object.entries(choices[node.type] ?? {})) {
    const widget = node.widgets.find((widget) => widget.name === name);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  }
})
"""
RESULTS = ["The result", "Picture, result, normal and skeleton maps"]
# Presses Run, and returns the animated pictures that nodes with these titles show afterwards.
RUN = """
async (titles) => {
  const nodes = titles.map((title) => app.graph.nodes.find((node) => node.title === title));
  for (const node of nodes) node.imgs = [];
  const done = new Promise((resolve, reject) => {
    app.api.addEventListener("execution_success", resolve, { once: true });
    app.api.addEventListener("execution_error", (event) => reject(JSON.stringify(event.detail)), { once: true });
  });
  await app.extensionManager.command.execute("Comfy.Canvas.FitView");  // what is out of view is not drawn
  await app.extensionManager.command.execute("Comfy.QueuePrompt");
  await done;
  const shown = () => nodes.every((node) => node.imgs?.length);
  for (let tries = 0; tries < 50 && !shown(); tries++) await new Promise((go) => setTimeout(go, 100));
  return nodes.map((node) => node.imgs[0].src);
}
"""


# Keeps what the nodes say while they work, and counts the latent previews.
LISTEN = """
() => {
  Object.assign(window, { lines: [], previews: 0 });
  app.api.addEventListener("progress_text", ({ detail }) => window.lines.push(detail.text));
  app.api.addEventListener("b_preview", () => window.previews++);
}
"""
LEFT = "() => app.graph.nodes.flatMap((n) => n.widgets ?? []).filter((w) => w.name === '$$node-text-preview').length"


def frames(page, address: str) -> list[np.ndarray]:
    content = page.request.get(address).body()
    picture = Image.open(io.BytesIO(content))
    return [np.asarray(frame.convert("L"), np.float32) for frame in ImageSequence.Iterator(picture)]


def test_another_motion_makes_another_dance(module_page, screenshots):
    page = module_page
    page.evaluate("(workflow) => app.loadGraphData(workflow)", json.loads(QUICK_START.read_text(encoding="utf-8")))
    page.evaluate(CHOOSE, {"ChampBuiltInMotion": {"frames": 4}, "ChampSampler": {"steps": 2}})
    page.evaluate(LISTEN)
    alone, dance = (frames(page, address) for address in page.evaluate(RUN, RESULTS))
    assert alone[0].shape == (768, 576)  # the result, large, beside what it is compared with
    lines, previews = page.evaluate("() => [window.lines, window.previews]")
    assert any(line.startswith("Sampling") for line in lines) and previews >= 2, (lines, previews)
    assert page.evaluate(LEFT) == 0  # they go when the work is done
    page.evaluate(CHOOSE, {"ChampBuiltInMotion": {"motion": "jumping jacks"}})
    _, jacks = (frames(page, address) for address in page.evaluate(RUN, RESULTS))
    page.screenshot(path=screenshots / "quick_start_jumping_jacks.png")
    assert len(dance) == len(jacks) == 4
    picture, result = (slice(0, dance[0].shape[1] // 4), slice(dance[0].shape[1] // 4, dance[0].shape[1] // 2))
    for part, least, most in ((result, 3, 255), (picture, 0, 1)):  # the reference stays the same person
        apart = np.mean([np.abs(a[:, part] - b[:, part]).mean() for a, b in zip(dance, jacks)])
        assert least < apart <= most
    assert page.complaints == []


def test_a_photo_does_what_a_video_shows(module_page, screenshots):
    page = module_page
    page.evaluate("(workflow) => app.loadGraphData(workflow)", json.loads(YOUR_VIDEO.read_text(encoding="utf-8")))
    page.evaluate(CHOOSE, {
        "LoadVideo": {"file": "two_people.mp4"}, "LoadImage": {"image": "person.png"}, "ChampSampler": {"steps": 2},
        "ChampRetimeMotion": {"count": 4}, "ImageScaleToTotalPixels": {"megapixels": 0.03},
    })  # fmt: skip
    [address] = page.evaluate(RUN, ["The result, the photo and normal maps"])
    page.screenshot(path=screenshots / "your_video.png")
    shown = frames(page, address)
    assert len(shown) == 4
    wide = shown[0].shape[1] // 3
    result, photo = ([frame[:, i * wide : (i + 1) * wide] for frame in shown] for i in (0, 1))
    assert np.abs(photo[0] - photo[-1]).mean() < 1 < np.abs(result[0] - result[-1]).mean()
    assert page.complaints == []
