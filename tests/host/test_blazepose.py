"""The pose network that comes with the pack, in the real host: a clip of two drawn people, from pixels to a motion."""

import json

import numpy as np
import pytest

FRAMES, WIDTH, HEIGHT = 16, 448, 320  # of the test video, in which the second person comes later


def node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def estimate(hands_and_face: bool = True) -> dict:
    return {
        "1": node("LoadVideo", file="two_people.mp4"),
        "2": node("ChampLoadBlazePose", hands_and_face=hands_and_face),
        "3": node("ChampEstimatePose", clip=["1", 0], dwpose=["2", 0]),
        "4": node("PreviewAny", source=["3", 0]),
    }


def keypoints(entry: dict, number: str = "4") -> list[dict]:
    return json.loads(entry["outputs"][number]["text"][0])


@pytest.fixture(scope="module")
def found(server):
    return server.run(estimate())


def test_people_in_a_video_need_no_download(found):
    frames = keypoints(found)
    assert len(frames) == FRAMES
    assert [len(frame["people"]) for frame in frames[:6]] == [1] * 6 and len(frames[-1]["people"]) == 2
    for frame in frames:
        assert (frame["canvas_width"], frame["canvas_height"], frame["shot"]) == (WIDTH, HEIGHT, 0)
        for person in frame["people"]:
            body, feet = (np.reshape(person[key], (-1, 3)) for key in ("pose_keypoints_2d", "foot_keypoints_2d"))
            assert body[0, 1] < body[8, 1] < body[10, 1] < feet[[2, 5], 1].max()  # nose, hip, ankle, heels
            assert np.shape(person["world_3d"]) == (96,)
    assert any(np.any(person["hand_left_keypoints_2d"]) for frame in frames for person in frame["people"])
    assert any(np.any(person["face_keypoints_2d"][:204]) for frame in frames for person in frame["people"])
    assert found["outputs"]["3"]["animated"] == [True]


def test_without_hands_and_face_the_body_is_the_same(server, found):
    frames = keypoints(server.run(estimate(hands_and_face=False)))
    for ours, theirs in zip(frames, keypoints(found), strict=True):
        assert len(ours["people"]) == len(theirs["people"])
        for one, other in zip(ours["people"], theirs["people"]):
            np.testing.assert_allclose(one["pose_keypoints_2d"], other["pose_keypoints_2d"], atol=0.05)
            assert not np.any(one["hand_left_keypoints_2d"]) and not np.any(one["face_keypoints_2d"][:204])


def test_one_person_is_followed_and_fitted(server):
    prompt = estimate() | {
        "5": node("ChampFollowPerson", pose_keypoints=["3", 0], clip=["1", 0], person="largest", number=0),
        "6": node("PreviewAny", source=["5", 0]),
        "7": node("ChampFitMotion", pose_keypoints=["5", 0], clip=["1", 0], fps=12),
        "8": node("PreviewAny", source=["7", 2]),
    }
    entry = server.run(prompt)
    frames = keypoints(entry, "6")
    assert [len(frame["people"]) for frame in frames] == [1] * FRAMES
    assert all(len(frame["people"][0]["world_3d"]) == 96 for frame in frames), "they stay with their person"
    assert f"keypoints: {FRAMES} frames of {WIDTH}x{HEIGHT} at 12 fps" in entry["outputs"]["8"]["text"][0]


def test_a_picture_without_people_gets_a_warning(server):
    prompt = estimate() | {"1": node("EmptyImage", width=64, height=48, batch_size=3, color=0)}
    assert [frame["people"] for frame in keypoints(server.run(prompt))] == [[], [], []]
    assert "Nobody was found in 3 frames" in server.log.read_text()
