"""Rows are given, given back, tried again and set aside; workers that say what a test wants stand in for servers."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from champ.batch import command, report
from champ.batch import run as run_module
from champ.batch.contents import contents
from champ.batch.folder import FORMAT, MANIFEST, BatchFolder
from champ.batch.jobs import Job, Make, Measure, Outcome, Recipe
from champ.batch.plan import Task
from champ.batch.pool import Event, Finished, Lost, NotReady, Ready
from champ.batch.progress import Progress, duration
from champ.batch.run import Limits, Measuring, Run
from champ.batch.workflow import Workflow
from champ.server import Failure

WORKFLOW = Workflow("w.json", {"1": {"class_type": "X", "inputs": {"seed": 0}}})

MANIFEST_OF_A_ROW = {
    "format": FORMAT,
    "made": "2026-01-01T00:00:00+0000",
    "seconds": 2.0,
    "peak_memory": {"main": None, "graphics": None},
    "worker": {"host": "here"},
    "files": [],
    "result": ["clip.png"],
}


class Scripted:
    """Workers whose answers a function makes of the worker's number, the job, and how often it was tried."""

    def __init__(self, answer: Callable[[int, Job, int], Event], count: int = 2):
        self.answer, self.count = answer, count
        self.ready: list[int] = []
        self.jobs: dict[int, Job] = {}
        self.starting: list[int] = []
        self.started = 0
        self.given: list[str] = []

    def fill(self, wanted):
        while len(self.alive()) < min(wanted, self.count):
            self.started += 1
            self.starting.append(self.started)

    def idle(self):
        return [worker for worker in self.ready if worker not in self.jobs]

    def busy(self):
        return len(self.jobs)

    def alive(self):
        return [*self.ready, *self.starting]

    def give(self, worker, job):
        self.given.append(job.name)
        self.jobs[worker] = job

    def wait(self, seconds):
        events: list[Event] = []
        for worker in self.starting:
            events.append(self.start(worker))
            if isinstance(events[-1], Ready):
                self.ready.append(worker)
        self.starting = []
        for worker, job in list(self.jobs.items()):
            del self.jobs[worker]
            event = self.answer(worker, job, self.given.count(job.name))
            if isinstance(event, Lost):
                self.ready.remove(worker)
            elif isinstance(job, Make) and not event.outcome.message:
                job.attempt.mkdir(parents=True)
                (job.attempt / MANIFEST).write_text(json.dumps(MANIFEST_OF_A_ROW))
            events.append(event)
        return events

    def start(self, worker) -> Event:
        return Ready(worker, {}, {})


def well(worker: int, job: Job, tries: int) -> Event:
    return Finished(worker, job, Outcome())


@pytest.fixture
def run(tmp_path):
    said: list[str] = []

    def start(answer, names: str, pool=None, **options) -> tuple[Run, Scripted, list[str]]:
        pool = pool or Scripted(answer)
        folder = BatchFolder(tmp_path / "out")
        made = Run(folder, Recipe(WORKFLOW, ("1",), "1"), pool, said.append, **options)
        truth = None
        if options.get("measuring"):
            truth = tmp_path / "truth.png"
            truth.write_bytes(b"truth")
        with folder.held():
            made.go([Task(name, {}, {("1", "seed"): i}, truth=truth) for i, name in enumerate(names)])
        return made, pool, said

    return start


def test_every_row_is_made_once(run, tmp_path):
    _, pool, _ = run(well, "abcdefg")
    assert sorted(pool.given) == list("abcdefg")
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == list("abcdefg")


def test_a_row_that_fails_three_times_is_set_aside_and_the_rest_goes_on(run, tmp_path):
    def answer(worker, job, tries):
        fails = job.name == "b" or (job.name == "c" and tries < 3)
        return Finished(worker, job, Outcome(f"failure {tries}", "the log") if fails else Outcome())

    _, pool, said = run(answer, "abcd")
    assert pool.given.count("b") == 3 and pool.given.count("c") == 3
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == ["a", "c", "d"]
    aside = tmp_path / "out" / "failed" / "b"
    assert (aside / "message.txt").read_text() == "try 1: failure 1\ntry 2: failure 2\ntry 3: failure 3\n"
    assert (aside / "log.txt").read_text() == "the log"
    assert json.loads((aside / "workflow.json").read_text())["1"]["inputs"] == {"seed": 1}
    assert "b is set aside: failure 3" in said
    assert pool.given.index("d") < [i for i, name in enumerate(pool.given) if name == "b"][1]  # again, but last


