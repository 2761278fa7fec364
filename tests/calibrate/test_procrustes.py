"""Known moves are found again, whatever disturbs them, and what cannot be aligned has a defined result."""

import numpy as np
import pytest

from champ.calibrate.procrustes import IDENTITY, align, align_clip, similarity, transformed
from champ.progress import listening

# A standing person of height 1 who faces the camera; their left is on the right.
STANDING = np.array([
    (0, 0.07), (0.02, 0.06), (-0.02, 0.06), (0.045, 0.07), (-0.045, 0.07), (0.11, 0.18), (-0.11, 0.18), (0.14, 0.34),
    (-0.14, 0.34), (0.15, 0.48), (-0.15, 0.48), (0.07, 0.5), (-0.07, 0.5), (0.08, 0.74), (-0.08, 0.74), (0.09, 0.96),
    (-0.09, 0.96),
])  # fmt: skip
TORSO, FACE = [5, 6, 11, 12], [0, 1, 2, 3, 4]


def person(height=400.0, x=256.0, y=50.0, scores=1.0) -> np.ndarray:
    return np.column_stack([STANDING * height + (x, y), np.full(17, scores)])


def move(points: np.ndarray, scale: float, degrees: float, shift=(0.0, 0.0)) -> np.ndarray:
    turn = np.radians(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([points[:, :2] @ linear.T + shift, points[:, 2]])


def without(points: np.ndarray, *missing: int) -> np.ndarray:
    points = points.copy()
    points[list(missing), 2] = 0
    return points


# --- the fit ------------------------------------------------------------------------------------------------------


def test_the_similarity_is_the_least_squares_solution_in_complex_numbers():
    """a = sum w conj(p) q / sum w |p|^2 of centred points, which has no reflections to begin with."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q, w = rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), rng.uniform(0.1, 1, 6)
        z, target = ((x - np.average(x, axis=0, weights=w)) @ (1, 1j) for x in (p, q))
        a = (w * z.conj() * target).sum() / (w * abs(z) ** 2).sum()
        matrix = similarity(p, q, w)
        np.testing.assert_allclose(matrix[:, :2], [[a.real, -a.imag], [a.imag, a.real]], atol=1e-12)
        np.testing.assert_allclose(np.average(transformed(matrix, p) - q, axis=0, weights=w), 0, atol=1e-12)


def test_a_weight_of_two_is_the_point_twice():
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    twice = similarity(np.vstack([p, p[:1]]), np.vstack([q, q[:1]]), np.ones(6))
    np.testing.assert_allclose(similarity(p, q, np.array([2.0, 1, 1, 1, 1])), twice, atol=1e-12)


def test_reflection_is_refused():
    p = np.array([(0.0, 0), (2, 0), (0, 1), (2, 1)])
    matrix = similarity(p, p * (-1, 1), np.ones(4))
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(("height", "noise"), [(450, 2.0), (300, 2**0.5)])
def test_known_moves_are_recovered_to_half_a_percent_and_half_a_degree(height, noise):
    """Root mean square over moves; up to 40 % of the points are anywhere. The noise is 2 pixels in x and in y for a
    person of 450 pixels, 2 pixels together for one of 300.

    No estimator does much better: of n points that lie r from their middle (root mean square) nothing tells a scale
    more exactly than to noise / (r sqrt(n))."""
    rng = np.random.default_rng(2)
    for share in (0.0, 0.2, 0.4):
        errors = []
        for _ in range(150):
            scale, degrees = 2 ** rng.uniform(-1, 1), rng.uniform(-45, 45)
            target = person(height)
            reference = move(target, 1 / scale, -degrees)
            target[:, :2] += rng.normal(0, noise, (17, 2))
            lost = rng.permutation(17)[: int(share * 17)]
            target[lost, :2] = rng.uniform((0, 0), (512, 768), (len(lost), 2))
            found = align(reference, target)
            errors.append((100 * (found.scale / scale - 1), found.degrees - degrees))
        assert (np.sqrt(np.square(errors).mean(0)) < 0.5).all(), share


def test_exact_points_give_the_exact_move_and_outliers_do_not_count():
    target = move(person(), 0.5, 30, (300, 100))
    target[[9, 10, 15], :2] += (80, -60)
    found = align(person(), target)
    assert found.scale == pytest.approx(0.5, abs=1e-9) and found.degrees == pytest.approx(30, abs=1e-9)
    assert not found.used[[9, 10, 15]].any() and found.used.sum() == 14 and found.residual < 1e-9


@pytest.mark.parametrize(("points", "rows"), [("face", FACE), ("torso", TORSO), ("all", list(range(17)))])
def test_fixed_points_decide_alone(points, rows):
    target = person()
    others = [i for i in range(17) if i not in rows]
    target[others, :2] = np.random.default_rng(3).uniform(0, 400, (len(others), 2))
    found = align(person(), target, points)
    assert found.used.nonzero()[0].tolist() == rows and found.points == points
    np.testing.assert_allclose(found.matrix, IDENTITY, atol=1e-9)


def test_the_result_does_not_depend_on_the_run():
    rng = np.random.default_rng(4)
    target = person()
    target[:, :2] += rng.normal(0, 30, (17, 2))
    first, second = (align(person(), target) for _ in range(2))
    assert np.array_equal(first.matrix, second.matrix) and np.array_equal(first.used, second.used)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_person_seen_from_behind_is_aligned_by_the_middle_of_the_body():
    front, behind = without(person(), 1), person()
    behind[:, 0] = 512 - behind[:, 0]  # left and right exchanged, as detectors and bodies have it
    found = align(front, without(move(behind, 0.5, 20), *FACE))
    assert found.mirrored and found.scale == pytest.approx(0.5) and found.degrees == pytest.approx(20)
    point = np.array([[256.0, 250, 1]])
    np.testing.assert_allclose(transformed(found.matrix, point[:, :2]), move(point, 0.5, 20)[:, :2], atol=1e-6)
    assert not align(front, person()).mirrored


def test_points_on_a_line_are_aligned_and_said_to_be():
    line = person()
    line[:, 0] = 256
    found = align(line, move(line, 2.0, -10, (30, 40)))
    assert found.line and not found.mirrored
    assert found.scale == pytest.approx(2) and found.degrees == pytest.approx(-10)
    assert not align(person(), person()).line


def test_a_scale_beyond_the_limits_is_clamped_about_the_person():
    target = move(person(), 0.1, 0, (200, 300))
    found = align(person(), target, "all")
    assert found.clamped and found.scale == pytest.approx(0.2)
    np.testing.assert_allclose(transformed(found.matrix, person()[:, :2]).mean(0), target[:, :2].mean(0), atol=1e-6)


def test_what_cannot_be_told_is_not_guessed():
    everywhere = person()
    everywhere[:, :2] = np.random.default_rng(5).uniform(0, 512, (17, 2))
    heap = person(height=4)
    assert align(person(), everywhere) is None  # no set of points agrees
    assert align(person(), heap, "all") is None  # all points in one place
    assert align(person(), without(person(), *range(16))) is None
    assert align(without(person(), *range(17)), person()) is None


def test_fall_backs_of_a_clip():
    nobody = without(person(), *range(17))
    torso_only = without(move(person(), 0.5, 0), *[i for i in range(17) if i not in TORSO])
    people = np.stack([nobody, person(), nobody, torso_only, nobody, nobody, move(person(), 0.7, 0)])
    heard = []
    with listening(lambda *count: heard.append(count)):
        found = align_clip(person(), people, "face", [0, 0, 0, 0, 0, 1, 1])
    assert heard == [(i + 1, 7) for i in range(7)]
    assert [a.points for a in found] == ["frame 1", "face", "frame 1", "torso", "frame 3", "frame 6", "face"]
    assert [a.aligned for a in found] == [False, True, False, True, False, False, True]
    for frame, source in ((0, 1), (2, 1), (4, 3), (5, 6)):
        assert np.array_equal(found[frame].matrix, found[source].matrix)


def test_a_clip_that_cannot_be_aligned_at_all():
    nobody = without(person(), *range(17))
    for reference, people in ((nobody, person()), (person(), nobody)):
        found = align_clip(reference, np.stack([people] * 2))
        assert [a.points for a in found] == ["none", "none"]
        assert all(np.array_equal(a.matrix, IDENTITY) for a in found)


def test_unknown_points_are_refused():
    with pytest.raises(ValueError, match="no points called 'hands'; choose from auto, face, torso, all"):
        align_clip(person(), person()[None], "hands")
