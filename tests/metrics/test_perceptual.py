import io
import math
import warnings

import lpips
import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file

from champ.metrics import perceptual
from champ.metrics.networks import I3D, ResNet3D
from champ.progress import listening


def clip(frames: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, size, size, 3), generator=generator, dtype=torch.uint8)


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that keep the signal's size, so that the results say something."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            scale = math.sqrt(2 / parameter[0].numel())
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """LPIPS's own package on random VGG weights, with its files' layout on disk."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    folder = tmp_path_factory.mktemp("lpips")
    vgg = {}
    for part in (getattr(model.net, f"slice{i}") for i in range(1, 6)):
        vgg |= {f"features.{key}": value for key, value in part.state_dict().items()}
    vgg["classifier.0.weight"] = torch.zeros(1)
    torch.save(vgg, folder / "vgg16.pth")
    lin = {key: value for key, value in model.state_dict().items() if key.startswith("lin") and key.count(".") == 3}
    torch.save({key: value for key, value in lin.items() if not key.startswith("lins")}, folder / "lpips_vgg.pth")
    return model, folder


def test_lpips_is_the_official_one(official):
    model, folder = official
    ours = perceptual.load_lpips(folder / "vgg16.pth", folder / "lpips_vgg.pth")
    made, true = clip(2, 70, 1), clip(2, 70, 2)
    colours = [x.permute(0, 3, 1, 2) / 255 for x in (made, true)]
    for benchmark in (False, True):
        with torch.no_grad():
            expected = model(*colours, normalize=not benchmark).flatten().double()
        values = perceptual.lpips(ours, made, true, benchmark=benchmark)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)
    whole = perceptual.lpips(ours, made, true, torch.ones(2, 70, 70, dtype=torch.bool))
    torch.testing.assert_close(whole, perceptual.lpips(ours, made, true))
    half = torch.zeros(2, 70, 70, dtype=torch.bool)
    half[:, :, :35] = True
    partly = torch.where(half[..., None], made, true)
    inside, outside = (perceptual.lpips(ours, partly, true, mask) for mask in (half, ~half))
    assert (inside > 5 * outside).all()


def test_frechet_distance_is_that_of_the_matrix_root():
    random = np.random.default_rng(0)
    for rows in (5, 60):  # fewer and more than the features
        a, b = random.normal(size=(rows, 12)), random.normal(0.3, 1.4, size=(rows + 3, 12))
        sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = scipy.linalg.sqrtm(sa @ sb + 1e-14 * np.eye(12)).real
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * root)
        got = perceptual.frechet(torch.from_numpy(a), torch.from_numpy(b))
        assert got == pytest.approx(expected, rel=1e-4)
        assert perceptual.frechet(torch.from_numpy(a), torch.from_numpy(a)) == pytest.approx(0, abs=1e-9)


def test_too_short_or_too_small_clips_are_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match="there are 16 frames; give 17 or more"):
        perceptual.fvd(None, clip(16, 40, 1), clip(16, 40, 2))
    with pytest.raises(ValueError, match="Pictures of 15x15 pixels are too small for LPIPS"):
        perceptual.lpips(None, clip(2, 15, 1), clip(2, 15, 2))


@pytest.mark.parametrize(
    "network, read, measure, parameters",
    [
        (I3D, perceptual.load_i3d, perceptual.fvd, 12_697_264),
        (ResNet3D, perceptual.load_resnet3d, perceptual.fid_vid, 46_198_976),
    ],
)
def test_video_distances_from_files_in_the_published_layout(network, read, measure, parameters, tmp_path, monkeypatch):
    model = filled(network())
    assert sum(p.numel() for p in model.parameters()) == parameters
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    state |= {"module.fc.bias": torch.zeros(400)} if network is ResNet3D else {}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pth")
    loaded = read(tmp_path / "weights.pth")

    # The tests' business is the way there and back, so the clip is short and the picture small.
    made, true = clip(18, 40, 1), clip(18, 40, 2)
    heard = []
    seen = []
    plain = perceptual._features
    monkeypatch.setattr(perceptual, "_features", lambda m, x: seen.append(x.shape) or plain(m, x[..., ::2, ::2]))
    monkeypatch.setattr(I3D, "forward", lambda self, x: x.mean((2, 3, 4)))
    monkeypatch.setattr(ResNet3D, "forward", lambda self, x: x.mean((2, 3, 4)))
    with listening(lambda *far: heard.append(far)):
        distance = measure(loaded, made, true)
    size = 224 if network is I3D else 112
    assert seen == [(3, 3, 16, size, size)] * 2
    assert distance > 0 and measure(loaded, true, true) == pytest.approx(0, abs=1e-9)
    assert [done for done, _ in heard] == [3, 6]


def test_the_networks_shrink_time_and_space_as_published():
    i3d, resnet = filled(I3D()), filled(ResNet3D())
    with torch.no_grad():
        x = torch.rand(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
        inner = x
        for name, layer in list(i3d.named_children())[:3]:
            inner = layer(inner)
            assert inner.shape[2] == 8, name  # only later layers take time together again
        assert inner.shape == (1, 64, 8, 56, 56)
        assert resnet(x[..., :112, :112] * 100).shape == (1, 2048)


def test_files_of_something_else(tmp_path):
    save_file({"conv_in.weight": torch.zeros(2)}, tmp_path / "unet.safetensors")
    with pytest.raises(ValueError, match=r"unet.safetensors does not hold the tensors of I3D \(for example"):
        perceptual.load_i3d(tmp_path / "unet.safetensors")
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
        with pytest.raises(ValueError, match=f"{name} cannot be read as a file of weights: it is a web page"):
            perceptual.load_i3d(tmp_path / name)
    for content in ([torch.zeros(3)], torch.zeros(3), {"state_dict": 5}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="other.pth cannot be read as a file of weights: it holds no"):
            perceptual.load_i3d(tmp_path / "other.pth")

    class Foreign:
        def __reduce__(self):
            return print, ("run",)

    buffer = io.BytesIO()
    torch.save({"state_dict": Foreign()}, buffer)
    (tmp_path / "foreign.pth").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="foreign.pth was refused and nothing in it was run: it calls .*print"):
        perceptual.load_i3d(tmp_path / "foreign.pth")
