"""What a worker does around its server: the files that it brings there, and its folders."""

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from champ.batch import pool as ray_pool
from champ.batch import worker as worker_module
from champ.batch.contents import is_same
from champ.batch.jobs import Make, Recipe, Setup
from champ.batch.plan import Task
from champ.batch.pool import Finished, Handle, Pool, RayActor, Share
from champ.batch.shipping import pack
from champ.batch.worker import Worker, folders_here
from champ.batch.workflow import Workflow
from champ.body.free import load_free_body
from champ.motion.formats import load_motion
from champ.server import Failure

POINT = ("1", "image")


@pytest.fixture
def actor(tmp_path, monkeypatch) -> Iterator[RayActor]:
    """A worker with its folders, whose server is not started; parcels reach it without Ray."""

    class Ray:
        get = put = staticmethod(lambda parcel: parcel)

    monkeypatch.setattr(ray_pool, "_ray", lambda: Ray)
    made = RayActor(Setup(tmp_path, tmp_path))
    (made.worker.base / "input").mkdir()
    yield made
    made.worker.close()


@pytest.fixture
def worker(actor) -> Worker:
    return actor.worker


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def brought(worker: Worker, path: Path) -> Path:
    """Where the server finds a file of a row that has no other."""
    [one] = worker.bring({POINT: path}).values()
    return worker.base / "input" / one.name


def test_what_the_next_row_needs_stays_and_the_rest_goes(worker, tmp_path):
    anna, bob = write(tmp_path / "anna.png", b"anna"), write(tmp_path / "bob.png", b"bob")
    place = brought(worker, anna)
    assert place.read_bytes() == b"anna" and place.suffix == ".png"
    made = os.lstat(place)
    assert brought(worker, anna) == place and os.lstat(place) == made
    assert brought(worker, bob).read_bytes() == b"bob" and not os.path.lexists(place)


@pytest.mark.parametrize("windows", [False, True])
def test_rows_with_the_same_contents_in_other_places_when_files_are_shipped(actor, tmp_path, monkeypatch, windows):
    if windows:  # where files are copied
        monkeypatch.setattr(worker_module, "WINDOWS", True)
    for name in ("first", "second"):
        write(tmp_path / name / "anna.png", b"the same")
        write(tmp_path / name / "maps" / "depth" / "0.png", b"map")
        write(tmp_path / name / "maps" / "note.txt", b"note")
    for row in ("first", "second", "second", "first"):
        paths = {point: tmp_path / row / name for point, name in ((POINT, "anna.png"), (("2", "folder"), "maps"))}
        places = actor.unpack({path: pack(path) for path in paths.values()})
        found = actor.worker.bring({point: places[path] for point, path in paths.items()})
        picture, maps = (actor.worker.base / "input" / one.name for one in found.values())
        assert picture.read_bytes() == b"the same" and (maps / "depth" / "0.png").read_bytes() == b"map"
        assert (maps / "note.txt").read_bytes() == b"note"
        assert picture.stat().st_mtime_ns == (tmp_path / row / "anna.png").stat().st_mtime_ns


def test_a_file_that_is_not_on_this_machine(worker, tmp_path):
    message = f"there is no {tmp_path / 'anna.png'} on {socket.gethostname()}: keep it in a folder that all machines"
    with pytest.raises(Failure, match=re.escape(message)):
        brought(worker, tmp_path / "anna.png")


def test_files_that_cannot_be_sent_cost_their_row_one_try(actor, tmp_path):
    pool = Pool(Setup(tmp_path, tmp_path), Share(1, 0), ship=True)
    pool.workers[1] = Handle(actor, node="here")
    job = make(tmp_path)
    pool.give(1, job)
    [event] = pool.wait(0)
    assert isinstance(event, Finished) and event.job == job and "its files cannot be sent" in event.outcome.message
    assert pool.idle() == [1] and not pool.busy() and pool.wait(0) == []


def make(tmp_path: Path) -> Make:
    files = {POINT: tmp_path / "anna.png"}
    return Make(Task("a", {}, {}, files), Recipe(Workflow("w", {}), (), None), tmp_path / "attempt")


