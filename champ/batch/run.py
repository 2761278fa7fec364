"""The run of a batch: gives rows to workers, takes them back from those that die, and puts results in their place."""

import json
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..output import whole
from ..server import Failure
from .contents import contents, is_same
from .folder import MEASURES, BatchFolder, is_full
from .jobs import Job, Make, Measure, Outcome, Recipe
from .order import Order
from .plan import TRUTH, TRUTH_MASK, Task
from .pool import Event, Lost, NotReady, Ready
from .progress import Progress

TRIES = 3  # of a row before it is set aside, and of starting a worker before that is given up
LOOK = 1.0  # seconds between two looks at the cluster
REPORT = 60.0  # seconds between two reports


class Workers(Protocol):
    """What a run needs from a pool."""

    def fill(self, wanted: int) -> None: ...
    def idle(self) -> list[int]: ...
    def busy(self) -> int: ...
    def alive(self) -> Collection[int]: ...
    def give(self, worker: int, job: Job) -> None: ...
    def wait(self, seconds: float) -> Sequence[Event]: ...


@dataclass(frozen=True)
class Measuring:
    """How rows with a true clip are measured."""

    protocol: str = "clean"
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    workers: int = 1 << 30
    keep_free: float = 0.0  # bytes of the disk


def true_files(task: Task) -> dict[str, Path]:
    """Returns what a row's clip is compared with, by the names of the columns."""
    return {name: path for name, path in ((TRUTH, task.truth), (TRUTH_MASK, task.truth_mask)) if path is not None}


