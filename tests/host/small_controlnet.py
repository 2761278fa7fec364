"""Nodes for the tests: a ControlNet with random weights, and a text without a CLIP, that fit a small denoiser.
ComfyUI's own loaders know the sizes of published ones only."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import torch


class SmallControlNet:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def make(self, model):
        config = {k: v for k, v in model.model.model_config.unet_config.items() if k != "out_channels"}
        network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        return (comfy.controlnet.ControlNet(network.eval(), load_device=comfy.model_management.get_torch_device()),)


class SmallText:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def make(self, model):
        tokens = torch.randn(1, 77, model.model.context_dim, generator=torch.Generator().manual_seed(0))
        return ([[tokens, {}]],)


NODE_CLASS_MAPPINGS = {"TestSmallControlNet": SmallControlNet, "TestSmallText": SmallText}
