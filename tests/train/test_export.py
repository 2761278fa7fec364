"""Exported networks are the trained ones, in files that the pack's own loaders read."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from champ.model.checkpoint import find_set
from champ.model.families import CHAMP
from champ.model.loading import load_denoiser, load_encoders, load_reference_net
from champ.train.export import export
from champ.train.networks import Champ
from champ.train.start import load_networks


@pytest.mark.parametrize("motion", [True, False])
def test_round_trip_is_exact(sizes, random_networks, tmp_path, motion):
    networks = random_networks(sizes if motion else replace(sizes, motion=None))
    export(networks, tmp_path)
    again = load_networks(tmp_path, "set" if motion else "none")
    assert again.sizes == networks.sizes
    before, after = Champ(networks).state_dict(), Champ(again).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_files_are_those_of_the_official_layout(champ, tmp_path):
    """Exporting the golden set gives its tensors back, under their names; only what has no effect is left out."""
    export(load_networks(champ.folder, "set"), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in champ.folder.iterdir()}
    for file in champ.spec["files"]:
        with safe_open(tmp_path / f"{file}.safetensors", "pt") as mine:
            with safe_open(champ.folder / f"{file}.safetensors", "pt") as official:
                left_out = set(official.keys()) - set(mine.keys())
                assert not set(mine.keys()) - set(official.keys())
                assert all("attentions" in name or "guidance_attention" in name for name in left_out), left_out
                assert not left_out or file.startswith("guidance_encoder")
                for name in mine.keys():
                    assert torch.equal(mine.get_tensor(name), official.get_tensor(name).float()), name


def test_16_bits_load_as_a_set_of_the_nodes(sizes, random_networks, tmp_path):
    networks = random_networks(sizes)
    export(networks, tmp_path, torch.float16, {"license": "Apache-2.0"})
    files = find_set(tmp_path)
    assert files.family == CHAMP
    for file in tmp_path.iterdir():
        with safe_open(file, "pt") as tensors:
            assert tensors.metadata()["license"] == "Apache-2.0"
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}
    model, net, encoders = load_denoiser(files), load_reference_net(files), load_encoders(files)
    wanted = networks.denoiser.model.diffusion_model.state_dict()
    for name, value in model.model.diffusion_model.state_dict().items():
        assert torch.allclose(value.float(), wanted[name], atol=1e-3), name
    assert net.context_dim == 32 and encoders.names == tuple(networks.encoders.names)


def test_a_set_is_replaced_as_a_whole_and_nothing_else_is(sizes, random_networks, tmp_path):
    export(random_networks(sizes), tmp_path / "set")
    pictures_only = random_networks(replace(sizes, motion=None))
    export(pictures_only, tmp_path / "set")
    assert find_set(tmp_path / "set").motion_module is None  # that of the older set would not belong to this one
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):  # of those who looked into the folder
        (tmp_path / "set" / name).touch()
    export(pictures_only, tmp_path / "set")
    (tmp_path / "set" / "notes.txt").touch()
    with pytest.raises(ValueError, match="set holds notes.txt, which is no file of a checkpoint set"):
        export(pictures_only, tmp_path / "set")
    assert {item.name for item in tmp_path.iterdir()} == {"set"}