class Run:
    """One go at the rows that are left."""

    def __init__(
        self,
        folder: BatchFolder,
        recipe: Recipe,
        pool: Workers,
        say: Callable[[str], None],
        measuring: Measuring | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it does not change
    ) -> None:
        self.folder, self.recipe, self.pool, self.say = folder, recipe, pool, say
        self.measuring, self.limits = measuring, limits
        self.tasks: dict[str, Task] = {}
        self.made_rows: set[str] = set()
        self.messages: dict[str, list[str]] = {}  # why rows have failed
        self.to_measure: deque[str] = deque()
        self.compared: dict[str, dict[str, dict]] = {}  # the files with which rows are being compared
        self.room = limits.workers  # less, when some do not start
        self.unready = 0  # workers that did not start, one after the other

    def go(self, tasks: Sequence[Task], done: Sequence[Task] = (), report: Callable[[], object] = lambda: None) -> None:
        """Makes the tasks, and measures them and those that are done but not measured. `report` is called now and
        then."""
        self.tasks = {task.name: task for task in (*tasks, *done)}
        self.order = Order(tasks, self.recipe.workflow)
        for task in done:  # it may have failed with other inputs, which the table does not have any more
            self.folder.forget_failure(task.name)
        self.to_measure.extend(task.name for task in done if self.is_to_be_measured(task))
        self.progress = Progress(len(tasks), self.say)
        reported = time.monotonic()
        while self.work_left() or self.pool.busy():
            self.pool.fill(min(self.room, self.work_left() + self.pool.busy()))
            for worker in self.pool.idle():
                if (job := self.next_job(worker)) is not None:
                    self.pool.give(worker, job)
            for event in self.pool.wait(LOOK):
                self.handle(event)
            self.progress.show(self.pool.busy())
            if time.monotonic() - reported > REPORT:
                report()
                reported = time.monotonic()
        self.progress.end()

    def work_left(self) -> int:
        return len(self.order) + len(self.to_measure)

    def is_to_be_measured(self, task: Task) -> bool:
        return self.measuring is not None and task.truth is not None and not self.is_measured(task)

    def is_measured(self, task: Task) -> bool:
        """Returns whether a row is measured as requested, against the files that are there now; a row that could not be
        measured is tried again."""
        found, asked = self.folder.measures(task.name) or {}, self.measuring
        recorded, files = found.get("inputs", {}), true_files(task)
        return (
            asked is not None
            and bool(found.get("scores"))
            and found.get("protocol") == asked.protocol
            and set(asked.networks) <= set(found.get("networks", ()))
            and recorded.keys() == files.keys()
            and all(
                is_same(path, recorded[name], elsewhere=recorded[name].get("path") != str(path))
                for name, path in files.items()
            )
        )

    def next_job(self, worker: int) -> Job | None:
        while self.to_measure:
            name = self.to_measure.popleft()
            if (job := self.measure_job(self.tasks[name])) is not None:
                return job
        if (free := self.folder.free_bytes()) < self.limits.keep_free:
            raise self.full(f"{free / 1e6:.0f} MB are free, --keep-free is {self.limits.keep_free / 1e6:.0f}")
        if (row := self.order.take(worker, self.pool.alive())) is None:
            return None
        self.progress.begin()
        return Make(self.tasks[row], self.recipe, self.folder.attempt())

    def measure_job(self, task: Task) -> Measure | None:
        assert self.measuring is not None and task.truth is not None
        manifest = self.folder.manifest(task.name) or {}
        made = tuple(self.folder.clips / task.name / file for file in manifest.get("result", ()))
        if not made:
            self.write_measures(task.name, {}, "the row has no clip that could be measured")
            return None
        files = true_files(task).items()
        try:  # before it is measured: a file that changes meanwhile shall not pass for the one that was
            self.compared[task.name] = {name: {"path": str(path), **contents(path).to_json()} for name, path in files}
        except OSError as error:
            self.write_measures(task.name, {}, f"the true clip cannot be read: {error}")
            return None
        return Measure(task.name, made, task.truth, task.truth_mask, self.measuring.protocol, self.measuring.networks)

    def handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.unready = 0
        elif isinstance(event, NotReady):
            self.not_ready(event)
        elif isinstance(event, Lost):
            self.lost(event)
        elif isinstance(event.job, Make):
            self.made(event.job, event.outcome, event.worker)
        else:
            self.measured(event.job, event.outcome)

    def not_ready(self, event: NotReady) -> None:
        """One worker that cannot start is left out; where none can, there is nothing to wait for."""
        self.unready += 1
        self.say(f"a worker did not start: {event.message}")
        if self.unready >= TRIES:
            self.room = len(self.pool.alive())
            if not self.room:
                raise Failure(f"no worker starts, {self.left_text()}; the last one said: {event.message}")

    def lost(self, event: Lost) -> None:
        self.order.forget(event.worker)
        job = event.job
        if job is None:
            self.unready += not event.node_gone
            if self.unready >= TRIES:
                raise Failure(f"workers end while they start, {self.left_text()}; the last one: {event.message}")
        elif event.node_gone:
            self.say(f"a node has gone; {job.name} goes to another one")
            self.to_measure.append(job.name) if isinstance(job, Measure) else self.order.give_back(job.name)
        elif isinstance(job, Measure):
            self.write_measures(job.name, {}, f"the worker ended: {event.message}")
        else:
            self.failed(job, Outcome(f"the worker ended: {event.message}"), event.worker)

    def made(self, job: Make, outcome: Outcome, worker: int) -> None:
        if outcome.full:
            raise self.full(outcome.message)
        if outcome.message:
            self.failed(job, outcome, worker)
            return
        try:
            self.folder.accept(job.name, job.attempt)
        except OSError as error:
            if is_full(error):
                raise self.full(str(error)) from None
            if not self.progress.made and not job.attempt.exists():
                raise Failure(
                    f"{job.name} was made, but its files are not in {self.folder.work}: --out must be a folder that "
                    "all machines share, or give --ship"
                ) from None
            self.failed(job, Outcome(f"its files could not be moved into their place: {error}"), worker)
            return
        self.progress.done()
        self.made_rows.add(job.name)
        if self.is_to_be_measured(job.task):
            self.to_measure.append(job.name)

    def failed(self, job: Make, outcome: Outcome, worker: int) -> None:
        messages = self.messages.setdefault(job.name, [])
        messages.append(outcome.message)
        if outcome.final or len(messages) >= TRIES:
            with self.noticing_a_full_disk():
                prompt = self.recipe.workflow.filled(job.task.named())
                self.folder.set_aside(job.name, messages, outcome.log, prompt)
            self.progress.set_aside()
            self.say(f"{job.name} is set aside: {outcome.message}")
        else:
            self.order.try_later(job.name, worker)
            self.say(f"{job.name} failed and will be tried again: {outcome.message}")

    def measured(self, job: Measure, outcome: Outcome) -> None:
        if outcome.message:
            self.say(f"{job.name} could not be measured: {outcome.message}")
        self.write_measures(job.name, outcome.scores, outcome.message)

    def write_measures(self, name: str, scores: Mapping[str, float], problem: str) -> None:
        assert self.measuring is not None
        found = {
            **vars(self.measuring),
            "inputs": self.compared.pop(name, {}),
            "scores": dict(scores),
            "problem": problem,
        }
        with self.noticing_a_full_disk(), whole(self.folder.clips / name / MEASURES, replace=True) as made:
            made.write_text(json.dumps(found, indent=1), encoding="utf-8")

    @contextmanager
    def noticing_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if is_full(error):
                raise self.full(str(error)) from None
            raise

    def full(self, why: str) -> Failure:
        return Failure(
            f"the disk is full ({why}): free some space and give the same command again; {self.left_text()}, and what "
            f"is done in {self.folder.folder} will not be made again"
        )

    def left_text(self) -> str:
        return f"{self.progress.left()} rows are left"
