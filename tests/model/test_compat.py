"""What differs between ComfyUI's versions, with either kind of host played by patches."""

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from torch import nn

from champ.model.compat import is_oom, load_whole, managed
from champ.model.loading import load_denoiser, load_encoders, load_reference_net

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def test_the_host_decides_how_models_are_held(monkeypatch):
    class Dynamic(comfy.model_patcher.ModelPatcher):
        pass

    for kind in (comfy.model_patcher.ModelPatcher, Dynamic):
        monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", kind, raising=False)
        assert type(managed(nn.Linear(2, 2), CPU, CPU)) is kind
    monkeypatch.delattr(comfy.model_patcher, "CoreModelPatcher")
    assert type(managed(nn.Linear(2, 2), CPU, CPU)) is comfy.model_patcher.ModelPatcher


@pytest.mark.parametrize("weight_dtype", ["default", "fp8_e4m3fn"])
def test_weights_are_all_there_where_the_host_has_dynamic_memory(champ, monkeypatch, weight_dtype):
    """Then its own layers are empty until their weights are loaded."""
    dynamic = pytest.importorskip("comfy.memory_management")
    if not hasattr(dynamic, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic memory")

    def weights():
        models = (
            load_denoiser(champ.files, weight_dtype=weight_dtype).model.diffusion_model,
            load_reference_net(champ.files, weight_dtype).patcher.model,
            load_encoders(champ.files).patcher.model,
        )
        return [model.state_dict() for model in models]

    plain = weights()
    monkeypatch.setattr(dynamic, "aimdo_enabled", True)
    assert comfy.ops.disable_weight_init.Linear(2, 2).weight is None
    for found, wanted in zip(weights(), plain):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key].float(), value.float()), key


def test_the_host_can_load_a_model_again(champ, monkeypatch):
    """For another card, or without dynamic memory, as its node for torch.compile wants it."""

    class Dynamic(comfy.model_patcher.ModelPatcher):
        pass

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic, raising=False)
    model = load_denoiser(champ.files, "none", "fp8_e4m3fn")
    make, given = model.cached_patcher_init
    again, plain = make(*given), make(*given, disable_dynamic=True)
    assert [type(one) for one in (model, again, plain)] == [Dynamic, Dynamic, comfy.model_patcher.ModelPatcher]
    weights = [one.model.diffusion_model.state_dict() for one in (model, again, plain)]
    for key, value in weights[0].items():
        assert value.dtype == weights[2][key].dtype and torch.equal(value.float(), weights[2][key].float()), key
        assert value.data_ptr() != weights[1][key].data_ptr()


class Plain(nn.Module):
    """Has weights that are in no layer, beside layers of torch and not of ComfyUI."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.layers = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Linear(64, 8))


@pytest.mark.parametrize("state", ["NORMAL_VRAM", "LOW_VRAM", "NO_VRAM"])
def test_plain_models_are_loaded_whole(state, monkeypatch):
    """With hardly any memory free ComfyUI alone would leave them where they are, at least in part."""

    def places(patcher):
        return {value.device for value in (*patcher.model.parameters(), *patcher.model.buffers())}

    monkeypatch.setattr(management, "vram_state", management.VRAMState[state])
    monkeypatch.setattr(management, "lowvram_available", True)
    monkeypatch.setattr(
        management, "get_free_memory", lambda *_, torch_free_too=False: (100, 0) if torch_free_too else 100
    )
    left = comfy.model_patcher.ModelPatcher(Plain(), ELSEWHERE, CPU)
    management.load_models_gpu([left])
    assert CPU in places(left)
    whole = managed(Plain(), ELSEWHERE, CPU)
    load_whole([whole])
    assert places(whole) == {ELSEWHERE}
    assert whole in management.loaded_models()
    management.current_loaded_models.clear()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GiB). Tried to allocate 2 GiB."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("This picture is out of memory."), False),
    ],
)
def test_out_of_memory(error, expected, monkeypatch):
    assert is_oom(error) == expected
    monkeypatch.delattr(management, "is_oom", raising=False)  # as in ComfyUI 0.3.75
    assert is_oom(error) == expected


def test_what_the_host_takes_for_out_of_memory_is_that(monkeypatch):
    error = KeyError("error 2")
    monkeypatch.setattr(management, "is_oom", lambda given: given is error, raising=False)
    assert is_oom(error) and not is_oom(KeyError("error 2"))
