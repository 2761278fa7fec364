"""Tests of what runs inside ComfyUI, in this process and on the CPU."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import animate_anyone, champ, family, pytest_pycollect_makemodule  # noqa: E402, F401

from tests.threads import one_thread  # noqa: E402, F401
