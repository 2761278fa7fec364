import math

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from champ.metrics import images


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth noisy clips that differ a little, and whose second frames are equal."""
    random = np.random.default_rng(0)
    true = cv2.GaussianBlur(random.integers(0, 256, (40, 33, 9)).astype(np.uint8), (0, 0), 2).reshape(40, 33, 3, 3)
    made = np.clip(true + random.normal(0, 12, true.shape), 0, 255).astype(np.uint8)
    made[:, :, 1] = true[:, :, 1]
    made, true = (torch.from_numpy(np.ascontiguousarray(c.transpose(2, 0, 1, 3))) for c in (made, true))
    return made, true


def test_psnr_and_ssim_are_those_of_scikit_image(clips):
    made, true = clips
    psnr, ssim = images.psnr(made, true), images.ssim(made, true)
    for i, (a, b) in enumerate(zip(made.numpy(), true.numpy())):
        assert float(ssim[i]) == pytest.approx(structural_similarity(b, a, channel_axis=2), abs=1e-6)
        if i != 1:
            assert float(psnr[i]) == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-6)
    assert math.isinf(psnr[1]) and float(ssim[1]) == pytest.approx(1)


def test_a_mask_restricts_to_its_pixels(clips):
    made, true = clips
    mask = torch.zeros(made.shape[:3], dtype=torch.bool)
    mask[:, 5:30, 4:20] = True
    crop = (slice(None), slice(5, 30), slice(4, 20))
    for measure in (images.l1, images.psnr, images.flicker):
        torch.testing.assert_close(measure(made, true, mask), measure(made[crop], true[crop]), equal_nan=True)
    whole = images.ssim(made, true)
    assert not torch.allclose(images.ssim(made, true, mask), whole)
    # Inside and outside together are the whole, weighted by their windows.
    inner = mask[0, 3:-3, 3:-3].double().mean()
    both = inner * images.ssim(made, true, mask) + (1 - inner) * images.ssim(made, true, ~mask)
    torch.testing.assert_close(both, whole)


def test_the_benchmarks_forms(clips):
    made, true = clips
    a, b = made[0].numpy(), true[0].numpy()
    assert float(images.benchmark_l1(made, true)[0]) == pytest.approx(
        np.mean(np.abs(a.astype(float) - b.astype(float)) / (40 * 33))
    )
    with np.errstate(over="ignore"):
        wrapped = np.mean((a - b) ** 2)  # uint8 all the way
    assert float(images.benchmark_psnr(made, true)[0]) == pytest.approx(20 * math.log10(255 / math.sqrt(wrapped)))
    assert images.benchmark_psnr(made, true)[1] == images.benchmark_psnr_star(made, true)[1] == 100
    assert images.benchmark_psnr_star(made, true)[0] == images.psnr(made, true)[0]
    grey = [cv2.cvtColor(x[..., ::-1].copy(), cv2.COLOR_BGR2GRAY) for x in (a, b)]
    assert float(images.benchmark_ssim(made, true)[0]) == pytest.approx(structural_similarity(*grey), abs=1e-6)


def test_flicker_is_of_the_changes_only():
    random = np.random.default_rng(1)
    true = torch.from_numpy(random.integers(0, 200, (4, 8, 8, 3)).astype(np.uint8))
    assert images.flicker(true + 20, true).tolist() == [0, 0, 0]
    shifted = true.clone()
    shifted[2] += 51  # one frame lights up
    torch.testing.assert_close(images.flicker(shifted, true), torch.tensor([0, 0.2, 0.2], dtype=torch.float64))


def test_pictures_that_cannot_be_compared(clips):
    made, true = clips
    with pytest.raises(ValueError, match="3 of 33x40 and the true ones 2 of 33x40"):
        images.psnr(made, true[:2])
    with pytest.raises(ValueError, match="one mask for each picture"):
        images.l1(made, true, torch.ones(3, 40, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="too small for SSIM"):
        images.ssim(made[:, :6], true[:, :6])
