"""Samples in files are those that the generator draws, and an interrupted run goes on where it stopped."""

import pytest
import torch

from champ.model.families import ENCODED_MAPS
from champ.people.samples import SyntheticPeople
from champ.progress import listening
from champ.train import prepare as module
from champ.train.prepare import packs, prepare, read_packs

NAMES = ("pictures", "masks", "reference", "reference_mask", *ENCODED_MAPS)


@pytest.fixture()
def small_packs(monkeypatch):
    monkeypatch.setattr(module, "PACK", 2)


def test_files_hold_the_samples(tmp_path, small_packs):
    people = SyntheticPeople(32)
    done = []
    with listening(lambda *count: done.append(count)):
        prepare(people, tmp_path / "new", 4, 3)
    assert list(dict.fromkeys(done)) == [(0, 3), (2, 3), (3, 3)]
    files = packs(tmp_path / "new", "train", 1)
    assert [file.name for file in files] == ["train_1_0000004.safetensors", "train_1_0000006.safetensors"]
    read = list(read_packs(files, NAMES))
    for name in NAMES:
        drawn = [people.sample(i) for i in (4, 5, 6)]
        expected = [sample.maps[name] if name in ENCODED_MAPS else getattr(sample, name) for sample in drawn]
        assert torch.equal(torch.cat([pack[name] for pack in read]), torch.stack(expected)), name


def test_clips_fill_a_file_with_as_many_frames(tmp_path, small_packs):
    prepare(SyntheticPeople(32, frames=2), tmp_path, 0, 2)
    assert len(packs(tmp_path, "train", 2)) == 2
    [pictures, _] = (pack["pictures"] for pack in read_packs(packs(tmp_path, "train", 2), ("pictures",)))
    assert pictures.shape == (1, 2, 32, 32, 3)


def test_an_interrupted_run_goes_on(tmp_path, small_packs):
    class Stopped(SyntheticPeople):
        def sample(self, index):
            if index == 3:
                raise KeyboardInterrupt
            return super().sample(index)

    class Watched(SyntheticPeople):
        def sample(self, index):
            drawn.append(index)
            return super().sample(index)

    drawn: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        prepare(Stopped(32), tmp_path, 0, 5)
    assert [file.name for file in tmp_path.iterdir()] == ["train_1_0000000.safetensors"]
    prepare(Watched(32), tmp_path, 0, 5)
    assert drawn == [2, 3, 4] and len(packs(tmp_path, "train", 1)) == 3
    assert not list(tmp_path.glob("*.part"))


def test_a_longer_run_adds_to_a_shorter(tmp_path, small_packs):
    prepare(SyntheticPeople(32), tmp_path, 0, 3)
    prepare(SyntheticPeople(32), tmp_path, 0, 4)
    assert sum(len(pack["reference"]) for pack in read_packs(packs(tmp_path, "train", 1), ("reference",))) == 4


def test_other_samples_are_not_mixed_in(tmp_path, small_packs):
    prepare(SyntheticPeople(32), tmp_path, 0, 1)
    with pytest.raises(ValueError, match="another size, seed, or share of close or photographic"):
        prepare(SyntheticPeople(32, seed=1), tmp_path, 0, 1)


def test_a_folder_without_samples_is_refused(tmp_path, small_packs):
    prepare(SyntheticPeople(32), tmp_path, 0, 1)
    with pytest.raises(ValueError, match="has no held_out samples of 1 frames; make some"):
        packs(tmp_path, "held_out", 1)
