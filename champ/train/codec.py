"""The image codec of the tiny model: 8x8 pixels to four numbers and back, in the format of TAESD.

The encoder is initialised with the four principal components of blocks of pictures, scaled to variance 1, as a
diffusion model needs. The decoder is initialised with the inverse, drawn as flat blocks. Both are then trained
together, and a penalty keeps mean and variance of the latents at 0 and 1.

ComfyUI builds TAESD's two networks 64 channels wide throughout. Most of that is spent on large feature maps, so the
network trained here is narrower there and has fewer blocks. `to_taesd` puts its weights into the full-size networks,
whose other weights are zero: ReLU keeps zeros, and a block without weights changes nothing.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import bf16_slowdown
from .prepare import BLOCK, SURFACES, read_pack, read_packs
from .small_networks import train_small_network

CHANNELS = 4  # of SD1.5's latents
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
WIDTHS = (32, 48, 64, 64)  # channels at full size, and after each halving
FULL = 64  # TAESD's
BLOCKS, FULL_BLOCKS = 2, 3  # blocks between two changes of size
SCALE = 0.18215  # scale of latents: the UNet sees SD1.5's latents times this; ComfyUI converts
NOISE = 0.05  # added to latents in training, because a sampler's latents are never exact
COUNTS, HEAD_COUNTS = 2, 8  # weight of persons, and of their heads, relative to the room
DETAILS = 25  # how much more a head's pixel counts that differs from its surroundings: eyes are few pixels
CHIN = 0.25  # metres above the origin of the free body at betas 0
SPREAD = 1e-3  # weight of mean and variance of the latents, relative to the error of the colours


def conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            conv(channels, channels), nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


class Codec(nn.Module):
    """Colours (B, 3, H, W) in 0..1 to latents (B, 4, H / 8, W / 8) as the UNet sees them, and back."""

    def __init__(self):
        super().__init__()
        down: list[nn.Module] = [conv(3, WIDTHS[0]), nn.ReLU()]
        up: list[nn.Module] = [conv(CHANNELS, WIDTHS[-1]), nn.ReLU()]
        for fine, coarse in zip(WIDTHS, WIDTHS[1:]):
            down += [conv(fine, coarse, stride=2, bias=False), *(ResidualBlock(coarse) for _ in range(BLOCKS))]
        for coarse, fine in zip(WIDTHS[:0:-1], WIDTHS[-2::-1]):
            up += [
                *(ResidualBlock(coarse) for _ in range(BLOCKS)),
                nn.Upsample(scale_factor=2),
                conv(coarse, fine, bias=False),
            ]
        self.encoder = nn.Sequential(*down, conv(WIDTHS[-1], CHANNELS))
        self.decoder = nn.Sequential(*up, nn.ReLU(), conv(WIDTHS[0], 3))

    @classmethod
    def of(cls, mean: Tensor, basis: Tensor, seed: int = 0) -> "Codec":
        """Makes a codec from `mean` (3, 8, 8) and orthogonal `basis` (4, 3, 8, 8) of blocks: block = mean + latents *
        basis."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            codec = cls()
            codec._set_encoder(mean, basis)
            codec._start_decoder(mean, basis)
        return codec

    @torch.no_grad()
    def _set_encoder(self, mean: Tensor, basis: Tensor) -> None:
        """Each halving puts 2x2 neighbours into channels; the last one multiplies by the basis, whose positive and
        negative parts pass the ReLUs side by side. The other channels begin at random and are not read yet."""
        first, *halvings, last = _start(self.encoder)
        _carry(first, 3)
        first.weight[:3, :3, 1, 1] = torch.eye(3)
        dual = basis / basis.square().sum((1, 2, 3), keepdim=True)
        # Where channel c of the picture ends up after halvings: c + 3 (x + 2 y) + 12 (x' + 2 y') + ...
        size = 3
        for layer in halvings[:-1]:
            _carry(layer, 4 * size)
            for corner, (y, x) in enumerate(CORNERS):
                layer.weight[torch.arange(size) + corner * size, torch.arange(size), 1 + y, 1 + x] = 1
            size *= 4
        _carry(halvings[-1], 2 * CHANNELS)
        for y, x in CORNERS:
            part = dual.unflatten(3, (2, 4)).unflatten(2, (2, 4))[:, :, y, :, x]  # (4, 3, 4, 4) of this quarter
            inner = part.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # c, Y, y, X, x of the two halvings before
            flat = inner.permute(0, 2, 4, 3, 5, 1).reshape(CHANNELS, size)
            halvings[-1].weight[:CHANNELS, :size, 1 + y, 1 + x] = flat
            halvings[-1].weight[CHANNELS : 2 * CHANNELS, :size, 1 + y, 1 + x] = -flat
        last.weight.zero_()
        last.weight[:, :CHANNELS, 1, 1] = torch.eye(CHANNELS)
        last.weight[:, CHANNELS : 2 * CHANNELS, 1, 1] = -torch.eye(CHANNELS)
        last.bias.copy_(-(dual * mean).sum((1, 2, 3)))

    @torch.no_grad()
    def _start_decoder(self, mean: Tensor, basis: Tensor) -> None:
        """The first channels carry the latents' positive and negative parts to the end, where they become the blocks'
        mean colours; the others begin at random, and blocks change nothing."""
        carried = 2 * CHANNELS
        first, *between, last = _start(self.decoder)
        for layer in (first, *between):
            _carry(layer, carried)
        first.weight[:CHANNELS, :, 1, 1] = torch.eye(CHANNELS)
        first.weight[CHANNELS:carried, :, 1, 1] = -torch.eye(CHANNELS)
        for layer in between:
            layer.weight[:carried, :carried, 1, 1] = torch.eye(carried)
        last.weight.zero_()
        flat = basis.mean((2, 3)).T
        last.weight[:, :carried, 1, 1] = torch.cat([flat, -flat], 1)
        last.bias.copy_(mean.mean((1, 2)))

    def encode(self, colours: Tensor) -> Tensor:
        return self.encoder(colours)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(torch.tanh(latents / 3) * 3)


