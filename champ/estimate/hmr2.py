"""HMR2.0 of 4D-Humans: estimates SMPL's rotations and betas and a weak-perspective camera from a square crop.

A ViT reads the crop, and one query token attends to its patches. The modules are named as in the official checkpoints.
Dropout and stochastic depth are left out: they act only in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CROP = 256  # pixels; the network looks at the middle three quarters of its width
SIDE = CROP // 8  # columns that the network drops on each side
PATCH = 16
ROWS, COLUMNS = CROP // PATCH, (CROP - 2 * SIDE) // PATCH
HEADS, DECODER_HEADS = 16, 8  # of the official networks


@dataclass(frozen=True)
class HMR2Sizes:
    width: int
    depth: int
    mlp: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_mlp: int
    decoder_inner: int  # heads * channels of a head
    decoder_heads: int

    @classmethod
    def read(
        cls, shapes: Mapping[str, tuple[int, ...]], heads: int = HEADS, decoder_heads: int = DECODER_HEADS
    ) -> "HMR2Sizes":
        """Reads the network's sizes from the shapes of its tensors; the numbers of heads are not among them."""

        def count(pattern: str) -> int:
            number = 0
            while pattern.format(number) in shapes:
                number += 1
            return number

        layer = "smpl_head.transformer.transformer.layers.{}."
        first = layer.format(0)
        try:
            mlp, width = shapes["backbone.blocks.0.mlp.fc1.weight"]
            decoder_mlp, decoder_width = shapes[first + "2.fn.net.0.weight"]
            inner = shapes[first + "1.fn.to_q.weight"][0]
        except KeyError as missing:
            raise ValueError(f"it has no tensor called {missing.args[0]}") from None
        if width % heads or inner % decoder_heads:
            raise ValueError(f"its widths {width} and {inner} cannot be split over {heads} and {decoder_heads} heads")
        depth, decoder_depth = count("backbone.blocks.{}.mlp.fc1.weight"), count(layer + "2.fn.net.0.weight")
        return cls(width, depth, mlp, heads, decoder_width, decoder_depth, decoder_mlp, inner, decoder_heads)


class Prediction(NamedTuple):
    """float32; `camera` is (s, tx, ty) of the crop, which `crops.cam_in_picture` converts to a place."""

    rotations: Tensor  # (N, 24, 3, 3); joint 0 turns the body into the camera frame
    betas: Tensor  # (N, 10)
    camera: Tensor  # (N, 3)


def multi_head(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Computes softmax attention of tokens (N, T, heads * channels)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


class Attention(nn.Module):
    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        super().__init__()
        self.heads = sizes.heads
        self.qkv = operations.Linear(sizes.width, 3 * sizes.width, **kind)
        self.proj = operations.Linear(sizes.width, sizes.width, **kind)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(multi_head(q, k, v, self.heads))


class MLP(nn.Module):
    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        super().__init__()
        self.fc1 = operations.Linear(sizes.width, sizes.mlp, **kind)
        self.fc2 = operations.Linear(sizes.mlp, sizes.width, **kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ViTBlock(nn.Module):
    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        super().__init__()
        self.norm1 = operations.LayerNorm(sizes.width, eps=1e-6, **kind)
        self.attn = Attention(sizes, kind, operations)
        self.norm2 = operations.LayerNorm(sizes.width, eps=1e-6, **kind)
        self.mlp = MLP(sizes, kind, operations)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """ViTPose's ViT: normalised crops (N, 3, 256, 256) to patches (N, 16 * 12, width), row by row."""

    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + ROWS * COLUMNS, sizes.width, **kind))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = operations.Conv2d(3, sizes.width, PATCH, stride=PATCH, padding=2, **kind)
        self.blocks = nn.ModuleList(ViTBlock(sizes, kind, operations) for _ in range(sizes.depth))
        self.last_norm = operations.LayerNorm(sizes.width, eps=1e-6, **kind)

    def forward(self, crops: Tensor) -> Tensor:
        x = self.patch_embed.proj(crops[..., SIDE:-SIDE]).flatten(2).transpose(1, 2)
        position = self.pos_embed.to(x)
        x = x + position[:, 1:] + position[:, :1]  # the position of a class token, which does not exist here
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)


