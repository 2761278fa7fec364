"""Exchanged files of guidance encoders are noticed where the files tell."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from champ.model.checkpoint import find_set
from champ.model.exchanged import encoder_doubts
from champ.model.loading import load_encoders
from champ.output import save_tensors


def doubts(folder) -> list[str]:
    files = find_set(folder)
    return encoder_doubts(files.encoders, dict(load_encoders(files).patcher.model.items()))


@pytest.fixture
def folder(champ, tmp_path):
    return shutil.copytree(champ.folder, tmp_path / "set")


def saved_by_torch(folder) -> None:
    """The encoders as .pth, saved under names with a number of steps as the official trainer does, then renamed."""
    for file in sorted(folder.glob("guidance_encoder_*.safetensors")):
        numbered = folder / f"{file.stem}-2000.pth"
        torch.save(load_file(file), numbered)
        numbered.rename(folder / f"{file.stem}.pth")
        file.unlink()


def exchange(folder, suffix: str) -> None:
    depth, normal = (folder / f"guidance_encoder_{name}{suffix}" for name in ("depth", "normal"))
    depth.rename(folder / "aside")
    normal.rename(depth)
    (folder / "aside").rename(normal)


def test_the_name_under_which_torch_saved_a_file(folder):
    saved_by_torch(folder)
    assert doubts(folder) == []
    exchange(folder, ".pth")
    first, second = doubts(folder)
    assert "encoder_depth.pth is used for depth maps but was first saved as guidance_encoder_normal-2000, for" in first
    assert "encoder_normal.pth is used for normal maps but was first saved as guidance_encoder_depth-2000" in second


def test_the_name_that_this_pack_writes(folder):
    for file in folder.glob("guidance_encoder_*.safetensors"):
        save_tensors(file, load_file(file), {"network": file.stem}, replace=True)
    assert doubts(folder) == []
    exchange(folder, ".safetensors")
    assert len(doubts(folder)) == 2


def test_files_that_do_not_tell(folder):
    exchange(folder, ".safetensors")
    assert doubts(folder) == []


def test_one_file_under_two_names(folder):
    shutil.copy(folder / "guidance_encoder_depth.safetensors", folder / "guidance_encoder_normal.safetensors")
    (doubt,) = doubts(folder)
    assert doubt.startswith("guidance_encoder_depth.safetensors and guidance_encoder_normal.safetensors hold the same")
