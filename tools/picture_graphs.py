"""Takes the pictures of graphs for docs/getting_started.md: templates as ComfyUI opens them.

    python -m tools.picture_graphs

Run it in the environment that `python dev.py test` makes; it needs Chromium. COMFYUI_PATH may name another ComfyUI."""

import io
import json

from PIL import Image

import dev

from .editor import open_editor
from .lay_out_workflows import FOLDER

PICTURES = dev.ROOT / "docs" / "images"
GRAPHS = {"graph_quick_start": "Champ 01", "graph_your_video": "Champ 02a"}
SIZE = {"width": 1920, "height": 1080}
GRAPH = {"x": 64, "y": 110, "width": 1590, "height": 950}  # of it, without ComfyUI's own bars
SHOW = """
async (workflow) => {
  await app.loadGraphData(workflow);
  for (let i = 0; i < 10; i++) {  // what lies over the canvas follows when it is drawn again
    app.canvas.setDirty(true, true);
    await new Promise((go) => setTimeout(go, 300));
  }
}
"""


def main() -> None:
    with open_editor(SIZE) as (page, _):
        for name, title in GRAPHS.items():
            [file] = FOLDER.glob(f"{title} - *.json")
            page.evaluate(SHOW, json.loads(file.read_text(encoding="utf-8")))
            Image.open(io.BytesIO(page.screenshot(clip=GRAPH))).save(PICTURES / f"{name}.webp", quality=85)
            print(f"wrote {PICTURES / name}.webp", flush=True)


if __name__ == "__main__":
    main()
