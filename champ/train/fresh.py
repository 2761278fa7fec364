"""Untrained networks of given sizes, with the usual initial values."""

import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn

from ..model.config import MotionSizes, UNetSizes
from ..model.denoiser import ChampModel, ChampUNet, ModelConfig
from ..model.families import CHAMP, ENCODED_MAPS
from ..model.guidance import EncoderSizes, GuidanceEncoders, MapEncoder
from ..model.motion_module import MotionModule, PositionalEncoding
from ..model.reference import ReferenceNet, ReferenceUNet
from .networks import Networks, Sizes, patcher

OPERATIONS = comfy.ops.disable_weight_init
RESET = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)


def motion_sizes(unet: UNetSizes, frames: int, middle: bool) -> MotionSizes:
    """Returns the sizes of motion modules at every residual block, and perhaps in the middle, for so many frames."""
    places = {unet.place(block, j): c for block, row in unet.places().items() for j, c in row.items()}
    if not middle:
        del places["middle", 0]
    return MotionSizes(places, frames)


def fresh_networks(sizes: Sizes, seed: int) -> Networks:
    """Makes new networks; ReferenceNet begins with the denoiser's weights, and nothing is added at first.

    What a residual block, a transformer, a motion module or a guidance encoder adds begins at zero."""
    config = ModelConfig(sizes.unet.comfy())
    config.set_inference_dtype(torch.float32, None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ChampModel(config, CHAMP, sizes.motion)
        unet: ChampUNet = model.diffusion_model
        reference = ReferenceUNet(**config.unet_config, operations=OPERATIONS)
        initialise(unet)
        weights = unet.state_dict()
        reference.load_state_dict({key: weights[key] for key in reference.state_dict()})
        encoders = nn.ModuleDict({name: fresh_encoder(sizes.encoder) for name in ENCODED_MAPS})
    return Networks(
        sizes,
        patcher(model),
        ReferenceNet(patcher(reference), CHAMP, torch.float32, sizes.unet.context_dim),
        GuidanceEncoders(patcher(encoders), CHAMP, torch.float32),
    )


def fresh_encoder(sizes: EncoderSizes) -> MapEncoder:
    encoder = MapEncoder(sizes, torch.float32, operations=OPERATIONS)
    initialise(encoder)
    return encoder


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Sets torch's own initial values, which ComfyUI leaves out, and zeros in the last layer of whatever is added."""
    last: list[nn.Module] = []
    for module in network.modules():
        for kind in RESET:
            if isinstance(module, kind):
                kind.reset_parameters(module)  # that of torch: ComfyUI's own does nothing
        if isinstance(module, PositionalEncoding):
            module.pe.copy_(sinusoid(*module.pe.shape[1:]))
        elif isinstance(module, ResBlock):
            last.append(module.out_layers[-1])
        elif isinstance(module, (SpatialTransformer, MotionModule)):
            last.append(module.proj_out)
        elif isinstance(module, MapEncoder):
            last.append(module.conv_out)
        elif isinstance(module, ChampUNet):
            last.append(module.out[-1])
    for layer in last:
        for values in layer.parameters():
            values.zero_()


def sinusoid(frames: int, channels: int) -> Tensor:
    """Computes pe[p, 2i] = sin(p 10000^(-2i/C)), pe[p, 2i + 1] = cos."""
    angles = torch.arange(frames)[:, None] * 10000 ** (-torch.arange(0, channels, 2) / channels)
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(1, frames, channels)[0]
