from pathlib import Path

import numpy as np
import pytest
import torch

from champ.estimate.detect import GREY, decode_boxes, find_people, letterbox, suppress

OFFICIAL = Path(__file__).parents[1] / "data" / "dwpose_io" / "official.npz"


class Detector:
    """Gives always the same."""

    name, batch = "yolox.onnx", 4

    def __init__(self, output):
        self.output = output

    def __call__(self, pictures):
        assert pictures.shape[1:] == (3, 640, 640) and pictures.dtype == np.float32
        return [np.repeat(self.output, len(pictures), axis=0)]


def test_boxes_are_those_of_the_official_code():
    official = np.load(OFFICIAL)
    output = np.zeros((1, 8400, 85), dtype=np.float32)
    output[0, official["rows"]] = official["values"]
    width, height = official["size"]
    [found, again] = find_people([np.zeros((height, width, 3), np.uint8)] * 2, Detector(output))
    np.testing.assert_array_equal(found, again)
    np.testing.assert_allclose(found[:, :4], official["boxes"], atol=1e-3)
    assert (np.diff(found[:, 4]) < 0).all() and found[-1, 4] > 0.3


@pytest.mark.parametrize(
    ("width", "height", "columns", "rows"), [(64, 48, 640, 480), (30, 90, 213, 640), (700, 1, 640, 1)]
)
def test_the_square_is_the_picture_in_bgr_on_grey(width, height, columns, rows):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    square, scale = letterbox(picture)
    assert square.shape == (3, 640, 640) and scale == min(640 / width, 640 / height)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, (rows, columns), mode="bilinear")[0].flip(0)
    assert np.abs(square[:, :rows, :columns] - expected.numpy()).max() <= 1
    assert (square[:, rows:] == GREY).all() and (square[:, :, columns:] == GREY).all()


def test_raw_and_decoded_outputs_are_told_apart():
    """A box in the middle cell of the coarsest grid; x and y of its centre lie in cells of 32 pixels."""
    raw = np.zeros((8400, 85), dtype=np.float32)
    raw[8000 + 20 * 10 + 5] = [0.25, 0.5, np.log(2), np.log(4), 0.8, 0.5, *[0] * 79]
    boxes, scores = decode_boxes(raw)
    expected = [168 - 32, 336 - 64, 168 + 32, 336 + 64]
    np.testing.assert_allclose(boxes[8205], expected, rtol=1e-6)
    assert scores[8205] == pytest.approx(0.4)
    decoded = raw.copy()
    decoded[:, :4] = np.stack([*(boxes[:, :2] + boxes[:, 2:]).T / 2, *(boxes[:, 2:] - boxes[:, :2]).T], axis=1)
    np.testing.assert_allclose(decode_boxes(decoded)[0], boxes, rtol=1e-5, atol=1e-4)


def test_of_two_that_overlap_the_better_stays():
    boxes = np.array([[0, 0, 99, 99], [0, 0, 99, 44], [0, 0, 99, 43], [200, 0, 299, 99], [0, 0, 99, 99.0]])
    scores = np.array([0.5, 0.4, 0.4, 0.9, 0.1])
    # Of 100 rows the second box shares 45, which is no more than may be, and hides the third, which is 44 of its 45.
    assert suppress(boxes, scores).tolist() == [3, 0, 1]
    assert suppress(boxes, scores * 0.1).tolist() == []


def test_nobody_is_nobody():
    """Neither weak boxes, nor those of other classes, nor the whole picture."""
    output = np.zeros((1, 8400, 85), dtype=np.float32)
    output[0, 100, 4:7] = [1, 0.29, 0]
    output[0, 4000, 4:7] = [1, 0, 0.9]
    [found] = find_people([np.zeros((10, 20, 3), np.uint8)], Detector(output))
    assert found.shape == (0, 5)


def test_another_network_is_refused():
    with pytest.raises(ValueError, match=r"yolox.onnx gives values of shape \(1, 300, 6\), .*; choose yolox_l\.$"):
        find_people([np.zeros((8, 8, 3), np.uint8)], Detector(np.zeros((1, 300, 6), np.float32)))
