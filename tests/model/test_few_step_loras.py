"""LoRAs for few steps (LCM, Hyper-SD, PCM, TCD), random ones with the layers of the published files, on our MODEL."""

import re

import comfy.sd
import comfy.utils
import pytest
import torch
from two_levels import two_levels

# Layers of LCM-LoRA for SD1.5, which the others have too, or some of them.
LAYERS = re.compile(
    r".*\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_shortcut|time_emb_proj"
    r"|downsamplers\.0\.conv|upsamplers\.0\.conv)\.weight"
)
RANK, ALPHA = 3, 6.0


def layers(model) -> dict[str, str]:
    """ComfyUI's names by those of diffusers."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    own = model.model.diffusion_model.state_dict()
    return {name: key for name, key in names.items() if key in own and LAYERS.fullmatch(name)}


def lora(model, layout: str) -> dict[str, torch.Tensor]:
    made = {}
    weights = model.model.diffusion_model.state_dict()
    for name, key in layers(model).items():
        rows, *columns = weights[key].shape
        name = name.removesuffix(".weight")
        up, down = torch.randn(rows, RANK, *[1] * (len(columns) - 1)) * 0.1, torch.randn(RANK, *columns) * 0.1
        if layout == "kohya":
            name = f"lora_unet_{name.replace('.', '_')}"
            made[f"{name}.alpha"] = torch.tensor(ALPHA)
            made[f"{name}.lora_up.weight"], made[f"{name}.lora_down.weight"] = up, down
        else:
            made[f"unet.{name}.lora_B.weight"], made[f"unet.{name}.lora_A.weight"] = up, down
    return made


def test_kohyas_layout_reaches_every_layer():
    torch.manual_seed(0)
    model = two_levels()
    given, before = lora(model, "kohya"), model.model.diffusion_model.state_dict()
    patched, _ = comfy.sd.load_lora_for_models(model, None, given, 0.5, 0)
    wanted = layers(model)
    assert {key.removeprefix("diffusion_model.") for key in patched.patches} == set(wanted.values())
    assert len({re.sub(r"\d+", "", name) for name in wanted}) >= 25
    before = {key: value.clone() for key, value in before.items()}
    patched.patch_model()
    after = patched.model.diffusion_model.state_dict()
    for name, key in wanted.items():
        own = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        up, down = given[f"{own}.lora_up.weight"], given[f"{own}.lora_down.weight"]
        delta = 0.5 * ALPHA / RANK * (up.flatten(1) @ down.flatten(1)).view_as(before[key])
        torch.testing.assert_close(after[key], before[key] + delta, rtol=1e-4, atol=1e-5)
    patched.unpatch_model()


@pytest.mark.parametrize("kind, reached", [("ff.net", True), ("conv1", True), ("attn1.to_q", False)])
def test_what_the_host_leaves_out_of_diffusers_newer_layout(kind, reached):
    """As docs/memory_and_time.md says; that is so for every UNet of Stable Diffusion 1.5."""
    model = two_levels()
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora(model, "diffusers"), 1.0, 0)
    found = [key for name, key in layers(model).items() if kind in name]
    assert found and all((f"diffusion_model.{key}" in patched.patches) == reached for key in found)
