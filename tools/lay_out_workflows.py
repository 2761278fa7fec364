"""Writes the workflows that ComfyUI lists under Templates: example_workflows/<title>.json, from the nodes in
example_workflows/api/<name>.json and from <name>.md, which says the title, the groups and what stands in the notes.

    python -m tools.lay_out_workflows [name ...]

A description begins with `# title` and a note for the whole. Each group follows as `## title: 1 2 | 3*` and its own
note: here nodes 1 and 2 stand below each other, and node 3, which shows a large picture, beside them. A line of three
hyphens begins a new row of groups. `App: 1 person, 10 seed -> 14` says which widgets and which result ComfyUI's app
mode shows; versions without it pass over that.

ComfyUI's own frontend converts the nodes, so run it in the environment that `python dev.py test` makes; it needs
Chromium. COMFYUI_PATH may name another ComfyUI, for nodes that the oldest one does not have.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import PurePath

import dev
from champ.download import HUB
from champ.weights import FILES

from .editor import open_editor

FOLDER = dev.ROOT / "example_workflows"

# Where ComfyUI may fetch a missing file, if the user presses the button that it then shows: our own list, and this.
WAN22 = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
WAN = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
OTHERS = {
    "diffusion_models": [
        f"{WAN22}/diffusion_models/wan2.2_animate_14B_bf16.safetensors",
        f"{HUB}/Comfy-Org/SCAIL-2/resolve/main/diffusion_models/wan2.1_14B_SCAIL_2_fp16.safetensors",
        f"{WAN}/diffusion_models/wan2.1_vace_1.3B_fp16.safetensors",
    ],
    "text_encoders": [f"{WAN}/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors"],
    "vae": [f"{WAN}/vae/wan_2.1_vae.safetensors"],
    "clip_vision": [f"{WAN}/clip_vision/clip_vision_h.safetensors"],
    "checkpoints": [f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors"],
    "controlnet": [
        f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11{name}_fp16.safetensors"
        for name in ("p_sd15_openpose", "f1p_sd15_depth")
    ],
}
DOWNLOADS = {PurePath(url).name: {"url": url, "directory": place} for place, urls in OTHERS.items() for url in urls} | {
    file.path: {"url": f"{HUB}/{file.source}/resolve/main/{file.place}", "directory": file.folder} for file in FILES
}

GAP = 40  # between nodes
MARGIN = 24  # between a group and what is in it
TITLE = 34  # a node's title, which stands above its place
HEADING = 50  # a group's title
NOTE_WIDTH = 420
COLOURS = ("#3f789e", "#8a5a2b", "#4a7d4a", "#7a4f8f", "#8f4a4a", "#5a6a7a")
# What ComfyUI leaves of a window of 1920x1080 for the canvas: left, top, width, height.
WINDOW = (80, 110, 1820, 940)
SMALLEST = 0.62  # below this zoom the editor draws nodes without their text

# Sizes of nodes whose pictures need room, and of those that are to be looked at.
SIZES = {"LoadVideo": (320, 560), "LoadImage": (300, 380)}
SHOWN, LARGE = 280, (480, 480)
VIEW = 260  # of the player in a node, which its own size has already
WITHOUT_PICTURE = {"ChampCheckMaps", "ChampSaveGLB", "ChampSaveMotion"}  # end a workflow and show nothing

CONVERT = """
async ([prompt, name]) => {
  await app.loadApiJson(prompt, name);
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name === "control_after_generate") widget.value = "fixed";
  const shows = (node) => Boolean(node.constructor.nodeData?.output_node);
  const viewed = (node) => node.widgets?.some((widget) => widget.name === "champ_view") ?? false;
  const about = app.graph.nodes.map((node) => [
    Number(node.id), [...node.computeSize()], shows(node), node.widgets?.length ?? 0, viewed(node),
  ]);
  return JSON.stringify([app.graph.serialize(), about]);
}
"""


@dataclass
class Group:
    title: str
    columns: list[list[int]]
    large: set[int]
    note: str = ""
    row: int = 0


@dataclass
class Description:
    title: str
    note: str = ""
    groups: list[Group] = field(default_factory=list)
    app: dict | None = None


def describe(text: str) -> Description:
    """Reads a description, as the beginning of this file has it."""
    heading, *lines = text.splitlines()
    description = Description(heading.removeprefix("# ").strip())
    place: Description | Group = description
    row = 0
    for line in lines:
        if line == "---":
            row += 1
        elif match := re.fullmatch(r"App: (.+) -> (\d+)", line):
            widgets = [widget.partition(" ") for widget in match[1].split(", ")]
            description.app = {"inputs": [[int(id), name] for id, _, name in widgets], "outputs": [int(match[2])]}
        elif match := re.fullmatch(r"## (.+): ([\d\s|*]+)", line):
            columns = [[int(node.strip("*")) for node in column.split()] for column in match[2].split("|")]
            large = {int(node) for node in re.findall(r"(\d+)\*", match[2])}
            place = Group(match[1], columns, large, row=row)
            description.groups.append(place)
        else:
            place.note += f"{line}\n"
    for place in (description, *description.groups):
        place.note = place.note.strip()
    return description


def note_height(text: str, width: float) -> float:
    """What a note needs, a little generously: frontends differ in their fonts."""
    lines = sum(-(-max(len(line), 1) // int((width - 30) / 6.6)) for line in text.splitlines() if line)
    return 60 + 19 * lines + 12 * text.count("\n\n")


class Layout:
    """Places the nodes of one workflow, row by row, in the order of the description."""

    def __init__(self, workflow: dict, about: list, description: Description) -> None:
        self.workflow, self.description = workflow, description
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.about = {id: rest for id, *rest in about}
        self.next_id = max(self.nodes) + 1
        self.right = self.bottom = 0.0
        placed = sorted(id for group in description.groups for column in group.columns for id in column)
        if placed != sorted(self.nodes):
            raise ValueError(f"{description.title!r} places {placed}, but its nodes are {sorted(self.nodes)}.")

    def run(self) -> None:
        self.workflow["groups"] = []
        top = 0.0
        for row in range(1 + max(group.row for group in self.description.groups)):
            left = 0.0
            if row == 0:
                height = note_height(self.description.note, NOTE_WIDTH)
                self.add_note(self.description.note, 0, top + HEADING, NOTE_WIDTH, height)
                left, self.bottom = NOTE_WIDTH + GAP, top + HEADING + height
            boxes = []
            for group in (group for group in self.description.groups if group.row == row):
                boxes.append(self.place_group(group, left, top))
                left += boxes[-1]["bounding"][2] + GAP
            height = max(box["bounding"][3] for box in boxes)
            for box in boxes:
                box["bounding"][3] = height
            self.right, self.bottom = max(self.right, left - GAP), max(self.bottom, top + height)
            top += height + GAP
        self.set_view()

    def place_group(self, group: Group, left: float, top: float) -> dict:
        sizes = {id: self.size(id, id in group.large) for column in group.columns for id in column}
        widths = [max(sizes[id][0] for id in column) for column in group.columns]
        inside = sum(widths) + GAP * (len(widths) - 1)
        y = top + HEADING
        if group.note:
            height = note_height(group.note, inside)
            self.add_note(group.note, left + MARGIN, y + TITLE, inside, height)
            y += TITLE + height + MARGIN
        x, bottom = left + MARGIN, y
        for column, width in zip(group.columns, widths):
            below = y
            for id in column:
                height, room = sizes[id][1:]
                self.nodes[id]["pos"] = [x, below + TITLE]
                self.nodes[id]["size"] = [width, height]
                below += TITLE + room + GAP
            x, bottom = x + width + GAP, max(bottom, below - GAP)
        colour = COLOURS[len(self.workflow["groups"]) % len(COLOURS)]
        bounding = [left, top, inside + 2 * MARGIN, bottom + MARGIN - top]
        box = {"id": len(self.workflow["groups"]) + 1, "title": group.title, "bounding": bounding, "color": colour,
               "font_size": 28, "flags": {}}  # fmt: skip
        self.workflow["groups"].append(box)
        return box

    def size(self, id: int, large: bool) -> tuple[float, float, float]:
        """Width and height of a node, and the height that it takes in the renderer that needs more."""
        node = self.nodes[id]
        (width, height), shows, widgets, viewed = self.about[id]
        width = max(width, 270)
        sockets = max(len([slot for slot in node["inputs"] if "widget" not in slot]), len(node["outputs"]))
        taller = 70 + 22 * sockets + 29 * widgets + (VIEW if viewed else 0)
        if node["type"] in SIZES:
            width, height = SIZES[node["type"]]
        elif large:
            width, height = max(width, LARGE[0]), height + LARGE[1]
            taller += LARGE[1]
        elif shows and not viewed and node["type"] not in WITHOUT_PICTURE:
            width, height = max(width, 300), height + SHOWN
            taller += SHOWN
        return width, height, max(height, taller)

    def add_note(self, text: str, x: float, y: float, width: float, height: float) -> None:
        note = {
            "id": self.next_id, "type": "MarkdownNote", "pos": [x, y], "size": [width, height], "flags": {}, "order": 0,
            "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": [text], "color": "#432",
            "bgcolor": "#653",
        }  # fmt: skip
        self.workflow["nodes"].append(note)
        self.workflow["last_node_id"] = self.next_id
        self.next_id += 1

    def set_view(self) -> None:
        """Where the editor opens it: all of it where it can be read so, and the beginning otherwise."""
        left, top, width, height = WINDOW
        scale = round(min(1.0, max(SMALLEST, min(width / (self.right + GAP), height / (self.bottom + GAP)))), 3)
        offset = [left / scale, top / scale + MARGIN]
        self.workflow["extra"] = {"ds": {"scale": scale, "offset": [round(value, 1) for value in offset]}}


def link_models(workflow: dict) -> None:
    """This pack's own loaders have a button for their files; the editor would refuse some of them for their suffix."""
    for node in workflow["nodes"]:
        if node["type"].startswith("Champ"):
            continue
        values = node.get("widgets_values") or []
        found = [{"name": name, **DOWNLOADS[name]} for name in values if isinstance(name, str) and name in DOWNLOADS]
        if found:
            node["properties"]["models"] = found


def lay_out(names: list[str]) -> None:
    with open_editor() as (page, server):
        known = set(server.json("/object_info"))
        for name in names:
            prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
            if missing := {node["class_type"] for node in prompt.values()} - known:
                print(f"left out {name}: this ComfyUI has no {', '.join(sorted(missing))}")
                continue
            description = describe((FOLDER / "api" / f"{name}.md").read_text(encoding="utf-8"))
            workflow, about = json.loads(page.evaluate(CONVERT, [prompt, name]))
            Layout(workflow, about, description).run()
            if description.app:
                workflow["extra"] |= {"linearMode": False, "linearData": description.app}
            link_models(workflow)
            path = FOLDER / f"{description.title}.json"
            path.write_text(json.dumps(workflow, indent=2) + "\n", encoding="utf-8")
            print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    lay_out(sys.argv[1:] or sorted(file.stem for file in (FOLDER / "api").glob("*.json")))
