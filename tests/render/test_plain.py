"""What is drawn is, to the last bit, what the plain rasteriser of plain.py draws."""

from dataclasses import replace

import pytest
import torch

from champ.body.free import load_free_body
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
from champ.render.rasterize import rasterize

from .plain import plain_hits, plain_maps

SOUPS = {
    "large": ((-1.5, -1.5, 2.0), (1.5, 1.5, 6.0), 0.5),
    "small": ((-1.0, -1.0, 2.0), (1.0, 1.0, 3.0), 0.02),
    "across the near plane": ((-1.5, -1.5, -1.0), (1.5, 1.5, 3.0), 0.8),
    "at the near plane": ((-0.2, -0.2, -0.1), (0.2, 0.2, 0.3), 0.1),
}


def assert_same(ours, theirs) -> None:
    for name, a, b in zip(theirs._fields, ours, theirs):
        assert a.dtype == b.dtype and torch.equal(a, b), name


@pytest.mark.parametrize("kind", SOUPS)
@pytest.mark.parametrize("frames", [1, 3])
def test_soups(kind, frames):
    low, high, size = SOUPS[kind]
    random = torch.Generator().manual_seed(len(kind))
    low, high = torch.tensor(low), torch.tensor(high)
    centres = low + (high - low) * torch.rand(frames, 500, 1, 3, generator=random)
    vertices = (centres + size * torch.randn(frames, 500, 3, 3, generator=random)).view(frames, -1, 3)
    faces = torch.arange(1500).view(-1, 3)
    for focal, width, height in ((70.0, 64, 47), (20.0, 31, 90)):
        hits = rasterize(vertices, faces, focal, width, height)
        assert len(hits.pixel) > 0
        assert_same(hits, plain_hits(vertices, faces, focal, width, height))


def test_corners_on_pixel_centres_level_edges_and_faces_of_no_size():
    random = torch.Generator().manual_seed(0)
    vertices = (torch.randint(-8, 8, (2, 300, 3), generator=random).float() + torch.tensor([0.0, 0.0, 40.0])) / 4
    faces = torch.randint(0, 300, (900, 3), generator=random)
    faces = torch.cat([faces, faces[:200], faces[200:400].flip(1)])  # some are there twice, from both sides
    for focal in (10.0, 64.0):
        assert_same(rasterize(vertices, faces, focal, 32, 32), plain_hits(vertices, faces, focal, 32, 32))


@pytest.mark.parametrize("width, height, frames", [(40, 56, 3), (160, 144, 1)])
@pytest.mark.parametrize("distance", [None, 1.2, 0.4])  # as it dances; the camera before the body, and in it
def test_maps_of_a_body(width, height, frames, distance):
    body = load_free_body()
    motion = make_motion("dance", body, 24, width=width, height=height)[5 : 5 + frames]
    if distance is not None:
        motion = replace(motion, cam_t=torch.tensor([0.1, 0.0, distance]).expand(frames, 3), focal=0.8 * height)
    vertices = motion.posed(body).vertices
    hits = plain_hits(vertices, body.faces, motion.focal, width, height)
    maps = plain_maps(hits, vertices, body.faces, body.part_labels, width, height)
    assert_same(rasterize(vertices, body.faces, motion.focal, width, height), hits)
    drawn = render_guidance(body, motion)
    for name, expected in zip(maps._fields, maps):
        assert expected.any() and torch.equal(getattr(drawn, name), expected), name
