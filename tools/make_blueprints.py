"""Writes subgraphs/<title>.json, which ComfyUI offers as nodes of several parts.

    python -m tools.make_blueprints [title ...]

ComfyUI's own frontend makes the subgraphs, as for tools.lay_out_workflows. What stands around a subgraph here only says
which of its sockets lead outside, and is left out of the file.
"""

import json
import sys

import dev

from .editor import open_editor
from .lay_out_workflows import link_models

FOLDER = dev.ROOT / "subgraphs"
BODY = {"gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}
STRENGTHS = {f"{name}_strength": 1.0 for name in ("depth", "normal", "semantic_map", "dwpose")}
ALWAYS = {"start": 0.0, "end": 1.0}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


# Title: nodes inside, by number; those outside, by a letter.
BLUEPRINTS = {
    "Champ - Video to motion": {
        "a": node("LoadVideo", file="dance.mp4"),
        "1": node("ChampLoadBlazePose", hands_and_face=False),
        "2": node("ChampEstimatePose", clip=["a", 0], dwpose=["1", 0]),
        "3": node("ChampFollowPerson", pose_keypoints=["2", 0], clip=["a", 0], person="largest", number=0),
        "4": node("ChampFreeBody", **BODY),
        "5": node("ChampFitMotion", pose_keypoints=["3", 0], clip=["a", 0], body=["4", 0], fps=24),
        "6": node("ChampSmoothMotion", motion=["5", 0], method="steady", strength=1.0),
        "b": node("ChampPreviewMotion", motion=["6", 0], body=["4", 0], opacity=0.85, renderer="torch"),
        "c": node("PreviewAny", source=["5", 2]),
    },
    "Champ - Picture and motion to maps": {
        "a": node("LoadImage", image="example.png"),
        "b": node("ChampLoadMotion", file="", person=0, width=512, height=768, fps=24),
        "1": node("ChampLoadBlazePose", hands_and_face=False),
        "2": node("ChampEstimatePose", clip=["a", 0], dwpose=["1", 0]),
        "3": node("ChampFreeBody", **BODY),
        "4": node("ChampFitMotion", pose_keypoints=["2", 0], clip=["a", 0], body=["3", 0], fps=24),
        "5": node(
            "ChampTransferMotion", driving=["b", 0], reference=["4", 0], body=["3", 0], reference_image=["a", 0],
            placement="follow", figure_scale=0.0,
        ),
        "6": node("ChampRenderMaps", motion=["5", 0], body=["3", 0]),
        "c": node("ChampSaveMaps", depth=["6", 0], normal=["6", 1], semantic_map=["6", 2], dwpose=["6", 3],
                  mask=["6", 4], folder="champ/maps", fps=24),
    },
    "Champ - Picture and maps to video": {
        "a": node("LoadImage", image="example.png"),
        "b": node("ChampLoadMaps", folder="", start=0, count=0),
        "1": node("ChampLoadModel", checkpoint_set="champ", motion_module="from the set", weight_dtype="default"),
        "2": node("VAELoader", vae_name="vae-ft-mse-840000-ema-pruned.safetensors"),
        "3": node("CLIPVisionLoader", clip_name="champ_image_encoder.bin"),
        "4": node("ChampEncodeReference", reference_net=["1", 1], vae=["2", 0], image=["a", 0], clip_vision=["3", 0],
                  width=512, height=768, fit="crop", strength=1.0, **ALWAYS),
        "5": node("ChampEncodeGuidance", guidance_encoders=["1", 2], depth=["b", 0], normal=["b", 1],
                  semantic_map=["b", 2], dwpose=["b", 3], width=512, height=768, **STRENGTHS, **ALWAYS),
        "6": node("ChampApply", model=["1", 0], guidance=["5", 0], reference=["4", 0], betas="official"),
        "7": node("ChampSampler", model=["6", 0], positive=["6", 1], negative=["6", 2], latent=["6", 3], seed=42,
                  steps=20, cfg=3.5, denoise=1.0, noise="per frame", length=24, overlap=4, schedule="looped",
                  weights="ramps"),
        "8": node("VAEDecode", samples=["7", 0], vae=["2", 0]),
        "c": node("PreviewImage", images=["8", 0]),
    },
    "Champ - Fast sampling": {
        "a": node("ChampApply", betas="official"),
        "1": node("ChampCFGInterval", model=["a", 0], start=0.0, end=0.5),
        "2": node("ChampSampler", model=["1", 0], positive=["a", 1], negative=["a", 2], latent=["a", 3], seed=42,
                  steps=5, cfg=3.5, denoise=1.0, noise="per frame", length=0, overlap=4, schedule="open",
                  weights="ramps"),
        "b": node("VAEDecode", samples=["2", 0]),
    },
}  # fmt: skip

# Widgets of the parts that the folded node shows, and other names for its inputs.
SHOWN = {
    "Champ - Video to motion": [["3", "person"], ["3", "number"], ["6", "strength"]],
    "Champ - Picture and motion to maps": [["5", "placement"]],
    "Champ - Picture and maps to video": [
        ["1", "checkpoint_set"], ["4", "width"], ["4", "height"], ["7", "seed"], ["7", "steps"], ["7", "cfg"],
    ],
    "Champ - Fast sampling": [["2", "seed"], ["2", "steps"], ["2", "cfg"]],
}  # fmt: skip
LABELS = {"clip": "video", "driving": "motion", "image": "picture"}

FOLD = """
async ([prompt, title]) => {
  await app.loadApiJson(prompt, title);
  const letters = Object.keys(prompt).filter((id) => /[a-z]/.test(id));
  const outside = app.graph.nodes.filter((node) => letters.includes(String(node.id)));
  const inside = app.graph.nodes.filter((node) => !letters.includes(String(node.id)));
  for (const node of inside)
    for (const widget of node.widgets ?? []) if (widget.name === "control_after_generate") widget.value = "fixed";
  const { subgraph, node } = app.graph.convertToSubgraph(new Set(inside));
  subgraph.name = title;
  node.title = title;
  for (const other of outside) app.graph.remove(other);
  node.pos = [0, 0];
  node.setSize(node.computeSize());
  subgraph.arrange?.(60);
  return JSON.stringify(app.graph.serialize());
}
"""


def make(titles: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with open_editor() as (page, _):
        for title in titles:
            workflow = json.loads(page.evaluate(FOLD, [BLUEPRINTS[title], title]))
            [folded], [subgraph] = workflow["nodes"], workflow["definitions"]["subgraphs"]
            folded["properties"]["proxyWidgets"] = SHOWN[title]
            for socket in (*folded["inputs"], *subgraph["inputs"]):
                label = "picture" if title.startswith("Champ - Picture") and socket["name"] == "clip" else None
                socket["label"] = label or LABELS.get(socket["name"], socket["name"])
            link_models(subgraph)
            path = FOLDER / f"{title}.json"
            path.write_text(json.dumps(workflow, indent=2) + "\n", encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    make(sys.argv[1:] or list(BLUEPRINTS))
