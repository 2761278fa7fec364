"""The square that HMR2 looks at, beside the official preprocessing."""

import cv2
import numpy as np
import pytest
import torch
from hmr2_data import HEIGHT, WIDTH, box, expected, picture
from scipy.ndimage import gaussian_filter

from champ.estimate.crops import MEAN, STD, Square, cam_in_picture, crop


def official_crop(picture: np.ndarray, square: Square) -> np.ndarray:
    """The steps of ViTDetDataset with OpenCV 4, in grey levels (256, 256, 3).

    scipy blurs the whole picture in float64 if it is to shrink, and OpenCV samples it between pixel indices. Version 4
    reads at 32nds of a pixel whatever the type, version 5 only in float64: therefore always that type here, and the
    whole grey levels in which an unblurred picture comes out."""
    seen = picture.astype(np.float64)
    blurred = square.size / 512 > 1.1
    if blurred:
        seen = gaussian_filter(seen, sigma=((square.size / 512 - 1) / 2,) * 2 + (0,), mode="nearest")
    scale = 256 / square.size
    matrix = np.array([[scale, 0, 128 - scale * square.x], [0, scale, 128 - scale * square.y]])
    warped = cv2.warpAffine(seen, matrix, (256, 256), flags=cv2.INTER_LINEAR)
    return warped if blurred else np.floor(warped + 0.5)


@pytest.mark.parametrize("number", range(3))  # blurred, small, partly outside the picture
def test_official_crops(number):
    """The official code itself made every 16th pixel of them, with OpenCV 4."""
    square = Square.around(box(number))
    assert torch.allclose(torch.tensor([square.x, square.y]), expected()["centre"][number], atol=1e-4)
    assert abs(square.size - float(expected()["size"][number])) < 1e-4
    found = crop(picture(), square)
    assert (found[:, ::16, ::16] - expected()["crops"][number]).abs().max() < 2e-6
    wanted = ((official_crop(picture(), square) - MEAN) / STD).transpose(2, 0, 1)
    assert np.abs(found.numpy() - wanted).max() < 2e-6


@pytest.mark.parametrize("size", [40.0, 255.5, 563.0, 564.0, 1000.0, 2200.0])
@pytest.mark.parametrize("centre", [(160.3, 90.7), (5.0, 170.0), (319.9, -20.5)])
def test_any_size_and_place(size, centre):
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    square = Square(*centre, size)
    found = crop(noise, square).numpy().transpose(1, 2, 0) * STD + MEAN
    off = np.abs(found - official_crop(noise, square))
    # A coordinate may fall on the other side of a 32nd in single pixels.
    assert off.mean() < 0.02 and (off > 0.01).mean() < 0.01


def test_the_square_is_as_high_as_a_box_of_three_to_four():
    assert Square.around(np.array([10, 20, 40, 120, 0.5])).size == 100
    assert Square.around(np.array([10, 20, 130, 60])).size == 160
    assert (Square.around(np.array([10, 20, 130, 60])).x, Square.around(np.array([10, 20, 130, 60])).y) == (70, 40)


def test_outside_the_picture_is_black():
    white = np.full((50, 60, 3), 255, np.uint8)
    black = torch.from_numpy((-MEAN / STD).astype(np.float32))
    assert torch.allclose(crop(white, Square(500, 500, 100)), black[:, None, None].expand(3, 256, 256))
    half = crop(white, Square(0, 25, 40))
    assert torch.allclose(half[:, 128, 100], black) and (half[:, 128, 140] > 2).all()


def test_official_camera():
    e = expected()
    squares = [Square(float(x), float(y), float(s)) for (x, y), s in zip(e["centre"], e["size"])]
    cam_t, focal = cam_in_picture(e["camera"], squares, WIDTH, HEIGHT)
    assert abs(focal / float(e["focal"]) - 1) < 1e-6
    assert ((cam_t - e["cam_t"]).norm(dim=1) / e["cam_t"].norm(dim=1)).max() < 1e-5


def test_the_camera_puts_the_body_where_the_crop_has_it():
    """A point at the root of the body: in the crop at 128 (1 + s tx) of 256 pixels, and as far in the picture."""
    square = Square(300.0, 200.0, 128.0)
    cam_t, focal = cam_in_picture(torch.tensor([[0.8, 0.1, -0.2]]), [square], 640, 480)
    x, y, z = cam_t[0]
    assert abs(focal * x / z + 320 - (300 + 64 * 0.8 * 0.1)) < 1e-3
    assert abs(focal * y / z + 240 - (200 + 64 * 0.8 * -0.2)) < 1e-3
