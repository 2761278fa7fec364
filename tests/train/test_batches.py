"""Latents are those of the pictures beside them, in all packs and of one VAE, or the training does not begin."""

import pytest
import torch

from champ.files.tensors import read_safetensors
from champ.output import save_tensors
from champ.people.samples import SyntheticPeople
from champ.train import prepare as module
from champ.train.batches import PreparedSamples, encode_packs
from champ.train.codec import Codec
from champ.train.latents import ImageCodec
from champ.train.prepare import packs, prepare, read_pack


@pytest.fixture()
def codec(tmp_path):
    """Makes a codec of its own weights for each seed."""

    def make(seed: int) -> ImageCodec:
        torch.manual_seed(seed)
        torch.save(Codec().state_dict(), tmp_path / f"{seed}.pt")
        return ImageCodec(tmp_path / f"{seed}.pt")

    return make


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    """Two packs: of two samples and of one."""
    monkeypatch.setattr(module, "PACK", 2)
    prepare(SyntheticPeople(32), tmp_path / "data", 0, 3)
    return tmp_path / "data"


def latents_fit(folder, codec) -> bool:
    for file in packs(folder, "train", 1):
        wanted = codec.encode(read_pack(file)[0]["reference"]).half()
        if not torch.equal(read_pack(file.with_suffix(".latents"))[0]["reference"], wanted):
            return False
    return True


def test_a_pack_that_has_grown_is_encoded_again(folder, codec):
    encode_packs(packs(folder, "train", 1), codec(0))
    prepare(SyntheticPeople(32), folder, 0, 4)
    with pytest.raises(ValueError, match="1 of 2 packs .* are not encoded .*train_1_0000002.* run `encode`"):
        PreparedSamples(folder, "train", 1)
    encode_packs(packs(folder, "train", 1), codec(0))
    assert len(PreparedSamples(folder, "train", 1)) == 4 and latents_fit(folder, codec(0))


def test_a_pack_with_other_pictures_is_encoded_again(folder, codec):
    files = packs(folder, "train", 1)
    encode_packs(files, codec(0))
    first = read_pack(files[0])
    save_tensors(files[0], {name: x.flip(-2).contiguous() for name, x in first[0].items()}, first[1], replace=True)
    assert not latents_fit(folder, codec(0))
    encode_packs(files, codec(0))
    assert latents_fit(folder, codec(0))


def test_latents_without_a_fingerprint_serve_until_they_are_encoded_again(folder, codec):
    files = packs(folder, "train", 1)
    encode_packs(files, codec(0))
    for file in files:
        latents = file.with_suffix(".latents")
        save_tensors(latents, read_pack(latents)[0], {"codec": codec(0).digest}, replace=True)
    assert len(PreparedSamples(folder, "train", 1)) == 3
    encode_packs(files, codec(0))
    assert all("pack" in read_safetensors(file.with_suffix(".latents"))[1] for file in files)
    cut = {name: x[:1] for name, x in read_pack(files[0].with_suffix(".latents"))[0].items()}
    save_tensors(files[0].with_suffix(".latents"), cut, {"codec": codec(0).digest}, replace=True)
    with pytest.raises(ValueError, match="0000000.latents has 1 samples, but .* has 2; run `encode`"):
        PreparedSamples(folder, "train", 1)


def test_packs_without_latents_or_of_two_vaes_are_not_mixed(folder, codec):
    first, second = packs(folder, "train", 1)
    encode_packs([first], codec(0))
    with pytest.raises(ValueError, match="1 of 2 packs"):
        PreparedSamples(folder, "train", 1)
    encode_packs([second], codec(1))
    with pytest.raises(ValueError, match="encoded by different VAEs; run `encode`"):
        PreparedSamples(folder, "train", 1)
    encode_packs([first, second], codec(1))
    assert PreparedSamples(folder, "train", 1).vae == codec(1).digest
