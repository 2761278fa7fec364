"""A worker: a ComfyUI server that stays warm and makes one row after the other. Knows nothing of Ray."""

import http.client
import json
import os
import platform
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..files.companions import tram_camera
from ..server import WINDOWS, Failure, Refused, Server, link_folder
from . import clips
from .contents import Contents, contents, digest, files_of, size_and_stamp
from .folder import FORMAT, MANIFEST, ROW_WORKFLOW, THUMBNAIL, is_full
from .jobs import Job, Make, Measure, Outcome, Setup
from .memory import watched
from .workflow import Info, Point, Prompt

PACK = Path(__file__).parents[2]
FRESH = "batch row"  # an input that no node has: it tells savers apart that ComfyUI would not run again
LOG_LINES = 60
TROUBLE = Failure, OSError, ValueError, http.client.HTTPException


class Worker:
    """One server in folders of its own, which are removed with it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        remove_abandoned()
        self.base = Path(tempfile.mkdtemp(prefix=f"{folders_here()}{os.getpid()}-"))
        self.server: Server
        self.digests: dict[tuple[Path, str], Contents] = {}
        self.origins: dict[str, Path] = {}  # of what is in the server's input folder
        self.failures = 0  # one after the other
        self.closed = False

    def start(self) -> None:
        lay_out(self.base, self.setup.base)
        self.start_server()

    def start_server(self) -> None:
        searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = {"PYTHONPATH": os.pathsep.join(path for path in searched if path != str(PACK))}
        if self.setup.threads:
            environment["OMP_NUM_THREADS"] = str(self.setup.threads)
        self.server = Server(self.setup.comfyui, self.base, *self.setup.options, environment=environment)
        self.server.__enter__()
        self.system = self.server.json("/system_stats")

    def close(self) -> None:
        """May be called while the server starts or makes a row, which then fails."""
        self.closed = True
        if hasattr(self, "server") and hasattr(self.server, "process"):
            self.server.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    def info(self) -> Info:
        return self.server.json("/object_info")

    def versions(self) -> dict[str, str]:
        system = self.system["system"]
        return {
            "champ": pack_version(),
            "comfyui": system.get("comfyui_version", ""),
            "torch": system.get("pytorch_version", ""),
            "python": platform.python_version(),
        }

    def about(self) -> dict[str, str]:
        return {"host": socket.gethostname(), "device": self.system["devices"][0]["name"]}

    def run(self, job: Job) -> Outcome:
        try:
            if isinstance(job, Measure):
                return Outcome(scores=self.measure(job))
            self.make(job)
        except TROUBLE as error:
            return self.failed(error, job)
        self.failures = 0
        return Outcome()

    def measure(self, job: Measure) -> dict[str, float]:
        from .measuring import scores  # torch is for those alone who measure

        return scores(job, self.base / "models" / "champ_metrics")

    def failed(self, error: Exception, job: Job) -> Outcome:
        """Records a failure; a server that may be damaged is replaced."""
        message, log = str(error) or type(error).__name__, self.log_tail()
        if isinstance(job, Measure):
            return Outcome(message, log, final=isinstance(error, ValueError))
        shutil.rmtree(job.attempt, ignore_errors=True)
        final = is_full(error) or isinstance(error, Refused)
        self.failures += not final
        if not self.closed and (self.failures > 1 or not self.is_idle()):
            self.server.stop()
            self.start_server()
            self.failures = 0
        return Outcome(message, log, final, is_full(error))

    def is_idle(self) -> bool:
        """A workflow that is refused in part may run in part, and one that is silent may still run."""
        try:
            queue = self.server.json("/queue")
        except TROUBLE:
            return False
        return self.server.process.poll() is None and not queue["queue_running"] and not queue["queue_pending"]

    def log_tail(self) -> str:
        with suppress(OSError):
            return "\n".join(self.server.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return ""

    def make(self, job: Make) -> None:
        """Runs the workflow and lays all that belongs to the row into job.attempt."""
        started = time.monotonic()
        output = self.base / "output"
        for folder in (output, self.base / "temp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        inputs = self.bring(job.task.files)
        prompt = job.recipe.workflow.filled({**job.task.values, **{point: one.name for point, one in inputs.items()}})
        for node in job.recipe.savers:
            prompt[node]["inputs"][FRESH] = job.task.name
        stages = Stages(prompt)
        with watched(self.server, self.system["devices"][0]["type"] != "cpu") as peak:
            entry = self.server.run(prompt, stages.show, self.setup.silence)
        shown = shown_files(entry["outputs"], job.recipe.result, output)
        if job.recipe.stage == "maps":
            lift_maps(output)
            shown = [output / "preview.webp"]
        if not any(path.is_file() for path in output.rglob("*")):
            raise Failure("the workflow ran to its end, but saved nothing")
        with suppress(Exception):  # a picture for the report is not worth a row
            clips.thumbnail(shown, output / THUMBNAIL)
        result = [file.relative_to(output).as_posix() for file in shown if file.is_file()]
        shutil.move(output, job.attempt)
        row = job.recipe.workflow.filled(job.task.named())
        (job.attempt / ROW_WORKFLOW).write_text(json.dumps(row, indent=1), encoding="utf-8")
        manifest = {
            **self.describe(job, inputs),
            "seconds": round(time.monotonic() - started, 3),
            "stages": stages.seconds(),
            "peak_memory": peak,
            "result": result,
            "files": [describe_file(job.attempt, file) for file in sorted(job.attempt.rglob("*")) if file.is_file()],
        }
        (job.attempt / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def describe(self, job: Make, inputs: "Mapping[Point, Brought]") -> dict:
        known_by = job.recipe.workflow.known_by
        return {
            "format": FORMAT,
            "name": job.task.name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "row": {name: str(value) for name, value in job.task.cells.items()},
            "workflow": {"file": job.recipe.workflow.name, "sha256": job.recipe.workflow.digest},
            "values": {known_by(point): value for point, value in job.task.values.items()},
            "inputs": {
                known_by(point): {"file": one.original, **one.contents.to_json()} for point, one in inputs.items()
            },
            "versions": self.versions(),
            "worker": self.about(),
        }

    def bring(self, files: Mapping[Point, Path]) -> "dict[Point, Brought]":
        """Makes files known to the server under names of their contents, so that its cache knows them again, and takes
        those away that this row does not need."""
        folder = self.base / "input"
        brought = {point: self.identify(path) for point, path in files.items()}
        origins = {one.name: files[point] for point, one in brought.items()}
        # A link to the same contents elsewhere does not stay, because they may not be there any more.
        stay = {name.partition("/")[0] for name, path in origins.items() if self.origins.get(name) == path}
        for old in folder.iterdir():
            if old.name not in stay:
                remove(old)
        for name, original in origins.items():
            if not (folder / name).exists():
                bring_file(original, folder / name)
        self.origins = origins
        return brought

    def identify(self, path: Path) -> "Brought":
        if not path.exists():
            raise Failure(
                f"there is no {path} on {socket.gethostname()}: keep it in a folder that all machines share, or give "
                "--ship"
            )
        key = (path, size_and_stamp(path)[1])
        if key not in self.digests:
            self.digests[key] = contents(path)
        name = self.digests[key].sha256[:24]
        if path.is_file():
            name += path.suffix.lower() if re.fullmatch(r"\.\w{1,12}", path.suffix) else ""
            if tram_camera(path) is not None:  # in a folder of its own, with the camera beside it
                name = f"{name}.files/{name}"
        return Brought(name, path.name, self.digests[key])


@dataclass(frozen=True)
class Brought:
    """A file of the table in the server's input folder."""

    name: str
    original: str
    contents: Contents


