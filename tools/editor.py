"""ComfyUI's own page in Chromium, on a server with this checkout's pack, for the tools that need it.

It runs in the environment that `python dev.py test` makes. COMFYUI_PATH may name another ComfyUI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

import dev
from champ.server import Server

# The default workflow is opened last; were it not waited for, it might replace the one that is opened next.
READY = "() => window.app?.extensionManager?.workflow?.activeWorkflow?.path"
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
TIMEOUT = 300_000  # milliseconds


@contextmanager
def open_editor(viewport: ViewportSize | None = None) -> Iterator[tuple[Page, Server]]:
    comfyui = Path(os.environ.get("COMFYUI_PATH") or dev.HOST / "ComfyUI")
    with sync_playwright() as playwright, dev.temporary_server(comfyui, "--cpu") as server:
        server.request("/settings", SETTINGS)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=viewport)
        page.set_default_timeout(TIMEOUT)
        page.goto(server.address)
        page.wait_for_function(READY)
        yield page, server
        browser.close()
