"""Tests of what runs inside ComfyUI, in this process and on the CPU."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import (  # noqa: E402, F401
    animate_anyone,
    champ,
    family,
    magic_animate,
    pytest_pycollect_makemodule,
)

from tests.threads import one_thread  # noqa: E402, F401
