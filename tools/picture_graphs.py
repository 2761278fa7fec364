"""Takes the pictures of graphs for docs/getting_started.md: templates in ComfyUI's page, the first one after a run.

    python -m tools.picture_graphs

Run it in the environment that `python dev.py test` makes; it needs Chromium. COMFYUI_PATH may name another ComfyUI."""

import io
import json
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import dev
from champ.server import Server

from .lay_out_workflows import FOLDER, READY, host

PICTURES = dev.ROOT / "docs" / "images"
GRAPHS = {"graph_quick_start": ("Champ 01", True), "graph_your_video": ("Champ 02a", False)}
SIZE = {"width": 3200, "height": 1800}  # in which the whole graph is drawn with its texts
WIDTH = 1600  # of the pictures
RUN = """
async () => {
  const done = new Promise((resolve, reject) => {
    app.api.addEventListener("execution_success", resolve, { once: true });
    app.api.addEventListener("execution_error", (event) => reject(JSON.stringify(event.detail)), { once: true });
  });
  await app.extensionManager.command.execute("Comfy.QueuePrompt");
  await done;
}
"""
SHOW = """
async () => {
  await app.extensionManager.command.execute("Comfy.Canvas.FitView");
  for (let i = 0; i < 20; i++) {  // what lies over the canvas follows when it is drawn again
    app.canvas.setDirty(true, true);
    await new Promise((go) => setTimeout(go, 300));
  }
}
"""


def picture(page: Page, title: str, run: bool) -> Image.Image:
    [file] = FOLDER.glob(f"{title} - *.json")
    page.evaluate("(workflow) => app.loadGraphData(workflow)", json.loads(file.read_text(encoding="utf-8")))
    page.evaluate(SHOW)
    if run:
        page.evaluate(RUN)
        page.evaluate(SHOW)
    shown = Image.open(io.BytesIO(page.screenshot()))
    return shown.resize((WIDTH, WIDTH * shown.height // shown.width), Image.Resampling.LANCZOS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        dev.link_pack(base / "custom_nodes")
        with Server(host(), base, "--cpu") as server:
            server.request("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(600_000)
            page.goto(server.address)
            page.wait_for_function(READY)
            page.get_by_role("button", name="Close").first.click()  # of what ComfyUI has to say
            for name, (title, run) in GRAPHS.items():
                picture(page, title, run).save(PICTURES / f"{name}.webp", quality=85)
                print(f"wrote {PICTURES / name}.webp", flush=True)
            browser.close()


if __name__ == "__main__":
    main()
