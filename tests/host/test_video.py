"""Videos as people have them, through Estimate Pose in the real host: as many frames out as in, the right way up."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from champ.server import Failure

FRAMES, WIDTH, HEIGHT = 6, 64, 48
QUARTER_TURN = np.array(
    [0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30], ">i4"
)  # clockwise, MP4's fixed point


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def picture(frame: int, width: int, height: int) -> np.ndarray:
    """Lighter from frame to frame; the upper left is red, the rest of the upper half green."""
    pixels = np.full((height, width, 3), 40 + 30 * frame, np.uint8)
    pixels[: height // 2] = 0, 200, 0
    pixels[: height // 2, : width // 2] = 200, 0, 0
    return pixels


def write(file, width=WIDTH, height=HEIGHT, times=range(FRAMES), format="yuv444p", hidden=0, **options) -> None:
    """A video with one frame at each of `times`, in eighths of a second. `hidden` frames at the start are in the file
    but not to be shown, as programs leave them that cut without encoding anew."""
    with av.open(file, "w", options={"movflags": "faststart", "avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=8, options={"qp": "4", **options})
        stream.width, stream.height, stream.pix_fmt = width, height, format
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24")
            frame.pts = time
            container.mux(earlier(stream.encode(frame), hidden))
        container.mux(earlier(stream.encode(), hidden))


def earlier(packets: list[av.Packet], eighths: int) -> list[av.Packet]:
    for packet in packets:
        packet.pts -= int(eighths / 8 / packet.time_base)
        packet.dts -= int(eighths / 8 / packet.time_base)
    return packets


@pytest.fixture
def video(server):
    """The place of a new file in ComfyUI's input folder."""
    file = server.base / "input" / "clip.mp4"
    yield file
    file.unlink(missing_ok=True)


def frames_of(server, source: list, **more) -> list[np.ndarray]:
    """The overlay of Estimate Pose, which shows every frame of a short clip at half its brightness."""
    prompt = {
        "1": node("LoadVideo", file="clip.mp4"),
        "2": node("ChampLoadDWPose", detector="yolox_l.onnx", pose_network="dw-ll_ucoco_384.onnx"),
        "3": node("ChampEstimatePose", clip=source, dwpose=["2", 0]),
        "4": node("SaveImage", images=["3", 1], filename_prefix="champ/video"),
        "5": node("PreviewAny", source=["3", 0]),
        **more,
    }
    outputs = server.run(prompt)["outputs"]
    pictures = [Image.open(server.base / "output" / p["subfolder"] / p["filename"]) for p in outputs["4"]["images"]]
    keypoints = json.loads(outputs["5"]["text"][0])
    assert len(keypoints) == len(pictures)
    assert {(f["canvas_width"], f["canvas_height"]) for f in keypoints} == {pictures[0].size}
    return [np.asarray(p).astype(int) for p in pictures]


def brightness(pictures: list[np.ndarray]) -> list[float]:
    """Of the lower right corner, which is lighter from frame to frame."""
    return [float(p[-8:-2, -8:-2].mean()) for p in pictures]


def expected(frames: int = FRAMES) -> list[float]:
    return [(40 + 30 * f) / 2 for f in range(frames)]


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"width": 65, "height": 47},
        {"format": "yuv420p", "bf": "2"},
        {"times": [0, 1, 2, 11, 12, 30]},
    ],
    ids=["plain", "odd size", "frames that need later ones", "variable frame rate"],
)
def test_a_video_has_as_many_frames_as_its_pictures(server, video, about):
    write(video, **about)
    as_video = frames_of(server, ["1", 0])
    as_pictures = frames_of(server, ["9", 0], **{"9": node("GetVideoComponents", video=["1", 0])})
    assert len(as_video) == len(as_pictures) == FRAMES
    assert as_video[0].shape == (about.get("height", HEIGHT), about.get("width", WIDTH), 3)
    np.testing.assert_allclose(brightness(as_video), expected(), atol=3)
    np.testing.assert_allclose(as_video, as_pictures, atol=1)


