"""The folder of a batch: clips/NAME/ for each row that is done, failed/NAME/ for those that are set aside."""

import errno
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..output import not_saved
from ..server import Failure
from .contents import is_same
from .plan import TRUTH, TRUTH_MASK, Task

MANIFEST, MEASURES, ROW_WORKFLOW, THUMBNAIL = "manifest.json", "measures.json", "workflow.json", "thumbnail.jpg"
FORMAT = "champ batch 1"
FULL_DISK = "No space left on device", "disk is full", "Disk quota exceeded"
DONE, LEFT, OTHER = "done", "left", "made from something else"


class BatchFolder:
    """The folder of results. A row is done when its folder is in clips/, which happens in one step, with all its
    files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips, self.failed, self.work = folder / "clips", folder / "failed", folder / "work"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other batches out; what a killed one has left half-done is removed."""
        try:
            for folder in (self.clips, self.work):
                folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "a")  # noqa: SIM115 - it is closed below
        except OSError as error:
            raise Failure(f"--out: {not_saved(self.folder, error)}") from None
        with lock:
            if not _take(lock):
                raise Failure(f"another batch is at work in {self.folder}: wait for it, or choose another --out")
            for leftover in self.work.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            try:
                yield
            finally:  # of a batch that stops, too: a full disk is in need of the room
                shutil.rmtree(self.work, ignore_errors=True)

    def attempt(self) -> Path:
        """Returns the path for one try at a row; nothing is there yet."""
        return self.work / uuid.uuid4().hex

    def state(self, task: Task, workflow_digest: str, known: Mapping[str, Mapping]) -> str:
        """Returns whether a row is done. `known` has the row's values under the names that manifests use for inputs."""
        manifest = self.manifest(task.name)
        if manifest is None:
            return LEFT
        clip = self.clips / task.name
        for file in manifest["files"]:
            path = clip / file["file"]
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                return LEFT  # a computer that lost its power may keep a name and lose what was in the file
        inputs = manifest["inputs"]
        elsewhere = _without_truth(manifest["row"]) != _without_truth(task.cells)  # a path may have changed
        equal = (
            manifest["workflow"]["sha256"] == workflow_digest
            and manifest["values"] == json.loads(json.dumps(known["values"]))
            and inputs.keys() == known["files"].keys()
            and all(is_same(path, inputs[name], elsewhere) for name, path in known["files"].items())
        )
        return DONE if equal else OTHER

    def manifest(self, name: str) -> dict | None:
        """Returns what is recorded of a finished row."""
        found = _read_json(self.clips / name / MANIFEST)
        return found if found is not None and found.get("format") == FORMAT else None

    def measures(self, name: str) -> dict | None:
        return _read_json(self.clips / name / MEASURES)

    def accept(self, name: str, attempt: Path) -> None:
        """Moves a finished try to its place and replaces an older one, which stays if that fails."""
        place = self.clips / name
        if place.exists():
            before = self.attempt()
            os.rename(place, before)
            try:
                os.rename(attempt, place)
            except OSError:
                os.rename(before, place)
                raise
            shutil.rmtree(before, ignore_errors=True)
        else:
            os.rename(attempt, place)
        self.forget_failure(name)

    def set_aside(self, name: str, messages: Sequence[str], log: str, prompt: Mapping) -> None:
        """Keeps the message, log and workflow of a row that cannot be made."""
        folder = self.failed / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tries = [f"try {i}: {message}" for i, message in enumerate(messages, 1)]
        (folder / "message.txt").write_text("\n".join(tries) + "\n", encoding="utf-8")
        (folder / "log.txt").write_text(log, encoding="utf-8")
        (folder / ROW_WORKFLOW).write_text(json.dumps(prompt, indent=1), encoding="utf-8")

    def forget_failure(self, name: str) -> None:
        shutil.rmtree(self.failed / name, ignore_errors=True)

    def message(self, name: str) -> str:
        """Returns why a row was set aside; empty if it was not."""
        try:
            return (self.failed / name / "message.txt").read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free


def _without_truth(cells: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in cells.items() if name not in (TRUTH, TRUTH_MASK)}


def _take(lock) -> bool:
    """Locks a file until it is closed; the system lets go of it when this process ends, however it ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_full(error: BaseException | None) -> bool:
    """Returns whether the disk is full, judged by the system's number or by the words in which ComfyUI passes it on."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return True
        if any(words in str(error) for words in FULL_DISK):
            return True
        error = error.__cause__
    return False


def _read_json(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
