"""A row is done when all of it is there, and is known again; what others see is never half a result."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from champ.batch import report
from champ.batch.contents import contents, files_of, is_same
from champ.batch.folder import DONE, FORMAT, LEFT, MANIFEST, MEASURES, OTHER, BatchFolder, is_full
from champ.batch.plan import Task
from champ.server import Failure, link_folder

ROOT = Path(__file__).parents[2]


def finished(folder: BatchFolder, name: str, picture: Path, **more) -> Path:
    """A try at a row, as a worker leaves it."""
    attempt = folder.attempt()
    attempt.mkdir(parents=True)
    (attempt / "clip.png").write_bytes(b"clip")
    manifest = {
        "format": FORMAT,
        "name": name,
        "made": "2026-01-01T00:00:00+0000",
        "workflow": {"file": "w.json", "sha256": "abc"},
        "row": {"Person.image": str(picture)},
        "values": {"10.seed": 5},
        "inputs": {"Person.image": {"file": picture.name, **contents(picture).to_json()}},
        "worker": {"host": "here", "device": "cpu"},
        "seconds": 2.0,
        "stages": {"Champ Sampler": 1.5} if name == "anna" else {},
        "peak_memory": {"main": 5_000_000, "graphics": None},
        "result": ["clip.png"],
        "files": [{"file": "clip.png", "bytes": 4, "sha256": ""}],
        **more,
    }
    (attempt / MANIFEST).write_text(json.dumps(manifest))
    return attempt


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "anna.png"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def folder(tmp_path):
    return BatchFolder(tmp_path / "out")


def known(picture: Path, seed: int = 5) -> dict:
    return {"values": {"10.seed": seed}, "files": {"Person.image": picture}}


def test_a_row_is_done_with_its_inputs_its_workflow_and_all_its_files(folder, picture):
    task = Task("anna", {"Person.image": str(picture)})
    assert folder.state(task, "abc", known(picture)) == LEFT
    with folder.held():
        folder.accept("anna", finished(folder, "anna", picture))
    assert folder.state(task, "abc", known(picture)) == DONE
    assert folder.state(task, "abc", known(picture, seed=6)) == OTHER
    assert folder.state(task, "other", known(picture)) == OTHER
    assert folder.state(task, "abc", {"values": {"10.seed": 5}, "files": {}}) == OTHER
    os.utime(picture)
    assert folder.state(task, "abc", known(picture)) == DONE  # another time, the same contents
    picture.write_bytes(b"another")
    assert folder.state(task, "abc", known(picture)) == OTHER
    (folder.clips / "anna" / "clip.png").write_bytes(b"cl")
    assert folder.state(task, "abc", known(picture)) == LEFT
    (folder.clips / "anna" / MANIFEST).write_text("{half")
    assert folder.state(task, "abc", known(picture)) == LEFT


def test_another_file_of_the_same_size_and_time_is_another_input(folder, picture, tmp_path):
    other, copy = tmp_path / "bob.png", tmp_path / "copy.png"
    other.write_bytes(b"another"), copy.write_bytes(picture.read_bytes())
    for path in (picture, other, copy):
        os.utime(path, ns=(10**18, 10**18))  # as after unpacking an archive
    with folder.held():
        folder.accept("anna", finished(folder, "anna", picture))
    for path, state in ((picture, DONE), (other, OTHER), (copy, DONE)):
        assert folder.state(Task("anna", {"Person.image": str(path)}), "abc", known(path)) == state


def test_a_row_takes_the_place_of_an_older_one_and_of_its_failure(folder, picture):
    with folder.held():
        folder.accept("anna", finished(folder, "anna", picture))
        folder.set_aside("anna", ["no"], "log", {})
        folder.accept("anna", finished(folder, "anna", picture, seconds=3.0))
        assert folder.manifest("anna")["seconds"] == 3.0 and not folder.message("anna")
    assert not folder.work.exists()


def test_an_older_row_stays_when_the_new_one_is_not_there(folder, picture):
    """As on a cluster whose machines do not share the folder."""
    with folder.held():
        folder.accept("anna", finished(folder, "anna", picture))
        with pytest.raises(OSError):
            folder.accept("anna", folder.attempt())
    assert folder.state(Task("anna", {}), "abc", known(picture)) == DONE


def test_what_a_killed_batch_left_is_removed_and_two_do_not_meet(folder, picture):
    half = finished(folder, "anna", picture)
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from champ.batch.folder import BatchFolder; from pathlib import Path\n"
        f"with BatchFolder(Path({str(folder.folder)!r})).held(): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert not half.exists()
    with pytest.raises(Failure, match="another batch is at work in"), folder.held():
        pass
    other.kill()
    other.wait()
    with folder.held():
        pass


def test_a_folder_is_known_by_the_names_and_contents_of_its_files(tmp_path):
    maps = tmp_path / "maps" / "depth"
    maps.mkdir(parents=True)
    (maps / "0.png").write_bytes(b"a")
    found = contents(tmp_path / "maps").to_json()
    assert is_same(tmp_path / "maps", found)
    os.utime(maps / "0.png", ns=(1, 1))
    assert is_same(tmp_path / "maps", found)
    (maps / "0.png").rename(maps / "1.png")
    assert not is_same(tmp_path / "maps", found)
    found = contents(tmp_path / "maps").to_json()
    (maps / "1.png").rename(maps / "0.png")  # a file's time stays when it is renamed
    assert not is_same(tmp_path / "maps", found)
    if sys.platform == "linux":  # where a name may be any bytes
        (maps / os.fsdecode(b"\xff.png")).touch()
        assert not is_same(tmp_path / "maps", found)
    assert not is_same(tmp_path / "none", found)


def test_what_a_folder_has_through_links_counts(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"a")
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("depth", "normal"):
        link_folder(maps / name, tmp_path / "elsewhere")
    link_folder(maps / "back", maps)
    assert [name for name, _ in files_of(maps)] == ["depth/0.png", "normal/0.png"]
    found = contents(maps).to_json()
    assert found["bytes"] == 2 and is_same(maps, found)
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"b")
    assert not is_same(maps, found)


def test_a_full_disk_is_known_by_number_and_by_words():
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(Failure("SaveImage: [Errno 28] No space left on device: 'x.png'"))
    wrapped = ValueError("dance cannot be saved")
    wrapped.__cause__ = OSError(errno.ENOSPC, "")
    assert is_full(wrapped) and not is_full(OSError(errno.EACCES, "")) and not is_full(ValueError("full of people"))


def test_results_and_report(folder, picture):
    with folder.held():
        for name, score in (("anna", 30.0), ("carl", 31.0)):
            folder.accept(name, finished(folder, name, picture))
            (folder.clips / name / MEASURES).write_text(json.dumps({"scores": {"PSNR": score, "L1": 0.5}}))
        folder.set_aside("b & b", ["one\ntwo", "three"], "the log", {"1": {}})
        report.write(folder, report.overview(folder, ["anna", "b & b", "carl", "dora"]), "my <clips>")
    lines = (folder.folder / "results.csv").read_text().splitlines()
    assert lines[0] == ("name,state,seconds,main_memory_mb,graphics_memory_mb,worker,made,files,PSNR,L1,message")
    assert lines[1] == "anna,done,2.0,5,,here,2026-01-01T00:00:00+0000,1,30.0,0.5,"
    assert lines[2] == "b & b,failed,,,,,,,,,try 1: one; two; try 2: three" and lines[4] == "dora,left,,,,,,,,,"
    page = (folder.folder / "report.html").read_text()
    assert "b & b" not in page and "b &amp; b" in page and "my &lt;clips&gt;" in page and "<script" not in page
    assert '<td>Champ Sampler</td><td class="number">1</td><td class="number">1.5</td><td class="number">0.75' in page
    assert 'href="failed/b%20%26%20b/log.txt"' in page
    assert "4 rows: 2 done, 1 set aside, 1 left." in page and "Means of 2 measured rows: PSNR 30.5, L1 0.5." in page
    assert (folder.folder / "measures.md").read_text() == "| rows | PSNR | L1 |\n|---|---|---|\n| 2 | 30.5 | 0.5 |\n"
    assert (folder.failed / "b & b" / "log.txt").read_text() == "the log"
