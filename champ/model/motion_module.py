"""Motion modules: attention along time at every pixel, in AnimateDiff's layout and with its names."""

from typing import Any

import torch
from comfy.ldm.modules.attention import FeedForward, attention_pytorch
from torch import Tensor, nn

from .config import GROUPS, HEADS


class PositionalEncoding(nn.Module):
    """Adds the sinusoidal encoding of a frame's position in its window; the table comes with the checkpoint."""

    pe: Tensor

    def __init__(self, channels: int, frames: int, device: Any = None):
        super().__init__()
        # float32, whatever the storage type of the weights: 8 bits would be too coarse.
        self.register_buffer("pe", torch.empty(1, frames, channels, dtype=torch.float32, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]].to(x)


class TemporalAttention(nn.Module):
    """Attention over the frames of (sequences, frames, channels); the encoding is added to the input of q, k and v."""

    def __init__(self, channels: int, frames: int, dtype: Any, device: Any, operations: Any):
        super().__init__()
        self.to_q = operations.Linear(channels, channels, bias=False, dtype=dtype, device=device)
        self.to_k = operations.Linear(channels, channels, bias=False, dtype=dtype, device=device)
        self.to_v = operations.Linear(channels, channels, bias=False, dtype=dtype, device=device)
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, dtype=dtype, device=device)])
        self.pos_encoder = PositionalEncoding(channels, frames, device)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_encoder(x)
        return self.to_out[0](attention_pytorch(self.to_q(x), self.to_k(x), self.to_v(x), HEADS))


class TemporalBlock(nn.Module):
    """x += attention(norm(x)), twice, then x += ff(norm(x))."""

    def __init__(self, channels: int, frames: int, dtype: Any, device: Any, operations: Any):
        super().__init__()
        kind = dict(dtype=dtype, device=device, operations=operations)
        attentions = [TemporalAttention(channels, frames, **kind) for _ in range(2)]
        self.attention_blocks = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(operations.LayerNorm(channels, dtype=dtype, device=device) for _ in attentions)
        self.ff = FeedForward(channels, glu=True, **kind)
        self.ff_norm = operations.LayerNorm(channels, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class MotionModule(nn.Module):
    """One temporal block between two projections, with a residual connection around them."""

    def __init__(self, channels: int, frames: int, dtype: Any = None, device: Any = None, operations: Any = nn):
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, dtype=dtype, device=device)
        self.proj_in = operations.Linear(channels, channels, dtype=dtype, device=device)
        block = TemporalBlock(channels, frames, dtype, device, operations)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(channels, channels, dtype=dtype, device=device)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Mixes the frames of each clip in x (clips * frames, C, h, w), at every pixel separately."""
        _, channels, height, width = x.shape
        tokens = self.norm(x).reshape(-1, frames, channels, height * width)
        tokens = self.proj_in(tokens.permute(0, 3, 1, 2).reshape(-1, frames, channels))
        tokens = self.proj_out(self.transformer_blocks[0](tokens))
        tokens = tokens.reshape(-1, height * width, frames, channels).permute(0, 2, 3, 1)
        return x + tokens.reshape(x.shape)