class Stages:
    """How long each node of a run took."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def now(self) -> float:
        return time.monotonic()

    def show(self, nodes: dict) -> None:
        now = self.now()
        for about in nodes.values():
            node = about["node_id"]
            if node in self.prompt:
                self.begun.setdefault(node, now)
                if about["state"] == "finished":
                    self.ended.setdefault(node, now)

    def seconds(self) -> dict[str, float]:
        """Returns seconds by title; nodes that ComfyUI did not run again are left out."""
        found: dict[str, float] = {}
        for node, ended in self.ended.items():
            about = self.prompt[node]
            title = about.get("_meta", {}).get("title") or about["class_type"]
            found[title] = round(found.get(title, 0.0) + ended - self.begun[node], 3)
        return found


def folders_here() -> str:
    """Returns how the names of workers' folders begin, before the process, where processes have the same numbers as
    here: other machines and containers may have the same folder for temporary files."""
    numbers = 0
    with suppress(OSError):  # Linux alone has several namespaces of them
        numbers = os.stat("/proc/self/ns/pid").st_ino
    return f"champ-batch-{re.sub(r'[^a-zA-Z0-9.]', '_', socket.gethostname())}-{numbers}-"


def remove_abandoned() -> None:
    """Removes the folders of workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{folders_here()}*-*"):
        process = folder.name.removeprefix(folders_here()).partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def lay_out(base: Path, original: Path) -> None:
    """Makes a server's own folders, with the models and custom nodes of another base, and this pack among them."""
    custom_nodes = base / "custom_nodes"
    for folder in (custom_nodes, base / "input", base / "output", base / "temp"):
        folder.mkdir()
    if (original / "models").is_dir():
        link_folder(base / "models", original / "models")
    others = original / "custom_nodes"
    for entry in sorted(others.iterdir()) if others.is_dir() else ():
        if not (entry / "champ" / "body").is_dir() and entry.name != "__pycache__":  # no second pack of this kind
            name_again(entry, custom_nodes / entry.name)
    link_folder(custom_nodes / "ComfyUI-Champ", PACK)


