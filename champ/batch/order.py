"""Which row a worker makes next, so that what its ComfyUI still knows is used again."""

from collections import deque
from collections.abc import Collection, Hashable, Sequence

from .plan import Task
from .workflow import Point, Workflow


def cell(task: Task, point: Point) -> Hashable:
    """Returns what a row puts into an input; None leaves the workflow's own."""
    value = task.files.get(point, task.values.get(point))
    return value if isinstance(value, Hashable) else str(value)


def nodes_saved(tasks: Sequence[Task], workflow: Workflow) -> dict[Point, int]:
    """Counts, for each input in which the rows differ, how many nodes need not run again while it stays the same,
    because they depend on no other input that changes. Inputs that save nothing are left out."""
    points = dict.fromkeys(point for task in tasks for point in (*task.files, *task.values))
    varied = [point for point in points if len({cell(task, point) for task in tasks}) > 1]
    saved = dict.fromkeys(varied, 0)
    for node in workflow.nodes:
        above = workflow.above(node)
        on = [point for point in varied if point[0] in above]
        if len(on) == 1:
            saved[on[0]] += 1
    return {point: count for point, count in saved.items() if count}


class Order:
    """The rows that wait. Rows that share the input which saves most are a group; a worker stays with its group, and in
    it rows that share another input follow each other."""

    def __init__(self, tasks: Sequence[Task], workflow: Workflow) -> None:
        saved = nodes_saved(tasks, workflow)
        shared = {p: c for p, c in saved.items() if len({cell(task, p) for task in tasks}) < len(tasks)}
        self.points = sorted(shared, key=lambda point: -shared[point])
        self.groups: dict[Hashable, deque[str]] = {}
        self.keys = {task.name: tuple(cell(task, point) for point in self.points) for task in tasks}
        seen: dict[Hashable, int] = {}
        for key in self.keys.values():
            for part in key:
                seen.setdefault(part, len(seen))
        for name in sorted(self.keys, key=lambda name: [seen[part] for part in self.keys[name]]):
            self._group(name).append(name)
        self.places: dict[Hashable, Hashable] = {}  # worker -> its group
        self.later: deque[str] = deque()  # rows that failed
        self.failed_on: dict[str, set[Hashable]] = {}  # where

    def _group(self, name: str) -> deque[str]:
        return self.groups.setdefault(self.keys[name][:1], deque())

    def __len__(self) -> int:
        return sum(map(len, self.groups.values())) + len(self.later)

    def take(self, worker: Hashable, workers: Collection[Hashable] = ()) -> str | None:
        """Returns the next row for a worker: of its group, else of the largest one without a worker, else of the
        largest one; rows that failed come last, and where one failed it comes back only when it failed on all
        `workers`."""
        own = self.groups.get(self.places.get(worker))
        if own:
            return own.popleft()
        waiting = [key for key, rows in self.groups.items() if rows]
        if not waiting:
            return self._failed_elsewhere(worker, workers)
        taken = {place for other, place in self.places.items() if other != worker}
        free = [key for key in waiting if key not in taken]
        chosen = max(free or waiting, key=lambda key: len(self.groups[key]))
        self.places[worker] = chosen
        return self.groups[chosen].popleft()

    def _failed_elsewhere(self, worker: Hashable, workers: Collection[Hashable]) -> str | None:
        for name in self.later:
            if worker not in self.failed_on[name] or self.failed_on[name].issuperset(workers):
                self.later.remove(name)
                return name
        return None

    def give_back(self, name: str) -> None:
        """Takes back a row whose worker was lost through no fault of the row."""
        self._group(name).appendleft(name)

    def try_later(self, name: str, worker: Hashable) -> None:
        self.failed_on.setdefault(name, set()).add(worker)
        self.later.append(name)

    def forget(self, worker: Hashable) -> None:
        self.places.pop(worker, None)
