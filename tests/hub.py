"""A small Hugging Face on loopback: announces checksums, redirects to where the bytes lie, and fails when told to."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Files by their path below /; what it was asked, and how it misbehaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.cut: int | None = None  # the next answer ends after so many bytes
        self.answer: int | None = None  # the next answer is this status
        self.redirect: str | None = None  # where it sends people, in the place of /lfs
        self.ranges = True
        self.announces = True
        self.announced: str | None = None  # a checksum in the place of the true one
        self.gate = threading.Event()  # bytes after the first kilobyte wait for it
        self.gate.set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.handle(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        content = self.files.get(path.removeprefix("/lfs"))
        status, self.answer = self.answer, None
        if content is None or status:
            request.send_error(status or 404)
        elif not path.startswith("/lfs"):
            request.send_response(302)
            request.send_header("Location", self.redirect or f"/lfs{path}")
            request.send_header("Content-Length", "0")
            if self.announces:
                request.send_header("X-Linked-ETag", f'"{self.announced or hashlib.sha256(content).hexdigest()}"')
            request.end_headers()
        else:
            self.send(request, content)

    def send(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        version = f'"{hashlib.md5(content).hexdigest()}"'
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if not self.ranges or request.headers.get("If-Range") != version:
            start = 0
        if start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("ETag", version)
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        rest, self.cut = content[start:][: self.cut], None
        try:
            request.wfile.write(rest[:1024])
            request.wfile.flush()
            self.gate.wait(60)
            request.wfile.write(rest[1024:])
        except OSError:
            pass  # the other side has gone
        request.close_connection = True
