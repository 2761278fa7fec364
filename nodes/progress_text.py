"""The line on a working node: which stage, which frame, and how long still."""

import time
from threading import Timer

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..champ.progress import Stage, current_stage, line_of

SILENT = 1.0  # seconds of work that nobody needs to read about
OFTEN = 0.5  # seconds between two lines


class ProgressText:
    """Sends lines to the page that has queued the node which is running now, from its second second on."""

    def __init__(self) -> None:
        running = get_executing_context()
        self.node = None if running is None else running.node_id
        self.client = PromptServer.instance.client_id
        self.began = self.stage_began = time.monotonic()
        self.sent = 0.0
        self.stage: Stage | None = None
        self.done = 0

    def __enter__(self) -> "ProgressText":
        stage = current_stage()
        self.timer = Timer(SILENT, lambda: self.sent or self.send(f"{stage.what} ..."))
        self.timer.daemon = True
        self.timer.start()
        return self

    def __exit__(self, *_) -> None:
        self.timer.cancel()

    def on_progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        stage = current_stage()
        if stage != self.stage or done < self.done:  # another piece of work begins
            self.stage, self.stage_began = stage, now if self.stage else self.began
        self.done = done
        if now - self.began > SILENT and now - self.sent > OFTEN:
            self.send(line_of(stage, done, total, now - self.stage_began))

    def send(self, line: str) -> None:
        self.sent = time.monotonic()
        if self.node is not None and self.client is not None:
            PromptServer.instance.send_progress_text(line, self.node, self.client)
