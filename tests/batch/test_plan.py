"""Tables meet workflows and a real ComfyUI's list of nodes: where columns go, what cells may be, all errors at once."""

import json
import re

import pytest

import dev
from champ.batch.plan import Places, for_stage, is_name, plan, result_node
from champ.batch.table import Row
from champ.batch.workflow import Workflow, convert, find_input, find_role, read_workflow, slot
from champ.server import Failure

EXAMPLES = dev.ROOT / "example_workflows" / "api"


@pytest.fixture(scope="module")
def info(server):
    return server.json("/object_info")


@pytest.fixture
def places(tmp_path):
    for folder in ("table", "input"):
        (tmp_path / folder).mkdir()
    (tmp_path / "table" / "anna.png").write_bytes(b"picture")
    return Places(tmp_path / "table", tmp_path / "input")


def node(kind: str, title: str | None = None, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def example(**changes) -> Workflow:
    nodes = {
        "1": node("LoadImage", "The person", image="standing.png"),
        "2": node("ImageScaleBy", "Twice", image=["1", 0], upscale_method="bicubic", scale_by=2.0),
        "3": node("SaveImage", images=["2", 0], filename_prefix="twice"),
        "4": node("EmptyImage", "A v1.5 size", width=64, height=64, batch_size=1, color=0),
        "5": node("PreviewImage", images=["4", 0]),
    }
    return Workflow("example.json", {**nodes, **changes})


def rows(*cells: dict) -> list[Row]:
    return [Row(f"line {i}", {"name": f"row{i}", **one}) for i, one in enumerate(cells, 2)]


def test_cells_reach_their_inputs(info, places):
    cells = {
        "reference": "anna.png",
        "Twice.scale_by": "1.5",
        "4.width": "32.0",
        "A v1.5 size.height": 16,
        "truth": ".",
    }
    [task] = plan(rows(cells), example(), info, places)
    assert task.values == {("2", "scale_by"): 1.5, ("4", "width"): 32, ("4", "height"): 16}
    assert task.files == {("1", "image"): places.table / "anna.png"}
    assert task.truth == places.table
    prompt = example().filled({**task.values, ("1", "image"): "x.png"})
    assert prompt["2"]["inputs"] == {"image": ["1", 0], "upscale_method": "bicubic", "scale_by": 1.5}
    assert prompt["1"]["inputs"] == {"image": "x.png"} and example().nodes["1"]["inputs"] == {"image": "standing.png"}


def test_what_the_workflow_names_lies_in_the_input_folder(info, places, monkeypatch):
    (places.inputs / "standing.png").write_bytes(b"picture")
    [task] = plan(rows({"4.width": 8}), example(), info, places)
    assert task.files == {("1", "image"): places.inputs / "standing.png"}
    monkeypatch.setenv("HOME", str(places.table))
    monkeypatch.setenv("USERPROFILE", str(places.table))
    for name in ("../table/anna.png", "/etc/passwd", "c:\\x.png", "none.png", "~/anna.png"):
        workflow = example(**{"1": node("LoadImage", image=name)})
        with pytest.raises(Failure, match="line 2: gives nothing for LoadImage.image, and the workflow's own"):
            plan(rows({"4.width": 8}), workflow, info, places)


def test_every_bad_row_is_in_one_answer(info, places):
    (places.table / "empty.png").touch()
    table = rows(
        {"reference": "anna.png", "4.width": 0},
        {"reference": "bob.png", "4.width": 1.5},
        {"reference": "carl.png", "4.width": "wide", "2.upscale_method": "magic"},
        {"reference": "empty.png", "name": "row2"},
        {"reference": "bob.png", "name": "a/b"},
        {"reference": ".", "name": "ROW2"},
    )
    with pytest.raises(Failure) as caught:
        plan(table, example(), info, places)
    for line in (
        "line 2: 4.width is 0 where 1 to",
        "line 3, line 6: reference bob.png is not there",
        "line 3: 4.width is 1.5 where a whole number is expected",
        "line 4: reference carl.png is not there",
        "line 4: 4.width is 'wide' where a whole number is expected",
        "line 4: 2.upscale_method is 'magic', which is not in the list: nearest-exact, bilinear",
        "line 5: reference empty.png is empty",
        "line 5: name 'row2' is that of line 2, too",
        "line 6: name 'a/b' cannot be the name of a folder",
        "line 7: name 'ROW2' is that of line 2, too",
        "line 7: reference . is a folder where a file is expected",
    ):
        assert line in str(caught.value)
    assert "nothing was started" in str(caught.value)


def test_paths_that_the_system_refuses_are_in_the_answer_too(info, places):
    table = rows(
        {"reference": "~nobody-of-this-name/anna.png"},
        {"reference": f"{'a' * 300}.png"},
        {"reference": "\ud800.png"},
        {"reference": "anna.png/x.png"},
        {"reference": "none.png"},
    )
    with pytest.raises(Failure) as caught:
        plan(table, example(), info, places)
    for line in (
        "line 2: reference ~nobody-of-this-name/anna.png is not there",
        f"line 3: reference is '{'a' * 80}...', which cannot be opened (",
        "line 4: reference is '\\ud800.png', which cannot be opened (it is no text): give another path",
        "line 5: reference anna.png/x.png is not there",
        "line 6: reference none.png is not there",
    ):
        assert line in str(caught.value)
    (places.table / "~anna.png").write_bytes(b"picture")
    [task] = plan(rows({"reference": "~anna.png"}), example(), info, places)
    assert task.files == {("1", "image"): places.table / "~anna.png"}


@pytest.mark.parametrize(
    "column, message",
    [
        ("scale", "column 'scale' is no input of the workflow"),
        ("Twise.scale_by", "did you mean 'Twice.scale_by'"),
        ("Twice.scale", "the node has no input 'scale'; did you mean 'scale_by'"),
        ("2.image", "is a socket of type IMAGE"),
        ("video", "column 'video': the workflow has no Load Video that it could go to"),
        ("The person.image", "columns 'reference' and 'The person.image' go to the same input"),
    ],
)
def test_columns_that_lead_nowhere(info, places, column, message):
    with pytest.raises(Failure, match=re.escape(message)):
        plan(rows({"reference": "anna.png", column: "anna.png"}), example(), info, places)


def test_names_are_needed_and_titles_must_be_clear(info, places):
    with pytest.raises(Failure, match="there is no column 'name'"):
        plan([Row("line 2", {"reference": "anna.png"})], example(), info, places)
    twins = example(**{"6": node("ImageScaleBy", "Twice", image=["1", 0], upscale_method="area", scale_by=1.0)})
    with pytest.raises(ValueError, match="several nodes are called 'Twice', so write 2.scale_by or 6.scale_by"):
        find_input(twins, info, "Twice.scale_by")
    assert find_input(twins, info, "6.scale_by").node == "6" and twins.known_by(("6", "scale_by")) == "6.scale_by"


def test_of_two_pictures_the_title_says_which_is_the_reference(info):
    two = example(**{"6": node("LoadImage", "Background", image="b.png")})
    with pytest.raises(ValueError, match="column 'reference' could go to The person.image, Background.image"):
        find_role(two, info, "reference")
    titled = example(**{"6": node("LoadImage", "Reference", image="b.png")})
    assert find_role(titled, info, "reference").point == ("6", "image")


def test_what_cannot_run_here_is_told_before(info, places):
    bad = example(**{"6": node("NoSuchNode"), "7": node("SaveImage", images=["99", 0], filename_prefix="x")})
    with pytest.raises(Failure, match=r"(?s)no node NoSuchNode.*7.images is linked to node 99"):
        plan(rows({"reference": "anna.png"}), bad, info, places)
    bad = example(**{"6": node("VAELoader", "VAE", vae_name="mine.safetensors")})
    with pytest.raises(Failure, match="the workflow's VAE.vae_name is 'mine.safetensors', which is not in the list"):
        plan(rows({"reference": "anna.png"}), bad, info, places)
    with pytest.raises(Failure, match="no node that saves anything"):
        nodes = {name: about for name, about in example().nodes.items() if name in "124"}
        plan(rows({"reference": "anna.png"}), Workflow("w", nodes), info, places)


def test_the_result_is_the_only_saved_clip_or_the_one_with_that_title(info, places):
    assert result_node(example(), info) is None
    with pytest.raises(Failure, match=r"several nodes save something \(SaveImage, PreviewImage\); give one of them"):
        plan(rows({"reference": "anna.png", "truth": "anna.png"}), example(), info, places, measure=True)
    titled = example(**{"3": node("SaveImage", "Result", images=["2", 0], filename_prefix="twice")})
    assert result_node(titled, info) == "3"
    with pytest.raises(Failure, match="--measure needs a column 'truth'"):
        plan(rows({"reference": "anna.png"}), titled, info, places, measure=True)


def test_values_of_every_kind(info):
    workflow = Workflow("w", {
        "1": node("ChampBuiltInMotion", motion="walk", frames=4, fps=8.0, loop=True),
        "2": node("SaveAnimatedWEBP", filename_prefix="x", method="default", lossless=False),
        "3": node("ChampSampler", seed=1),
    })  # fmt: skip
    good = {
        ("1", "frames"): [("12", 12), ("12.0", 12), (12.0, 12)],
        ("1", "fps"): [("12", 12.0), (12, 12.0)],
        ("1", "loop"): [("no", False), ("TRUE", True), (True, True), ("0", False), (1, True)],
        ("1", "motion"): [("dance", "dance")],
        ("2", "filename_prefix"): [("a b", "a b"), (5, "5")],
        ("3", "seed"): [("18446744073709551615", 2**64 - 1)],
    }
    bad = {
        ("1", "frames"): ["12.5", "1e999", "nan", True, [1], "-1"],
        ("1", "fps"): ["fast", "inf", True],
        ("1", "loop"): ["maybe", 2],
        ("1", "motion"): ["swim", 3],
        ("2", "filename_prefix"): [["a"], {"a": 1}, True],
    }
    for point, pairs in good.items():
        for value, expected in pairs:
            assert convert(slot(workflow, info, *point), value) == expected
    for point, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match="^is "):
                convert(slot(workflow, info, *point), value)


