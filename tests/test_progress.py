"""How far a piece of work is, and who hears of it."""

import threading

import pytest

from champ.progress import (
    Stage,
    advance,
    counted,
    current_stage,
    doing,
    line_of,
    listening,
    portion,
    printed,
)


def work(steps: int) -> None:
    for done in range(1, steps + 1):
        advance(done, steps)


def test_only_the_innermost_listener_hears():
    outer, inner = [], []
    work(2)
    with listening(lambda *far: outer.append(far)):
        work(1)
        with listening(lambda *far: inner.append(far)):
            work(2)
        work(1)
    work(2)
    assert outer == [(1, 1), (1, 1)] and inner == [(1, 2), (2, 2)]


def test_a_portion_of_a_larger_work():
    heard = []
    with listening(lambda *far: heard.append(far)):
        with portion(0, 4, 10):
            work(2)
            with portion(1, 1, 2):
                work(2)
        with portion(4, 0, 10):
            work(2)
    assert heard == [(2, 10), (4, 10), (2, 10), (4, 10), (4, 10), (4, 10)]
    with portion(0, 1, 2):
        work(3)  # nobody listens


def test_a_listener_may_stop_the_work_and_is_forgotten():
    def stop(done, total):
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError), listening(stop), portion(0, 3, 3):
        work(3)
    work(3)


def test_another_thread_is_not_heard():
    heard = []
    with listening(lambda *far: heard.append(far)):
        thread = threading.Thread(target=work, args=(3,))
        thread.start()
        thread.join()
    assert heard == []


def test_items_are_counted():
    heard = []
    with listening(lambda *far: heard.append(far)):
        assert [letter for letter in counted("abc")] == ["a", "b", "c"]
    assert heard == [(0, 3), (1, 3), (2, 3)]


def test_each_step_is_printed_once(capsys):
    with listening(printed()):
        for done in (0, 0, 1, 1, 2):
            advance(done, 2)
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "0 of 2", "1 of 2", "2 of 2"
    ]  # fmt: skip


def test_a_stage_is_known_inside_of_it_and_in_words():
    assert current_stage() is None
    with doing("Drawing"), doing("Fitting", ""):
        assert current_stage() == Stage("Fitting", "")
    with doing("Drawing"):
        assert line_of(current_stage(), 12, 48, 3.0) == "Drawing: frame 12 of 48, about 9 s left"
    assert line_of(Stage("Fitting", ""), 1, 3, 100.0) == "Fitting: 33 %, about 3 min left"
    assert line_of(Stage("Fitting", ""), 1, 100, 100.0) == "Fitting: 1 %, about 2 h 45 min left"
    assert line_of(Stage("Drawing"), 0, 48, 3.0) == "Drawing: frame 0 of 48"
    assert line_of(Stage("Drawing"), 48, 48, 3.0) == "Drawing: frame 48 of 48"
