"""Routes behind the Download buttons of the loaders: list the official files, fetch one when the user presses."""

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ..champ.download import HUB, address, download
from ..champ.progress import listening
from ..champ.weights import FILES, WeightFile
from .requests import asked

# The files that each loader offers, by ComfyUI's model folders.
LOADERS = {
    "ChampLoadDWPose": ("dwpose",),
    "ChampLoadHMR2": ("hmr2",),
    "ChampLoadModel": ("champ", "vae", "clip_vision"),
}
BETWEEN_REPORTS = 0.25  # seconds


class CancelledError(Exception):
    """Raised when the user pressed Cancel."""


@dataclass
class RunningDownload:
    file: WeightFile
    done: int = 0
    total: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    reported: float = 0.0

    def on_bytes(self, done: int, total: int) -> None:
        if self.cancelled.is_set():
            raise CancelledError
        self.done, self.total = done, total or self.total
        if time.monotonic() > self.reported + BETWEEN_REPORTS:
            self.reported = time.monotonic()
            self.report("running")

    def report(self, state: str, message: str = "") -> None:
        about = {"file": self.file.name, "state": state, "done": self.done, "total": self.total, "message": message}
        PromptServer.instance.send_sync("champ.download", about)


running: RunningDownload | None = None


def place_of(file: WeightFile) -> Path:
    """Returns the path of a file in the first folder that ComfyUI knows for this kind of model."""
    return Path(folder_paths.get_folder_paths(file.folder)[0], file.path)


def browser_entry(file: WeightFile) -> dict:
    return {
        "file": file.name,
        "what": file.what,
        "licence": file.licence,
        "size": file.size,
        "models": file.models,
        "source": f"{HUB}/{file.source}",
        "folder": str(place_of(file).parent),
        "present": folder_paths.get_full_path(file.folder, file.path) is not None,
    }


def work(job: RunningDownload) -> None:
    """Runs one download in its thread; at the end, all browsers get a message."""
    global running
    state, message = "done", ""
    try:
        with listening(job.on_bytes):
            checked = download(address(job.file), place_of(job.file), job.file.sha256)
        message = f"{job.file.name} is downloaded; it has {checked}."
        logging.info("[Champ] %s", message)
    except CancelledError:
        state = "cancelled"
    except Exception as error:  # whatever it is, the browser waits for the end
        state, message = "failed", str(error)
        known = isinstance(error, (ValueError, OSError))
        logging.warning("[Champ] %s", message, exc_info=None if known else error)
    finally:
        running = None  # before the last report: whoever reads it may ask for the next file
    job.report(state, message)


async def list_files(request: web.Request) -> web.Response:
    loaders = {
        node: [browser_entry(file) for file in FILES if file.folder in folders] for node, folders in LOADERS.items()
    }
    job = running  # the thread may end meanwhile
    now = job and {"file": job.file.name, "done": job.done, "total": job.total}
    return web.json_response({"loaders": loaders, "running": now})


async def start(request: web.Request) -> web.Response:
    global running
    name = (await asked(request)).get("file")
    file = next((file for file in FILES if file.name == name), None)
    if file is None:
        raise web.HTTPNotFound(text="This file is not in the pack's list; choose one from the list.")
    if job := running:
        raise web.HTTPConflict(text=f"{job.file.name} is being downloaded; wait until it is complete, or cancel it.")
    if browser_entry(file)["present"]:
        raise web.HTTPConflict(text=f"{file.name} is already there; press R and choose it.")
    running = RunningDownload(file)
    threading.Thread(target=work, args=(running,), daemon=True).start()
    return web.json_response({})


async def cancel(request: web.Request) -> web.Response:
    await asked(request)
    if job := running:
        job.cancelled.set()
    return web.json_response({})


def add_routes() -> None:
    routes = PromptServer.instance.routes
    routes.get("/champ/files")(list_files)
    routes.post("/champ/download")(start)
    routes.post("/champ/download/cancel")(cancel)
