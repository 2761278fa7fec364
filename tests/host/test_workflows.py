"""The example workflows run through the API and leave pictures that are worth looking at."""

import io
import json

import pytest
from PIL import Image

import dev
from champ.server import Failure, Refused

EXAMPLES = sorted(file.stem for file in (dev.ROOT / "example_workflows").glob("*.json"))
# Run in test_models.py.
NEED_MODELS = {"calibrated_reference", "champ_video", "custom_sampling", "ksampler", "your_video_champ"}
NEEDS = {"load_motion": "save_motion", "reuse_maps": "render_maps"}  # whose results it starts from
API = dev.ROOT / "example_workflows" / "api"


ENOUGH = {"frames": 8, "count": 8, "steps": 4}  # to see whether it runs
SEEN = {"clean_motion", "your_video"}  # by BlazePose, which must know people for people
FILES = {"file": "two_people.mp4", "image": "person.png"}


def load(name: str) -> dict:
    prompt = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        node["inputs"] |= {key: min(node["inputs"][key], most) for key, most in ENOUGH.items() if key in node["inputs"]}
        if name in SEEN:
            node["inputs"] |= {key: file for key, file in FILES.items() if isinstance(node["inputs"].get(key), str)}
    return prompt


def results(server, entry: dict) -> dict[str, bytes]:
    """The files that a finished workflow offers for viewing."""
    items = [item for node in entry["outputs"].values() for value in node.values() if isinstance(value, list)
             for item in value if isinstance(item, dict) and "filename" in item]  # fmt: skip
    return {item["filename"]: server.view(item) for item in items}


def test_the_quick_start_is_an_example():
    assert "quick_start" in EXAMPLES


def test_only_the_editable_examples_are_offered(server):
    assert sorted(server.json("/workflow_templates").get(dev.PACK, [])) == EXAMPLES


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - NEED_MODELS))
def test_example_runs(server, name):
    if name in NEEDS:
        server.run(load(NEEDS[name]))
    files = results(server, server.run(load(name)))
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
