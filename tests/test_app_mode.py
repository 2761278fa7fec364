"""What the templates show in ComfyUI's app mode is there."""

import json
import re

import pytest

import dev

FOLDER = dev.ROOT / "example_workflows"
APPS = {
    file.stem: file.read_text(encoding="utf-8")
    for file in sorted(FOLDER.glob("api/*.md"))
    if "\nApp: " in file.read_text(encoding="utf-8")
}
BUTTONS = {"Choose by picture..."}  # of scripts, which no prompt has


@pytest.mark.parametrize("name", APPS)
def test_widgets_and_result_of_an_app_are_there(name):
    title = re.match(r"# (.+)\n", APPS[name])[1]
    extra = json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))["extra"]
    nodes = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert extra["linearMode"] is False  # it opens as a graph
    assert len(extra["linearData"]["inputs"]) >= 5
    for id, widget in extra["linearData"]["inputs"]:
        value = nodes[str(id)]["inputs"].get(widget)
        assert (value is not None and not isinstance(value, list)) or widget in BUTTONS, (id, widget)
    (result,) = extra["linearData"]["outputs"]
    assert nodes[str(result)]["class_type"].startswith("Save")


def test_the_first_templates_have_an_app():
    assert {"quick_start", "your_video", "your_video_champ", "champ_video"} <= APPS.keys()
