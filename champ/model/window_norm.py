"""GroupNorm over all frames of a window, as plain 3D layers of the first AnimateDiff compute it."""

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

from .config import GROUPS


class NormParts:
    """Into how many evaluations the batch that a UNet is given is divided; set before each forward pass."""

    count = 1


def span_windows(unet: UNetModel, parts: NormParts, operations: Any) -> None:
    """Replaces the norms of a new UNet's residual blocks and output by norms whose mean and variance span the frames of
    each part; tensor names do not change."""

    class WindowNorm(operations.GroupNorm):
        def forward(self, x):
            clips = x.unflatten(0, (parts.count, -1)).transpose(1, 2)  # frames beside rows and columns
            return super().forward(clips).transpose(1, 2).flatten(0, 1)

    def replaced(norm: Any) -> WindowNorm:
        weight = norm.weight
        return WindowNorm(GROUPS, norm.num_channels, eps=norm.eps, dtype=weight.dtype, device=weight.device)

    for block in unet.modules():
        if isinstance(block, ResBlock):
            block.in_layers[0], block.out_layers[0] = replaced(block.in_layers[0]), replaced(block.out_layers[0])
    unet.out[0] = replaced(unet.out[0])