def _start(network: nn.Sequential) -> list[nn.Conv2d]:
    """Sets random weights, with blocks that add nothing at first; returns the layers between the blocks."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                layer.bias.zero_()
    for block in network:
        if isinstance(block, ResidualBlock):
            block.conv[4].weight.zero_()
    return [layer for layer in network if isinstance(layer, nn.Conv2d)]


def _carry(layer: nn.Conv2d, channels: int) -> None:
    """Clears a layer for the values that pass in the first channels."""
    layer.weight[:channels] = 0


def block_basis(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean (3, 8, 8) and the CHANNELS strongest principal components of the blocks of uint8 pictures (N, H, W,
    3), as long as their standard deviation."""
    blocks = F.unfold(pictures.permute(0, 3, 1, 2).float() / 255, 8, stride=8).transpose(1, 2).reshape(-1, 192)
    mean = blocks.mean(0)
    covariance = (blocks - mean).T @ (blocks - mean) / len(blocks)
    values, vectors = torch.linalg.eigh(covariance)
    basis = (vectors * values.clamp(min=0).sqrt()).T.flip(0)[:CHANNELS]
    sign = basis.sum(1, keepdim=True).sign()  # the same pictures give the same basis on every machine
    return mean.view(3, 8, 8), (basis * torch.where(sign == 0, 1, sign)).view(CHANNELS, 3, 8, 8)