class DecoderLayer(nn.ModuleList):
    """Self-attention, cross-attention to the patches, and feed-forward; each is {norm, fn} in the checkpoints."""

    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        width, inner, mlp = sizes.decoder_width, sizes.decoder_inner, sizes.decoder_mlp
        own, cross, feed = nn.Module(), nn.Module(), nn.Module()
        own.to_qkv = operations.Linear(width, 3 * inner, bias=False, **kind)
        own.to_out = nn.ModuleList([operations.Linear(inner, width, **kind)])
        cross.to_kv = operations.Linear(sizes.width, 2 * inner, bias=False, **kind)
        cross.to_q = operations.Linear(width, inner, bias=False, **kind)
        cross.to_out = nn.ModuleList([operations.Linear(inner, width, **kind)])
        feed.net = nn.ModuleDict({
            "0": operations.Linear(width, mlp, **kind), "3": operations.Linear(mlp, width, **kind)
        })  # fmt: skip
        super().__init__(nn.ModuleDict({"fn": fn}) for fn in (own, cross, feed))
        for part in self:
            part["norm"] = operations.LayerNorm(width, **kind)
        self.heads = sizes.decoder_heads

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        own, cross, feed = self
        # The softmax over a single token is 1, so the result is its value.
        value = own["fn"].to_qkv(own["norm"](x)).chunk(3, -1)[2]
        x = x + own["fn"].to_out[0](value)
        k, v = cross["fn"].to_kv(context).chunk(2, -1)
        x = x + cross["fn"].to_out[0](multi_head(cross["fn"].to_q(cross["norm"](x)), k, v, self.heads))
        net = feed["fn"].net
        return x + net["3"](F.gelu(net["0"](feed["norm"](x))))


class SMPLHead(nn.Module):
    """One query token reads the patches; its output is added to the mean pose, shape and camera."""

    def __init__(self, sizes: HMR2Sizes, kind: dict[str, Any], operations: Any):
        super().__init__()
        width = sizes.decoder_width
        self.transformer = nn.Module()
        self.transformer.pos_embedding = nn.Parameter(torch.empty(1, 1, width, **kind))
        self.transformer.to_token_embedding = operations.Linear(1, width, **kind)
        self.transformer.transformer = nn.Module()
        layers = nn.ModuleList(DecoderLayer(sizes, kind, operations) for _ in range(sizes.decoder_depth))
        self.transformer.transformer.layers = layers
        for name, mean, count in (
            ("decpose", "body_pose", 24 * 6),
            ("decshape", "betas", 10),
            ("deccam", "cam", 3),
        ):
            setattr(self, name, operations.Linear(width, count, **kind))
            self.register_buffer(f"init_{mean}", torch.empty(1, count, **kind))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoder = self.transformer
        token = decoder.to_token_embedding(context.new_zeros(len(context), 1, 1))
        token = token + decoder.pos_embedding.to(token)
        for layer in decoder.transformer.layers:
            token = layer(token, context)
        token = token[:, 0]
        return tuple(
            read(token).float() + mean.to(token.device, torch.float32)
            for read, mean in (
                (self.decpose, self.init_body_pose),
                (self.decshape, self.init_betas),
                (self.deccam, self.init_cam),
            )
        )


def rotation_from_6d(values: Tensor) -> Tensor:
    """Converts (..., 6), two vectors, to rotations (..., 3, 3): their Gram-Schmidt basis as columns."""
    first, second = values.unflatten(-1, (2, 3)).unbind(-2)
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


class HMR2Net(nn.Module):
    def __init__(self, sizes: HMR2Sizes, dtype: Any = None, device: Any = None, operations: Any = nn):
        super().__init__()
        kind = dict(dtype=dtype, device=device)
        self.backbone = ViT(sizes, kind, operations)
        self.smpl_head = SMPLHead(sizes, kind, operations)

    def forward(self, crops: Tensor) -> Prediction:
        """Predicts for crops (N, 3, 256, 256) of `crops.crop_square`, in the dtype of the computation."""
        pose, betas, camera = self.smpl_head(self.backbone(crops))
        return Prediction(rotation_from_6d(pose.unflatten(-1, (24, 6))), betas, camera)
