import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.keypoints.pose import Pose
from champ.motion.presets import make_motion
from champ.progress import listening
from champ.render.guidance import render_guidance
from champ.render.maps import Maps, draw_maps, part_colors
from champ.render.rasterize import rasterize
from champ.render.skeleton import draw_skeleton


@pytest.fixture(scope="module")
def dancer() -> tuple:
    body = load_free_body()
    return body, make_motion("dance", body, 37, width=77, height=101)


def test_a_motion_is_drawn_frame_by_frame(dancer):
    body, motion = dancer
    done = []
    with listening(lambda *count: done.append(count)):
        drawn = render_guidance(body, motion)
    assert done == [(i, 37) for i in range(1, 38)]
    assert [tuple(picture.shape) for picture in drawn[:5]] == [(37, 101, 77, 3)] * 4 + [(37, 101, 77)]
    assert all(picture.dtype == torch.uint8 and picture.device.type == "cpu" for picture in drawn[:5])
    vertices = motion.posed(body).vertices
    for i in (0, 15, 16, 36):
        hits = rasterize(vertices[i : i + 1], body.faces, motion.focal, 77, 101)
        alone = Maps.blank(1, 101, 77)
        draw_maps(alone, hits, vertices[i : i + 1], body.faces, part_colors(body.faces, body.part_labels))
        assert torch.equal(drawn.mask[i], alone.mask[0])
        for name in ("depth", "normal", "semantic_map"):
            assert (getattr(drawn, name)[i].int() - getattr(alone, name)[0].int()).abs().max() <= 1
        skeleton = draw_skeleton([drawn.poses[i]], 77, 101)
        assert skeleton.any() and np.array_equal(drawn.dwpose[i].numpy(), skeleton)


def test_rendering_can_be_stopped(dancer):
    body, motion = dancer
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        with listening(stop):
            render_guidance(body, motion)
    assert seen == [1, 2, 3]


def test_hands_of_the_driving_video_are_drawn_where_they_are_known(dancer):
    body, _ = dancer
    motion = make_motion("turntable", body, 8, width=96, height=128)[:3]
    plain = render_guidance(body, motion)
    person = plain.poses[0].body
    hand = np.tile(person[7], (21, 1)) + np.linspace(0, 5, 21)[:, None] * (1, 0.5, 0)
    drawn = render_guidance(body, motion, [Pose(person, left_hand=hand), None, None])
    assert torch.equal(drawn.dwpose[1:], plain.dwpose[1:]) and torch.equal(drawn.normal, plain.normal)
    blue = torch.tensor([0, 0, 255])
    column, row = person[7, :2].astype(int)
    assert (drawn.dwpose[0, row, column] == blue).all() and not (plain.dwpose[0, row, column] == blue).all()


def test_keypoints_of_another_length_are_refused(dancer):
    body, motion = dancer
    with pytest.raises(ValueError, match="keypoints for 2 frames but the motion has 37"):
        render_guidance(body, motion, [None, None])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_same(dancer):
    body, motion = dancer
    cpu, gpu = render_guidance(body, motion), render_guidance(body, motion, device="cuda")
    same = (cpu.mask > 0) & (gpu.mask > 0)
    assert same.sum() / ((cpu.mask > 0) | (gpu.mask > 0)).sum() >= 0.9995
    for name in ("depth", "normal", "semantic_map"):
        difference = (getattr(cpu, name)[same].float() - getattr(gpu, name)[same].float()).abs()
        assert difference.mean() < 0.02
