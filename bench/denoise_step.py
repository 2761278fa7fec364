"""One evaluation of the denoiser for positive and negative, beside the arithmetic of the official implementation.

The official code attends with all rows to their own and the reference's tokens, which it repeats and projects for every
frame, then computes the rows of the negative again without the reference; and it attends to the single CLIP token with
a softmax over one key. Here both run on the same UNet with the same kernels, alternately, on one CPU thread."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import os
import statistics
import sys
import time

import torch
from torch import Tensor, nn

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.ops

from champ.model.attention import READS, SelfAttention, TokenCrossAttention, TokenSource, softmax_attention
from champ.model.conditioning import GuidanceRun
from champ.model.config import CHAMP, MotionSizes, UNetSizes
from champ.model.denoiser import ChampModel, ModelConfig
from champ.model.guidance import Guidance, Layer
from champ.model.reference import Reference, ReferenceUNet

PASSES = 5
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
        self.reference = reference

    def at(self, now) -> list[TokenSource]:
        there = {place: x.to(now.device, now.dtype) for place, x in self.reference.tokens.items()}
        return [TokenSource(there)]


def use(model: ChampModel, official: bool) -> None:
    kinds = {SelfAttention: OfficialSelfAttention, TokenCrossAttention: OfficialCrossAttention}
    swap = kinds if official else {theirs: ours for ours, theirs in kinds.items()}
    for module in model.diffusion_model.modules():
        module.__class__ = swap.get(type(module), type(module))


def randomise(module: nn.Module) -> None:
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if values.ndim > 1:
            nn.init.normal_(values, std=values[0].numel() ** -0.5)
        else:
            values.fill_(name.endswith("weight"))


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


def random_net(channels: tuple[int, ...]) -> ReferenceUNet:
    sizes = UNetSizes(4, channels, 2, (True, True, True, False), 768, linear=False)
    net = ReferenceUNet(**ModelConfig(sizes.comfy()).unet_config, operations=comfy.ops.disable_weight_init)
    randomise(net)
    return net


def random_reference(net: ReferenceUNet, size: int) -> Reference:
    """What a ReferenceNet sees in a random picture."""
    return Reference(net.tokens(torch.randn(1, 4, size // 8, size // 8), torch.randn(1, 1, 768)), CHAMP)


def random_guidance(channels: tuple[int, ...], size: int, frames: int) -> Guidance:
    layer = Layer(torch.randn(frames, channels[0], size // 8, size // 8))
    return Guidance((layer,), frames, size, size, CHAMP)


class Step:
    """One evaluation for the negative and the positive of a clip in one window, as ComfyUI asks for it."""

    def __init__(self, model: ChampModel, guidance: Guidance):
        frames, side = guidance.frames, guidance.width // 8
        self.model, self.sigma = model, torch.full((2 * frames,), 2.45)
        self.guidance = GuidanceRun(guidance, model.model_sampling)
        self.x = 2.6 * torch.randn(2 * frames, 4, side, side)
        self.context = torch.cat([torch.zeros(frames, 1, 768), torch.randn(1, 1, 768).expand(frames, -1, -1)])

    def __call__(self, run) -> tuple[float, Tensor]:
        """Seconds, and what is predicted with a run of a reference."""
        options = {"cond_or_uncond": [1, 0], "sigmas": self.sigma}
        values = {"guidance": [self.guidance] * 2, "references": [[], [run]]}
        start = time.perf_counter()
        out = self.model.apply_model(
            self.x, self.sigma, c_crossattn=self.context, transformer_options=options, **values
        )
        return time.perf_counter() - start, out


def compare(channels: tuple[int, ...], size: int, frames: int) -> tuple[list[tuple[float, float]], float]:
    """Seconds of our passes and of the official arithmetic's, and the relative difference of their results."""
    model, reference = random_model(channels), random_reference(random_net(channels), size)
    step = Step(model, random_guidance(channels, size, frames))
    runs = {False: reference.run(model.model_sampling, keep=True), True: Tokens(reference)}

    def predict(official: bool) -> tuple[float, Tensor]:
        use(model, official)
        return step(runs[official])

    (_, ours), (_, theirs) = predict(False), predict(True)
    times = [(predict(False)[0], predict(True)[0]) for _ in range(PASSES)]
    return times, float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, torch {torch.__version__}, median of {PASSES} alternating passes")
    print("| UNet | channels | frames | ours (s) | official arithmetic (s) | ratio | difference |")
    print("|---|---|---|---|---|---|---|")
    for name, channels, size, frames in CASES:
        times, difference = compare(channels, size, frames)
        ours, theirs = (statistics.median(seconds) for seconds in zip(*times))
        ratio = statistics.median(b / a for a, b in times)
        clip = f"{frames} of {size}x{size}"
        print(f"| {name} | {channels} | {clip} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
