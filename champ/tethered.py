"""python tethered.py PROGRAM ARGUMENTS: runs a Python program that ends when its standard input closes.

The starting process holds the other end of that pipe and writes nothing. The system closes the pipe when this process
ends, for whatever reason, so that no server outlives its purpose.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_input() -> None:
    while os.read(0, 1024):
        pass
    if sys.platform != "win32" and os.getpgrp() == os.getpid():  # with everything that the program has started
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
