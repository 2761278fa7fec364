"""What the page asks for its timeline of temporal windows."""

import pytest

from .test_view import filmed

LOOPED = {"length": 24, "overlap": 4, "schedule": "looped", "weights": "flat"}
CLIP = {"frames": 100, "width": 512, "height": 768}


def ask(server, **about) -> dict:
    return server.json("/champ/windows", about)


def test_the_windows_of_a_motion_are_those_of_the_sampler(server):
    seen = ask(server, nodes=filmed(frames=30), node="3", widgets=LOOPED)
    assert (seen["frames"], seen["width"], seen["height"]) == (30, 64, 96)
    assert seen["windows"] == [[[0, 23]], [[20, 29], [0, 13]]] and seen["count"] == 2
    assert seen["weights"] == [1.0] * 24 and not seen["moves"]
    short = ask(server, nodes=filmed(), node="3", widgets={**LOOPED, "weights": "ramps"})
    assert short["windows"] == [[[0, 11]]] and len(short["weights"]) == 12


def test_the_memory_is_that_of_a_window(server):
    long, short = (ask(server, **{**CLIP, "frames": frames}, widgets=LOOPED)["bytes"] for frames in (100, 12))
    assert long == 2 * short == pytest.approx(6.2e9, rel=0.01)
    assert ask(server, **CLIP, widgets={"length": 24, "schedule": "open, moving"})["moves"]


def test_without_a_length_the_windows_are_the_official_ones(server):
    for name in ("champ_tiny", "no such set", None):
        seen = ask(server, **CLIP, widgets={**LOOPED, "length": 0}, checkpoint_set=name)
        assert seen["windows"][0] == [[0, 23]]


@pytest.mark.parametrize(
    ("about", "answer", "says"),
    [
        ({"widgets": LOOPED}, "not_yet", "known after a run"),
        ({**CLIP, "frames": 10**9}, "not_yet", "known after a run"),
        ({**CLIP, "widgets": {"length": 8, "overlap": 8}}, "error", "An overlap of 8 frames does not fit windows of 8"),
        ({**CLIP, "widgets": {"length": 10**9}}, "error", "does not allow"),
        ({**CLIP, "widgets": {"schedule": "no such"}}, "error", "not known"),
        ({"nodes": {"1": {"class_type": "SaveImage", "inputs": {}}}, "node": "1"}, "not_yet", "Run the workflow"),
    ],
)
def test_what_cannot_be_answered_is_said(server, about, answer, says):
    assert says in ask(server, **about)[answer]
