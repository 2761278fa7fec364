"""Clips of every kind are read, and measured as Measure Result does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from champ.batch.clips import frames, thumbnail
from champ.batch.jobs import Measure
from champ.batch.measuring import scores
from champ.batch.worker import lift_maps, shown_files
from champ.server import Failure

DANCE = Path(__file__).parents[1] / "data" / "dwpose" / "dance.mp4"


def pictures(count: int, size: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def save(folder: Path, clip: np.ndarray, start: int = 8) -> list[Path]:
    """Numbers that go from one digit to two."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"clip_{start + i}.png" for i in range(len(clip))]
    for file, picture in zip(files, clip):
        Image.fromarray(picture).save(file)
    return files


def test_frames_of_pictures_folders_animations_and_videos(tmp_path):
    clip = pictures(4)
    files = save(tmp_path / "clip", clip)
    for source in (files, [tmp_path / "clip"]):
        assert np.array_equal(np.stack(list(frames(source))), clip)
    images = [Image.fromarray(picture) for picture in clip]
    images[0].save(tmp_path / "clip.webp", save_all=True, append_images=images[1:], lossless=True)
    assert np.array_equal(np.stack(list(frames([tmp_path / "clip.webp"]))), clip)
    dance = list(frames([DANCE]))
    assert len(dance) > 10 and all(frame.shape == dance[0].shape for frame in dance)


def test_files_that_are_no_clips(tmp_path):
    for name, message in (("x.png", "x.png cannot be read as a picture"), ("x.mp4", "x.mp4 cannot be read as a video")):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(ValueError, match=message):
            list(frames([tmp_path / name]))


def test_a_thumbnail_shows_frames_from_the_whole_clip(tmp_path):
    clip = np.zeros((9, 20, 10, 3), np.uint8)
    clip[:, :, :, 0] = np.arange(9)[:, None, None] * 25
    thumbnail(save(tmp_path / "clip", clip), tmp_path / "t.jpg")
    shown = np.array(Image.open(tmp_path / "t.jpg"))
    assert shown.shape == (120, 240, 3)
    assert np.abs(shown[60, 30::60, 0].astype(int) - np.array([0, 75, 125, 200])).max() < 6


def job(made: list[Path], truth: Path, mask: Path | None = None, **more) -> Measure:
    return Measure("row", tuple(made), truth, mask, **{"protocol": "clean", "networks": (), **more})


def test_the_numbers_are_those_of_measure_result(server, tmp_path):
    true = pictures(1)[0]
    made = np.clip(true.astype(int) + 9, 0, 255).astype(np.uint8)
    mask = np.zeros((24, 24, 3), np.uint8)
    mask[4:20, 6:18] = 255
    names = {"made": made, "true": true, "mask": mask}
    for name, picture in names.items():
        Image.fromarray(picture).save(server.base / "input" / f"measured_{name}.png")
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    prompt = {
        name: {"class_type": "LoadImage", "inputs": {"image": f"measured_{name}.png"}} for name in ("made", "true")
    }
    prompt["mask"] = {"class_type": "LoadImageMask", "inputs": {"image": "measured_mask.png", "channel": "red"}}
    linked = {"images": ["made", 0], "truth": ["true", 0], "mask": ["mask", 0]}
    for protocol in ("clean", "benchmark"):
        options = {"protocol": protocol, "lpips": False, "fid_vid": False, "fvd": False}
        prompt["measure"] = {"class_type": "ChampMeasure", "inputs": {**linked, **options}}
        prompt["psnr"] = {"class_type": "PreviewAny", "inputs": {"source": ["measure", 2]}}
        outputs = server.run(prompt)["outputs"]
        paths = [tmp_path / f"{name}.png" for name in ("made", "true", "mask")]
        found = scores(job(paths[:1], paths[1], paths[2], protocol=protocol), tmp_path)
        assert found["PSNR"] == float(outputs["psnr"]["text"][0])
        report = outputs["measure"]["text"][0]
        for name in ("PSNR", "SSIM"):
            parts = (f"{part} {_number(found[name + end])}" for part, end in PARTS)
            assert f"{name}: {', '.join(parts)}." in report


PARTS = (("whole", ""), ("person", " person"), ("background", " background"))


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


def test_clips_that_do_not_fit_and_weights_that_are_missing(tmp_path):
    files = save(tmp_path / "clip", pictures(3))
    with pytest.raises(ValueError, match="The pictures to measure are 3 of 24x24 and the true ones 1 of 24x24"):
        scores(job(files, files[0]), tmp_path)
    with pytest.raises(ValueError, match="LPIPS needs vgg16.*: put it into models/champ_metrics"):
        scores(job(files, tmp_path / "clip", networks=("LPIPS",)), tmp_path)
    with pytest.raises(ValueError, match="FVD"):
        scores(job(files, tmp_path / "clip", networks=("FVD",)), tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none has no pictures"):
        scores(job(files, tmp_path / "none"), tmp_path)
    save(tmp_path / "clip", pictures(1, size=16), start=99)
    with pytest.raises(ValueError, match="clip has pictures of 2 sizes"):
        scores(job(files, tmp_path / "clip"), tmp_path)


def test_the_files_of_the_result_are_told_from_previews(tmp_path):
    for name in ("a.png", "b.mp4", "c.txt"):
        (tmp_path / name).touch()
    outputs = {
        "1": {"images": [{"filename": "p.png", "subfolder": "", "type": "temp"}], "text": ["a"]},
        "2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}], "animated": [True]},
        "3": {"gifs": [{"filename": "b.mp4", "type": "output"}, {"filename": "c.txt", "type": "output"}]},
    }
    assert shown_files(outputs, None, tmp_path) == [tmp_path / "a.png"]
    assert shown_files(outputs, "3", tmp_path) == [tmp_path / "b.mp4"] and shown_files(outputs, "1", tmp_path) == []


def test_maps_become_the_folders_of_the_row(tmp_path):
    place = tmp_path / "champ" / "maps_00001"
    for kind in ("images", "depth"):
        save(place / kind, pictures(2))
    lift_maps(tmp_path)
    assert len(list((tmp_path / "images").iterdir())) == 2 and not place.exists()
    with pytest.raises(Failure, match="made no folders of images"):
        lift_maps(tmp_path / "depth")
    next((tmp_path / "depth").iterdir()).unlink()
    (tmp_path / "more").mkdir()
    for kind in ("images", "depth"):
        (tmp_path / kind).rename(tmp_path / "more" / kind)
    with pytest.raises(Failure, match="the maps are not complete: "):
        lift_maps(tmp_path)
