"""Tests that need a CUDA card; `python dev.py bench gpu` runs them. CHAMP_REHEARSE=1 runs them on the CPU."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import animate_anyone, champ, family, pytest_pycollect_makemodule  # noqa: E402, F401

CARD = torch.cuda.is_available()

if CARD:
    import comfy.cli_args

    comfy.cli_args.args.cpu = False


@pytest.fixture(autouse=True)
def a_card() -> None:
    if not CARD and not os.environ.get("CHAMP_REHEARSE"):
        pytest.skip("needs a CUDA card")
