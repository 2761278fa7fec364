"""The routes behind the Download button, in a real ComfyUI whose Hugging Face is a server on loopback."""

import http.client
import json
import time

import numpy as np
import pytest

FILE = "clip_vision/champ_image_encoder.bin"
CONTENT = np.random.default_rng(1).bytes(50_000)


@pytest.fixture
def target(server, hub):
    hub.files["/fudan-generative-ai/champ/resolve/main/image_encoder/pytorch_model.bin"] = CONTENT
    target = server.base / "models" / "clip_vision" / "champ_image_encoder.bin"
    parts = [target.with_name(f"{target.name}{end}") for end in ("", ".part", ".part.etag")]
    for file in parts:  # of other tests with the same server
        file.unlink(missing_ok=True)
    yield target
    hub.gate.set()
    wait(server)
    for file in parts:
        file.unlink(missing_ok=True)


def files(server) -> dict[str, dict]:
    return {file["file"]: file for file in server.json("/champ/files")["loaders"]["ChampLoadModel"]}


def wait(server) -> None:
    deadline = time.monotonic() + 20
    while server.json("/champ/files")["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def post(server, path: str, body: str, kind: str = "application/json", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", path, body, {"Content-Type": kind, **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_file_is_fetched_when_asked_for(server, hub, target):
    before = files(server)[FILE]
    assert not before["present"] and before["size"] > 1e9 and before["licence"] and before["what"]
    assert before["source"] == "https://huggingface.co/fudan-generative-ai/champ"
    assert before["folder"] == str(target.parent)
    events = server.events("download-test", 20)
    next(events)
    assert server.request("/champ/download", {"file": FILE})[0] == 200
    state = next(data for kind, data in events if kind == "champ.download" and data["state"] != "running")
    assert state["state"] == "done" and "the server announced" in state["message"]
    assert (state["done"], state["total"]) == (len(CONTENT), len(CONTENT))
    assert target.read_bytes() == CONTENT and files(server)[FILE]["present"]
    assert server.request("/champ/download", {"file": FILE}) == (
        409,
        f"{FILE} is already there; press R and choose it.".encode(),
    )


def test_one_at_a_time_and_cancel_keeps_the_part(server, hub, target):
    hub.gate.clear()
    assert server.request("/champ/download", {"file": FILE})[0] == 200
    status, message = server.request("/champ/download", {"file": "vae/vae-ft-mse-840000-ema-pruned.safetensors"})
    assert status == 409 and b"is being downloaded" in message
    assert server.json("/champ/files")["running"]["file"] == FILE
    assert server.request("/champ/download/cancel", {})[0] == 200
    hub.gate.set()
    wait(server)
    assert not target.exists() and target.with_name(f"{target.name}.part").stat().st_size >= 1024
    assert server.request("/champ/download", {"file": FILE})[0] == 200
    wait(server)
    assert target.read_bytes() == CONTENT and hub.asked[-1][1].startswith("bytes=")


def test_a_failure_is_told(server, hub, target):
    hub.announced = "0" * 64
    events = server.events("download-test", 20)
    next(events)
    assert server.request("/champ/download", {"file": FILE})[0] == 200
    state = next(data for kind, data in events if kind == "champ.download" and data["state"] != "running")
    hub.announced = None
    assert state["state"] == "failed" and "wrong checksum and was removed" in state["message"]
    assert not target.exists()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (json.dumps({"file": FILE}), "text/plain", 415),  # what a page from elsewhere can send unasked
        (json.dumps({"file": FILE}), "application/x-www-form-urlencoded", 415),
        ("no json", "application/json", 400),
        ("[1]", "application/json", 400),
        ("1", "application/json", 400),
        ("", "application/json", 400),
        pytest.param("[" * 100_000, "application/json", 400, id="deep list"),
        pytest.param('{"file":' * 100_000, "application/json", 400, id="deep object"),
        (json.dumps({"file": FILE}), "application/json; charset=klingon", 400),
        (json.dumps({"file": FILE}), "application/json; charset=utf-16", 400),
        (json.dumps({"file": FILE}), "application/json; charset=zlib", 400),
        (json.dumps({"file": "smpl/SMPL_NEUTRAL.pkl"}), "application/json", 404),
        (json.dumps({"file": "../../x"}), "application/json", 404),
        (json.dumps({"file": ["x"]}), "application/json", 404),
        ("{}", "application/json", 404),
    ],
)
def test_nothing_else_can_be_asked_for(server, hub, body, kind, status):
    asked = len(hub.asked)
    assert post(server, "/champ/download", body, kind) == status
    assert len(hub.asked) == asked and server.json("/champ/files")["running"] is None


def test_a_page_from_elsewhere_is_refused(server, hub):
    """The second has come by DNS rebinding: its name points at this machine."""
    body, asked = json.dumps({"file": FILE}), len(hub.asked)
    for headers in ({"Origin": "http://example.com"}, {"Origin": "http://page.invalid:1", "Host": "page.invalid:1"}):
        for path in ("/champ/download", "/champ/download/cancel"):
            assert post(server, path, body, **headers) == 403
    assert server.json("/champ/files")["running"] is None and len(hub.asked) == asked


def test_a_page_on_another_machine_may_ask(server):
    """No such file, so that nothing is fetched; --listen changes nothing about the headers."""
    headers = {"Host": "192.168.1.20:8188", "Origin": "http://192.168.1.20:8188"}
    assert post(server, "/champ/download", "{}", **headers) == 404
