"""Measure Result in the real host."""

import pytest

import dev


def picture(color: int, frames: int = 3, size: int = 16) -> dict:
    return {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": frames, "color": color}}


def measured(server, mask: dict | None = None, **options) -> dict:
    inputs = {"protocol": "clean", "lpips": False, "fid_vid": False, "fvd": False, **options}
    prompt = {
        "1": picture(0x808080),
        "2": picture(0x848484),
        "3": {"class_type": "ChampMeasure", "inputs": {"images": ["1", 0], "truth": ["2", 0], **inputs}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
    }
    if mask is not None:
        prompt["5"] = mask
        prompt["3"]["inputs"]["mask"] = ["5", 0]
    return server.run(prompt)["outputs"]


def test_values_and_report(server):
    outputs = measured(server)
    assert float(outputs["4"]["text"][0]) == pytest.approx(36.0895, abs=1e-3)  # 10 log10(255^2 / 4^2)
    report = outputs["3"]["text"][0]
    assert report.splitlines()[:2] == ["3 frames, clean", "L1: whole 0.01569"]
    assert "flicker: whole 0" in report


def test_the_person_alone(server):
    mask = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 16, "height": 16}}
    report = measured(server, mask, protocol="benchmark")["3"]["text"][0]
    assert "PSNR*: whole 36.09, person 36.09, background -" in report


def test_missing_weights_are_named(server):
    with pytest.raises(dev.Failure, match="FVD needs i3d_pretrained_400.pt: put it into models/champ_metrics"):
        measured(server, fvd=True)
