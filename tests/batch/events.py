"""A node for tests of batches, on which a row can fail, end its server, fill the disk, or wait until it may go on."""

import os
import signal
import time
from pathlib import Path


class Event:
    @classmethod
    def INPUT_TYPES(cls):
        events = ["none", "fail", "die once", "fill the disk", "wait"]
        return {"required": {"images": ("IMAGE",), "event": (events,), "file": ("STRING", {"default": ""})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, images, event, file):
        if event == "fail":
            raise RuntimeError("this row is poisonous")
        if event == "die once" and not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "fill the disk":
            with open("/dev/full", "w") as full:
                full.write("x" * 100000)
        if event == "wait" and not Path(file).exists():  # who comes later need not wait
            Path(f"{file}.part").write_text(f"{os.getpid()} {os.getppid()}")
            os.replace(f"{file}.part", file)
            while not Path(f"{file}.go").exists():
                time.sleep(0.05)
        return (images,)


NODE_CLASS_MAPPINGS = {"BatchTestEvent": Event}
