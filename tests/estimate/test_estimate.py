"""From pictures to a motion with a small HMR2, managed by ComfyUI, in this process and on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hmr2_data import HEADS, HEIGHT, NETWORK, WIDTH, box, expected, lightning, picture, weights

sys.path.append(str(Path(__file__).parents[1] / "model"))

from golden import COMFYUI  # noqa: E402

if not (COMFYUI / "comfy").is_dir():
    pytest.skip("no ComfyUI: run the tests with `python dev.py test`, or set COMFYUI_PATH", allow_module_level=True)

from safetensors.torch import save_file  # noqa: E402

from champ.body.free import free_body_betas, load_free_body  # noqa: E402
from champ.body.smpl import load_smpl  # noqa: E402
from champ.estimate.crops import Square, crop_square  # noqa: E402
from champ.estimate.estimate import estimate_motion  # noqa: E402
from champ.estimate.hmr2_model import _fast_bf16, load_hmr2, predict  # noqa: E402
from champ.progress import listening

SIZE = (WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def hmr2():
    return load_hmr2(NETWORK)


@pytest.fixture(scope="module")
def smpl():
    return load_smpl(NETWORK.with_name("body.safetensors"))


@pytest.fixture(scope="module")
def crops():
    return [crop_square(picture(), Square.around(box(i))) for i in range(3)]


def test_the_official_results(hmr2, crops):
    for batch in (1, 2, 3, 16):
        found = list(predict(hmr2, crops, batch))
        assert len(found) == 3
        for name in ("rotations", "betas", "camera"):
            values = torch.stack([getattr(p, name) for p in found])
            assert (values - expected()[name]).abs().max() < 1e-5, (batch, name)


def test_the_network_leaves_the_memory(hmr2, crops):
    import comfy.model_management

    list(predict(hmr2, crops))
    assert hmr2.patcher not in [entry.model for entry in comfy.model_management.current_loaded_models]


def test_the_network_leaves_the_memory_when_it_is_stopped(hmr2, crops):
    import comfy.model_management

    def stopped():
        yield crops[0]
        raise comfy.model_management.InterruptProcessingException

    before = list(predict(hmr2, crops))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        list(predict(hmr2, stopped(), batch=1))
    assert hmr2.patcher not in [entry.model for entry in comfy.model_management.current_loaded_models]
    again = list(predict(hmr2, crops))
    assert all(torch.equal(a, b) for one, other in zip(before, again) for a, b in zip(one, other))


def test_weights_that_are_no_numbers(crops):
    hmr2 = load_hmr2(NETWORK)
    hmr2.patcher.model.smpl_head.decshape.bias[0] = float("nan")
    with pytest.raises(ValueError, match="HMR2 gave NaN .* its weights contain some, first in smpl_head.decshape.bias"):
        list(predict(hmr2, crops))


def test_low_vram(crops):
    """Weights that are moved only when they are used give the same."""
    hmr2 = load_hmr2(NETWORK)
    hmr2.patcher.load(torch.device("cpu"), lowvram_model_memory=100_000)
    assert any(getattr(module, "comfy_cast_weights", False) for module in hmr2.patcher.model.modules())
    with torch.no_grad():
        found = hmr2.patcher.model(torch.stack(crops))
    assert (found.rotations - expected()["rotations"]).abs().max() < 1e-5


@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16"])
def test_weights_in_16_bits(crops, weight_dtype):
    """The CPU computes in 32 bits with weights that are kept in 16, unless it is quick with them."""
    hmr2 = load_hmr2(NETWORK, weight_dtype)
    kept = {value.dtype for value in hmr2.patcher.model.state_dict().values()}
    assert kept == {{"fp16": torch.float16, "bf16": torch.bfloat16}[weight_dtype]}
    assert hmr2.dtype == (torch.bfloat16 if _fast_bf16(*kept, torch.device("cpu")) else torch.float32)
    found = torch.stack([p.betas for p in predict(hmr2, crops)])
    assert 0 < (found - expected()["betas"]).abs().max() < 0.15  # of values up to 7


def test_batches_shrink_until_they_fit(crops, monkeypatch):
    import comfy.model_management

    class OutOfMemory(RuntimeError):
        pass

    hmr2, sizes = load_hmr2(NETWORK), []
    network = hmr2.patcher.model.forward

    def forward(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise OutOfMemory
        return network(batch)

    monkeypatch.setattr(comfy.model_management, "OOM_EXCEPTION", OutOfMemory)
    monkeypatch.setattr(hmr2.patcher.model, "forward", forward)
    found = list(predict(hmr2, [crops[i % 3] for i in range(11)], 8))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    for i, prediction in enumerate(found):
        assert (prediction.betas - expected()["betas"][i % 3]).abs().max() < 1e-5
    monkeypatch.setattr(hmr2.patcher.model, "forward", lambda batch: (_ for _ in ()).throw(OutOfMemory()))
    with pytest.raises(OutOfMemory):
        list(predict(hmr2, crops, 2))


def clip(frames: int):
    """The three official boxes in turn, over the same picture."""
    boxes = [box(i % 3) for i in range(frames)]
    return [picture()] * frames, boxes


def test_motion_of_a_clip(hmr2, smpl):
    pictures, boxes = clip(7)
    boxes[0] = boxes[3] = boxes[4] = None
    heard = []
    with listening(lambda *count: heard.append(count)):
        motion = estimate_motion(hmr2, pictures, boxes, SIZE, smpl, 25.0)
    assert len(motion) == 7 and (motion.width, motion.height, motion.fps) == (*SIZE, 25.0)
    assert motion.confidence.tolist() == pytest.approx([0, 0.9, 0.9, 0, 0, 0.9, 0.9])
    assert (motion.rotations[[1, 2, 5, 6]] - expected()["rotations"][[1, 2, 2, 0]]).abs().max() < 1e-5
    assert torch.allclose(motion.rotations[0], motion.rotations[1], atol=1e-5)
    assert (motion.rotations[3:5] - expected()["rotations"][2]).abs().max() < 1e-5  # between two equal frames
    assert torch.allclose(motion.betas, expected()["betas"][[1, 2, 2, 0]].mean(0), atol=1e-5)
    assert heard == [(i, 7) for i in range(8)]


def test_places_are_the_official_ones(hmr2, smpl):
    motion = estimate_motion(hmr2, *clip(3), SIZE, smpl, 30.0)
    wanted = expected()["cam_t"]
    assert ((motion.cam_t - wanted).norm(dim=1) / wanted.norm(dim=1)).max() < 1e-5
    assert motion.focal == pytest.approx(float(expected()["focal"]), rel=1e-6)


def test_certain_frames_decide_the_shape(hmr2, smpl):
    pictures, boxes = clip(3)
    for b, score in zip(boxes, (1.0, 0.5, 0.0)):
        b[4] = score
    motion = estimate_motion(hmr2, pictures, boxes, SIZE, smpl, 30.0)
    betas = expected()["betas"]
    assert torch.allclose(motion.betas, (betas[0] + 0.5 * betas[1] + 0.01 * betas[2]) / 1.51, atol=1e-5)
    assert (motion.confidence > 0).all()


def test_the_free_body_takes_size_and_girth(hmr2, smpl):
    pictures, boxes = clip(2)
    own = load_free_body().with_betas(free_body_betas(gender=1.0, age=60))
    free = estimate_motion(hmr2, pictures, boxes, SIZE, own, 30.0)
    estimated = estimate_motion(hmr2, pictures, boxes, SIZE, smpl, 30.0)
    assert torch.equal(free.betas[:2], estimated.betas[:2]) and torch.equal(free.betas[2:], own.betas[2:])
    assert torch.equal(free.cam_t, estimated.cam_t)


def test_nothing_is_carried_over_a_cut(hmr2, smpl):
    pictures, boxes = clip(6)
    boxes[2] = boxes[3] = None
    shot = np.array([0, 0, 0, 1, 1, 1])
    motion = estimate_motion(hmr2, pictures, boxes, SIZE, smpl, 30.0, shot)
    assert motion.shot.tolist() == shot.tolist()
    assert torch.allclose(motion.cam_t[2:4], motion.cam_t[[1, 4]], rtol=1e-5)


def test_pictures_are_taken_one_after_another(hmr2, smpl):
    """A long clip is never in memory: the next picture is asked for when the one before it has been looked at."""
    order = []

    def pictures():
        for i in range(5):
            order.append(i)
            yield picture()

    with listening(lambda done, _: order.append(f"at {done}")):
        estimate_motion(hmr2, pictures(), clip(5)[1], SIZE, smpl, 30.0)
    assert order == [x for i in range(5) for x in (i, f"at {i}")] + ["at 5"]


def test_cancel(hmr2, smpl):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with listening(stop):
            estimate_motion(hmr2, *clip(5), SIZE, smpl, 30.0)


def test_bad_input(hmr2, smpl):
    with pytest.raises(ValueError, match="in none of the 3 frames"):
        estimate_motion(hmr2, clip(3)[0], [None] * 3, SIZE, smpl, 30.0)
    with pytest.raises(ValueError, match="boxes for 3 frames, but fewer pictures"):
        estimate_motion(hmr2, clip(2)[0], clip(3)[1], SIZE, smpl, 30.0)


@pytest.mark.parametrize("discriminator", [True, False])
def test_official_checkpoints_load(tmp_path, crops, discriminator):
    file = lightning(tmp_path / "hmr2.ckpt", discriminator=discriminator)
    found = next(predict(load_hmr2(file, **HEADS), crops))
    assert (found.rotations - expected()["rotations"][0]).abs().max() < 1e-5


def test_the_half_precision_copy_is_used(tmp_path, crops):
    """It says how many heads there are, so that it loads by itself."""
    file = lightning(tmp_path / "hmr2.ckpt")
    first = load_hmr2(file, half_precision_copy=True, **HEADS)
    copy = tmp_path / "hmr2_fp16.safetensors"
    made = copy.stat().st_mtime_ns
    for again in (load_hmr2(file, half_precision_copy=True, **HEADS), load_hmr2(copy, half_precision_copy=True)):
        for key, value in again.patcher.model.state_dict().items():
            assert torch.equal(value, weights()[key].half().to(value)), key
    assert copy.stat().st_mtime_ns == made and first.sizes == again.sizes


def test_other_files_are_told_apart(tmp_path, caplog):
    def saved(state):
        save_file(state, tmp_path / "file.safetensors", {"heads": "4", "decoder_heads": "3"})
        return tmp_path / "file.safetensors"

    with pytest.raises(
        ValueError, match="file.safetensors is a complete text-to-image checkpoint, but a checkpoint of HMR2 belongs"
    ):
        load_hmr2(saved({"model.diffusion_model.out.0.weight": torch.ones(1)}))
    state = dict(weights())
    del state["backbone.last_norm.bias"]
    with pytest.raises(ValueError, match=r"wrong tensors \(1 missing: backbone.last_norm.bias\)"):
        load_hmr2(saved(state))
    load_hmr2(saved({**weights(), "backbone.extra": torch.ones(1)}))
    assert "holds 1 tensors that are not used: backbone.extra" in caplog.text
    with pytest.raises(ValueError, match="hmr2.ckpt does not fit: its widths 64 and 24 cannot be split over 5 and 8"):
        load_hmr2(lightning(tmp_path / "hmr2.ckpt"), heads=5)
    with pytest.raises(ValueError, match="no weight type 'fp8'"):
        load_hmr2(NETWORK, "fp8")
