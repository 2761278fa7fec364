"""Files travel and are the same where they arrive."""

from pathlib import Path

from champ.batch.contents import contents
from champ.batch.jobs import Make, Measure, Recipe
from champ.batch.plan import Task
from champ.batch.shipping import moved, pack, paths_of, unpack
from champ.batch.workflow import Workflow


def test_a_file_and_a_folder_arrive_as_they_were(tmp_path):
    folder = tmp_path / "maps"
    (folder / "depth").mkdir(parents=True)
    (folder / "depth" / "0.png").write_bytes(b"a" * 1000)
    (folder / "note.txt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path in (folder, folder / "note.txt", tmp_path / "empty"):
        there = tmp_path / "there" / path.name
        unpack(pack(path), there)
        assert contents(there) == contents(path) and there.is_dir() == path.is_dir()


def test_a_job_is_about_the_files_that_arrived(tmp_path):
    here, there = Path("/here/a.png"), Path("/there/a.png")
    task = Task("a", {}, {("1", "seed"): 5}, {("2", "image"): here, ("3", "image"): here})
    make = Make(task, Recipe(Workflow("w", {}), (), None), tmp_path / "x")
    assert paths_of(make) == [here]
    there_too = moved(make, {here: there}, tmp_path / "y")
    assert set(there_too.task.files.values()) == {there} and there_too.attempt == tmp_path / "y"
    assert there_too.task.values == task.values and make.task.files[("2", "image")] == here
    measure = Measure("a", (here,), here, None, "clean", ())
    assert paths_of(measure) == [here] and moved(measure, {here: there}, tmp_path).truth == there
