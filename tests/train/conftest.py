"""Tests of training, in this process and on the CPU."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="training needs `pip install -e .[train]`")
pytest.importorskip("diffusers", reason="training needs `pip install -e .[train]`")
sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import champ, pytest_pycollect_makemodule  # noqa: E402, F401

from tests.threads import one_thread  # noqa: E402, F401


@pytest.fixture(scope="session")
def sizes():
    """A minute set of networks."""
    from champ.model.config import UNetSizes
    from champ.model.guidance import EncoderSizes
    from champ.train.fresh import motion_sizes
    from champ.train.networks import Sizes

    unet = UNetSizes(4, (32, 64), 1, (True, True), 32, linear=False)
    return Sizes(unet, EncoderSizes((4, 4, 8, 32), 32, attention=True), motion_sizes(unet, 4, middle=True))


@pytest.fixture(scope="session")
def random_networks():
    """Networks with random weights everywhere: nothing is zero, as it is in fresh ones."""
    import torch

    from champ.train.fresh import fresh_networks
    from champ.train.networks import Champ

    def make(sizes):
        networks = fresh_networks(sizes, 0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in Champ(networks).parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return networks

    return make
