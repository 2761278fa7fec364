"""Follow Person in the real host: two people, of whom the second is missed for a frame."""

import json

import numpy as np
import pytest
from PIL import Image

from champ.server import Failure

FRAMES, WIDTH, HEIGHT, SHIFT = 6, 96, 128, 36


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def crowd(**follow) -> dict:
    """A tall person in the middle and a small one at the right."""

    def clip(person: str, name: str) -> dict:
        size = {"width": WIDTH, "height": HEIGHT}
        return node("ChampBuiltInMotion", body=[person, 0], motion=name, frames=FRAMES, fps=12.0, loop=True,
                    travel=False, **size)  # fmt: skip

    def body(height: float) -> dict:
        return node("ChampFreeBody", gender=0.5, age=30, height=height, weight=0.5, muscle=0.5, proportions=0.5)

    choice = {"person": "largest", "number": 0, **follow}
    return {
        "1": body(1.9),
        "3": clip("1", "walk"),
        "4": clip("1", "wave"),
        "5": node("ChampCamera", motion=["4", 0], body=["1", 0], width=WIDTH, height=HEIGHT, azimuth="0", elevation="0",
                  fill=0.5, fov=2.93, follow=False),
        "6": node("ChampRenderMaps", motion=["3", 0], body=["1", 0]),
        "7": node("ChampRenderMaps", motion=["5", 0], body=["1", 0]),
        "8": node("TestCrowd", left=["6", 5], right=["7", 5], shift=SHIFT),
        "9": node("ChampFollowPerson", pose_keypoints=["8", 0], **choice),
        "10": node("PreviewAny", source=["9", 0]),
        "11": node("SaveImage", images=["9", 1], filename_prefix="champ/follow"),
        "12": node("PreviewAny", source=["9", 2]),
    }  # fmt: skip


def followed(entry: dict) -> list[float | None]:
    """How far right the nose is in every frame."""
    frames = json.loads(entry["outputs"]["10"]["text"][0])
    assert [(frame["canvas_width"], frame["canvas_height"], frame["shot"]) for frame in frames] == [
        (WIDTH, HEIGHT, 0)
    ] * FRAMES
    return [frame["people"][0]["pose_keypoints_2d"][0] if frame["people"] else None for frame in frames]


def test_the_largest_is_followed_and_everybody_has_a_number(server):
    entry = server.run(crowd(clip=["6", 0]))
    noses = followed(entry)
    assert all(x < WIDTH * 0.7 for x in noses)
    report = entry["outputs"]["12"]["text"][0]
    assert "2 people" in report and "1: in 5 of 6 frames (0-1, 3-5)" in report and "Followed: the largest one" in report
    pictures = [
        np.asarray(Image.open(server.base / "output" / item["subfolder"] / item["filename"]).convert("RGB")).astype(int)
        for item in entry["outputs"]["11"]["images"]
    ]
    assert len(pictures) == FRAMES and pictures[0].shape == (HEIGHT, WIDTH, 3)
    chosen, other = (
        [(abs(p - color).sum(2) < 12).sum() for p in pictures] for color in ((92, 205, 112), (190, 194, 200))
    )
    assert min(chosen) > 100 and [count > 50 for count in other] == [True, True, False, True, True, True]
    assert entry["outputs"]["9"]["animated"] == [True]


def test_the_one_with_the_number_is_followed_and_missing_frames_stay_empty(server):
    entry = server.run(crowd(person="number", number=1))
    noses = followed(entry)
    assert noses[2] is None and all(x > WIDTH * 0.8 for i, x in enumerate(noses) if i != 2)
    assert "Followed: number 1, in 5 frames; missing in 2." in entry["outputs"]["12"]["text"][0]


def test_the_one_under_the_mask_is_followed(server):
    mask = {
        "20": node("SolidMask", value=0.0, width=2 * WIDTH, height=2 * HEIGHT),
        "21": node("SolidMask", value=1.0, width=20, height=60),
        "22": node("MaskComposite", destination=["20", 0], source=["21", 0], x=2 * WIDTH - 20, y=HEIGHT - 30,
                   operation="add"),
    }  # fmt: skip
    noses = followed(server.run(crowd(person="marked", mask=["22", 0]) | mask))
    assert noses[2] is None and noses[0] > WIDTH * 0.8


def keypoints(entry: dict, name: str) -> list[dict]:
    """The only person of every frame that a node shows."""
    return [person for frame in json.loads(entry["outputs"][name]["text"][0]) for person in frame["people"]]


@pytest.mark.parametrize("cut", [True, False])
def test_the_maps_have_the_hands_of_the_person_who_is_followed(server, cut):
    """Fit Motion finds the cut in the clip. Without the clip it takes everything for one shot."""
    prompt = {key: value for key, value in crowd().items() if key in ("1", "3", "6")} | {
        "20": node("TestPair", person=["6", 5], wide=1),
        "21": node("ChampFitMotion", pose_keypoints=["20", 0], fps=12.0, **({"clip": ["20", 1]} if cut else {})),
        "22": node("ChampRenderMaps", motion=["21", 0], body=["1", 0], pose_keypoints=["20", 0]),
        "23": node("PreviewAny", source=["22", 5]),
    }
    prompt["3"]["inputs"]["frames"] = 8
    people = keypoints(server.run(prompt), "23")
    sides = ["left" if np.mean(person["pose_keypoints_2d"][::3]) < WIDTH / 2 else "right" for person in people]
    hands = [any(person["hand_left_keypoints_2d"] + person["hand_right_keypoints_2d"]) for person in people]
    assert sides == ["left"] * 4 + (["right"] * 4 if cut else ["left"] * 4)
    assert hands == [True] * 4 + [cut] * 4


def test_hands_keep_their_shape_in_a_picture_of_other_proportions(server):
    """As when a wide video drives a portrait."""
    prompt = {key: value for key, value in crowd().items() if key in ("1", "3", "6")} | {
        "20": node("TestPair", person=["6", 5], wide=3),
        "22": node("ChampRenderMaps", motion=["3", 0], body=["1", 0], pose_keypoints=["20", 0]),
        "23": node("PreviewAny", source=["22", 5]),
    }
    hands = [
        hand
        for person in keypoints(server.run(prompt), "23")
        for side in ("left", "right")
        if (hand := np.reshape(person[f"hand_{side}_keypoints_2d"], (-1, 3))).all()
    ]
    assert len(hands) >= 3
    for hand in hands:
        sideways, down = hand[10, :2] - hand[0, :2], hand[20, :2] - hand[10, :2]
        assert np.linalg.norm(sideways) == pytest.approx(np.linalg.norm(down), rel=0.01)
        assert sideways @ down == pytest.approx(0, abs=0.01 * (sideways @ sideways))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"person": "number", "number": 7}, "There is no number 7 among the people of this clip; the highest is 1"),
        ({"person": "marked"}, "The mask is empty"),
        ({"clip": ["30", 0]}, "The clip has 4 frames and pose_keypoints 6"),
    ],
)
def test_what_does_not_fit_is_said(server, options, message):
    short = {"30": node("EmptyImage", width=WIDTH, height=HEIGHT, batch_size=4, color=0)}
    with pytest.raises(Failure, match=message):
        server.run(crowd(**options) | short)
