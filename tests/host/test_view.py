"""What the page asks for its 3D view: motions of widgets that nobody has queued, and of nodes that have run."""

import base64
import json

import numpy as np
import pytest

BODY = {"gender": 0.5, "age": 30, "height": 1.7, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}
DANCE = {"motion": "dance", "frames": 12, "fps": 12, "loop": True, "travel": False, "width": 64, "height": 96}
CAMERA = {"width": 64, "height": 96, "azimuth": "0, 90", "elevation": "5", "fill": 0.9, "fov": 30, "follow": False}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def filmed(**changes) -> dict:
    return {
        "1": node("ChampFreeBody", **BODY),
        "2": node("ChampBuiltInMotion", body=["1", 0], **{**DANCE, **changes}),
        "3": node("ChampCamera", motion=["2", 0], body=["1", 0], **CAMERA),
    }


def look(server, nodes: dict, at: str, have: list[str] | None = None) -> dict:
    return server.json("/champ/motion", {"node": at, "nodes": nodes, "have": have or []})


def test_the_view_shows_what_is_not_queued(server):
    seen = look(server, filmed(), "3")
    assert (seen["frames"], seen["fps"], seen["width"], seen["height"]) == (12, 12, 64, 96)
    matrices = np.frombuffer(base64.b64decode(seen["matrices"]), np.float32).reshape(12, 24, 3, 4)
    assert np.isfinite(matrices).all() and np.ptp(matrices, axis=0).max() > 0.1
    vertices = np.frombuffer(base64.b64decode(seen["vertices"]), np.float32).reshape(-1, 3)
    faces = np.frombuffer(base64.b64decode(seen["faces"]), np.int32)
    assert faces.max() < len(vertices) and 1.6 < np.ptp(vertices[:, 1]) < 1.8
    again = look(server, filmed(frames=6), "3", [seen["mesh"]])
    assert again["frames"] == 6 and "faces" not in again


def test_the_reference_is_put_into_the_motion_as_the_node_does_it(server):
    def shown(**inputs) -> np.ndarray:
        put = node("ChampTransferMotion", driving=["2", 0], reference=["5", 2], body=["1", 0], placement="follow",
                   figure_scale=0.0, **inputs)  # fmt: skip
        person = node("ChampExamplePerson", person=6, width=64, height=64)
        seen = look(server, {**filmed(motion="sit and talk", frames=4), "5": person, "6": put}, "6")
        return np.array(seen["camera"])  # the scene stands on its floor, so that the camera is what moves

    as_it_is = shown()
    assert not np.allclose(as_it_is, shown(move_right=10.0, size=80.0), atol=0.05)
    assert np.array_equal(as_it_is, shown(match="floor", keep_inside=False))
    assert not np.allclose(as_it_is, shown(match="pelvis"), atol=0.05)


def test_the_reference_image_of_an_example_person_is_behind_it_and_sent_once(server):
    person = node("ChampExamplePerson", person=6, width=64, height=96)
    put = node("ChampTransferMotion", driving=["2", 0], reference=["5", 2], body=["1", 0], reference_image=["5", 0],
               placement="follow", figure_scale=0.0)  # fmt: skip
    seen = look(server, {**filmed(frames=2), "5": person, "6": put}, "6")
    assert base64.b64decode(seen["picture"])[:2] == b"\xff\xd8"
    again = look(server, {**filmed(frames=2), "5": person, "6": put}, "6", [seen["behind"]])
    assert again["behind"] == seen["behind"] and "picture" not in again


def test_what_a_node_has_made_is_shown_and_filmed_anew(server):
    """Fit Motion takes too long to be worked out beside; what it made in the last run is kept for the view."""
    prompt = {
        **filmed(),
        "4": node("ChampRenderMaps", motion=["2", 0], body=["1", 0]),
        "5": node("ChampFitMotion", pose_keypoints=["4", 5], body=["1", 0], fps=12),
        "6": node("PreviewAny", source=["5", 2]),
    }
    [token] = server.run(prompt)["outputs"]["5"]["champ_motion"]
    nodes = {"5": {"token": token}, "3": node("ChampCamera", motion=["5", 0], body=["1", 0], **CAMERA)}
    assert look(server, {**nodes, "1": filmed()["1"]}, "3")["frames"] == look(server, nodes, "5")["frames"] == 12
    assert "Run the workflow again" in look(server, {"5": {"token": "0" * 32}}, "5")["not_yet"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": 10**9}, "frames of ChampBuiltInMotion is '1000000000'"),
        ({"motion": "no such"}, "There is no built-in motion"),
        ({"motion": {"not": "text"}}, "which its widget does not allow"),
        ({"fps": 1e308}, "does not allow"),
        ({"frames": True}, "does not allow"),
    ],
)
def test_what_a_widget_does_not_allow_is_refused(server, changes, says):
    assert says in look(server, filmed(**changes), "2")["error"]


def test_a_value_that_only_a_run_can_tell_is_said(server):
    nodes = {**filmed(frames=["9", 0]), "9": {}}
    assert "a node that only a run can ask" in look(server, nodes, "3")["not_yet"]
    assert look(server, {**filmed(frames=["9", 0]), "9": "text"}, "3")["not_yet"]


def test_too_long_a_motion_is_not_waited_for(server):
    answer = look(server, filmed(frames=100_000, fps=240.0), "2")
    assert "too long to be shown" in answer["not_yet"]


@pytest.mark.parametrize(
    "nodes",
    [
        {},
        {"3": node("SaveImage", images=["3", 0])},
        {"3": node("ChampSaveMotion", motion=["2", 0], name="champ/x", format="AMASS (.npz)")},
        {"3": node("ChampCamera", motion=["3", 0], body=["3", 0], **CAMERA)},
        {"3": node("ChampCamera", **CAMERA)},
        {"3": "text"},
    ],
)
def test_nothing_else_is_run(server, nodes):
    assert set(look(server, nodes, "3")) == {"not_yet"}


def test_files_outside_of_the_folders_are_not_opened(server):
    motion = {"person": 0, "width": 64, "height": 96, "fps": 24}
    for file in ("../server.log", "/etc/passwd", "champ/../../secret.npz [output]"):
        answer = look(server, {"1": node("ChampLoadMotion", file=file, **motion)}, "1")
        assert "There is no motion file called" in answer["error"]


@pytest.mark.parametrize(("kind", "status"), [("text/plain", 415), ("application/json", 403)])
def test_pages_from_elsewhere_are_refused(server, kind, status):
    from http.client import HTTPConnection

    host = "evil.example.com" if status == 403 else f"127.0.0.1:{server.port}"
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/champ/motion", json.dumps({}), {"Content-Type": kind, "Host": host})
    assert connection.getresponse().status == status
    connection.close()