def codec_loss(codec: Codec, latents: Tensor, colours: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the mean absolute error of colours and of their differences between neighbours, weighted by pixel (B,
    1, H, W), and the decoded colours."""
    decoded = codec.decode(latents).float()
    error = decoded - colours
    edges = sum(((error.diff(dim=d)).abs() * weight.narrow(d, 1, weight.shape[d] - 1)).mean() for d in (2, 3))
    return (error.abs() * weight).mean() + 0.5 * edges, decoded


def picture_batches(files: list[Path], batch: int, seed: int, crop: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields pictures (B, H, W, 3) of samples in files, targets and references, shuffled without end, and how much
    more than the room each pixel counts (B, H, W); with `crop` squares of so many pixels, around what counts most."""
    pictures, counts = [], []
    for pack in read_packs(files, ("pictures", "masks", "reference", "reference_mask")):
        pictures += [pack["pictures"].flatten(0, 1), pack["reference"]]
        counts += [COUNTS * (pack["masks"] > 0).flatten(0, 1).byte(), COUNTS * (pack["reference_mask"] > 0).byte()]
    for surfaces, places in zip(read_surfaces(files), range(0, len(counts), 2)):
        for i, surface in enumerate(surfaces):
            head = in_head(surface).repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
            counts[places + i][head & (counts[places + i] > 0)] = HEAD_COUNTS
    everything, shown = torch.cat(pictures), torch.cat(counts)
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(everything), generator=generator).split(batch):
            chosen = everything[rows], shown[rows]
            yield cropped(*chosen, crop, generator) if crop else chosen


