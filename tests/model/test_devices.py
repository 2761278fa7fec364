"""Everything that runs on a graphics card, on a device that is not there and refuses what MPS lacks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import comfy.latent_formats
import comfy.sample
import comfy.sd
import elsewhere
import pytest
import torch
from elsewhere import CPU, MPS, Refused, has_kernel, pretending
from golden import HEIGHT, WIDTH, evaluate, frames_first, relative

from champ.body.free import load_free_body
from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.estimate.crops import Square, crop_square
from champ.estimate.hmr2_model import load_hmr2, predict
from champ.metrics import perceptual
from champ.metrics.networks import I3D, ResNet3D
from champ.model.compat import load_whole, managed
from champ.model.conditioning import conditioning
from champ.model.guidance import GuidanceMap, encode_guidance
from champ.model.loading import load_denoiser, load_encoders, load_reference_net
from champ.model.memory import release
from champ.model.reference import Reference, encode_reference
from champ.model.span import Span
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
from champ.render.rasterize import rasterizer_device
from champ.sampling.aggregation import with_windows
from champ.sampling.interpolate import interpolate
from champ.sampling.noise import OfficialNoise
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas

sys.path.append(str(Path(__file__).parents[1] / "estimate"))

from hmr2_data import NETWORK, box, picture  # noqa: E402

FRAMES = 5


def test_the_device_refuses_what_mps_would():
    with pretending() as pretend:
        on_mps = torch.ones(3, 3, device=MPS)
        assert on_mps.device == MPS and (on_mps + 1).sum().item() == 18
        assert torch.equal((on_mps @ on_mps.to(torch.float16).float()).cpu(), torch.full((3, 3), 3.0))
        for wrong, why in (
            (lambda: on_mps.double(), "float64"),
            (lambda: torch.zeros(2, dtype=torch.float64, device=MPS), "float64"),
            (lambda: on_mps + torch.ones(3), "on MPS and on the CPU"),
            (lambda: torch.linalg.svd(on_mps), "svd is not on MPS"),
        ):
            with pytest.raises(Refused, match=why):
                wrong()
    assert "aten::mm" in pretend.ran
    assert has_kernel("addmm") and has_kernel("softmax.int") and not has_kernel("linalg_eig")


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Computed in the same precision, by other kernels in part."""
    assert found.device == CPU and relative(found, wanted) < 1e-4


def sample(model, steps: int, noise: torch.Tensor, given) -> torch.Tensor:
    model = with_windows(model, 4, 2, "open", "ramps")
    sigmas = official_sigmas(model.get_model_object("model_sampling"), steps)
    zeros = torch.zeros_like(noise)
    return comfy.sample.sample_custom(model, noise, 3.5, ddim(), sigmas, *given, zeros, disable_pbar=True, seed=0)