@pytest.mark.parametrize("name", ["anna", "anna_dance-2 (b)", "Ängström", "踊り", "7", "a.b"])
def test_names_that_are_folders(name):
    assert is_name(name)


NO_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "/a",
    "c:",
    "nul",
    "COM1.x",
    "a.",
    "a ",
    "a\n",
    "-a",
    "_x",
    "a\0",
    "a<",
    "~",
]


@pytest.mark.parametrize("name", [*NO_NAMES, "a" * 151, "\u202eabc"])
def test_names_that_are_none(name):
    assert not is_name(name)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_example_workflows_are_read(file):
    assert read_workflow(file).nodes


def test_what_is_no_workflow(tmp_path):
    for content, message in (
        ({"nodes": [], "links": []}, "export it once more with Export"),
        ({"1": {"class_type": "X"}}, "is not a workflow in API format"),
        ([], "is not a workflow in API format"),
    ):
        (tmp_path / "w.json").write_text(json.dumps(content))
        with pytest.raises(Failure, match=message):
            read_workflow(tmp_path / "w.json")
    with pytest.raises(Failure, match="there is no workflow"):
        read_workflow(tmp_path / "none.json")


def test_the_stage_maps_ends_at_the_maps():
    workflow = read_workflow(EXAMPLES / "video_to_motion.json")
    with pytest.raises(Failure, match="connect the video's frames to `images`"):
        for_stage(workflow, "maps")
    saving = next(about for about in workflow.nodes.values() if about["class_type"] == "ChampSaveMaps")
    saving["inputs"]["images"] = ["1", 0]
    part = for_stage(workflow, "maps")
    kinds = {about["class_type"] for about in part.nodes.values()}
    assert "ChampEstimateMotion" in kinds and not kinds & {"PreviewAny", "ChampMotionReport"}
    with pytest.raises(Failure, match="needs one Save Guidance Maps in quick_start.json, but it has none"):
        for_stage(read_workflow(EXAMPLES / "quick_start.json"), "maps")


def test_the_table_in_the_docs_fits_its_workflow(info):
    text = (dev.ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    columns = next(line.strip() for line in text.splitlines() if line.startswith("    name,")).split(",")
    assert columns[:2] == ["name", "reference"] and columns[-1].startswith("#")
    flow = read_workflow(EXAMPLES / "champ_video.json")
    assert find_role(flow, info, "reference").point == ("4", "image")
    found = [find_input(flow, info, column).point for column in columns[2:-1]]
    assert found == [("6", "motion"), ("11", "seed"), ("11", "cfg")]
