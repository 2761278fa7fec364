"""HMR2's files: what is read of them, and what is refused."""

import errno
import sys
import zipfile

import pytest
import torch
from hmr2_data import NETWORK, Hostile, dumps, lightning, weights
from safetensors import safe_open
from safetensors.torch import save_file

from champ.estimate.hmr2_files import half_copy, read_hmr2, save_half


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("discriminator", [True, False])
def test_lightning_layouts(tmp_path, protocol, discriminator):
    """2.0b holds a discriminator and a body as well; yacs is not needed for its configuration."""
    file = lightning(tmp_path / "epoch=35-step=1000000.ckpt", protocol, discriminator=discriminator)
    state, about = read_hmr2(file)
    assert all(torch.equal(state[key], value) for key, value in weights().items()) and not about
    assert ("discriminator.D_conv1.weight" in state) is discriminator
    assert "yacs" not in sys.modules


def test_the_state_of_training_is_passed_over(tmp_path):
    extra = {
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-5}]}],
        "callbacks": {"ModelCheckpoint": {"dirpath": tmp_path, "kinds": [torch.float16, torch.Size([1, 2])]}},
    }
    state, _ = read_hmr2(lightning(tmp_path / "training.ckpt", **extra))
    assert weights().keys() <= state.keys()


def test_weights_alone(tmp_path):
    torch.save(weights(), tmp_path / "hmr2.pth")
    strided = {"a": torch.arange(12.0).reshape(3, 4).T, "b": torch.arange(12.0)[5:], "c": torch.ones(2).half()}
    torch.save(strided, tmp_path / "strided.pt")
    for file, wanted in (("hmr2.pth", weights()), ("strided.pt", strided)):
        state, _ = read_hmr2(tmp_path / file)
        assert all(torch.equal(state[key], value) for key, value in wanted.items()), file


def test_tensors_stay_on_disk(tmp_path):
    """Reading does not cost the size of the file in memory, and writing into a tensor leaves the file alone."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()
    state, _ = read_hmr2(tmp_path / "a.ckpt")
    state["a"] += 1
    assert (tmp_path / "a.ckpt").read_bytes() == before

    resource = pytest.importorskip("resource")  # not on Windows
    torch.save({"a": torch.zeros(25_000_000)}, tmp_path / "b.ckpt")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state, _ = read_hmr2(tmp_path / "b.ckpt")
    assert state["a"].shape == (25_000_000,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 20_000  # kilobytes, of 100 000


@pytest.mark.parametrize("place", ["pickle", "state"])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path, place):
    trace = tmp_path / "trace"
    bad = {"state_dict": {"a": Hostile(trace)}} if place == "state" else Hostile(trace)
    with zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as archive:
        archive.writestr("bad/data.pkl", dumps(bad))
    with pytest.raises(ValueError, match="bad.ckpt was refused and nothing in it was run: it calls (posix|nt).system"):
        read_hmr2(tmp_path / "bad.ckpt")
    assert not trace.exists()


def test_what_lightning_would_build_is_not_built(tmp_path):
    """A name on the list becomes an inert thing as well."""
    trace = tmp_path / "trace"
    call = b"\x80\x02}X\x01\x00\x00\x00acbuiltins\ngetattr\nX\x01\x00\x00\x00xX\x04\x00\x00\x00open\x86Rs."
    with zipfile.ZipFile(tmp_path / "odd.ckpt", "w") as archive:
        archive.writestr("odd/data.pkl", call)
    with pytest.raises(ValueError, match="odd.ckpt cannot be read as a checkpoint of HMR2: it holds no named tensors"):
        read_hmr2(tmp_path / "odd.ckpt")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["empty.ckpt", "half.ckpt", "text.safetensors"])
def test_a_damaged_file_is_named(tmp_path, name):
    file = tmp_path / name
    lightning(tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    file.write_bytes({"empty.ckpt": b"", "half.ckpt": whole[: len(whole) // 2], "text.safetensors": b"text"}[name])
    with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint of HMR2"):
        read_hmr2(file)


def test_numbers_outside_the_file_are_refused(tmp_path):
    """A description that asks for more numbers than there are."""
    torch.save({"a": torch.arange(4.0)}, tmp_path / "long.ckpt")
    with zipfile.ZipFile(tmp_path / "long.ckpt") as whole, zipfile.ZipFile(tmp_path / "cut.ckpt", "w") as cut:
        for item in whole.infolist():
            content = whole.read(item)
            cut.writestr(item.filename, content[:8] if item.filename.endswith("data/0") else content)
    with pytest.raises(ValueError, match="cut.ckpt cannot be read"):
        read_hmr2(tmp_path / "cut.ckpt")


def test_half_precision_copy(tmp_path):
    file = lightning(tmp_path / "hmr2.ckpt")
    written = []

    def write(path):
        written.append(path)
        save_half(path, weights(), 4, 3)

    copy = half_copy(file, write)
    assert copy == half_copy(file, write) == tmp_path / "hmr2_fp16.safetensors" and len(written) == 1
    state, about = read_hmr2(copy)
    assert about == {"heads": "4", "decoder_heads": "3"}
    assert all(torch.equal(state[key], value.half()) for key, value in weights().items())
    assert copy.stat().st_size < 0.6 * NETWORK.stat().st_size
    with safe_open(copy, "pt") as opened:
        assert set(opened.keys()) == weights().keys()


def test_a_copy_that_cannot_be_written_leaves_nothing(tmp_path):
    file = lightning(tmp_path / "hmr2.ckpt")

    def write(path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        ValueError, match="hmr2_fp16.safetensors cannot be saved in .*disk is full.*Or turn half_precision"
    ):
        half_copy(file, write)
    assert [item.name for item in tmp_path.iterdir()] == ["hmr2.ckpt"]


@pytest.mark.parametrize("heads", ["0", "-4", "many", "9" * 5000])
def test_numbers_of_heads_that_no_network_has(tmp_path, heads):
    save_file(weights(), tmp_path / "x.safetensors", {"heads": heads, "decoder_heads": "3"})
    with pytest.raises(ValueError, match=r"x\.safetensors cannot be read as a checkpoint of HMR2: it claims '"):
        read_hmr2(tmp_path / "x.safetensors")
