"""Measure Result in the real host."""

import pytest

from champ.server import Failure


def picture(color: int, frames: int = 3, size: int = 16) -> dict:
    return {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": frames, "color": color}}


def measured(server, mask: dict | None = None, images: dict | None = None, **options) -> dict:
    inputs = {"protocol": "clean", "lpips": False, "fid_vid": False, "fvd": False, **options}
    prompt = {
        "1": images or picture(0x808080),
        "2": picture(0x848484),
        "3": {"class_type": "ChampMeasure", "inputs": {"images": ["1", 0], "truth": ["2", 0], **inputs}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
        "6": picture(0x848484, 1),
        "7": picture(0x808080, 2),
    }
    if mask is not None:
        prompt["5"] = mask
        prompt["3"]["inputs"]["mask"] = ["5", 0]
    return server.run(prompt)["outputs"]


def test_values_and_report(server):
    outputs = measured(server)
    assert float(outputs["4"]["text"][0]) == pytest.approx(36.0895, abs=1e-3)  # 10 log10(255^2 / 4^2)
    report = outputs["3"]["text"][0]
    assert report.splitlines()[:2] == ["3 frames, clean.", "L1: whole 0.01569."]
    assert "flicker: whole 0" in report


def test_the_person_alone(server):
    mask = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 16, "height": 16}}
    report = measured(server, mask, protocol="benchmark")["3"]["text"][0]
    assert "PSNR*: whole 36.09, person 36.09, background none." in report


def test_a_frame_that_is_equal_does_not_make_the_mean_infinite(server):
    both = {"class_type": "ImageBatch", "inputs": {"image1": ["6", 0], "image2": ["7", 0]}}
    outputs = measured(server, images=both)
    assert float(outputs["4"]["text"][0]) == pytest.approx(36.0895, abs=1e-3)
    assert "PSNR: whole equal" in measured(server, images=picture(0x848484))["3"]["text"][0]


def test_masks_and_clips_that_do_not_fit(server):
    with pytest.raises(Failure, match=r"The mask is \(2, 16, 16\).* one mask for each picture"):
        measured(server, {"class_type": "ImageToMask", "inputs": {"image": ["7", 0], "channel": "red"}})
    with pytest.raises(Failure, match="as many frames of the same size"):
        measured(server, images=picture(0, frames=2))


def test_missing_weights_are_named(server):
    with pytest.raises(Failure, match="FVD needs i3d_pretrained_400.pt: put it into models/champ_metrics"):
        measured(server, fvd=True)
