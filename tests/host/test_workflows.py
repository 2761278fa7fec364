"""The example workflows run through the API and leave pictures that are worth looking at."""

import io
import json
from pathlib import PurePath

import pytest
from PIL import Image

import dev
from champ.server import Failure, Refused
from tools.lay_out_workflows import OTHERS

FOLDER = dev.ROOT / "example_workflows"
API = FOLDER / "api"
EXAMPLES = sorted(file.stem for file in API.glob("*.json"))
# Run in test_models.py.
NEED_MODELS = {"calibrated_reference", "champ_video", "custom_sampling", "ksampler", "magic_animate", "video_to_video",
               "your_video_champ"}  # fmt: skip
OTHER_MODELS = {"controlnet", "wan_animate", "wan_scail", "wan_vace"}  # tens of gigabytes
NEEDS = {"load_motion": "save_motion", "reuse_maps": "render_maps"}  # whose results it starts from

WHOLE = {"quick_start"}  # in its own size
ENOUGH = {"frames": 6, "count": 6, "amount": 6, "total": 6, "steps": 2, "megapixels": 0.03}  # to see whether it runs
SEEN = {"clean_motion", "your_video"}  # by BlazePose, which must know people for people
FILES = {"file": "two_people.mp4", "image": "person.png"}


def load(name: str) -> dict:
    prompt = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        node["inputs"] |= {key: min(node["inputs"][key], most) for key, most in ENOUGH.items() if key in node["inputs"]}
        if name in SEEN:
            node["inputs"] |= {key: file for key, file in FILES.items() if isinstance(node["inputs"].get(key), str)}
    return prompt


def halved(name: str) -> dict:
    """The workflow with pictures of half the width and height; a body's height is no whole number."""
    prompt = load(name)
    for node in prompt.values():
        for side in ("width", "height"):
            if isinstance(size := node["inputs"].get(side), int):
                node["inputs"][side] = size // 2
    return prompt


def results(server, entry: dict) -> dict[str, bytes]:
    """The files that a finished workflow offers for viewing."""
    items = [item for node in entry["outputs"].values() for value in node.values() if isinstance(value, list)
             for item in value if isinstance(item, dict) and "filename" in item]  # fmt: skip
    return {item["filename"]: server.view(item) for item in items}


def titles() -> list[str]:
    """Returns the titles of the workflows for the editor, which their descriptions say."""
    return [(API / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for name in EXAMPLES]


def test_the_quick_start_is_the_first_example():
    assert "nothing to download" in min(titles())


def test_only_the_editable_examples_are_offered_each_with_a_picture(server):
    assert sorted(server.json("/workflow_templates").get(dev.PACK, [])) == sorted(titles())
    assert {file.stem for file in FOLDER.glob("*.jpg")} == set(titles())


@pytest.mark.parametrize("name", sorted(OTHER_MODELS))
def test_what_other_models_ask_for_is_there_but_for_their_files(server, name):
    """Everything in the workflow is valid, except that no model is in the lists."""
    (server.base / "input" / "example.png").touch()
    for folder, urls in OTHERS.items():  # tests of the page put empty files there
        for url in urls:
            (server.base / "models" / folder / PurePath(url).name).unlink(missing_ok=True)
    known = server.json("/object_info")
    prompt = load(name)
    if unknown := {node["class_type"] for node in prompt.values()} - known.keys():
        assert not any(kind.startswith("Champ") for kind in unknown)
        pytest.skip(f"this ComfyUI has no {', '.join(unknown)}")
    _, body = server.request("/prompt", {"prompt": prompt})
    wrong = [error for node in json.loads(body)["node_errors"].values() for error in node["errors"]]
    assert wrong and {error["type"] for error in wrong} == {"value_not_in_list"}, wrong
    assert all(error["extra_info"]["received_value"].endswith(".safetensors") for error in wrong), wrong


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - NEED_MODELS - OTHER_MODELS))
def test_example_runs(server, name):
    if name in NEEDS:
        server.run(halved(NEEDS[name]))
    files = results(server, server.run(load(name) if name in WHOLE else halved(name)))
    assert files
    for file, content in files.items():
        if file.endswith(".mp4"):
            assert content[4:8] == b"ftyp" and len(content) > 2000, file
        elif file.endswith((".png", ".webp", ".jpg")):
            darkest, brightest = Image.open(io.BytesIO(content)).convert("L").getextrema()
            assert brightest > darkest, f"{file} has one colour"
        else:
            assert content, file


def test_progress_is_reported(server):
    steps = []
    server.run(
        {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 3, "color": 7}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        },
        steps.append,
    )
    assert {(name, node["state"]) for nodes in steps for name, node in nodes.items()} >= {
        ("1", "running"),
        ("1", "finished"),
        ("2", "running"),
    }


def test_a_refused_workflow_says_which_node_and_why(server):
    with pytest.raises(Refused, match=r"PreviewImage.*Required input is missing"):
        server.run({"7": {"class_type": "PreviewImage", "inputs": {}}})


def test_a_failing_node_is_reported(server):
    broken = {"string": "text", "regex_pattern": "(", "replace": ""}
    prompt = {
        "1": {"class_type": "RegexReplace", "inputs": broken},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(Failure, match=r"RegexReplace: .*unterminated subpattern"):
        server.run(prompt)
