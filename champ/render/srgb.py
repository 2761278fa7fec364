"""From numbers to the bytes of pictures, and between sRGB and light."""

import torch
from torch import Tensor


def to_levels(values: Tensor) -> Tensor:
    """Bytes of values in 0..1."""
    return (255 * values + 0.5).to(torch.uint8)


def to_linear(srgb: Tensor) -> Tensor:
    """Light of sRGB values, both 0..1."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """sRGB values of light, both 0..1."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def to_pixels(light: Tensor) -> Tensor:
    """uint8 sRGB of light, which is cut to 0..1."""
    return to_levels(to_srgb(light.clamp(0, 1)))