def test_a_row_that_fails_when_it_is_made_again_is_not_done(run, tmp_path):
    first, _, _ = run(well, "ab")
    tasks = list(first.tasks.values())

    def again(answer, left, done) -> tuple[int, list[dict]]:
        second = Run(first.folder, first.recipe, Scripted(answer), lambda message: None)
        with second.folder.held():
            status = command.make(second, left, done, ["a", "b"], "clips")
        return status, report.overview(second.folder, ["a", "b"])

    def fails(worker, job, tries):
        return Finished(worker, job, Outcome("out of memory" if job.name == "b" else ""))

    status, (a, b) = again(fails, tasks, [])
    assert status == 1 and (a["state"], b["state"]) == ("done", "failed")
    assert b["message"].count("out of memory") == 3 and "seconds" not in b
    assert report.summary([a, b])[0] == "2 rows: 1 done, 1 set aside."
    status, (a, b) = again(fails, [], tasks)  # the table is as it was before: the older clip is the row's again
    assert status == 0 and (b["state"], b["message"]) == ("done", "")


def test_a_row_that_waits_to_be_made_again_is_not_done(run, capsys):
    first, _, _ = run(well, "abc")
    second = Run(first.folder, first.recipe, Scripted(well), lambda message: None)
    with second.folder.held():
        assert command.make(second, list(first.tasks.values()), [], list("abc"), "clips", limit=2) == 0
    assert "3 rows: 2 done, 1 left." in capsys.readouterr().out
    assert "\nc,left,,,," in (first.folder.folder / "results.csv").read_text()


def test_what_comfyui_refuses_is_not_tried_again(run):
    _, pool, _ = run(lambda w, job, n: Finished(w, job, Outcome("refused", final=True)), "ab")
    assert sorted(pool.given) == ["a", "b"]


def test_a_worker_that_dies_gives_its_row_back_which_counts_unless_its_node_has_gone(run, tmp_path):
    def dies(node_gone: bool):
        def answer(worker, job, tries):
            if job.name == "b" and tries < 5:
                return Lost(worker, job, node_gone, "killed")
            return well(worker, job, tries)

        return answer

    _, pool, _ = run(dies(node_gone=True), "abc")
    assert pool.given.count("b") == 5 and (tmp_path / "out" / "clips" / "b").exists()
    _, pool, _ = run(dies(node_gone=False), "b")
    assert pool.given.count("b") == 3
    assert "try 3: the worker ended: killed" in (tmp_path / "out" / "failed" / "b" / "message.txt").read_text()


def test_a_full_disk_stops_all_with_a_sentence(run, tmp_path):
    def answer(worker, job, tries):
        return Finished(
            worker, job, Outcome("No space left on device", full=job.name == "c") if job.name == "c" else Outcome()
        )

    with pytest.raises(Failure, match="the disk is full .*free some space and give the same command again; . rows are"):
        run(answer, "abcdef")
    assert (tmp_path / "out" / "clips" / "a").exists() and not (tmp_path / "out" / "clips" / "f").exists()
    with pytest.raises(Failure, match=r"the disk is full \(\d+ MB are free, --keep-free is"):
        run(well, "a", limits=Limits(keep_free=1e18))


def test_a_disk_that_is_full_when_a_row_is_set_aside_stops_all_with_a_sentence(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BatchFolder, "set_aside", full)
    with pytest.raises(Failure, match="the disk is full .*free some space and give the same command again"):
        run(lambda w, job, n: Finished(w, job, Outcome("refused", final=True)), "ab")


def test_results_that_are_on_another_machine_stop_all(run):
    class Elsewhere(Scripted):
        def wait(self, seconds):
            events = super().wait(seconds)
            for event in events:
                if isinstance(event, Finished):
                    shutil.rmtree(event.job.attempt)
            return events

    with pytest.raises(Failure, match="a was made, but its files are not in .*work: --out must be .* or give --ship"):
        run(well, "abc", Elsewhere(well))


def test_workers_that_do_not_start(run):
    class OneStarts(Scripted):
        def start(self, worker):
            return Ready(worker, {}, {}) if worker == 1 else NotReady(worker, "no torch here")

    pool = OneStarts(well, 3)
    run(well, "abcdef", pool)
    assert sorted(pool.given) == list("abcdef") and pool.started <= 6

    class NoneStarts(Scripted):
        def start(self, worker):
            return NotReady(worker, "no torch here")

    with pytest.raises(Failure, match="no worker starts, 2 rows are left; the last one said: no torch here"):
        run(well, "ab", NoneStarts(well, 2))


