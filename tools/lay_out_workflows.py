"""Writes example_workflows/<name>.json, for the editor, from example_workflows/api/<name>.json, for scripts, and
example_workflows/api/<name>.md, the note that stands above the nodes.

    python -m tools.lay_out_workflows [name ...]

ComfyUI's own frontend does the conversion and the layout, so run it in the environment that `python dev.py test`
makes; it needs Chromium.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import dev
from champ.server import Server

FOLDER = dev.ROOT / "example_workflows"
# The default workflow is opened last; were it not waited for, it might replace the one that is opened next.
READY = "() => window.app?.extensionManager?.workflow?.activeWorkflow?.path"

# Where ComfyUI may fetch a missing file, if the user presses the button that it then shows.
DOWNLOADS = {
    "VAELoader": {
        "name": "vae-ft-mse-840000-ema-pruned.safetensors",
        "url": "https://huggingface.co/stabilityai/sd-vae-ft-mse-original/resolve/main/"
        "vae-ft-mse-840000-ema-pruned.safetensors",
        "directory": "vae",
    }
}

# Nodes that end a workflow and show nothing.
WITHOUT_PICTURE = ["ChampCheckMaps", "ChampSaveGLB", "ChampSaveMotion"]
# Nodes that show pictures get room for them below their widgets before the columns are arranged.
LAY_OUT = """
async ([prompt, name, text, withoutPicture]) => {
  await app.loadApiJson(prompt, name);
  for (const node of app.graph.nodes)
    if (node.type === "LoadVideo") node.setSize([320, 660]);
    else if (node.type === "LoadImage") node.setSize([320, 400]);
    else if (node.constructor.nodeData?.output_node && !withoutPicture.includes(node.type))
      node.setSize([Math.max(node.size[0], 320), node.size[1] + 300]);
  app.graph.arrange(80);
  const [left, top] = [0, 1].map((axis) => Math.min(...app.graph.nodes.map((node) => node.pos[axis])));
  const note = LiteGraph.createNode("MarkdownNote");
  app.graph.add(note);
  note.pos = [left, top - 300];
  note.setSize([560, 220]);
  note.widgets[0].value = text;
  return JSON.stringify(app.graph.serialize());
}
"""


def lay_out(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        dev.link_pack(base / "custom_nodes")
        with Server(dev.HOST / "ComfyUI", base, "--cpu") as server:
            server.request("/settings", {"Comfy.TutorialCompleted": True})
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(server.address)
            page.wait_for_function(READY)
            for name in names:
                prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
                note = (FOLDER / "api" / f"{name}.md").read_text(encoding="utf-8")
                workflow = json.loads(page.evaluate(LAY_OUT, [prompt, name, note, WITHOUT_PICTURE]))
                for node in workflow["nodes"]:
                    download = DOWNLOADS.get(node["type"])
                    if download and download["name"] in node["widgets_values"]:
                        node["properties"]["models"] = [download]
                (FOLDER / f"{name}.json").write_text(json.dumps(workflow, indent=2) + "\n", encoding="utf-8")
                print(f"wrote {FOLDER / f'{name}.json'}")
            browser.close()


if __name__ == "__main__":
    lay_out(sys.argv[1:] or sorted(file.stem for file in (FOLDER / "api").glob("*.json")))
