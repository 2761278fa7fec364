"""LoRAs for few steps (LCM, Hyper-SD, PCM, TCD), random ones with the layers of the published files, on our MODEL."""

import re

import comfy.sd
import comfy.utils
import pytest
import torch
from two_levels import two_levels

from champ.model.loras import lacks_attention

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


# How the layers are called; %s stands for diffusers' name. "old diffusers" has layers of the attention alone.
LAYOUTS = {
    "kohya": ("lora_unet_%s.lora_up.weight", "lora_unet_%s.lora_down.weight"),
    "old diffusers": ("unet.%s_lora.up.weight", "unet.%s_lora.down.weight"),
    "diffusers": ("unet.%s.lora.up.weight", "unet.%s.lora.down.weight"),
    "peft": ("unet.%s.lora_B.weight", "unet.%s.lora_A.weight"),
}


def named(name: str, layout: str) -> str:
    """Returns what a layer is called in a file."""
    if layout == "kohya":
        return name.replace(".", "_")
    return name.replace(".to_", ".processor.to_").removesuffix(".0") if layout == "old diffusers" else name


def lora(model, layout: str) -> dict[str, torch.Tensor]:
    made = {}
    weights = model.model.diffusion_model.state_dict()
    up_name, down_name = LAYOUTS[layout]
    for name, key in layers(model).items():
        rows, *columns = weights[key].shape
        name = name.removesuffix(".weight")
        up, down = torch.randn(rows, RANK, *[1] * (len(columns) - 1)) * 0.1, torch.randn(RANK, *columns) * 0.1
        if layout != "old diffusers" or ".attn" in name:
            made[up_name % named(name, layout)], made[down_name % named(name, layout)] = up, down
        if layout == "kohya":
            made[f"lora_unet_{named(name, layout)}.alpha"] = torch.tensor(ALPHA)
    return made


def load(model, given):
    return comfy.sd.load_lora_for_models(model, None, given, 1.0, 0)[0]


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


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_what_the_host_leaves_out_of_diffusers_newer_layouts(layout):
    """As docs/memory_and_time.md says; that is so for every UNet of Stable Diffusion 1.5."""
    model = two_levels()
    found = {key.removeprefix("diffusion_model.") for key in load(model, lora(model, layout)).patches}
    assert found == {key for name, key in layers(model).items() if ".attn" not in name}


def test_a_lora_without_its_attention_is_noticed():
    """Also beside a whole one; LoRAs of the attention alone, or of convolutions, are whole."""
    model = two_levels()
    whole, attention = load(model, lora(model, "kohya")), load(model, lora(model, "old diffusers"))
    assert attention.patches and all(".attn" in key for key in attention.patches)
    convolutions = {name: x for name, x in lora(model, "peft").items() if ".conv1." in name}
    for fine in (model, whole, attention, load(model, convolutions), load(whole, lora(model, "old diffusers"))):
        assert not lacks_attention(fine)
    half = lora(model, "peft")
    for base in (model, whole):
        assert lacks_attention(load(base, half))