def read_surfaces(files: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields which point of the figure each block of targets and references (N, h, w, 4) shows, for files that say
    so."""
    for file in files:
        pack, _ = read_pack(file)
        if set(SURFACES) <= set(pack):
            target, reference = (pack[name].float() for name in SURFACES)
            yield target.flatten(0, 1), reference


def in_head(surface: Tensor) -> Tensor:
    """Tells which blocks of (N, h, w, 4) show the head."""
    return (surface[..., 3] > 0.2) & (surface[..., 1] > CHIN) & (surface[..., 0].abs() < 0.13)


def cropped(pictures: Tensor, counts: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cuts a square of each picture around a pixel drawn from what counts: the head in half of them, where there is
    one."""
    squares = []
    for picture, count in zip(pictures, counts):
        most = count.amax() if torch.rand((), generator=generator) < 0.5 else count.amax().clamp_max(1)
        seen = (count >= most).nonzero()
        middle = seen[int(torch.randint(len(seen), (), generator=generator))]
        room = torch.tensor(count.shape) - side
        shift = torch.randint(-side // 4, side // 4 + 1, (2,), generator=generator)
        top, left = (middle - side // 2 + shift).clamp_min(0).minimum(room).tolist()
        squares.append((picture[top : top + side, left : left + side], count[top : top + side, left : left + side]))
    return torch.stack([picture for picture, _ in squares]), torch.stack([count for _, count in squares])


def pixel_weights(colours: Tensor, counts: Tensor) -> Tensor:
    """Returns how much each pixel (B, 1, H, W) counts in the loss. Without more weight on the details of heads, the
    codec saves itself the eyes."""
    around = F.avg_pool2d(F.pad(colours, (4, 4, 4, 4), mode="replicate"), 9, 1)
    detail = (colours - around).abs().mean(1, keepdim=True)
    return 1 + counts * (1 + DETAILS * detail * (counts == HEAD_COUNTS))


def spread_loss(latents: Tensor) -> Tensor:
    """Computes a penalty that is zero for latents of mean 0 and variance 1 in each channel."""
    power, mean = latents.square().mean((0, 2, 3)), latents.mean((0, 2, 3))
    return (power - 1 - power.log() + mean.square()).sum()


def train_codec(
    codec: Codec,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    rates: tuple[float, float] = (1e-3, 2e-3),
    seed: int = 0,
    keep: float = 0.0,
    on_step: Callable[[int, float, float], None] | None = None,
) -> None:
    """Trains encoder and decoder at these rates on uint8 pictures (B, H, W, 3), in which pixels count so much more
    (B, H, W) than others. `keep` holds the latents of all but heads near those of the beginning, for networks that know
    these already. `on_step` hears step, loss, and PSNR of the batch."""
    generator = torch.Generator().manual_seed(seed)
    device = next(codec.parameters()).device
    bf16 = device.type != "cpu" or bf16_slowdown() < 1
    before = copy.deepcopy(codec.encoder).requires_grad_(False) if keep else None
    codec.to(memory_format=torch.channels_last)
    halves = [
        {"params": list(half.parameters()), "lr": rate, "weight_decay": 0}
        for half, rate in zip((codec.encoder, codec.decoder), rates)
    ]

    def loss_of(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        pictures, counts = (x.to(device) for x in batch)
        colours = pictures.permute(0, 3, 1, 2).float() / 255
        weight = pixel_weights(colours, counts[:, None].float())
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            latents = codec.encode(colours).float()
            moved = latents.new_zeros(1) if before is None else (latents - before(colours).float()).square()
            noise = NOISE * torch.randn(latents.shape, generator=generator).to(device)
            loss, decoded = codec_loss(codec, latents + noise, colours, weight)
        psnr = -10 * math.log10(F.mse_loss(decoded.detach(), colours).item())
        if before is not None:
            body = F.max_pool2d(counts[:, None].float(), BLOCK) < HEAD_COUNTS
            loss = loss + keep * (moved * body).mean()
        return loss + SPREAD * spread_loss(latents), psnr

    train_small_network(codec, halves, batches, steps, loss_of, on_step)


def to_taesd(codec: Codec) -> dict[str, Tensor]:
    """Makes the file that ComfyUI's VAE loader takes: each layer in the corner of its full-size one, all else zero."""
    state = {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(0.0)}
    for name, layer, *shape in _places(codec):
        state[f"{name}.weight"] = torch.zeros(*shape, 3, 3)
        if layer is None or layer.bias is not None:
            state[f"{name}.bias"] = torch.zeros(shape[0])
        if layer is not None:
            for key, value in layer.named_parameters():
                _corner(state[f"{name}.{key}"], value).copy_(value.detach())
    return state


@torch.no_grad()
def from_taesd(state: Mapping[str, Tensor]) -> Codec | None:
    """Reads the codec that `to_taesd` has written, which is more than four times as fast as the full-size networks;
    None if this is anything else."""
    codec = Codec()
    if any(name not in state or state[name].shape != value.shape for name, value in to_taesd(codec).items()):
        return None
    for name, layer, *_ in _places(codec):
        for key, value in () if layer is None else layer.named_parameters():
            value.copy_(_corner(state[f"{name}.{key}"], value))
    written = to_taesd(codec)
    same = all(torch.equal(value.to(state[name]), state[name]) for name, value in written.items())
    return codec if same else None


def _corner(large: Tensor, small: Tensor) -> Tensor:
    """Returns the corner of the large layer with the size of the small one."""
    return large[tuple(map(slice, small.shape))]


def _places(codec: Codec) -> Iterator[tuple[str, nn.Conv2d | None, int, int]]:
    """Yields TAESD's layers: name, the layer of the codec that is laid into it, channels out and in. TAESD has a third
    block at every size and one at full size, which do nothing here, and its decoder begins with the limiter of
    latents."""
    yield from _places_of(codec.encoder, "taesd_encoder", 0, single_block_after=1)
    yield from _places_of(codec.decoder, "taesd_decoder", 1, single_block_after=len(codec.decoder) - 2)


def _places_of(
    network: nn.Sequential, prefix: str, place: int, single_block_after: int
) -> Iterator[tuple[str, nn.Conv2d | None, int, int]]:
    run = 0  # blocks since the last change of size
    for i, layer in enumerate(network):
        blocks: list[ResidualBlock | None] = []
        if isinstance(layer, ResidualBlock):
            run += 1
            blocks = [layer] if run < BLOCKS else [layer, *[None] * (FULL_BLOCKS - BLOCKS)]
        elif i == single_block_after:  # the block at full size, which is no more than its ReLU
            blocks = [None]
        else:
            if isinstance(layer, nn.Conv2d):
                run = 0
                inputs = layer.in_channels if i == 0 else FULL
                outputs = layer.out_channels if i == len(network) - 1 else FULL
                yield f"{prefix}.{place}", layer, outputs, inputs
            place += 1
        for block in blocks:
            for j in (0, 2, 4):
                yield f"{prefix}.{place}.conv.{j}", None if block is None else block.conv[j], FULL, FULL
            place += 1
