"""Sizes of a UNet and its motion modules, read from the names and shapes of their tensors (diffusers names)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
# A block of ComfyUI's UNet: ("input" | "middle" | "output", number). It has at most one transformer block.
Place = tuple[str, int]

HEADS = 8  # of every attention of the SD1.5 family; no tensor shape shows it
GROUPS = 32  # of every GroupNorm

# A tensor of a motion module in AnimateDiff's layout.
MOTION_KEY = re.compile(r"((?:down_blocks|up_blocks)\.\d+|mid_block)\.motion_modules\.(\d+)\.(.+)")
TEMPORAL = "temporal_transformer."


@dataclass(frozen=True)
class UNetSizes:
    """An SD1.5-family UNet: levels of residual blocks, some with a transformer of one block after each."""

    in_channels: int
    channels: tuple[int, ...]  # of each level, finest first
    resnets: int  # per level on the way down; one more on the way up
    transformers: tuple[bool, ...]  # per level, whether transformers follow its residual blocks
    context_dim: int  # width of the CLIP embedding
    linear: bool  # the transformers' projections are linear layers, not 1x1 convolutions

    @classmethod
    def read(cls, shapes: Shapes) -> "UNetSizes":
        levels = _count(shapes, "down_blocks")
        resnets = max((_count(shapes, f"down_blocks.{i}.resnets") for i in range(levels)), default=0)
        try:
            mid = "mid_block.attentions.0."
            return cls(
                in_channels=shapes["conv_in.weight"][1],
                channels=tuple(shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels or 1)),
                resnets=resnets,
                transformers=tuple(_count(shapes, f"down_blocks.{i}.attentions") > 0 for i in range(levels)),
                context_dim=shapes[mid + "transformer_blocks.0.attn2.to_k.weight"][1],
                linear=len(shapes[mid + "proj_in.weight"]) == 2,
            )
        except KeyError as missing:
            raise ValueError(f"it has no tensor called {missing.args[0]}") from None

    def __post_init__(self):
        first = self.channels[0]
        if self.in_channels != 4:
            raise ValueError(f"its first layer reads {self.in_channels} channels, not the 4 of a latent")
        if any(c % first or c % GROUPS for c in self.channels):
            raise ValueError(
                f"its levels have {self.channels} channels, which are not multiples of {GROUPS} and of the first"
            )

    def comfy(self) -> dict[str, Any]:
        """The arguments of ComfyUI's UNetModel."""
        return {
            "image_size": 32,
            "in_channels": self.in_channels,
            "out_channels": self.in_channels,
            "model_channels": self.channels[0],
            "channel_mult": [c // self.channels[0] for c in self.channels],
            "num_res_blocks": [self.resnets] * len(self.channels),
            "transformer_depth": [int(t) for t in self.transformers for _ in range(self.resnets)],
            # UNetModel pops these from the end, coarsest level first.
            "transformer_depth_output": [int(t) for t in self.transformers for _ in range(self.resnets + 1)],
            "transformer_depth_middle": 1,
            "context_dim": self.context_dim,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": self.linear,
            "adm_in_channels": None,
            "legacy": False,
        }

    def place(self, block: str, index: int) -> Place:
        """Returns ComfyUI's place of the `index`-th residual block of a diffusers block such as "down_blocks.1"."""
        name, _, level = block.partition(".")
        if name == "mid_block":
            return "middle", 0
        if name == "down_blocks":
            return "input", 1 + int(level) * (self.resnets + 1) + index
        return "output", int(level) * (self.resnets + 1) + index

    def places(self) -> dict[str, dict[int, int]]:
        """Returns the channels of each residual block: {diffusers block: {index: channels}}; the middle is one."""
        down = {f"down_blocks.{i}": dict.fromkeys(range(self.resnets), c) for i, c in enumerate(self.channels)}
        up = {
            f"up_blocks.{i}": dict.fromkeys(range(self.resnets + 1), c) for i, c in enumerate(reversed(self.channels))
        }
        return {**down, "mid_block": {0: self.channels[-1]}, **up}


@dataclass(frozen=True)
class MotionSizes:
    """The motion modules of a UNet: one after each residual block, and perhaps one in the middle."""

    channels: dict[Place, int]
    frames: int  # positions of the temporal encoding, which limit the window

    @classmethod
    def read(cls, shapes: Shapes, unet: UNetSizes) -> "MotionSizes":
        """Reads the sizes of motion modules for this UNet, even if some of their tensors are missing."""
        found = {}
        for key, shape in shapes.items():
            if match := MOTION_KEY.fullmatch(key):
                found[match[1], int(match[2]), match[3]] = shape
        positions = {shape[1] for (_, _, name), shape in found.items() if name.endswith("pos_encoder.pe")}
        if not positions:
            raise ValueError("it has no motion modules with a positional encoding, as AnimateDiff's have")
        levels = _count([".".join(map(str, key)) for key in found], "down_blocks")
        names = [f"down_blocks.{i}" for i in range(levels)]
        channels = tuple(found.get((name, 0, TEMPORAL + "norm.weight"), (0,))[0] for name in names)
        if channels != unet.channels:
            raise ValueError(
                f"its motion modules are made for another base: they have {channels} channels per level "
                f"where the denoising UNet has {unet.channels}"
            )
        wanted = unet.places()
        if not any(block == "mid_block" for block, _, _ in found):
            del wanted["mid_block"]  # AnimateDiff v1 and v3
        places = {unet.place(block, j): c for block, row in wanted.items() for j, c in row.items()}
        return cls(channels=places, frames=min(positions))


def _count(keys: Iterable[str], prefix: str) -> int:
    """Returns one more than the largest number that follows the prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return max((int(m[1]) + 1 for key in keys if (m := pattern.match(key))), default=0)
