"""Outputs are whole or not there, whatever happens while they are made."""

import errno
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dev
from champ import output
from champ.output import is_part, save_picture, save_tensors, system_error, whole


def child(code: str, *before: str) -> subprocess.Popen:
    """Python code in a process of its own, behind the words of another command."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", textwrap.dedent(code)],
        cwd=dev.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def permissions(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_a_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "new" / "a.bin"
    with whole(file) as made:
        made.write_bytes(b"half")
        assert not file.exists() and [is_part(item.name) for item in file.parent.iterdir()] == [True]
        made.write_bytes(b"all")
    assert file.read_bytes() == b"all" and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError])
@pytest.mark.parametrize("folder", [False, True])
def test_nothing_is_left_when_it_is_not(tmp_path, folder, error):
    with pytest.raises(error), whole(tmp_path / "a", folder=folder) as made:
        (made / "0.png" if folder else made).write_bytes(b"half")
        raise error("stopped")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_permissions_are_those_of_the_system(tmp_path, umask):
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2, 3).mT}, {"what": "it is"})
    save_picture(tmp_path / "a.png", torch.zeros(2, 2, 3, dtype=torch.uint8).numpy())
    with whole(tmp_path / "set", folder=True) as made:
        output.write_tensors(made / "b.safetensors", {"b": torch.ones(1)})
    assert {permissions(file) for file in tmp_path.rglob("*.*")} == {"0o640"}
    assert permissions(tmp_path / "set") == "0o750"
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], torch.ones(3, 2))


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path):
    file, folder = tmp_path / "a", tmp_path / "set"
    file.write_text("old")
    folder.mkdir()
    (folder / "old").touch()
    for target, is_folder in ((file, False), (folder, True)):
        with pytest.raises(ValueError, match=f"{target.name} cannot be saved in .* is already there; choose another"):
            with whole(target, folder=is_folder):
                raise AssertionError("this is said before anything is made")
    with whole(file, replace=True) as made:
        made.write_text("new")
    with whole(folder, folder=True, replace=True) as made:
        (made / "new").touch()
    assert file.read_text() == "new" and [item.name for item in folder.iterdir()] == ["new"]
    assert {item.name for item in tmp_path.iterdir()} == {"a", "set"}


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "set").mkdir()
    with whole(tmp_path / "set", folder=True) as made:
        (made / "new").touch()
    assert [item.name for item in (tmp_path / "set").iterdir()] == ["new"]


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()
    move = os.replace

    def once(source, target):
        if Path(source).name == "whole":
            raise PermissionError(errno.EACCES, "in use")
        move(source, target)

    monkeypatch.setattr(output.os, "replace", once)
    with pytest.raises(ValueError, match="set cannot be saved"), whole(tmp_path / "set", folder=True, replace=True):
        pass
    assert [item.name for item in (tmp_path / "set").iterdir()] == ["old"]
    assert [item.name for item in tmp_path.iterdir()] == ["set"]


def test_two_at_once_do_not_mix(tmp_path):
    both, ends = threading.Barrier(2), []

    def make(name: str) -> None:
        try:
            with whole(tmp_path / "maps", folder=True) as made:
                both.wait(10)
                for i in range(20):
                    (made / f"{i}.{name}").touch()
                both.wait(10)
            ends.append("made")
        except ValueError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 2 and ends.count("made") == 1 and any("is already there" in end for end in ends)
    assert len({file.suffix for file in (tmp_path / "maps").iterdir()}) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["maps"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_a_killed_run_leaves_nothing_that_looks_like_an_output(tmp_path):
    killed = child(f"""
        import time
        from pathlib import Path
        from champ.output import whole
        with whole(Path({str(tmp_path)!r}, "maps"), folder=True) as made:
            (made / "depth").mkdir()
            (made / "depth" / "0.png").touch()
            print("ready", flush=True)
            time.sleep(60)
    """)
    assert killed.stdout.readline() == "ready\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    [room] = tmp_path.iterdir()
    assert is_part(room.name)
    with whole(tmp_path / "maps", folder=True) as made:  # another run may still be at it
        (made / "1.png").touch()
    assert {item.name for item in tmp_path.iterdir()} == {room.name, "maps"}
    long_ago = time.time() - output.ABANDONED - 1
    for path in (room, *room.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    with whole(tmp_path / "other"):
        (next(item for item in tmp_path.iterdir() if is_part(item.name)) / "whole").touch()
    assert {item.name for item in tmp_path.iterdir()} == {"maps", "other"}


WRITERS = """
    import os, sys
    from pathlib import Path
    import numpy as np, torch
    from PIL import Image
    from champ.output import save_picture, save_tensors, whole
    folder = Path({folder!r})
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    {first}

    def checkpoint():
        with whole(folder / "checkpoint.pt", replace=True) as made, open(made, "wb") as file:
            torch.save({{"a": torch.from_numpy(noise)}}, file)

    def archive():
        with whole(folder / "motion.npz") as made, open(made, "wb") as file:
            np.savez_compressed(file, a=noise)

    def scene():
        with whole(folder / "body.glb") as made:
            made.write_bytes(noise.tobytes())

    def animation():
        with whole(folder / "preview.webp") as made:
            Image.fromarray(noise).save(made, "WEBP", save_all=True, lossless=True)

    def maps():
        with whole(folder / "maps", folder=True) as made:
            (made / "0.png").write_bytes(b"small")
            Image.fromarray(noise).save(made / "1.png")

    for make in (
        checkpoint, archive, scene, animation, maps,
        lambda: save_picture(folder / "sheet.png", noise),
        lambda: save_tensors(folder / "weights.safetensors", {{"a": torch.from_numpy(noise)}}),
    ):
        try:
            make()
        except ValueError as error:
            print(error)
    print(os.listdir(folder))
