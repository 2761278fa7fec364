"""Finds the person in a picture of a drawn person: a small network that learns it from true pictures and their
masks, to measure what a model has made.

Comparing with the empty room instead takes for a person whatever of the room is drawn elsewhere, and a model must guess
what the reference's person hides of it. The network sees nothing but the picture. It learns from pictures of several
sizes, half of them through the image codec with noise in the latents, as a sampler's pictures are, and from rooms
without anybody."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..metrics.images import iou
from ..people.draw import Draw
from ..people.scene import draw_background
from ..render.srgb import to_pixels
from .latents import ImageCodec
from .small_networks import train_small_network

ASSET = Path(__file__).parents[1] / "assets" / "silhouettes.safetensors"
WIDTHS = (24, 40, 64, 64)  # channels at half the picture's size, and after each further halving
SIDES = (128, 192, 256)  # of pictures in training, where they are as large
NOISE = 0.4  # at most, added to latents of variance 1
GROUPS = 8
ROOM_STREAM = 4  # of random numbers; a sample has four of its own


def layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, outputs), nn.SiLU())


class Silhouettes(nn.Module):
    """Colours (B, 3, H, W) in 0..1 to logits (B, H, W), positive where the person is; a U-net over 2x2 pixels."""

    def __init__(self):
        super().__init__()
        self.first = layer(3 * 4, WIDTHS[0])
        self.down = nn.ModuleList(
            nn.Sequential(layer(fine, coarse, stride=2), layer(coarse, coarse))
            for fine, coarse in zip(WIDTHS, WIDTHS[1:])
        )
        self.wide = nn.Sequential(*(layer(WIDTHS[-1], WIDTHS[-1], dilation=d) for d in (2, 4)))
        self.up = nn.ModuleList(layer(fine + coarse, fine) for fine, coarse in zip(WIDTHS, WIDTHS[1:]))
        self.last = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, colours: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(colours - 0.5, 2))
        finer = []
        for down in self.down:
            finer.append(x)
            x = down(x)
        x = x + self.wide(x)
        for up, beside in zip(reversed(self.up), reversed(finer)):
            x = up(torch.cat([beside, F.interpolate(x, beside.shape[2:])], 1))
        return F.pixel_shuffle(self.last(x), 2)[:, 0]


@cache
def shipped() -> Silhouettes:
    """Reads the network that comes with the pack, for pictures of 128 pixels and more."""
    network = Silhouettes()
    network.load_state_dict(load_file(ASSET))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def find(pictures: Tensor, network: Silhouettes | None = None) -> Tensor:
    """Finds the person (F, H, W) bool in uint8 pictures (F, H, W, 3)."""
    network = network or shipped()
    return torch.cat([network(part.movedim(-1, 1).float() / 255) > 0 for part in pictures.split(8)])


def train_silhouettes(
    network: Silhouettes,
    codec: ImageCodec,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    rate: float = 2e-3,
    seed: int = 0,
    on_step: Callable[[int, float, float], None] | None = None,
) -> None:
    """Trains on uint8 pictures (B, H, W, 3) and masks of their persons (B, H, W); `on_step` hears step, loss, and the
    mean IoU of the batch."""
    generator = torch.Generator().manual_seed(seed)
    network.train().to(memory_format=torch.channels_last)

    def loss_of(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        pictures, masks = batch
        colours, true = varied(pictures, masks > 0, codec, generator)
        logits = network(colours)
        loss = F.binary_cross_entropy_with_logits(logits, true.float()) + jaccard_loss(logits.sigmoid(), true.float())
        return loss, iou(logits > 0, true).nanmean().item()

    train_small_network(network, [{"params": list(network.parameters()), "lr": rate}], batches, steps, loss_of, on_step)
    network.eval()


def with_rooms(batches: Iterator[tuple[Tensor, Tensor]], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches with empty rooms in the place of one picture of each."""
    for number, (pictures, masks) in enumerate(batches):
        row = number % len(pictures)
        height, width = masks.shape[1:]
        room = draw_background(Draw("train", seed, number, ROOM_STREAM), width, height)
        pictures[row] = to_pixels(room)
        masks[row] = 0
        yield pictures, masks


def varied(pictures: Tensor, masks: Tensor, codec: ImageCodec, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns colours (B, 3, h, w) in 0..1 and masks of one of SIDES, mirrored at times, half of them through the
    codec."""
    side = SIDES[int(torch.randint(len(SIDES), (), generator=generator))]
    colours, true = pictures.movedim(-1, 1).float() / 255, masks.float()[:, None]
    if side < colours.shape[2]:
        colours, true = (F.interpolate(x, (side, side), mode="area") for x in (colours, true))
    if torch.rand((), generator=generator) < 0.5:
        colours, true = colours.flip(-1), true.flip(-1)
    half = len(colours) // 2
    latents = codec.encode((255 * colours[:half].movedim(1, -1) + 0.5).byte())
    strength = NOISE * torch.rand(half, 1, 1, 1, generator=generator)
    latents = latents + strength * torch.randn(latents.shape, generator=generator)
    return torch.cat([codec.decode(latents).movedim(-1, 1).float() / 255, colours[half:]]), true[:, 0] > 0.5


def jaccard_loss(shares: Tensor, true: Tensor) -> Tensor:
    """Computes 1 - IoU of shares (B, h, w) in 0..1 with masks."""
    common = (shares * true).sum((1, 2))
    return 1 - ((common + 1) / (shares.sum((1, 2)) + true.sum((1, 2)) - common + 1)).mean()
