"""The tiny model's codec: block components that ComfyUI's VAE loader takes for a TAESD."""

import math

import comfy.sd
import pytest
import torch
from torch.nn.functional import mse_loss, unfold

from champ.people.samples import SyntheticPeople
from champ.train.codec import (
    CHANNELS,
    COUNTS,
    HEAD_COUNTS,
    SCALE,
    Codec,
    block_basis,
    cropped,
    from_taesd,
    picture_batches,
    spread_loss,
    to_taesd,
    train_codec,
)
from champ.train.prepare import packs, prepare


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    people = SyntheticPeople(64)
    return torch.cat([people.sample(i).pictures for i in range(12)])


@pytest.fixture
def codec(pictures) -> Codec:
    return Codec.of(*block_basis(pictures))


def colours(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def test_latents_begin_as_principal_components_of_variance_1(codec, pictures):
    mean, basis = block_basis(pictures)
    products = basis.flatten(1) @ basis.flatten(1).T
    assert (products - products.diag().diag()).abs().max() < 1e-4 * products.max()
    x = colours(pictures)
    latents = codec.encode(x)
    blocks = unfold(x, 8, stride=8) - mean.flatten()[:, None]
    expected = (basis.flatten(1) / products.diag()[:, None]) @ blocks
    torch.testing.assert_close(latents.flatten(2), expected, atol=2e-5, rtol=0)
    rows = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows.cov(correction=0), torch.eye(CHANNELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.mean(1), torch.zeros(CHANNELS), atol=1e-4, rtol=0)


@torch.no_grad()
def test_decoding_begins_as_flat_blocks(codec, pictures):
    mean, basis = block_basis(pictures)
    latents = codec.encode(colours(pictures))
    flat = mean.mean((1, 2))[:, None, None] + torch.einsum("bkhw,kc->bchw", latents, basis.mean((2, 3)))
    expected = flat.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(codec.decoder(latents), expected, atol=2e-5, rtol=0)
    assert float(mse_loss(expected, colours(pictures))) < 0.03


def test_both_halves_learn_and_latents_keep_their_spread(codec, pictures):
    encoder = {name: value.clone() for name, value in codec.encoder.state_dict().items()}
    few, steps, heard = pictures[:2], 60, []

    def batches():
        while True:
            yield few, torch.zeros(few.shape[:3])

    def error() -> float:
        with torch.no_grad():
            return float(mse_loss(codec.decode(codec.encode(colours(few))), colours(few)))

    before = error()
    train_codec(codec, batches(), steps, on_step=lambda step, loss, psnr: heard.append((step, psnr)))
    assert error() < 0.7 * before
    assert [step for step, _ in heard] == list(range(1, steps + 1))
    assert not any(torch.equal(value, encoder[name]) for name, value in codec.encoder.state_dict().items())
    with torch.no_grad():
        assert float(spread_loss(codec.encode(colours(few)))) < 1


def test_only_mean_0_and_variance_1_cost_nothing():
    latents = torch.randn(64, CHANNELS, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(spread_loss(latents)) < 1e-3
    assert float(spread_loss(2 * latents)) == pytest.approx(CHANNELS * (3 - math.log(4)), rel=0.01)
    assert float(spread_loss(latents + 1)) == pytest.approx(CHANNELS * (2 - math.log(2)), rel=0.01)


@torch.no_grad()
def test_comfyui_loads_it_as_a_vae(codec, pictures):
    vae = comfy.sd.VAE(sd=to_taesd(codec))
    vae.throw_exception_if_invalid()
    x = pictures[:2].float() / 255
    latents = codec.encode(colours(pictures[:2]))
    torch.testing.assert_close(vae.encode(x) * SCALE, latents, atol=2e-5, rtol=0)
    decoded = codec.decode(latents).permute(0, 2, 3, 1).clamp(0, 1)
    torch.testing.assert_close(vae.decode(latents / SCALE).cpu(), decoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_codec_is_found_again_in_the_file_for_comfyui(codec, dtype):
    file = {name: value.to(dtype) for name, value in to_taesd(codec).items()}
    found = from_taesd(file)
    assert found is not None
    for name, value in codec.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.to(dtype).float()), name
    assert from_taesd(file | {"taesd_encoder.1.conv.0.weight": torch.ones(64, 64, 3, 3)}) is None  # a real TAESD
    assert from_taesd({"decoder.conv_in.weight": torch.zeros(3)}) is None
    assert from_taesd(file | {"taesd_encoder.1.conv.0.weight": torch.ones(32, 32, 3, 3)}) is None  # of other sizes


def test_batches_repeat_for_a_seed_and_have_targets_and_references(tmp_path):
    prepare(SyntheticPeople(32), tmp_path, 0, 3)
    files = packs(tmp_path, "train", 1)

    def few(seed: int) -> list[torch.Tensor]:
        batches = picture_batches(files, 2, seed)
        return [next(batches)[0] for _ in range(3)]

    again = few(1)
    assert all(torch.equal(a, b) for a, b in zip(few(1), again))
    counts = next(picture_batches(files, 6, 1))[1]
    assert set(counts.unique().tolist()) == {0, COUNTS, HEAD_COUNTS}
    assert sum(map(len, again)) == 6 and len({x.numpy().tobytes() for x in torch.cat(again)}) == 6


def test_crops_show_what_counts():
    counts = torch.zeros(40, 64, 64, dtype=torch.uint8)
    counts[:, 20:40, 30:34] = COUNTS
    counts[:20, 18:20, 30:34] = HEAD_COUNTS
    pictures = torch.arange(64 * 64).view(1, 64, 64, 1).expand(40, -1, -1, 3)
    crops, seen = cropped(pictures, counts, 16, torch.Generator().manual_seed(0))
    assert crops.shape == (40, 16, 16, 3) and seen.shape == (40, 16, 16)
    assert (seen.amax((1, 2)) > 0).all() and (seen[:20].amax((1, 2)) == HEAD_COUNTS).sum() >= 10
    for crop, count, whole in zip(crops, seen, counts):
        top, left = divmod(int(crop[0, 0, 0]), 64)
        assert torch.equal(count, whole[top : top + 16, left : left + 16])


def test_latents_that_are_known_are_kept(codec, pictures):
    def moved(keep: float) -> float:
        learned = Codec()
        learned.load_state_dict(codec.state_dict())
        few = pictures[:4]
        batches = iter([(few, torch.zeros(few.shape[:3]))] * 15)
        train_codec(learned, batches, 15, keep=keep)
        with torch.no_grad():
            return float(mse_loss(learned.encode(colours(few)), codec.encode(colours(few))))

    assert moved(10.0) < 0.3 * moved(0.0)
