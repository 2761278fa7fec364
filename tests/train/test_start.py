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


def predict(networks, frames: int, side: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    maps = {name: draw(1, frames, 3, 8 * side, 8 * side).sigmoid() for name in ENCODED_MAPS}
    with torch.no_grad():
        model = Champ(networks)
        noisy, reference = draw(1, frames, 4, side, side), draw(1, 4, side, side)
        return model(noisy, torch.full((1, frames), 500), maps, reference, draw(1, 32))


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


def test_transformers_are_added_to_a_set_with_several_levels(sizes, random_networks):
    """They take the place of the up-sampling convolution, which moves on by one."""
    unet = replace(sizes.unet, channels=(32, 32, 64), transformers=(False, False, True))
    networks = random_networks(replace(sizes, unet=unet, motion=None))
    torch.testing.assert_close(predict(with_transformers(networks, 0), 1, 8), predict(networks, 1, 8))


@pytest.mark.parametrize("names", [("depth", "normal", "semantic_map"), ("pose",)])
def test_a_set_that_reads_other_maps_is_refused(sizes, random_networks, tmp_path, names):
    export(random_networks(replace(sizes, motion=None)), tmp_path)
    encoder = (tmp_path / "guidance_encoder_depth.safetensors").read_bytes()
    for name in ENCODED_MAPS:
        (tmp_path / f"guidance_encoder_{name}.safetensors").unlink()
    for name in names:
        file = "pose_guider" if name == "pose" else f"guidance_encoder_{name}"
        (tmp_path / f"{file}.safetensors").write_bytes(encoder)
    with pytest.raises(ValueError, match=f"reads {', '.join(names)}, but .* depth, normal, semantic_map, dwpose"):
        load_networks(tmp_path, "none")