def calibrated(reference: Reference, width: int = WIDTH, height: int = HEIGHT) -> CalibratedReference:
    """Two warps and masks, weaker than the reference, in all ways that attention has for them."""
    generator = torch.Generator().manual_seed(0)
    tokens = {place: torch.randn(x.shape, generator=generator).half() for place, x in reference.tokens.items()}
    shares = torch.rand(FRAMES + 2, height // 8, width // 8, generator=generator)
    warps = (Warp(reference.tokens, shares[0], shares[1]), Warp(tokens, shares[1], shares[0]))
    own = {field.name: getattr(reference, field.name) for field in fields(Reference)}
    calibration = Calibration(
        warps, (0, 1, 1, 0, 1), groups_of([0] * FRAMES, 2), 0, 0.7, people=shares[2:] - 0.5, person=shares[0] - 0.5
    )
    return CalibratedReference(**own, calibration=calibration, width=width, height=height)


@pytest.mark.parametrize("how", ["plain", "calibrated"])
def test_sampling(champ, how):
    """Denoiser, motion modules, windows, guidance, references, schedule and sampler."""
    references = [calibrated(reference) if how == "calibrated" else reference for reference in champ.references]
    given = conditioning(champ.net.context_dim, champ.guidance(FRAMES), references, champ.clip_embeds)
    noise = OfficialNoise(3).generate_noise({"samples": torch.zeros(FRAMES, 4, HEIGHT // 8, WIDTH // 8)})
    with pretending() as pretend:
        model = load_denoiser(champ.files)
        found = sample(model, 2, noise, given)
        release(model)
    assert len(pretend.ran) > 20
    same(found, sample(champ.model, 2, noise, given))


def test_predictions(champ):
    """`evaluate`, with which the tests on a card look at the official numbers."""
    x, given = frames_first(champ.data("denoise")["latents"])[:2], champ.conditioning(2)
    with pretending():
        model = load_denoiser(champ.files)
        found = [prediction.cpu() for prediction in evaluate(model, *given, x.to(MPS), 499)]
        release(model)
    for one, other in zip(found, evaluate(champ.model, *given, x, 499)):
        same(one, other)


def test_guidance(family):
    images = {name: torch.rand(3, HEIGHT, WIDTH, 3) for name in family.encoders.names}
    maps = {name: GuidanceMap(image, 0.7, Span(0.0, 0.5)) for name, image in images.items()}
    with pretending():
        found = encode_guidance(load_encoders(family.files), maps, WIDTH, HEIGHT)
    same(found.layers[0].features, encode_guidance(family.encoders, maps, WIDTH, HEIGHT).layers[0].features)


def test_reference(champ):
    latents = champ.data("reference")["ref_latents"] / 0.18215
    with pretending():
        found = encode_reference(load_reference_net(champ.files), latents, champ.clip_embeds)
    for one, other in zip(found, champ.references):
        for place in other.tokens:
            same(one.tokens[place], other.tokens[place])


def test_hmr2():
    crops = [crop_square(picture(), Square.around(box(i))) for i in range(3)]
    with pretending():
        found = list(predict(load_hmr2(NETWORK), crops, 2))
    for one, other in zip(found, predict(load_hmr2(NETWORK), crops, 2)):
        same(one.rotations, other.rotations)
        same(one.betas, other.betas)


def test_lpips():
    torch.manual_seed(0)
    model, clips = perceptual.LPIPS().requires_grad_(False), torch.randint(0, 256, (2, 1, 32, 32, 3)).byte()
    for weight in model.weights:
        weight.data.uniform_()
    half = torch.arange(32).expand(1, 32, 32) < 16
    wanted = perceptual.lpips(model, *clips, half)
    with loaded(model):
        same(perceptual.lpips(model, *clips, half), wanted)


@pytest.mark.parametrize("network", [ResNet3D, I3D], ids=["fid_vid", "fvd"])
def test_features_of_videos(network):
    torch.manual_seed(0)
    model, clip = network().eval().requires_grad_(False), torch.rand(1, 3, 16, 64, 64)
    if network is I3D:  # whose end needs pictures of 224 pixels
        model = torch.nn.Sequential(*list(model)[:12])
    wanted = model(clip)
    with loaded(model):
        same(perceptual._features(model, clip.to(MPS)), wanted)


@contextmanager
def loaded(model: torch.nn.Module) -> Iterator[None]:
    with pretending():
        patcher = managed(model, MPS, CPU)
        load_whole([patcher])
        yield
        release(patcher)


def test_interpolation_and_noise():
    latents = torch.randn(3, 4, 8, 8)
    with pretending():
        for method in ("slerp", "linear"):
            same(interpolate(latents.to(MPS), 3, method).cpu(), interpolate(latents, 3, method))


def test_tiny_codec():
    """The VAE that comes with the pack, in ComfyUI's hands."""
    import safetensors.torch

    file = Path(__file__).parents[2] / "champ" / "assets" / "models" / "vae" / "champ_tiny_vae.safetensors"
    state = safetensors.torch.load_file(file)
    image = torch.rand(1, 64, 64, 3)
    wanted = comfy.sd.VAE(sd=state)
    latents = wanted.encode(image)
    with pretending():
        vae = comfy.sd.VAE(sd=state, device=MPS, dtype=torch.float32)
        same(vae.encode(image), latents)
        same(vae.decode(latents), wanted.decode(latents))


def test_maps_are_drawn_on_cuda_or_on_the_cpu():
    assert rasterizer_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    for other in (MPS, torch.device("xpu"), CPU):
        assert rasterizer_device(other) == CPU


def test_maps(monkeypatch):
    """On a device with all operators and numbers in float64, as CUDA is."""
    monkeypatch.setattr(elsewhere, "has_kernel", lambda name: True)
    monkeypatch.setattr(elsewhere, "WIDE", set())
    body = load_free_body()
    motion = make_motion("dance", body, 2, 30.0, width=96, height=96)
    with pretending() as pretend:
        found = render_guidance(body, motion, device=MPS)
    assert "aten::scatter_reduce_.two" in pretend.ran
    for one, other in zip(found[:-1], render_guidance(body, motion)):
        assert one.device == CPU and torch.equal(one, other)
