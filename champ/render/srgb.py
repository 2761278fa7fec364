"""Converts numbers to bytes, and between sRGB and linear light."""

import torch
from torch import Tensor


def to_levels(values: Tensor) -> Tensor:
    """Converts values in 0..1 to bytes."""
    return (255 * values + 0.5).to(torch.uint8)


def to_linear(srgb: Tensor) -> Tensor:
    """Converts sRGB values to linear light, both 0..1."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Converts linear light to sRGB values, both 0..1."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def to_pixels(light: Tensor) -> Tensor:
    """Converts linear light, clamped to 0..1, to uint8 sRGB."""
    return to_levels(to_srgb(light.clamp(0, 1)))
