"""Rows that share work follow each other on a worker, and no worker waits while there is a row."""

from pathlib import Path

from champ.batch.order import Order, nodes_saved
from champ.batch.plan import Task
from champ.batch.workflow import Workflow

# Two nodes need the video alone, one the picture alone, one both; one needs nothing that changes.
WORKFLOW = Workflow("w", {
    "video": {"class_type": "V", "inputs": {"file": "x"}},
    "pose": {"class_type": "P", "inputs": {"video": ["video", 0], "network": ["network", 0]}},
    "network": {"class_type": "N", "inputs": {}},
    "picture": {"class_type": "I", "inputs": {"image": "x"}},
    "clip": {"class_type": "C", "inputs": {"pose": ["pose", 0], "picture": ["picture", 0], "seed": 1}},
})  # fmt: skip
VIDEO, PICTURE, SEED = ("video", "file"), ("picture", "image"), ("clip", "seed")


def task(video: str, picture: str, seed: int = 1) -> Task:
    files = {VIDEO: Path(video), PICTURE: Path(picture)}
    return Task(f"{video}{picture}{seed}", {}, {SEED: seed}, files)


def run(order: Order, workers: int) -> dict[int, list[str]]:
    """Which rows each worker makes, if all take as long."""
    made: dict[int, list[str]] = {worker: [] for worker in range(workers)}
    while len(order):
        for worker in made:
            if (name := order.take(worker)) is not None:
                made[worker].append(name)
    return made


def changes(names: list[str], letter: int) -> int:
    return sum(a[letter] != b[letter] for a, b in zip(names, names[1:]))


def test_what_each_input_saves():
    tasks = [task("a", "x"), task("b", "x"), task("a", "y", 2)]
    assert nodes_saved(tasks, WORKFLOW) == {VIDEO: 2, PICTURE: 1}
    assert nodes_saved(tasks[:1], WORKFLOW) == {}


def test_a_worker_stays_with_its_video_and_changes_pictures_least():
    tasks = [task(video, picture, seed) for seed in (1, 2) for picture in "xyz" for video in "abcd"]
    order = Order(tasks, WORKFLOW)
    assert order.points == [VIDEO, PICTURE]
    made = run(order, 2)
    assert sorted(name for names in made.values() for name in names) == sorted(t.name for t in tasks)
    for names in made.values():
        assert len(names) == 12 and changes(names, 0) == 1 and changes(names, 1) <= 5


def test_the_last_large_group_is_shared():
    made = run(Order([task("a", f"{i}") for i in range(10)] + [task("b", "x")], WORKFLOW), 3)
    assert sorted(map(len, made.values())) == [3, 4, 4]


def test_rows_that_share_nothing_stay_in_the_order_of_the_table():
    tasks = [task(letter, letter) for letter in "dacb"]
    assert run(Order(tasks, WORKFLOW), 1)[0] == [t.name for t in tasks]


def test_given_back_rows_come_first_and_failed_ones_last():
    order = Order([task("a", "x"), task("a", "y"), task("b", "x")], WORKFLOW)
    first, second = order.take(0), order.take(0)
    order.give_back(second)
    order.try_later(first, 0)
    assert [order.take(0) for _ in range(4)] == [second, "bx1", first, None]
    order.try_later(first, 0)
    assert len(order) == 1


def test_a_row_that_failed_goes_to_another_worker_as_long_as_there_is_one():
    order = Order([task("a", "x"), task("b", "x")], WORKFLOW)
    first, second = order.take(0), order.take(0)
    order.try_later(first, 0)
    order.try_later(second, 1)
    assert order.take(0, {0, 1}) == second and order.take(0, {0, 1}) is None
    assert order.take(1, {0, 1}) == first
    order.try_later(first, 1)
    assert order.take(0, {0, 1}) == first  # it failed on both
