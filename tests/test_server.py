"""A ComfyUI server starts, tells why it does not, and leaves nothing behind; small programs stand in for ComfyUI."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from champ.server import Failure, Server, free_port


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Failure, match=f"port {port} is in use.*--port"):
            free_port(port)
    assert free_port(port) == port
    assert 1024 <= free_port() <= 65535


def fake_server(tmp_path: Path, main: str) -> Server:
    """A server whose main.py is given; it finds its port after --port."""
    (tmp_path / "main.py").write_text(
        f"import subprocess, sys, time\nport = sys.argv[sys.argv.index('--port') + 1]\n{main}"
    )
    return Server(tmp_path, tmp_path / "base")


def test_a_server_that_dies_shows_its_last_words(tmp_path):
    started = time.monotonic()
    with pytest.raises(Failure, match=r"(?s)stopped while starting \(exit status 3\).*torch is missing"):
        with fake_server(tmp_path, "print('torch is missing'); sys.exit(3)"):
            pass
    assert time.monotonic() - started < 20


ANSWERING = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


def is_running(pid: int) -> bool:
    if os.name == "nt":
        return str(pid) in subprocess.run(["tasklist", "/FI", f"PID eq {pid}"], capture_output=True, text=True).stdout
    if Path("/proc/self").exists():  # where a process that has ended may wait there as a zombie
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 0


def gone(pids: list[int]) -> None:
    """Waits until the processes have ended."""
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def test_nothing_is_left_after_the_block_even_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with fake_server(tmp_path, ANSWERING) as server:
            child = int(server.log.read_text().split()[1])
            assert is_running(server.process.pid) and is_running(child)
            raise KeyboardInterrupt
    gone([child])
    assert server.process.returncode is not None
    assert free_port(server.port) == server.port


def test_nothing_is_left_when_the_process_that_started_it_is_killed(tmp_path):
    code = f"""
import pathlib, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.test_server import ANSWERING, fake_server
with fake_server(pathlib.Path({str(tmp_path)!r}), ANSWERING) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(holder.stdout.readline()), int((tmp_path / "base" / "server.log").read_text().split()[1])]
    assert all(map(is_running, pids))
    holder.kill()
    holder.wait()
    gone(pids if os.name != "nt" else pids[:1])  # Windows has no groups of processes to end
