"""Runs a ComfyUI server on loopback: starts it, sends workflows, ends it. Needs only the standard library.

The development commands, the tests and the batches run ComfyUI through it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

WINDOWS = os.name == "nt"
TETHERED = Path(__file__).with_name("tethered.py")


class Failure(Exception):
    """A problem that the user can fix; shown as one message without a traceback."""


class Refused(Failure):
    """A workflow that did not pass ComfyUI's validation; `answer` is the server's reply."""

    def __init__(self, answer: dict) -> None:
        self.answer = answer
        lines = [answer["error"]["message"]] if answer.get("error") else []
        for node, found in answer.get("node_errors", {}).items():
            lines += [f"node {node} ({found['class_type']}): {e['message']}: {e['details']}" for e in found["errors"]]
        super().__init__("ComfyUI refused the workflow: " + "; ".join(lines))


def free_port(wanted: int = 0) -> int:
    with socket.socket() as probe:
        if not WINDOWS:  # a port that we just closed can be reused; on Windows the option means something else
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            raise Failure(f"port {wanted} is in use: choose another one with --port") from None
        return probe.getsockname()[1]


def link_folder(link: Path, folder: Path) -> None:
    """Links a folder under another name."""
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(folder), str(link))  # needs no administrator, unlike a symbolic link
    else:
        link.symlink_to(folder, target_is_directory=True)


class Server:
    """A ComfyUI on loopback with its own folders, which ends with the `with` block or with this process.

    `base` gets models/, custom_nodes/, input/, user/ and temp/, so that nothing is written into `comfyui`.
    """

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *options: str,
        port: int = 0,
        python: str | Path = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port(port)
        self.base = base
        self.log = base / "server.log"
        self.environment = environment or {}
        self.command = [
            str(python), str(TETHERED), str(comfyui / "main.py"), "--port", str(self.port),
            "--base-directory", str(base), "--database-url", "sqlite:///:memory:",
            "--disable-api-nodes", "--disable-auto-launch", *options,
        ]  # fmt: skip

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        for name in ("models", "custom_nodes", "input", "user"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        # Threads of libgomp that spin while they wait starve everything else on a machine with few cores.
        environment = {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1", **os.environ, **self.environment}
        group = {"creationflags": 0x200} if WINDOWS else {"start_new_session": True}  # CREATE_NEW_PROCESS_GROUP
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=self.base, **group
            )  # type: ignore[call-overload]
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def wait_until_ready(self, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.failure(f"ComfyUI stopped while starting (exit status {self.process.returncode})")
            try:
                if self.request("/system_stats")[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise self.failure(f"ComfyUI did not answer within {seconds:.0f} seconds")

    def stop(self) -> None:
        """Ends the server and the processes that it has started, and nothing else."""
        if self.process.poll() is None:
            if sys.platform == "win32":
                subprocess.run(["taskkill", "/F", "/T", "/PID", str(self.process.pid)], capture_output=True)
            else:
                os.killpg(self.process.pid, signal.SIGTERM)
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()  # type: ignore[union-attr]

    def failure(self, message: str, lines: int = 25) -> Failure:
        tail = self.log.read_text(errors="replace").splitlines()[-lines:]
        return Failure("\n    ".join([f"{message}; the last lines of {self.log}:", *tail]))

    def request(self, path: str, payload: object = None, timeout: float = 60) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if payload is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(payload), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path: str, payload: object = None):
        status, body = self.request(path, payload)
        if status != 200:
            raise Failure(f"{path} answered with status {status}: {body.decode(errors='replace')}")
        return json.loads(body)

    def view(self, item: dict) -> bytes:
        """Fetches the file of an entry in a node's outputs."""
        path = f"/view?{urlencode(item)}"
        status, content = self.request(path)
        if status != 200:
            raise Failure(f"{path} answered with status {status}")
        return content

    def events(self, client: str, timeout: float) -> Iterator[tuple[str, dict]]:
        """Yields the server's messages to this client: the receiving side of a web socket (RFC 6455)."""
        key = base64.b64encode(os.urandom(16)).decode()
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(
                f"GET /ws?clientId={client} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            stream = connection.makefile("rb")
            while stream.readline().strip():
                pass
            while len(head := stream.read(2)) == 2:
                length = head[1] & 127
                if length > 125:
                    length = int.from_bytes(stream.read(2 if length == 126 else 8), "big")
                body = stream.read(length)
                if head[0] & 15 == 1:
                    message = json.loads(body)
                    yield message["type"], message["data"]
                elif head[0] & 15 == 2:  # a preview picture after a header
                    yield "picture", {"bytes": length}

    def run(self, prompt: dict, show: Callable[[dict], None] = lambda nodes: None, timeout: float = 900) -> dict:
        """Queues a workflow in API format and waits for its history entry: outputs and status.

        `show` gets the state of the nodes at each step; `timeout` is the longest silence in seconds."""
        client = uuid.uuid4().hex
        events = self.events(client, timeout)
        next(events)  # connected: from here on no event is missed
        status, body = self.request("/prompt", {"prompt": prompt, "client_id": client})
        answer = json.loads(body)
        if status != 200 or answer["node_errors"]:
            raise Refused(answer)
        try:
            for kind, data in events:
                if data.get("prompt_id") != answer["prompt_id"]:
                    continue
                if kind == "progress_state":
                    show(data["nodes"])
                elif kind in ("execution_success", "execution_error", "execution_interrupted"):
                    return self.finished(answer["prompt_id"])
        except TimeoutError:
            raise self.failure(f"no progress for {timeout:.0f} seconds") from None
        raise self.failure("ComfyUI stopped while it was working")

    def finished(self, prompt_id: str) -> dict:
        while prompt_id not in (history := self.json(f"/history/{prompt_id}")):  # filed just after the last event
            time.sleep(0.02)
        entry = history[prompt_id]
        for kind, data in entry["status"]["messages"]:
            if kind == "execution_error":
                raise Failure(f"{data['node_type']}: {data['exception_message'].strip() or data['exception_type']}")
        return entry
