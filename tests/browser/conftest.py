"""ComfyUI's real frontend in Chromium, with this checkout's pack behind it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

# A body and a motion, with which the prompts of several tests begin.
DANCE = {
    "1": {"class_type": "ChampFreeBody", "inputs": {"gender": 0.8, "age": 28, "height": 1.7, "weight": 0.5,
          "muscle": 0.5, "proportions": 0.3}},
    "2": {"class_type": "ChampBuiltInMotion", "inputs": {"body": ["1", 0], "motion": "dance", "frames": 20, "fps": 12,
          "loop": True, "travel": False, "width": 64, "height": 96}},
}  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
# The default workflow is opened last; were it not waited for, it might replace the one that is opened next.
READY = "() => window.app?.extensionManager?.workflow?.activeWorkflow?.path"
USUAL = {"Comfy.Locale": "en", "Comfy.VueNodes.Enabled": False}  # settings that tests change

# Files that the example workflows name and nobody reads here.
FILES = (
    "models/vae/vae-ft-mse-840000-ema-pruned.safetensors",
    "models/clip_vision/champ_image_encoder.bin",
    "input/example.png",
)


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser driver: run `python dev.py test`")
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        executable = installed or playwright.chromium.executable_path
        if not Path(executable).exists():
            pytest.skip("no Chromium: install it with the system's packages or `playwright install chromium`")
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser.new_context(viewport={"width": 1920, "height": 1080})  # one, so that its cache has the scripts
        browser.close()


def about_the_pack(message) -> list[str]:
    """Errors that name the pack, but not those about the registry, which the page's own policy keeps it from asking;
    and what newer frontends say about scripts that use what is not for them."""
    text = message.text
    if text.startswith("[ComfyUI Notice]") or "internal module" in text:
        return [text]
    return [text] if message.type == "error" and "champ" in text.lower() and "Security Policy" not in text else []


@contextmanager
def editor(chromium, server, settings: dict) -> Iterator:
    """The editor, ready, as if it had never been opened.

    `page.complaints` collects script errors and console errors about the pack."""
    from tools.lay_out_workflows import OTHERS

    server.request("/settings", {"Comfy.TutorialCompleted": True, **settings})
    others = (f"models/{folder}/{PurePath(url).name}" for folder, urls in OTHERS.items() for url in urls)
    for name in (*FILES, *others):  # newer frontends mark nodes whose file is not there
        file = server.base / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    page = chromium.new_page()
    page.add_init_script("localStorage.clear()")
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.extend(about_the_pack(message)))
    page.goto(server.address)
    page.wait_for_function(READY, timeout=60_000)
    yield page
    page.close()
    if settings:
        server.request("/settings", {name: USUAL[name] for name in settings})


@pytest.fixture
def settings() -> dict:
    """Settings of the editor, for tests that want others than the usual."""
    return {}


@pytest.fixture
def page(chromium, server, settings) -> Iterator:
    with editor(chromium, server, settings) as page:
        yield page


@pytest.fixture(scope="module")
def module_page(chromium, server) -> Iterator:
    """One editor for all tests of a module that leave nothing behind but the workflow that they opened."""
    with editor(chromium, server, {}) as page:
        yield page


@pytest.fixture
def screenshots(tmp_path) -> Path:
    folder = Path(os.environ.get("CHAMP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