def test_a_telephones_video_stands_upright(server, video):
    write(video)
    content = bytearray(video.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = QUARTER_TURN.tobytes()
    video.write_bytes(content)
    pictures = frames_of(server, ["1", 0])
    assert pictures[0].shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_allclose(pictures[0][4, -5], (100, 0, 0), atol=4)  # what was at the upper left
    np.testing.assert_allclose(pictures[0][-5, -5], (0, 100, 0), atol=4)


def test_frames_that_were_cut_off_without_encoding_anew_stay_away(server, video):
    write(video, hidden=2)
    as_video = frames_of(server, ["1", 0])
    as_pictures = frames_of(server, ["9", 0], **{"9": node("GetVideoComponents", video=["1", 0])})
    assert len(as_video) == len(as_pictures) == FRAMES - 2
    np.testing.assert_allclose(brightness(as_video), expected()[2:], atol=3)


@pytest.mark.parametrize("known", [True, False], ids=["by its file", "by ComfyUI"])
def test_a_cut_video_is_its_part(server, video, known):
    """Of each frame; where it is not known which part it is, ComfyUI decodes the video."""
    write(video, format="yuv420p")
    cut = node("TestCroppedVideo", video=["1", 0], x=40, y=10, width=20, height=32, known=known)
    as_video = frames_of(server, ["9", 0], **{"9": cut})
    assert len(as_video) == FRAMES and as_video[0].shape == (32, 20, 3)
    off = np.abs(np.subtract(as_video, [picture[10:42, 40:60] for picture in frames_of(server, ["1", 0])]))
    assert (off > 1).mean() < 0.02  # where the network sees somebody in the part alone


def test_a_trimmed_video_is_its_part(server, video):
    if "Video Slice" not in server.json("/object_info"):
        pytest.skip("this ComfyUI cannot trim videos")
    write(video, bf="2")
    cut = {"9": node("Video Slice", video=["1", 0], start_time=0.25, duration=0.375, strict_duration=False)}
    as_video = frames_of(server, ["9", 0], **cut)
    as_pictures = frames_of(server, ["8", 0], **cut, **{"8": node("GetVideoComponents", video=["9", 0])})
    assert len(as_video) == 3
    np.testing.assert_allclose(as_video, as_pictures, atol=1)
    np.testing.assert_allclose(brightness(as_video), expected()[2:5], atol=3)


def test_a_broken_frame_is_the_one_before_it(server, video):
    write(video, g="1", slices="1")
    with av.open(str(video)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(video.read_bytes())
    start, size = packets[3]
    content[start + 4 : start + size] = bytes(size - 4)
    video.write_bytes(content)
    pictures = frames_of(server, ["1", 0])
    assert len(pictures) == FRAMES
    np.testing.assert_allclose(np.delete(brightness(pictures), 3), np.delete(expected(), 3), atol=3)
    np.testing.assert_allclose(pictures[3], pictures[2], atol=1)


def test_a_video_that_ends_too_early_has_the_frames_that_are_there(server, video):
    write(video, g="1")
    with av.open(str(video)) as container:
        start, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][4]
    video.write_bytes(video.read_bytes()[: start + size // 2])
    pictures = frames_of(server, ["1", 0])
    assert 4 <= len(pictures) <= 5
    np.testing.assert_allclose(brightness(pictures)[:4], expected(4), atol=3)


def test_a_file_without_pictures_is_refused(server, video):
    with av.open(str(video), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(Failure, match="This file contains no video"):
        frames_of(server, ["1", 0])


def test_grey_pictures_are_pictures(server, video):
    write(video, times=range(2))
    grey = {"8": node("GetVideoComponents", video=["1", 0]), "9": node("TestGrey", images=["8", 0])}
    pictures = frames_of(server, ["9", 0], **grey)
    np.testing.assert_allclose(brightness(pictures), expected(2), atol=3)
    assert np.ptp(pictures[0], axis=2).max() <= 1
