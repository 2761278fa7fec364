"""DWPose in ComfyUI's hands: loaded whole, released whatever happens, on batches that fit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import COMFYUI  # noqa: E402

if not (COMFYUI / "comfy").is_dir():
    pytest.skip("no ComfyUI: run the tests with `python dev.py test`, or set COMFYUI_PATH", allow_module_level=True)

import comfy.model_management  # noqa: E402

from champ.estimate.dwpose_model import DETECTOR_BATCH, Runner, load_dwpose  # noqa: E402
from champ.estimate.network import read_network  # noqa: E402

from .full_dwpose import RtmPose, YoloX, filled, traced  # noqa: E402

SMALL = Path(__file__).parents[1] / "data" / "dwpose"
DETECTOR, POSE_NETWORK = SMALL / "yolox_l.onnx", SMALL / "dw-ll_ucoco_384.onnx"


def loaded() -> list:
    return [entry.model for entry in comfy.model_management.current_loaded_models]


@pytest.fixture(scope="module")
def dwpose():
    return load_dwpose(DETECTOR, POSE_NETWORK)


@pytest.mark.parametrize("error", [None, ValueError, comfy.model_management.InterruptProcessingException])
def test_both_networks_are_there_while_they_are_used_and_not_after(dwpose, error):
    patchers = [dwpose.detector.patcher, dwpose.pose_network.patcher]
    try:
        with dwpose.in_use():
            assert all(patcher in loaded() for patcher in patchers)
            if error:
                raise error
    except BaseException as caught:
        assert type(caught) is error
    assert not any(patcher in loaded() for patcher in patchers)


def small_pose() -> torch.nn.Module:
    """With the inputs and outputs of the official network."""
    return filled(RtmPose(1 / 16, 1 / 6, tokens=(16, 8)))


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-2, 2, (count, 3, 384, 288)).astype(np.float32)


class Scarce(torch.nn.Module):
    """A network on a card with room for three pictures."""

    batch, takes_any, name = 1, True, "scarce"

    def __init__(self, error, least=None):
        super().__init__()
        self.weight, self.sizes, self.error = torch.nn.Parameter(torch.ones(1)), [], error
        if least:
            self.batch, self.takes_any = least, False

    def forward(self, pictures):
        self.sizes.append(len(pictures))
        if len(pictures) > 3:
            raise self.error
        return [pictures.mean(dim=(2, 3)) * self.weight]


@pytest.mark.parametrize("error", [comfy.model_management.OOM_EXCEPTION("no room"), RuntimeError("MPS out of memory")])
def test_batches_halve_when_memory_runs_out(error):
    runner = Runner(Scarce(error), 8)
    runner.limit = 8  # as on a graphics card
    seen = crops(11)
    [found] = runner(seen)
    np.testing.assert_allclose(found, seen.mean(axis=(2, 3)), atol=1e-5)
    assert runner.patcher.model.sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert runner.batch == 2


def test_what_does_not_fit_at_all_is_the_error_itself():
    runner = Runner(Scarce(RuntimeError("out of memory"), least=5), 8)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner(crops(5))
    other = Runner(Scarce(RuntimeError("a fault")), 8)
    other.limit = 8
    with pytest.raises(RuntimeError, match="a fault"):
        other(crops(8))


class Large(torch.nn.Module):
    """Goes through numbers that 16 bits cannot hold."""

    batch, takes_any, name = 1, True, "large"

    def __init__(self, factor=1e3):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), factor))

    def forward(self, pictures):
        return [(pictures.mean(dim=(2, 3)) + 3) * self.weight * self.weight / 1e6]


def test_where_16_bits_are_too_few_32_are_taken():
    network = Large()
    runner = Runner(network, 8)
    runner.dtype = torch.float16  # as on a graphics card
    network.half()
    seen = crops(2)
    [found] = runner(seen)
    assert runner.dtype == torch.float32 and found.dtype == np.float32
    np.testing.assert_allclose(found, seen.mean(axis=(2, 3)) + 3, atol=0.01)


def test_weights_that_are_no_numbers_are_a_sentence():
    with pytest.raises(ValueError, match="^large gives NaN or infinite values; download it again.$"):
        Runner(Large(float("nan")), 8)(crops(1))


def test_exchanged_files_are_refused_before_they_run():
    with pytest.raises(ValueError, match="dw-ll_ucoco_384.onnx does not take pictures of 640x640 pixels"):
        load_dwpose(POSE_NETWORK, DETECTOR)


def test_the_official_architectures_are_taken_from_checkpoints(tmp_path):
    """In small widths, but with the inputs and outputs of the official files."""
    pose = small_pose()
    torch.save({"model": filled(YoloX(1 / 16, 1 / 3)).state_dict()}, tmp_path / "yolox_l.pth")
    torch.save({"state_dict": pose.state_dict()}, tmp_path / "dw-ll_ucoco_384.pth")
    dwpose = load_dwpose(tmp_path / "yolox_l.pth", tmp_path / "dw-ll_ucoco_384.pth")
    with dwpose.in_use():
        [boxes] = dwpose.detector(np.zeros((2, 3, 640, 640), np.float32))
        x, y = dwpose.pose_network(crops(2))
    assert boxes.shape == (2, 8400, 85) and x.shape == (2, 133, 576) and y.shape == (2, 133, 768)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(x), pose(torch.from_numpy(crops(2)))[0], atol=1e-4, rtol=1e-4)


def test_a_network_for_batches_of_five_is_not_filled_up_where_it_need_not_be(tmp_path):
    """On the CPU one crop is fastest, and four empty ones beside it would take four times as long."""
    file = traced(small_pose(), (5, 3, 384, 288), tmp_path / "dw-ll_ucoco_384_bs5.torchscript.pt")
    runner = load_dwpose(DETECTOR, file).pose_network
    assert runner.patcher.model.batch == 5 and runner.batch == 1 < DETECTOR_BATCH
    runner(crops(1))
    assert runner.patcher.model.takes_any is True and runner.batch == 1
    fixed = Runner(read_network(file), 8)
    fixed.patcher.model.takes_any = False
    assert fixed.batch == 5 and fixed(crops(3))[0].shape[0] == 3
