import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from champ.body.skeleton import PART_COLORS
from champ.render.palette import exchange_report, palette_report

DATA = Path(__file__).parents[1] / "data" / "render"
CASES = ("case_a", "case_b")
VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]


def read(case: str, name: str) -> np.ndarray:
    with Image.open(DATA / case / f"{name}.png") as picture:
        return np.array(picture.convert("RGB"))


def report(*frames: np.ndarray, mask=None) -> str | None:
    return palette_report(torch.from_numpy(np.stack(frames).astype(np.uint8)), mask)


def part_of(case: str) -> np.ndarray:
    """Part number of each pixel, -1 for the background."""
    picture = read(case, "semantic_map_nodither").astype(int)
    label = np.abs(picture[:, :, None] - PART_COLORS.astype(int)).max(-1).argmin(-1)
    return np.where(picture.max(-1) > 40, label, -1)


def compressed(picture: np.ndarray, **options) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return np.array(Image.open(buffer).convert("RGB"))


def resized(picture: np.ndarray, factor: float) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.array(Image.fromarray(picture).resize((int(width * factor), int(height * factor))))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["semantic_map", "semantic_map_nodither"])
def test_official_renders_pass(case, name):
    assert report(read(case, name)) is None


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("factor", [0.25, 0.5, 0.75, 1.5, 2])
def test_smooth_resizing_passes(case, factor):
    assert report(resized(read(case, "semantic_map"), factor)) is None


@pytest.mark.parametrize("case", CASES)
def test_purple_background_is_told_and_a_mask_settles_it(case):
    picture = read(case, "semantic_map")
    purple = np.where((picture.max(-1) <= 2)[..., None], PART_COLORS[0], picture)
    assert "purple background (68, 1, 84)" in report(purple)
    with Image.open(DATA / case / "mask.png") as mask:
        assert report(purple, mask=torch.from_numpy(np.array(mask))[None]) is None
    bgr_on_purple = np.where((picture.max(-1) <= 2)[..., None], PART_COLORS[0], picture[..., ::-1])
    assert "(BGR)" in report(bgr_on_purple)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "options",
    [{"format": "JPEG", "quality": 95}, {"format": "JPEG", "quality": 50}, {"format": "WEBP", "quality": 80}],
    ids=["jpeg 95", "jpeg 50", "webp 80"],
)
def test_lossy_compression(case, options):
    assert "as after JPEG or video compression" in report(compressed(read(case, "semantic_map"), **options))


@pytest.mark.parametrize("case", CASES)
def test_exchanged_channels(case):
    assert "red and blue exchanged (BGR)" in report(read(case, "semantic_map")[..., ::-1])


@pytest.mark.parametrize("case", CASES)
def test_grey_maps(case):
    grey = cv2.cvtColor(read(case, "semantic_map"), cv2.COLOR_RGB2GRAY)
    for picture in (grey, np.clip(10 * (part_of(case) + 1), 0, 255), read(case, "depth")[..., 0]):
        assert "is grey" in report(np.repeat(picture[..., None], 3, axis=-1))


@pytest.mark.parametrize("case", CASES)
def test_densepose_colours(case):
    """DensePose spreads 24 parts over the whole colour map: level 255 / 24 per part."""
    part = part_of(case)
    level = ((part + 1) * 255 / 24).astype(int)
    on_black = np.where((part >= 0)[..., None], VIRIDIS[level], 0)
    for picture in (on_black, VIRIDIS[level]):
        assert "as in DensePose pictures" in report(picture)
    parula = cv2.applyColorMap(level.astype(np.uint8), cv2.COLORMAP_PARULA)[..., ::-1]
    assert "Only 0% of the semantic map's even areas" in report(parula)


@pytest.mark.parametrize("case", CASES)
def test_other_maps(case):
    assert "no even areas" in report(read(case, "normal"))


def test_empty_frames_are_counted():
    picture = read("case_a", "semantic_map")
    nothing = np.zeros_like(picture)
    message = report(nothing, picture, picture, nothing + 1)
    assert "black in 2 of 4 frames (0, 3)" in message
    assert "black in every frame" in report(nothing, nothing)


def test_every_report_is_one_sentence():
    picture = read("case_a", "semantic_map")
    for wrong in (
        np.zeros_like(picture),
        picture[..., ::-1],
        compressed(picture, format="JPEG"),
        read("case_a", "normal"),
    ):
        message = report(wrong)
        assert message.endswith(".") and ". " not in message and "\n" not in message


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [{"format": "png"}, {"format": "jpeg", "quality": 60}])
def test_depth_and_normal_maps_that_are_exchanged(case, options):
    def maps(name):
        return torch.from_numpy(compressed(read(case, name), **options))[None]

    depth, normal, semantic = maps("depth"), maps("normal"), maps("semantic_map")
    assert exchange_report(depth, normal) is None
    assert exchange_report(None, normal) is exchange_report(depth, None) is exchange_report(None, None) is None
    assert exchange_report(depth * 0, normal * 0) is None  # nobody there
    for wrong in (normal, semantic):
        assert "of the depth maps is coloured, but Champ's depth maps are grey" in exchange_report(wrong, normal)
    assert "The normal maps are grey, but" in exchange_report(None, depth)
    assert "depth maps is coloured" in exchange_report(normal, depth)
