import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from champ.body.free import load_free_body
from champ.motion.presets import make_motion
from champ.progress import listening
from champ.render import preview as module
from champ.render.guidance import render_guidance
from champ.render.preview import BACKDROP, BACKENDS, preview, shade


@pytest.fixture(scope="module")
def body():
    return load_free_body()


@pytest.fixture(scope="module")
def motion(body):
    return make_motion("dance", body, 3, fps=3.0, width=160, height=240)


def figures(backend: str, body, motion) -> tuple[torch.Tensor, torch.Tensor]:
    """Light (F, H, W, 3) and coverage (F, H, W) of whole pictures."""
    light, cover = torch.zeros(3, 240, 160, 3), torch.zeros(3, 240, 160)
    for i, (rows, columns, frame_light, frame_cover) in enumerate(BACKENDS[backend](body, motion)):
        light[i, rows, columns], cover[i, rows, columns] = frame_light[0], frame_cover[0, ..., 0]
    return light, cover


@pytest.fixture(scope="module")
def cover(body, motion):
    return figures("torch", body, motion)[1]


def test_picture_is_the_background_outside_the_person(body, motion, cover):
    plain = preview(body, motion)
    assert plain.shape == (3, 240, 160, 3) and plain.dtype == torch.uint8
    assert (plain[cover == 0] == torch.tensor(BACKDROP)).all()
    video = torch.arange(3 * 240 * 160 * 3).view(3, 240, 160, 3).mul(7919).byte()
    over = preview(body, motion, video)
    assert torch.equal(over[cover == 0], video[cover == 0])
    assert torch.equal(over[cover == 1], plain[cover == 1])
    still = preview(body, motion, video[:1])
    assert torch.equal(still[2][cover[2] == 0], video[0][cover[2] == 0])


def test_silhouette_is_that_of_the_maps_with_smooth_edges(body, motion, cover):
    mask = render_guidance(body, motion).mask > 0
    assert set(cover.unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}
    edge = (cover > 0) & (cover < 1)
    assert torch.equal(cover[~edge] == 1, mask[~edge])
    assert 0.02 < edge.sum() / mask.sum() < 0.2
    assert abs(cover.sum() / mask.sum() - 1) < 0.01


def test_light_comes_from_the_upper_left():
    normals = torch.nn.functional.normalize(
        torch.tensor([[-0.6, -0.6, -1], [0, 0, -1], [0.6, 0.6, -1], [0.6, -0.6, -1], [-0.6, 0.6, -1]]), dim=1
    )
    upper_left, centre, lower_right, *_ = light = shade(normals).mean(1)
    assert upper_left > centre > lower_right > 0
    assert light.max() == upper_left and light.min() == lower_right and light.max() <= 1


def test_what_lies_behind_gets_less_light(body, motion, monkeypatch):
    shaded = preview(body, motion).int().sum()
    monkeypatch.setattr(module, "openness", lambda hits, motion: torch.ones_like(hits.z))
    bright = preview(body, motion).int().sum()
    assert 0.9 * bright < shaded < 0.999 * bright


def test_nobody_in_the_picture(body, motion):
    away = replace(motion, cam_t=motion.cam_t + torch.tensor([100.0, 0, 0]))
    assert (preview(body, away) == torch.tensor(BACKDROP)).all()


def test_wrong_input_is_named(body, motion):
    with pytest.raises(ValueError, match="no preview backend called 'gl'; choose from torch, pyrender"):
        preview(body, motion, backend="gl")
    for shape in ((2, 240, 160, 3), (1, 160, 240, 3), (1, 240, 160, 4)):
        with pytest.raises(ValueError, match="The background has shape .* resize it"):
            preview(body, motion, torch.zeros(shape, dtype=torch.uint8))


def test_progress_is_told(body, motion):
    done = []
    with listening(lambda *count: done.append(count)):
        preview(body, motion)
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_pyrender_is_asked_for_only_when_chosen(body, motion, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrender", None)
    with pytest.raises(ValueError, match='run "pip install pyrender", or choose the torch backend'):
        preview(body, motion, backend="pyrender")
    preview(body, motion[:1])


def test_pyrender_draws_the_same_silhouette(body, motion, cover):
    try:
        light, gl = figures("pyrender", body, motion)
    except ValueError as error:
        pytest.skip(str(error))
    assert (gl - cover).abs().sum() / cover.sum() < 0.02
    assert not ((gl == 0) & (cover == 1) | (gl == 1) & (cover == 0)).any()
    inside = (gl == 1) & (cover == 1)
    assert 0.05 < light[inside].mean() < 0.8


def test_opengl_does_not_break_what_torch_imports_later():
    """Mesa's LLVM and triton's in one process: the wrong order of loading ends it with a segmentation fault."""
    pytest.importorskip("pyrender")
    pytest.importorskip("triton")
    code = (
        "from champ.body.free import load_free_body; from champ.motion.presets import make_motion\n"
        "from champ.render.preview import preview\n"
        "body = load_free_body(); motion = make_motion('walk', body, 1, width=32, height=32)\n"
        "try: preview(body, motion, backend='pyrender')\n"
        "except ValueError as error: print(error)\n"
        "import torch._dynamo"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
