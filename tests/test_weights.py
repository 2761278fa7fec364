"""The list of official files, and what the example workflows ask for."""

import json
from collections.abc import Iterator
from pathlib import PurePath

import pytest

import dev
from champ.weights import FILES

EXAMPLES = sorted((dev.ROOT / "example_workflows").rglob("*.json"))
SHIPPED = dev.ROOT / "champ" / "assets" / "models"
MODEL_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".onnx", ".pkl")
# Which of ComfyUI's folders a loader reads.
LOADERS = {
    "VAELoader": "vae",
    "CLIPVisionLoader": "clip_vision",
    "ChampLoadModel": "champ",
    "ChampLoadDWPose": "dwpose",
    "ChampLoadHMR2": "hmr2",
}
OWN = {"ChampLoadSMPL": "SMPL_NEUTRAL.pkl"}  # nobody but the user may get it


def offered(folder: str) -> set[str]:
    """What the loaders show of the official files and of those that come with the pack."""
    listed = [PurePath(file.path) for file in FILES if file.folder == folder]
    listed += [file.relative_to(SHIPPED / folder) for file in (SHIPPED / folder).rglob("*.*")]
    return {path.parent.as_posix() if folder == "champ" else path.as_posix() for path in listed}


def chosen(workflow: dict) -> Iterator[tuple[str, str]]:
    """The loaders of a workflow, in the editor's form or in that for scripts, and the models that they name."""
    for node in workflow.get("nodes", workflow.values()):
        kind = node.get("class_type") or node["type"]
        values = node["inputs"].values() if "class_type" in node else node.get("widgets_values", ())
        for value in values:
            if isinstance(value, str) and (value.endswith(MODEL_SUFFIXES) or kind == "ChampLoadModel"):
                yield kind, value
                if kind == "ChampLoadModel":
                    break  # its other widgets are no files


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_examples_name_files_that_can_be_had(example):
    """From our own list, or, for other models, from where the workflow for the editor says."""
    workflow = json.loads(example.read_text(encoding="utf-8"))
    linked = {model["name"] for node in workflow.get("nodes", ()) for model in node["properties"].get("models", ())}
    for kind, name in chosen(workflow):
        if kind in OWN:
            assert name == OWN[kind]
        elif kind not in LOADERS or name not in offered(LOADERS[kind]):
            assert "nodes" not in workflow or name in linked, f"nobody says where {kind} gets {name}"


def test_examples_say_where_a_single_file_comes_from():
    [example] = (dev.ROOT / "example_workflows").glob("Champ 03*.json")
    nodes = json.loads(example.read_text(encoding="utf-8"))["nodes"]
    linked = {node["type"]: node["properties"]["models"] for node in nodes if "models" in node["properties"]}
    assert linked.keys() == {"VAELoader", "CLIPVisionLoader"}
    for [model] in linked.values():
        assert model["url"].startswith("https://huggingface.co/") and model["directory"] in ("vae", "clip_vision")


def test_every_kind_of_loader_is_in_an_example():
    kinds = {kind for example in EXAMPLES for kind, _ in chosen(json.loads(example.read_text(encoding="utf-8")))}
    assert kinds >= {*LOADERS, *OWN}


def test_the_table_of_models_names_every_file():
    table = (dev.ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for file in FILES:
        assert f"`{PurePath(file.path).name}`" in table, file.path
        assert file.source.removeprefix("spaces/") in table, file.source
