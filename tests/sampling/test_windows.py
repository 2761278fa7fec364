"""Which frames are in which window, and with what weight."""

import pytest

from champ.sampling.windows import SCHEDULES, WEIGHTS, looped, open_ended


def test_official_windows():
    def wrap(start, frames):
        return [(start + k) % frames for k in range(24)]

    assert looped(24, 24, 4) == [list(range(24))]
    assert looped(25, 24, 4) == [wrap(0, 25), wrap(20, 25)]
    assert looped(40, 24, 4) == [list(range(24)), [*range(20, 40), 0, 1, 2, 3]]
    assert looped(41, 24, 4) == [wrap(0, 41), wrap(20, 41), wrap(40, 41)]
    assert looped(100, 24, 4) == [wrap(start, 100) for start in (0, 20, 40, 60, 80)]
    for frames in range(25, 400):
        assert len(looped(frames, 24, 4)) == -(-frames // 20)


def test_open_windows_are_few_and_even():
    assert open_ended(40, 24, 4) == [list(range(24)), list(range(16, 40))]
    assert [w[0] for w in open_ended(100, 24, 4)] == [0, 19, 38, 57, 76]
    for frames in range(25, 400):
        windows = open_ended(frames, 24, 4)
        shared = [len({*a} & {*b}) for a, b in zip(windows, windows[1:])]
        assert min(shared) >= 4 and max(shared) - min(shared) <= 1
        assert len(windows) == -(-(frames - 4) // 20)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("length, overlap", [(24, 4), (16, 8), (8, 0), (2, 1)])
def test_every_frame_is_covered_by_full_windows(name, length, overlap):
    for frames in [*range(1, 70), 100, 333]:
        for step in range(5):
            windows = SCHEDULES[name](frames, length, overlap, step)
            assert set().union(*windows) == set(range(frames))
            assert all(len(set(w)) == len(w) == min(length, frames) for w in windows)
            if name.startswith("open"):
                assert all(w == list(range(w[0], w[0] + len(w))) for w in windows)


def test_moving_schedules_move():
    for name in SCHEDULES:
        first, second = (SCHEDULES[name](100, 24, 4, step) for step in (0, 1))
        assert (first != second) == name.endswith("moving")


def test_weights():
    assert WEIGHTS["flat"](4, 1) == [1, 1, 1, 1]
    assert WEIGHTS["pyramid"](5, 1) == [1, 2, 3, 2, 1]
    assert WEIGHTS["pyramid"](4, 1) == [1, 2, 2, 1]
    assert WEIGHTS["ramps"](7, 2) == [1, 2, 3, 3, 3, 2, 1]