@pytest.mark.parametrize("what", ["TemporaryDirectory", "unpack"])
def test_a_disk_that_is_full_where_files_arrive_is_said_so(actor, tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    queue = {"queue_running": [], "queue_pending": []}
    process = SimpleNamespace(poll=lambda: None)
    actor.worker.server = SimpleNamespace(json=lambda _: queue, process=process, log=tmp_path / "log", stop=list)
    monkeypatch.setattr(tempfile if what == "TemporaryDirectory" else ray_pool, what, full)
    parcels = {tmp_path / "anna.png": pack(write(tmp_path / "anna.png", b"anna"))}
    outcome, parcel = actor.run_shipped(make(tmp_path), parcels)
    assert outcome.full and parcel is None


def test_a_worker_whose_server_cannot_be_started_again_ends(actor, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    ended = []
    monkeypatch.setattr(actor.worker, "run", full)
    monkeypatch.setattr(os, "_exit", ended.append)
    actor.run(make(tmp_path))
    assert ended == [1] and actor.worker.closed and not actor.worker.base.exists()


def tram(folder: Path, focal: float = 900.0) -> Path:
    """A motion as TRAM writes it: the camera is beside the folder of the people."""
    track = {
        "frame": np.arange(3),
        "pred_rotmat": np.tile(np.eye(3, dtype=np.float32), (3, 24, 1, 1)),
        "pred_trans": np.tile(np.float32([0, 0, 3]), (3, 1)),
        "pred_shape": np.zeros((3, 10), np.float32),
    }
    camera = {"img_focal": focal, "img_center": np.array([960.0, 540.0]), "pred_cam_R": np.zeros((40, 3, 3))}
    (folder / "hps").mkdir(parents=True, exist_ok=True)
    np.save(folder / "hps" / "hps_track_0.npy", track)
    np.save(folder / "camera.npy", camera)
    return folder / "hps" / "hps_track_0.npy"


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("shipped", [False, True])
def test_motions_of_tram_bring_their_camera(actor, tmp_path, monkeypatch, shipped, windows):
    if windows:
        monkeypatch.setattr(worker_module, "WINDOWS", True)
    motions = {("1", "file"): tram(tmp_path / "one"), ("2", "file"): tram(tmp_path / "two", focal=700.0)}
    places = {path: path for path in motions.values()}
    if shipped:
        places = actor.unpack({path: pack(path) for path in motions.values()})
    found = actor.worker.bring({point: places[path] for point, path in motions.items()})
    loaded = [load_motion(actor.worker.base / "input" / one.name, load_free_body()) for one in found.values()]
    assert [(len(motion), motion.width, motion.height, motion.focal) for motion in loaded] == [
        (40, 1920, 1080, 900.0),
        (40, 1920, 1080, 700.0),
    ]
    record = found["1", "file"].contents.to_json()
    assert is_same(motions["1", "file"], record)  # whichever way it went
    tram(tmp_path / "one", focal=800.0)
    assert not is_same(motions["1", "file"], record)
    (tmp_path / "one" / "camera.npy").unlink()
    assert not is_same(motions["1", "file"], record)
    again = actor.worker.bring({("1", "file"): motions["1", "file"]})
    [entry] = (actor.worker.base / "input").iterdir()
    assert entry.name == again["1", "file"].name and load_motion(entry, load_free_body()).focal != 900.0


def test_folders_of_workers_that_were_killed_go_but_not_those_of_other_machines_and_containers(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def of(process: int, host: str = socket.gethostname(), numbers: int | None = None) -> Path:
        """The folder of a worker there, as it would call it."""
        with monkeypatch.context() as there:
            there.setattr(socket, "gethostname", lambda: host)
            if numbers is not None:
                there.setattr(os, "stat", lambda path: SimpleNamespace(st_ino=numbers))
            name = folders_here()
        (tmp_path / f"{name}{process}-abc").mkdir()
        return tmp_path / f"{name}{process}-abc"

    killed, running = of(ended.pid), of(os.getpid())
    elsewhere = [
        of(ended.pid, host="node-2"),
        of(ended.pid, host=f"{socket.gethostname()}-2"),
        of(ended.pid, numbers=7),
    ]
    worker = Worker(Setup(tmp_path, tmp_path))
    assert not killed.exists() and running.exists() and all(folder.exists() for folder in elsewhere)
    assert worker.base.name.startswith(f"{folders_here()}{os.getpid()}-")
    worker.close()
    assert not worker.base.exists()
