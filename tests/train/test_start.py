"""Where the stages start."""

import argparse
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from champ.model.families import ENCODED_MAPS
from champ.train.commands import clips_start
from champ.train.export import export
from champ.train.fresh import fresh_networks
from champ.train.networks import Champ
from champ.train.start import load_networks, networks_from_unet, with_new_motion, with_transformers


def predict(networks, frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    maps = {name: draw(1, frames, 3, 32, 32).sigmoid() for name in ENCODED_MAPS}
    with torch.no_grad():
        model = Champ(networks)
        return model(draw(1, frames, 4, 4, 4), torch.full((1, frames), 500), maps, draw(1, 4, 4, 4), draw(1, 32))


def test_fresh_networks_depend_on_the_seed_alone(sizes):
    before = torch.get_rng_state()
    a, b, c = (Champ(fresh_networks(sizes, seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, b[name]) and x.isfinite().all() for name, x in a.items())
    assert not torch.equal(a["denoiser.input_blocks.0.0.weight"], c["denoiser.input_blocks.0.0.weight"])


def test_fresh_networks_predict_nothing(sizes):
    """The last layer of the denoiser is zero, so that the loss begins at the size of the target."""
    assert predict(fresh_networks(sizes, 0), 3).abs().max() == 0


def test_new_transformers_change_nothing(sizes, random_networks):
    fewer = replace(sizes, unet=replace(sizes.unet, transformers=(False, True)), motion=None)
    networks = random_networks(fewer)
    more = with_transformers(networks, 0)
    assert more.sizes.unet.transformers == (True, True)
    assert len(list(Champ(more).parameters())) > len(list(Champ(networks).parameters()))
    torch.testing.assert_close(predict(more, 1), predict(networks, 1))


def test_new_motion_modules_change_nothing(sizes, random_networks):
    still = random_networks(replace(sizes, motion=None))
    moving = with_new_motion(still, 4, middle=True, seed=5)
    assert moving.sizes == sizes
    assert torch.allclose(predict(moving, 3), predict(still, 3), atol=1e-6)


def test_motion_modules_of_a_file(sizes, random_networks, tmp_path):
    export(random_networks(sizes), tmp_path / "set")
    file = (tmp_path / "set" / "motion_module.safetensors").rename(tmp_path / "motion.safetensors")
    torch.testing.assert_close(predict(load_networks(tmp_path / "set", file), 3), predict(random_networks(sizes), 3))


def test_both_unets_start_from_one_file(sizes, random_networks, tmp_path):
    networks = random_networks(replace(sizes, motion=None))
    export(networks, tmp_path)
    started = networks_from_unet(tmp_path / "denoising_unet.safetensors", (4, 4, 8, 32), 0)
    wanted = networks.denoiser.model.diffusion_model.state_dict()
    for module in (started.denoiser.model.diffusion_model, started.net.patcher.model):
        assert all(torch.equal(x, wanted[name]) for name, x in module.state_dict().items())
    assert started.sizes == networks.sizes
    with pytest.raises(ValueError, match="reference UNet"):
        networks_from_unet(tmp_path / "reference_unet.safetensors", (4, 4, 8, 32), 0)


def test_a_level_may_be_without_transformers(sizes, random_networks, tmp_path):
    plain = replace(sizes, unet=replace(sizes.unet, transformers=(False, True)))
    networks = random_networks(plain)
    with torch.no_grad():
        tokens = networks.net.patcher.model.tokens(torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 32))
    channels = {place: x.shape[-1] for place, x in tokens.items()}
    assert channels == networks.denoiser.model.diffusion_model.transformer_channels
    assert set(channels.values()) == {64}
    export(networks, tmp_path)
    again = load_networks(tmp_path, "set")
    assert again.sizes == plain
    torch.testing.assert_close(predict(again, 3), predict(networks, 3))


def test_stage_2_goes_on_with_the_motion_modules_of_a_set(sizes, random_networks, tmp_path):
    def started(**given):
        options = {"init": tmp_path / "set", "motion": None, "new_motion": False, "positions": 4, "middle": True}
        return predict(clips_start(argparse.Namespace(**options | {"seed": 0} | given)), 3)

    moving, still = random_networks(sizes), random_networks(replace(sizes, motion=None))
    export(moving, tmp_path / "set")
    torch.testing.assert_close(started(), predict(moving, 3))
    none = predict(load_networks(tmp_path / "set", "none"), 3)
    torch.testing.assert_close(started(new_motion=True), none)
    # Also if they are in the file of the UNet.
    parts = [load_file(tmp_path / "set" / f"{name}.safetensors") for name in ("denoising_unet", "motion_module")]
    save_file(parts[0] | parts[1], tmp_path / "set" / "denoising_unet.safetensors")
    (tmp_path / "set" / "motion_module.safetensors").unlink()
    torch.testing.assert_close(started(), predict(moving, 3))
    export(still, tmp_path / "set")
    torch.testing.assert_close(started(), predict(still, 3))