"""
OUTPUTS = ["checkpoint.pt", "motion.npz", "body.glb", "preview.webp", "maps", "sheet.png", "weights.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for files")
def test_no_writer_leaves_half_a_file_when_it_can_write_no_more(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"the last one that was complete")
    # Python ignores the signal that comes with it.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    said = child(WRITERS.format(folder=str(tmp_path), first=limit)).communicate(timeout=60)[0].splitlines()
    why = "the file is larger than this disk or system allows; choose another disk, or make it smaller."
    assert said == [*(f"{name} cannot be saved in {tmp_path}: {why}" for name in OUTPUTS), "['checkpoint.pt']"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"the last one that was complete"


@pytest.mark.parametrize(
    "options, why",
    [
        ("size=100k", "the disk is full (0 MB free); free some space and try again."),
        ("size=9m,ro", "that disk can only be read; choose another folder."),
    ],
)
def test_a_disk_that_is_full_or_can_only_be_read(tmp_path, options, why):
    """A real one, in a space of its own where the system allows that."""
    mount = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        f'mount -t tmpfs -o {options} tmpfs {shlex.quote(str(tmp_path))} && "$@"',
        "-",
    ]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    said = child(WRITERS.format(folder=str(tmp_path), first=""), *mount).communicate(timeout=60)[0].splitlines()
    assert said == [*(f"{name} cannot be saved in {tmp_path}: {why}" for name in OUTPUTS), "[]"]


def test_a_full_disk_says_how_much_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "total used free")(0, 0, 3_000_000))
    with pytest.raises(ValueError) as said, whole(tmp_path / "new" / "a.glb"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(said.value) == (
        f"a.glb cannot be saved in {tmp_path / 'new'}: the disk is full (3 MB free); free some space and try again."
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(tmp_path, monkeypatch, number):
    """Root may write everywhere, so that the system has to be played."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output, "_make_room", refuse)
    with pytest.raises(ValueError, match="a.glb cannot be saved in .* folder") as said, whole(tmp_path / "a.glb"):
        raise AssertionError("this is said before anything is made")
    assert os.strerror(number) not in str(said.value)


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for target, reason in (
        (tmp_path / "file" / "a", "a part of its path is a file, not a folder; choose another folder"),
        (tmp_path / "file" / "a" / "b", "a part of its path is a file, not a folder"),
        (tmp_path / "folder", "a folder of that name is already there"),
        (tmp_path / ("x" * 300), "its name or path is too long; choose a shorter name"),
    ):
        with pytest.raises(ValueError, match=reason), whole(target, replace=True) as made:
            made.touch()
    assert {item.name for item in tmp_path.iterdir()} == {"file", "folder"}


def test_errors_of_the_system_are_found_behind_those_of_writers(tmp_path):
    for write in (lambda path: save_file({"a": torch.zeros(1)}, path), lambda path: path.write_bytes(b"")):
        with pytest.raises(Exception) as caught:
            write(tmp_path / "missing" / "a")
        assert system_error(caught.value).errno == errno.ENOENT
    assert system_error(ValueError("another thing")) is None and system_error(RuntimeError("out of memory")) is None