def name_again(original: Path, link: Path) -> None:
    """Links a file or folder under another name; copies it where the system has no other names for files."""
    if original.is_dir():
        link_folder(link, original)
    elif WINDOWS:
        shutil.copy2(original, link)  # with its time, by which ComfyUI knows that it has not changed
    else:
        link.symlink_to(original)


def bring_file(original: Path, place: Path) -> None:
    """Links a file and what belongs to it; a folder is made anew and filled with links: ComfyUI's lists follow no links
    to folders."""
    if original.is_dir():
        place.mkdir()
        for entry in original.iterdir():
            name_again(entry, place / entry.name)
    else:
        place.parent.mkdir(exist_ok=True)
        for name, file in files_of(original):
            name_again(file, place.with_name(name) if name else place)


def remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def shown_files(outputs: Mapping[str, dict], node: str | None, output: Path) -> list[Path]:
    """Returns the files with frames that a node has saved, or any node's if none is given."""
    found: dict[str, list[Path]] = {}
    for saver, lists in outputs.items():
        items = [item for values in lists.values() if isinstance(values, list) for item in values]
        for item in items:
            if isinstance(item, dict) and item.get("type") == "output" and "filename" in item:
                file = output / str(item.get("subfolder") or "") / str(item["filename"])
                inside = file.resolve().is_relative_to(output.resolve())
                if inside and clips.is_shown(file.name) and file.is_file():
                    found.setdefault(saver, []).append(file)
    return found.get(node, []) if node is not None else next(iter(found.values()), [])


def lift_maps(output: Path) -> None:
    """Makes the folders of Save Guidance Maps those of the row, as training reads them, if they are complete."""
    images = [folder for folder in output.rglob("images") if folder.is_dir()]
    if len(images) != 1:
        raise Failure(f"Save Guidance Maps made {len(images) or 'no'} folders of images where one is expected")
    maps = images[0].parent
    counts = {folder.name: len(list(folder.iterdir())) for folder in maps.iterdir() if folder.is_dir()}
    if len(set(counts.values())) != 1:
        raise Failure(f"the maps are not complete: {', '.join(f'{name} {n}' for name, n in counts.items())}")
    for entry in list(maps.iterdir()):
        shutil.move(entry, output / entry.name)
    maps.rmdir()


def describe_file(folder: Path, file: Path) -> dict:
    return {"file": file.relative_to(folder).as_posix(), "bytes": file.stat().st_size, "sha256": digest(file)}


def pack_version() -> str:
    found = re.search(r'^version = "([^"]+)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""
