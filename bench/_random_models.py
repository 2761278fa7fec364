"""Denoisers of the SD1.5 family with random weights, evaluated as ComfyUI does it, and the official arithmetic on them.

The official code attends with all rows to their own and the reference's tokens, which it repeats and projects for every
frame, then computes the rows of the negative again without the reference; and it attends to the single CLIP token with
a softmax over one key."""

# ruff: noqa: E402 - ComfyUI must be found, and be told whether there is a card, before it is imported.
import copy
import os
import sys
import time

import torch
from torch import Tensor, nn

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = not torch.cuda.is_available()

import comfy.ops

from champ.model.attention import READS, SelfAttention, TokenCrossAttention, TokenSource, softmax_attention
from champ.model.conditioning import GuidanceRun
from champ.model.config import MotionSizes, UNetSizes
from champ.model.denoiser import ChampModel, ModelConfig
from champ.model.families import CHAMP
from champ.model.guidance import Guidance, Layer
from champ.model.reference import Reference, ReferenceUNet

PASSES = 5
DRAWN = 3_999_971  # a prime, so that no two rows of a matrix are the same
# Name, channels of the levels, picture size in pixels, frames.
CASES = [
    ("narrow", (32, 64, 128, 128), 256, 8),
    ("half as wide as SD1.5", (160, 320, 640, 640), 256, 3),
]


class OfficialSelfAttention(SelfAttention):
    """All rows with the reference, then the first half - the negative - once more without."""

    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006
        (source,) = transformer_options[READS][1]
        tokens = source.tokens[transformer_options["block"]].expand(len(x), -1, -1)
        out = self.attention(x, torch.cat([x, tokens], 1))
        half = len(x) // 2
        out[:half] = self.attention(x[:half], x[:half])
        return out

    def attention(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.to_out(softmax_attention(self.to_q(x), self.to_k(tokens), self.to_v(tokens), self.heads))


class OfficialCrossAttention(TokenCrossAttention):
    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006
        return self.to_out(softmax_attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class Tokens:
    """A reference that gives its tokens, as the official one does."""

    def __init__(self, reference: Reference):
        assert isinstance(reference.tokens, dict)  # nothing that changes from step to step
        self.tokens = reference.tokens
        self.ready: dict[tuple[torch.device, torch.dtype], TokenSource] = {}

    def at(self, now) -> list[TokenSource]:
        name = (now.device, now.dtype)
        if name not in self.ready:  # the official bank is on the device, too
            self.ready[name] = TokenSource({place: x.to(*name) for place, x in self.tokens.items()})
        return [self.ready[name]]


def use(model: ChampModel, official: bool) -> None:
    kinds = {SelfAttention: OfficialSelfAttention, TokenCrossAttention: OfficialCrossAttention}
    swap = kinds if official else {theirs: ours for ours, theirs in kinds.items()}
    for module in model.diffusion_model.modules():
        module.__class__ = swap.get(type(module), type(module))


def randomise(module: nn.Module) -> None:
    """Fills weights with random numbers, which repeat in large ones: to draw a billion takes half a minute."""
    drawn = torch.randn(DRAWN).to(next(module.parameters()).device)
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if values.ndim > 1:
            scaled = drawn[: values.numel()] * values[0].numel() ** -0.5
            for part in values.data.view(-1).split(DRAWN):
                part.copy_(scaled[: len(part)])
        else:
            values.data.fill_(name.endswith("weight"))


def random_model(
    channels: tuple[int, ...], dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, device="cpu"
) -> ChampModel:
    """A denoiser of the SD1.5 family with random weights, stored in one type and computed in another (None: the
    same)."""
    sizes = UNetSizes(4, channels, 2, (True, True, True, False), 768, linear=False)
    places = {sizes.place(block, j): c for block, row in sizes.places().items() for j, c in row.items()}
    config = ModelConfig(sizes.comfy())
    config.set_inference_dtype(dtype, cast)
    config.custom_operations = comfy.ops.manual_cast if cast else comfy.ops.disable_weight_init
    with torch.device(device):
        model = ChampModel(config, CHAMP, MotionSizes(places, 32), device=device)
    randomise(model.diffusion_model)
    return model.to(device).requires_grad_(False)


def random_net(channels: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> ReferenceUNet:
    sizes = UNetSizes(4, channels, 2, (True, True, True, False), 768, linear=False)
    config = {**ModelConfig(sizes.comfy()).unet_config, "dtype": dtype, "device": device}
    net = ReferenceUNet(**config, operations=comfy.ops.disable_weight_init)
    randomise(net)
    return net.requires_grad_(False)


def random_reference(net: ReferenceUNet, width: int, height: int) -> Reference:
    """What a ReferenceNet sees in a random picture."""
    weight = net.time_embed[0].weight
    latent, context = torch.randn(1, 4, height // 8, width // 8).to(weight), torch.randn(1, 1, 768).to(weight)
    return Reference({place: x.cpu() for place, x in net.tokens(latent, context).items()}, CHAMP)


def random_guidance(channels: tuple[int, ...], frames: int, width: int, height: int) -> Guidance:
    layer = Layer(torch.randn(frames, channels[0], height // 8, width // 8))
    return Guidance((layer,), frames, width, height, CHAMP)


class Step:
    """One evaluation for the negative and the positive of a clip in one window, as ComfyUI asks for it."""

    def __init__(self, model: ChampModel, guidance: Guidance, device: str = "cpu"):
        frames, shape = guidance.frames, (guidance.height // 8, guidance.width // 8)
        self.model, self.sigma = model, torch.full((2 * frames,), 2.45, device=device)
        self.guidance = GuidanceRun(guidance, model.model_sampling)
        self.parts: tuple[int, ...] = (1, 0)
        self.x = 2.6 * torch.randn(2 * frames, 4, *shape, device=device)
        embedding = torch.randn(1, 1, 768).expand(frames, -1, -1)
        self.context = torch.cat([torch.zeros(frames, 1, 768), embedding]).to(device)

    def on(self, model: ChampModel) -> "Step":
        """The same evaluation by another model."""
        other = copy.copy(self)
        other.model, other.guidance = model, GuidanceRun(self.guidance.guidance, model.model_sampling)
        return other

    def apart(self) -> list["Step"]:
        """The negative and the positive, each in an evaluation of its own, as ComfyUI does it when memory is short."""
        steps = []
        for i, part in enumerate(self.parts):
            step = copy.copy(self)
            step.parts = (part,)
            step.x, step.sigma, step.context = (x.chunk(2)[i] for x in (self.x, self.sigma, self.context))
            steps.append(step)
        return steps

    def __call__(self, run) -> tuple[float, Tensor]:
        """Seconds, of the processor on the CPU, and what is predicted with a run of a reference."""
        options = {"cond_or_uncond": list(self.parts), "sigmas": self.sigma}
        references = [[] if part else [run] for part in self.parts]
        values = {"guidance": [self.guidance] * len(self.parts), "references": references}
        clock = time.perf_counter if self.x.device.type == "cuda" else time.process_time
        start = clock()
        out = self.model.apply_model(
            self.x, self.sigma, c_crossattn=self.context, transformer_options=options, **values
        )
        if self.x.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start, out
