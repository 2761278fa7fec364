from pathlib import Path

import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.estimate.dwpose import MEAN, STD, crop_person, decode_keypoints, find_poses, pose_window
from champ.estimate.network import read_network
from champ.keypoints.pose import THRESHOLD
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance

DATA = Path(__file__).parents[1] / "data"


class OnTheCpu:
    """A network from a file, as a function of arrays."""

    batch = 1

    def __init__(self, name, size):
        self.name, self.network = name, read_network(DATA / "dwpose" / name)
        self.network.check(*size)

    def __call__(self, pictures):
        return [output.numpy() for output in self.network(torch.from_numpy(pictures))]


@pytest.fixture(scope="module")
def networks():
    return OnTheCpu("yolox_l.onnx", (640, 640)), OnTheCpu("dw-ll_ucoco_384.onnx", (384, 288))


def spikes(bins, peaks):
    """SimCC outputs with these maxima, in no certain order."""
    outputs = [np.full((*bins.shape[:2], length), -1, dtype=np.float32) for length in (576, 768)]
    for axis, output in enumerate(outputs):
        np.put_along_axis(output, bins[..., axis, None].astype(int), peaks[..., axis, None], axis=-1)
    return outputs[::-1]


def test_keypoints_and_scores_are_those_of_the_official_code():
    official = np.load(DATA / "dwpose_io" / "official.npz")
    keypoints, scores = decode_keypoints(spikes(official["bins"], official["peaks"]), official["boxes"])
    assert (official["scores"] <= 0).any()  # a point that is nowhere
    np.testing.assert_allclose(keypoints, official["keypoints"], atol=1e-3)
    np.testing.assert_array_equal(scores, official["scores"])


def test_the_window_holds_the_padded_box_in_the_crops_shape():
    boxes = np.array([[10, 20, 40, 220, 1], [0, 0, 300, 100, 1.0]])
    centre, size = pose_window(boxes)
    np.testing.assert_allclose(centre, [[25, 120], [150, 50]])
    np.testing.assert_allclose(size, [[187.5, 250], [375, 500]])


def test_the_crop_is_rgb_normalised_and_black_outside():
    ramp = np.mgrid[:100, :200].astype(np.uint8)
    picture = np.stack([ramp[0], ramp[1], np.full((100, 200), 7, np.uint8)], axis=-1)
    box = np.array([-60, 10, 80, 90, 0.9])
    centre, size = pose_window(box)
    pixels = crop_person(picture, box) * STD[:, None, None] + MEAN[:, None, None]
    v, u = np.mgrid[:384, :288]
    x, y = (u - 144) * size[0] / 288 + centre[0], (v - 192) * size[0] / 288 + centre[1]
    inside = (x >= 0) & (x <= 199) & (y >= 0) & (y <= 99)
    assert np.abs(pixels - np.stack([y, x, np.full_like(x, 7)]))[:, inside].max() < 1
    outside = (x < -1) | (y < -1) | (y > 100)
    assert np.abs(pixels[:, outside]).max() < 1e-4 and outside.any()


def test_a_drawn_skeleton_is_found_again(networks):
    """Frames in, frames out; an empty one stays empty, and the pose is within pixels of what was drawn."""
    body = load_free_body()
    motion = make_motion("dance", body, 3, width=256, height=384)
    *_, maps, _, drawn = render_guidance(body, motion)
    clip = [maps[0].numpy(), np.zeros((384, 256, 3), np.uint8), maps[2].numpy()]
    seen, poses = zip(*find_poses(clip, *networks))
    assert [len(people) for people in poses] == [1, 0, 1]
    assert all(picture is frame for picture, frame in zip(seen, clip, strict=True))
    for i in (0, 2):
        [pose] = poses[i]
        assert (pose.body[:, 2] >= THRESHOLD).all() and not (pose.left_hand[:, 2] >= THRESHOLD).any()
        assert np.abs(pose.body - drawn[i].body)[:, :2].max() < 2
        joints = drawn[i].body[:, :2]
        assert pose.box[4] == 1 and pose.box.dtype == np.float32
        np.testing.assert_allclose(pose.box[:4], [*joints.min(0) - 4, *joints.max(0) + 4], atol=3)


class TwoPeople:
    """A detector that finds one person on the left of bright pictures and one more on the right of white ones."""

    name = "two"

    def __init__(self, batch):
        self.batch, self.sizes = batch, []

    def __call__(self, pictures):
        self.sizes.append(len(pictures))
        output = np.zeros((len(pictures), 8400, 85), dtype=np.float32)
        for cell, limit, score in ((8105, 100, 0.9), (8115, 250, 0.8)):
            output[:, cell, 2:4] = np.log([5, 10])
            output[:, cell, 4] = pictures[:, :, 50, 50].min(axis=1) > limit
            output[:, cell, 5] = score
        return [output]


class CountingPoseNet:
    """A pose network for batches of `batch` crops, whose points' scores are the average brightness."""

    name = "counting"

    def __init__(self, batch):
        self.batch, self.sizes = batch, []

    def __call__(self, crops):
        self.sizes.append(len(crops))
        light = (crops.transpose(0, 2, 3, 1) * STD + MEAN).mean(axis=(1, 2, 3))[:, None, None] / 255
        return [np.full((len(crops), 133, length), light, dtype=np.float32) for length in (576, 768)]


@pytest.mark.parametrize(
    ("detected", "batch", "sizes"), [(1, 1, [1] * 5), (1, 2, [2, 2, 1]), (4, 5, [5]), (3, 2, [2, 1, 2])]
)
def test_people_of_several_frames_share_a_batch_and_keep_their_places(detected, batch, sizes):
    detector, network = TwoPeople(detected), CountingPoseNet(batch)
    clip = [np.full((640, 640, 3), light, np.uint8) for light in (255, 0, 200, 255)]
    seen, poses = zip(*find_poses(clip, detector, network))
    assert sum(detector.sizes) == 4 and max(detector.sizes) == detected
    assert network.sizes == sizes
    assert all(picture is frame for picture, frame in zip(seen, clip, strict=True))
    assert [len(people) for people in poses] == [2, 0, 1, 2]
    assert [pose.box[4] for pose in poses[3]] == [pytest.approx(0.9), pytest.approx(0.8)]
    assert poses[3][0].box[0] < 200 < poses[3][1].box[0]
    assert poses[0][0].body[0, 2] > poses[2][0].body[0, 2]


def test_few_frames_wait_however_long_the_clip_is():
    """One person in the first frame, and nobody after that, would let all others wait for a full batch."""
    taken = []

    def clip():
        for i in range(100):
            taken.append(i)
            yield np.full((64, 64, 3), 200 if i == 0 else 0, np.uint8)

    for given, _ in enumerate(find_poses(clip(), TwoPeople(4), CountingPoseNet(8))):
        assert len(taken) - given <= 12
    assert given == 99


def test_another_network_is_refused():
    message = r"pose.onnx gives values of shape \(1, 133, 384\) and \(1, 133, 512\), but DWPose gives \(1, 133, 576\)"
    with pytest.raises(ValueError, match=message):
        decode_keypoints([np.zeros((1, 133, 512)), np.zeros((1, 133, 384))], np.array([[0, 0, 9, 9, 1]]), "pose.onnx")
