"""Computes the colours in which ComfyUI shows latents of Champ-Tiny's codec while it samples.

    python -m tools.latent_colours

ComfyUI makes a preview by a linear map from the four numbers of a latent to a colour in -1..1. Here it is fitted by
least squares to the example people, whose pictures are averaged over the 8x8 pixels of each latent. Run it again when
the codec has changed; tests/model/test_latents.py fails then."""

import json

import torch
import torch.nn.functional as F
from torch import Tensor

import dev
from champ.files.tensors import read_tensors
from champ.people.portrait import portrait
from champ.train.codec import Codec, from_taesd

CODEC = dev.ROOT / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"
COLOURS = dev.ROOT / "champ" / "assets" / "latent_colours.json"
PEOPLE, OTHERS = range(24), range(24, 28)


def shipped_codec() -> Codec:
    codec = from_taesd(read_tensors(CODEC))
    if codec is None:
        raise ValueError(f"{CODEC.name} is no codec of this pack.")
    return codec.eval()


@torch.inference_mode()
def samples(codec: Codec, number: int, size: int = 256) -> tuple[Tensor, Tensor]:
    """The latents (N, 4) of an example person's picture, and the colours (N, 3) in -1..1 that they stand for."""
    picture = portrait(size, size, number).picture.permute(2, 0, 1)[None].float() / 255
    colours = F.avg_pool2d(picture, 8) * 2 - 1
    return codec.encoder(picture).flatten(2)[0].T, colours.flatten(2)[0].T


def fit(codec: Codec) -> tuple[Tensor, Tensor]:
    """The factors (4, 3) and the bias (3,)."""
    latents, colours = map(torch.cat, zip(*(samples(codec, number) for number in PEOPLE)))
    found = torch.linalg.lstsq(F.pad(latents, (0, 1), value=1.0), colours).solution
    return found[:-1], found[-1]


def error(codec: Codec, factors: list[list[float]], bias: list[float]) -> float:
    """How far the colours of previews are off (L1) for people to whom the map was not fitted."""
    latents, colours = map(torch.cat, zip(*(samples(codec, number) for number in OTHERS)))
    return float((latents @ torch.tensor(factors) + torch.tensor(bias) - colours).abs().mean())


def main() -> None:
    codec = shipped_codec()
    factors, bias = ([[round(v, 4) for v in row] for row in rows.reshape(-1, 3).tolist()] for rows in fit(codec))
    COLOURS.write_text(json.dumps({"factors": factors, "bias": bias[0]}, indent=1) + "\n")
    print(COLOURS.read_text())
    print(f"off by {error(codec, factors, bias[0]):.3f} on other people, in colours from -1 to 1")


if __name__ == "__main__":
    main()