def test_rows_are_measured_when_they_are_done(run, tmp_path):
    def answer(worker, job, tries):
        if isinstance(job, Make):
            return well(worker, job, tries)
        assert [path.name for path in job.made] == ["clip.png"] and job.protocol == "benchmark"
        problem = job.name == "b"
        return Finished(worker, job, Outcome("sizes differ") if problem else Outcome(scores={"PSNR": 30.0}))

    made, pool, said = run(answer, "ab", measuring=Measuring("benchmark", ("LPIPS",)))
    found = {name: made.folder.measures(name) for name in "ab"}
    truth = {"path": str(tmp_path / "truth.png"), **contents(tmp_path / "truth.png").to_json()}
    asked = {"protocol": "benchmark", "networks": ["LPIPS"], "inputs": {"truth": truth}}
    assert found["a"] == {**asked, "scores": {"PSNR": 30.0}, "problem": ""}
    assert found["b"]["problem"] == "sizes differ" and "b could not be measured: sizes differ" in said
    assert made.is_measured(made.tasks["a"]) and not made.is_measured(made.tasks["b"])
    for other in (Measuring("clean"), Measuring("benchmark", ("LPIPS", "FVD"))):
        made.measuring = other
        assert not made.is_measured(made.tasks["a"])


def test_a_row_is_measured_again_when_what_it_is_compared_with_has_changed(run, tmp_path):
    def answer(worker, job, tries):
        return Finished(worker, job, Outcome(scores={"PSNR": 30.0} if isinstance(job, Measure) else {}))

    made, _, _ = run(answer, "a", measuring=Measuring())
    task, truth = made.tasks["a"], tmp_path / "truth.png"
    other, mask = tmp_path / "other.png", tmp_path / "mask.png"
    other.write_bytes(b"wrong")
    os.utime(other, ns=(truth.stat().st_mtime_ns,) * 2)  # as large and old as the other one
    mask.write_bytes(b"mask")
    assert made.is_measured(task)
    assert not made.is_measured(replace(task, truth=other))
    assert not made.is_measured(replace(task, truth_mask=mask))
    shutil.copy(truth, other)
    assert made.is_measured(replace(task, truth=other))  # the same elsewhere
    truth.write_bytes(b"better truth")
    assert not made.is_measured(task)

    masked = Run(made.folder, made.recipe, Scripted(answer), lambda message: None, Measuring())
    task = replace(task, truth_mask=mask)
    with masked.folder.held():
        masked.go([], [task])
    assert masked.is_measured(task) and not masked.is_measured(replace(task, truth_mask=None))
    truth.unlink()
    assert not masked.is_measured(task)


def test_a_report_that_cannot_be_written_stops_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "REPORT", -1.0)
    first, _, _ = run(well, "a")
    (tmp_path / "out" / "results.csv").mkdir()
    second = Run(first.folder, first.recipe, Scripted(well), lambda message: None)
    with second.folder.held():
        assert command.make(second, [Task(name, {}) for name in "bc"], [], list("abc"), "clips") == 0
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == list("abc")
    assert capsys.readouterr().out.count("the report: results.csv cannot be saved in") > 1


def test_progress_tells_rate_and_time_left():
    now = [0.0]
    said: list[str] = []
    progress = Progress(100, said.append, lambda: now[0])
    now[0] = 50.0  # workers start, which is not counted
    assert progress.line(0) == "0 of 100 done, waiting for a worker"
    progress.begin()
    now[0] = 110.0
    for _ in range(4):
        progress.done()
    progress.set_aside()
    assert progress.line(2) == "4 of 100 done, 1 set aside, 2 at work, 4.0 rows a minute, about 24 min left"
    progress.show(2)
    progress.show(2)
    assert said == [progress.line(2)]
    assert [duration(s) for s in (5, 600, 4 * 3600 + 130)] == ["5 s", "10 min", "4 h 2 min"]


def test_paths_of_jobs_are_in_the_batch(run, tmp_path):
    seen: list[Path] = []

    def answer(worker, job, tries):
        seen.append(job.attempt)
        return well(worker, job, tries)

    run(answer, "ab")
    assert len(set(seen)) == 2 and all(path.parent == tmp_path / "out" / "work" for path in seen)
