"""The square that HMR2 looks at, beside the official preprocessing."""

import cv2
import numpy as np
import pytest
import torch
from hmr2_data import HEIGHT, WIDTH, box, expected, picture
from scipy.ndimage import gaussian_filter

from champ.estimate.crops import MEAN, STD, Square, cam_in_picture, crop_square


def opencv4(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """What cv2.warpAffine of version 4 makes of a picture (H, W, 3) in 256x256 pixels, in float64: bilinear between
    coordinates that are counted in 1024ths of a pixel and cut down to 32nds. Version 5 does so only for float64."""
    back = cv2.invertAffineTransform(matrix)
    x = np.arange(256)
    rows, columns = np.zeros((2, 256, 256), dtype=np.int64)
    for y in range(256):
        columns[y] = np.rint(back[0, 0] * x * 1024) + np.rint((back[0, 1] * y + back[0, 2]) * 1024) + 16
        rows[y] = np.rint(back[1, 0] * x * 1024) + np.rint((back[1, 1] * y + back[1, 2]) * 1024) + 16
    rows, columns = rows >> 5, columns >> 5
    height, width = picture.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = picture
    total = 0
    for down in 0, 1:
        for right in 0, 1:
            i, j = (rows >> 5) + down, (columns >> 5) + right
            weight = abs(1 - down - (rows & 31) / 32) * abs(1 - right - (columns & 31) / 32)
            total = total + weight[..., None] * padded[(i + 1).clip(0, height + 1), (j + 1).clip(0, width + 1)]
    return total


def official_crop(picture: np.ndarray, square: Square) -> np.ndarray:
    """The steps of ViTDetDataset with OpenCV 4, in grey levels (256, 256, 3): scipy blurs the whole picture in float64
    if it is to shrink, and a picture that is not blurred comes out in whole grey levels."""
    seen = picture.astype(np.float64)
    blurred = square.size / 512 > 1.1
    if blurred:
        seen = gaussian_filter(seen, sigma=((square.size / 512 - 1) / 2,) * 2 + (0,), mode="nearest")
    centre, half = np.array([square.x, square.y]), square.size / 2
    corners = np.array([centre, centre + (0, half), centre + (half, 0)], dtype=np.float32)
    matrix = cv2.getAffineTransform(corners, np.array([[128, 128], [128, 256], [256, 128]], dtype=np.float32))
    warped = opencv4(seen, matrix)
    assert np.abs(warped - cv2.warpAffine(seen, matrix, (256, 256), flags=cv2.INTER_LINEAR)).max() < 1e-9
    if blurred:
        return warped
    warped = np.floor(warped + 0.5)
    if cv2.__version__.startswith("4."):
        assert np.array_equal(warped, cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_LINEAR))
    return warped


@pytest.mark.parametrize("number", range(3))  # blurred, small, partly outside the picture
def test_official_crops(number):
    """The official code itself made every 16th pixel of them, with OpenCV 4."""
    square = Square.around(box(number))
    assert torch.allclose(torch.tensor([square.x, square.y]), expected()["centre"][number], atol=1e-4)
    assert abs(square.size - float(expected()["size"][number])) < 1e-4
    found = crop_square(picture(), square)
    assert (found[:, ::16, ::16] - expected()["crops"][number]).abs().max() < 2e-6
    wanted = ((official_crop(picture(), square) - MEAN) / STD).transpose(2, 0, 1)
    assert np.abs(found.numpy() - wanted).max() < 2e-6


@pytest.mark.parametrize("largest", [60, 400, 1500])
def test_any_box(largest):
    """Boxes with fractions, small and large, inside and outside of the picture."""
    random = np.random.default_rng(largest)
    noise = random.integers(0, 256, (180, 320, 3), dtype=np.uint8)
    for _ in range(25):
        corner, sides = random.uniform((-60, -60), (300, 160)), random.uniform(largest / 8, largest, 2)
        square = Square.around(np.concatenate([corner, corner + sides]).astype(np.float32))
        found = crop_square(noise, square).numpy().transpose(1, 2, 0) * STD + MEAN
        assert np.abs(found - official_crop(noise, square)).max() < 1e-3


def test_the_square_is_as_high_as_a_box_of_three_to_four():
    assert Square.around(np.array([10, 20, 40, 120, 0.5])).size == 100
    assert Square.around(np.array([10, 20, 130, 60])).size == pytest.approx(160)
    assert (Square.around(np.array([10, 20, 130, 60])).x, Square.around(np.array([10, 20, 130, 60])).y) == (70, 40)


def test_outside_the_picture_is_black():
    white = np.full((50, 60, 3), 255, np.uint8)
    black = torch.from_numpy((-MEAN / STD).astype(np.float32))
    assert torch.allclose(crop_square(white, Square(500, 500, 100)), black[:, None, None].expand(3, 256, 256))
    half = crop_square(white, Square(0, 25, 40))
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
