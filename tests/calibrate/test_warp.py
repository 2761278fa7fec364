"""The reference where the alignment says, without dark edges, in few versions."""

import numpy as np
import pytest
import torch

from champ.calibrate.procrustes import IDENTITY, transformed
from champ.calibrate.warp import TOLERANCE, after, distinct, fit_matrix, warp
from champ.model.images import FITS, fit_images

SHIFT = np.array([[1.0, 0, 10], [0, 1, -4]])


def blob(width=120, height=90, x=70.3, y=30.8, radius=9.0) -> np.ndarray:
    """A soft light spot on grey, its middle at x, y with pixel centres at +0.5."""
    v, u = np.mgrid[:height, :width] + 0.5
    spot = np.exp(-((u - x) ** 2 + (v - y) ** 2) / radius**2)
    return np.repeat((80 + 150 * spot).round().astype(np.uint8)[..., None], 3, 2)


def middle(picture: np.ndarray) -> np.ndarray:
    weight = np.clip(picture[..., 0].astype(float) - 90, 0, None)
    v, u = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


def test_the_identity_changes_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    warped = warp(picture, IDENTITY, 40, 30, picture[..., 0])
    assert np.array_equal(warped.picture, picture) and np.array_equal(warped.person, picture[..., 0])
    assert (warped.valid == 255).all()


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0, 1.9, 3.0])
def test_a_point_lands_where_the_matrix_says(scale):
    turn = np.radians(25)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.column_stack([linear, np.array([100, 80]) - linear @ (70.3, 30.8)])
    found = middle(warp(blob(), matrix, 200, 160).picture)
    assert np.linalg.norm(found - (100, 80)) < 0.15


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (240, 184)])
def test_the_fitted_picture_is_the_one_of_encode_reference(how, size):
    picture = blob()
    warped = warp(picture, fit_matrix(120, 90, *size, how), *size)
    expected = fit_images(torch.from_numpy(picture)[None].float() / 255, *size, how)[0].numpy() * 255
    inside = warped.valid > 127
    assert abs(warped.picture[inside] - expected[inside]).mean() < 1
    # Outside are only pad's edges, which `fit` leaves black.
    assert inside.mean() > 0.4 and (how == "pad" or inside.all())
    assert not expected[warped.valid == 0].any()


def test_nothing_dark_comes_in_from_outside():
    warped = warp(np.full((40, 40, 3), 200, np.uint8), SHIFT, 40, 40)
    assert (warped.picture == 200).all()
    expected = np.zeros((40, 40), np.uint8)
    expected[:36, 10:] = 255
    assert np.array_equal(warped.valid, expected)


def test_fine_stripes_are_averaged_when_the_picture_shrinks():
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    small = warp(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 20, 20).picture
    assert abs(small.astype(int) - 100).max() <= 2


def test_after_is_the_composition():
    first, second = np.array([[2.0, 1, 3], [0, 1, -1]]), np.array([[0.0, -1, 5], [1, 0, 2]])
    points = np.random.default_rng(1).normal(size=(4, 2))
    np.testing.assert_allclose(
        transformed(after(second, first), points), transformed(second, transformed(first, points))
    )


# --- few versions -------------------------------------------------------------------------------------------------


def shifts(*pixels: float) -> list[np.ndarray]:
    return [np.array([[1.0, 0, x], [0, 1, 0]]) for x in pixels]


CORNERS = np.array([[0.0, 0], [100, 200]])


def test_frames_that_nearly_agree_share_a_warp():
    chosen, which, off = distinct(shifts(0, 1, 50, 51, 53, 2, 100), CORNERS, 32)
    assert np.array_equal(chosen[0], IDENTITY)
    assert len(chosen) == 3 and off <= TOLERANCE
    assert which[0] == which[1] == which[5] == 0
    assert which[2] == which[3] == which[4] and len({*which}) == 3


def test_a_long_clip_needs_no_more_than_allowed():
    matrices = shifts(*np.linspace(0, 500, 1000))
    for most in (1, 5, 16):
        chosen, which, off = distinct(matrices, CORNERS, most)
        assert len(chosen) == most + 1
        distance = [abs(m[0, 2] - chosen[i][0, 2]) for m, i in zip(matrices, which)]
        assert off == pytest.approx(max(distance)) and off <= 500 / most
        nearest = [min(abs(m[0, 2] - c[0, 2]) for c in chosen) for m in matrices]
        assert distance == pytest.approx(nearest)


def test_a_reference_that_fits_needs_no_warp():
    chosen, which, _ = distinct(shifts(0, 1, 2, 3), CORNERS, 32)
    assert len(chosen) == 1 and not which.any()


def test_a_turn_is_measured_where_the_person_is():
    """Two degrees move the far end of a person by 7 pixels, the near end by nothing."""
    turn = np.radians(2)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
    assert len(distinct([turned], CORNERS, 32)[0]) == 2
    assert len(distinct([turned], CORNERS[:1] + 20, 32)[0]) == 1
