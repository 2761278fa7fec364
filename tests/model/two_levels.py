"""A random denoiser of two levels with one residual block each, for tests of what does not depend on the weights."""

import comfy.ops
import torch

from champ.model.compat import managed
from champ.model.conditioning import conditioning
from champ.model.config import MotionSizes, UNetSizes
from champ.model.denoiser import ChampModel, ModelConfig
from champ.model.families import CHAMP
from champ.model.guidance import Guidance, Layer
from champ.model.reference import Reference

CONTEXT = 16
CPU = torch.device("cpu")


def two_levels(device: torch.device = CPU, motion: bool = True, seed: int = 0):
    sizes = UNetSizes(4, (32, 64), 1, (True, True), CONTEXT, linear=False)
    places = {sizes.place(block, j): c for block, row in sizes.places().items() for j, c in row.items()}
    config = ModelConfig(sizes.comfy())
    config.set_inference_dtype(torch.float32, None)
    config.custom_operations = comfy.ops.disable_weight_init
    model = ChampModel(config, CHAMP, MotionSizes(places, 32) if motion else None)
    generator = torch.Generator().manual_seed(seed)
    for values in model.diffusion_model.state_dict().values():
        values.normal_(std=1.5 * values[0].numel() ** -0.5 if values.ndim > 1 else 0.3, generator=generator)
    return managed(model.requires_grad_(False), device, CPU)


def clip_of(frames: int, size: int = 16, references=None) -> tuple:
    """Positive and negative of a clip with random guidance and, if none is given, one random reference."""
    generator = torch.Generator().manual_seed(frames)
    features = torch.randn(frames, 32, size // 8, size // 8, generator=generator)
    guidance = Guidance((Layer(features),), frames, size, size, CHAMP)
    references = [a_reference(size)] if references is None else references
    return conditioning(CONTEXT, guidance, references, torch.randn(1, CONTEXT, generator=generator))


def a_reference(size: int = 16) -> Reference:
    generator = torch.Generator().manual_seed(1)
    channels = two_levels().model.diffusion_model.transformer_channels
    tokens = {place: (size // 8) ** 2 if c == 32 else (size // 16) ** 2 for place, c in channels.items()}
    return Reference(
        {place: torch.randn(1, tokens[place], c, generator=generator) for place, c in channels.items()}, CHAMP
    )
