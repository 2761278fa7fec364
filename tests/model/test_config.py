"""Sizes are read from names and shapes alone, at Stable Diffusion 1.5's size as at the small one."""

import json

import comfy.ops
import pytest
import torch
from golden import DATA
from torch import nn

from champ.model.config import MotionSizes, UNetSizes
from champ.model.denoiser import ChampUNet, ModelConfig
from champ.model.guidance import EncoderSizes, MapEncoder
from champ.model.loading import motion_names, unet_names
from champ.model.reference import ReferenceUNet

SD15 = UNetSizes(
    in_channels=4,
    channels=(320, 640, 1280, 1280),
    resnets=2,
    transformers=(True, True, True, False),
    context_dim=768,
    linear=False,
)


@pytest.fixture(scope="module")
def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """The tensors of the official files."""
    files = json.loads((DATA / "champ" / "sd15_shapes.json").read_text())
    return {file: {key: tuple(shape) for key, shape in keys.items()} for file, keys in files.items()}


def arguments(sizes: UNetSizes) -> dict:
    config = ModelConfig(sizes.comfy()).unet_config
    return {**config, "dtype": torch.float16, "device": "meta", "operations": comfy.ops.disable_weight_init}


def named_shapes(module: nn.Module, names: dict[str, str]) -> dict[str, tuple[int, ...]]:
    state = module.state_dict()
    return {name: tuple(state[key].shape) for name, key in names.items()}


def test_denoiser_has_exactly_the_official_tensors(shapes):
    assert UNetSizes.read(shapes["denoising_unet"]) == SD15
    motion = MotionSizes.read(shapes["motion_module"], SD15)
    assert len(motion.channels) == 21 and motion.frames == 32
    unet = ChampUNet(**arguments(SD15), motion=motion)
    own, moving = unet_names(SD15, unet), motion_names(SD15, unet)
    assert named_shapes(unet, own) == shapes["denoising_unet"]
    assert named_shapes(unet, moving) == shapes["motion_module"]
    assert {*own.values(), *moving.values()} == set(unet.state_dict())


def test_reference_unet_has_exactly_the_official_tensors(shapes):
    assert UNetSizes.read(shapes["reference_unet"]) == SD15
    unet = ReferenceUNet(**arguments(SD15))
    names = unet_names(SD15, unet)
    assert named_shapes(unet, names) == shapes["reference_unet"]
    assert set(names.values()) == set(unet.state_dict())


def test_guidance_encoder_has_the_used_tensors_of_the_official_file(shapes):
    sizes = EncoderSizes.read(shapes["guidance_encoder_X"])
    assert sizes == EncoderSizes((16, 32, 96, 256), 320, attention=True)
    state = MapEncoder(sizes, device="meta").state_dict()
    assert len(state) == 35
    assert {key: tuple(value.shape) for key, value in state.items()}.items() <= shapes["guidance_encoder_X"].items()


def test_motion_modules_of_animatediff(shapes):
    own = shapes["motion_module"]
    without_middle = {key: shape for key, shape in own.items() if "mid_block" not in key}
    assert MotionSizes.read(without_middle, SD15).channels.keys() == MotionSizes.read(own, SD15).channels.keys() - {
        ("middle", 0)
    }


def test_motion_modules_of_another_base(shapes):
    small = UNetSizes(4, (32, 64, 128, 128), 2, (True, True, True, False), 64, False)
    with pytest.raises(ValueError, match=r"another base: they have \(320, 640, 1280, 1280\).*\(32, 64, 128, 128\)"):
        MotionSizes.read(shapes["motion_module"], small)


def test_epsilons_and_groups(shapes):
    """These hardly show in results, so they are compared with what the official layers have."""
    motion = MotionSizes.read(shapes["motion_module"], SD15)
    for name, module in ChampUNet(**arguments(SD15), motion=motion).named_modules():
        if isinstance(module, nn.GroupNorm):
            inside_resnet = ".in_layers." in name or ".out_layers." in name or name.startswith("out.")
            assert (module.num_groups, module.eps) == (32, 1e-5 if inside_resnet else 1e-6), name
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-5, name
    encoder = MapEncoder(EncoderSizes((16, 32, 96, 256), 320, attention=True), device="meta")
    norms = [m for m in encoder.modules() if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.eps) for m in norms] == [(32, 1e-6)]
