import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from champ.estimate.network import read_network

from .small_dwpose import write_torchscript

ONNX = Path(__file__).parents[1] / "data" / "dwpose"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    write_torchscript(folder)
    return folder


def batch(count, height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, 3, height, width)).astype(np.float32)


def in_order(outputs):
    return sorted(outputs, key=lambda output: output.shape[-1])


@pytest.mark.parametrize(
    ("onnx", "script", "pictures"),
    [
        ("yolox_l.onnx", "yolox_l.torchscript.pt", batch(1, 640, 640)),
        ("dw-ll_ucoco_384.onnx", "dw-ll_ucoco_384_bs5.torchscript.pt", batch(1, 384, 288) / 57 - 2),
        ("dw-ll_ucoco_384.onnx", "dw-ll_ucoco_384_bs5.torchscript.pt", batch(6, 384, 288) / 57 - 2),
    ],
)
def test_both_forms_of_a_network_are_the_same_function(scripts, onnx, script, pictures):
    first = in_order(read_network(ONNX / onnx)(pictures))
    second = in_order(read_network(scripts / script)(pictures))
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        assert a.shape == b.shape and len(a) == len(pictures) and a.dtype == b.dtype == np.float32
        assert a.max() > 0.1
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_pictures_in_a_batch_do_not_mix(scripts):
    network = read_network(scripts / "dw-ll_ucoco_384_bs5.torchscript.pt")
    pictures = batch(2, 384, 288) / 57 - 2
    together = network(pictures)
    for i in range(2):
        for whole, alone in zip(together, network(pictures[i : i + 1])):
            np.testing.assert_allclose(whole[i], alone[0], atol=1e-6)


class Fixed(torch.nn.Module):
    """Takes batches of 5 only, as the community's pose network does, in half precision."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((5, 1), 2.0, dtype=torch.float16))

    def forward(self, x):
        return (x.flatten(1)[:, :3] * self.weight,)


def save(network, file, *example):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        (torch.jit.trace(network, example) if example else torch.jit.script(network)).save(str(file))
    return file


def test_a_fixed_batch_is_filled_up_and_half_precision_is_met(tmp_path):
    file = save(Fixed(), tmp_path / "net_bs5.pt", torch.zeros(5, 3, 2, 2, dtype=torch.float16))
    pictures = np.arange(7 * 12, dtype=np.float32).reshape(7, 3, 2, 2)
    [output] = read_network(file)(pictures)
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, pictures.reshape(7, 12)[:, :3] * 2)


def test_a_network_for_something_else_says_so(tmp_path, scripts):
    file = save(Fixed(), tmp_path / "net.pt", torch.zeros(5, 3, 2, 2, dtype=torch.float16))
    with pytest.raises(ValueError, match="net.pt does not take pictures of 5x4 pixels, 3 at once"):
        network = read_network(file)
        network.batch = 3
        network(np.zeros((3, 3, 4, 5), np.float32))
    with pytest.raises(ValueError, match="dw-ll_ucoco_384.onnx does not take pictures of 7x5 pixels") as error:
        read_network(ONNX / "dw-ll_ucoco_384.onnx")(np.zeros((1, 3, 5, 7), np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["broken.onnx", "broken.pt"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(ValueError, match=f"{name} (cannot be read|as an)|cannot read {name}") as error:
        read_network(tmp_path / name)
    assert "\n" not in str(error.value)


class Writes(torch.nn.Module):
    """Would write a file while it is being loaded."""

    @torch.jit.export
    def __getstate__(self):
        return self.training

    @torch.jit.export
    def __setstate__(self, training: bool):
        self.training = training
        torch.save(1, "written by a network")

    def forward(self, x):
        return x


class Reads(torch.nn.Module):
    def forward(self, x):
        return x + torch.from_file("secret", False, 3)


@pytest.mark.parametrize(("network", "call"), [(Writes(), r"save\("), (Reads(), r"from_file\(")])
def test_a_network_that_touches_files_is_refused_before_it_runs(tmp_path, monkeypatch, network, call):
    file = save(network, tmp_path / "bad.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"bad.pt uses '{call}', which DWPose does not need"):
        read_network(file)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]
