"""Guidance encoders and pose guider against the official features."""

import pytest
import torch
from golden import HEIGHT, WIDTH, frames_first, relative

from champ.model.guidance import GuidanceMap, encode_guidance
from champ.model.span import Span
from champ.progress import listening


def official_maps(family) -> dict[str, GuidanceMap]:
    data = family.data("guidance")
    return {name: GuidanceMap(data[f"images/{name}"].float() / 255) for name in family.encoders.names}


def test_features(family):
    for name, given in official_maps(family).items():
        found = encode_guidance(family.encoders, {name: given}, WIDTH, HEIGHT)
        assert relative(found.layers[0].features, frames_first(family.data("guidance")[f"feature/{name}"])) < 1e-5, name


def test_sum_of_all_maps_whatever_the_chunks(family):
    wanted = frames_first(family.data("guidance")["feature_sum"])[:4]
    for chunk in 1, 3, 4, None:
        heard = []
        maps = official_maps(family)
        with listening(lambda *count, heard=heard: heard.append(count)):
            found = encode_guidance(family.encoders, maps, WIDTH, HEIGHT, chunk=chunk)
        assert relative(found.layers[0].features, wanted) < 1e-5
        assert heard == [(min(n, 4), 4) for n in range(chunk or 1, 4 + (chunk or 1), chunk or 1)][: len(heard)]
        assert heard[-1] == (4, 4)
    assert (found.frames, found.width, found.height, found.family) == (4, WIDTH, HEIGHT, family.files.family)
    assert found.empty_latent().shape == (4, 4, 8, 12)


def test_strength_and_range(champ):
    maps = official_maps(champ)
    depth = encode_guidance(champ.encoders, {"depth": maps["depth"]}, WIDTH, HEIGHT).layers[0].features
    normal = encode_guidance(champ.encoders, {"normal": maps["normal"]}, WIDTH, HEIGHT).layers[0].features
    images = {name: given.images for name, given in maps.items()}
    found = encode_guidance(
        champ.encoders,
        {
            "depth": GuidanceMap(images["depth"], strength=0.5),
            "normal": GuidanceMap(images["normal"], span=Span(end=0.4)),
            "dwpose": GuidanceMap(images["dwpose"], strength=0.0),
        },
        WIDTH,
        HEIGHT,
    )
    assert [layer.span for layer in found.layers] == [(0.0, 1.0), (0.0, 0.4)]
    assert torch.equal(found.layers[0].features, depth * 0.5)
    assert torch.equal(found.layers[1].features, normal)


def test_single_frame_and_a_thousand(champ):
    for frames in 1, 1000:
        images = torch.rand(frames, 16, 16, 3)
        found = encode_guidance(champ.encoders, {"depth": GuidanceMap(images)}, 16, 16, chunk=250)
        assert found.layers[0].features.shape == (frames, 32, 2, 2)


def test_bad_input(champ, animate_anyone):
    images = torch.zeros(2, 16, 16, 3)
    with pytest.raises(
        ValueError, match="no guidance maps; connect at least one of depth, normal, semantic_map, dwpose"
    ):
        encode_guidance(champ.encoders, {}, 16, 16)
    maps = {"depth": GuidanceMap(images), "normal": GuidanceMap(images[:1])}
    with pytest.raises(ValueError, match=r"differ in their number of frames \(depth 2, normal 1\); trim"):
        encode_guidance(champ.encoders, maps, 16, 16)
    with pytest.raises(ValueError, match="The depth map has no pictures"):
        encode_guidance(champ.encoders, {"depth": GuidanceMap(images[:0])}, 16, 16)
    with pytest.raises(ValueError, match="not multiples of 8; use 16x24"):
        encode_guidance(champ.encoders, {"depth": GuidanceMap(images)}, 16, 23)
    with pytest.raises(ValueError, match="Animate Anyone checkpoint set has no encoder for depth maps, only for pose"):
        encode_guidance(animate_anyone.encoders, {"depth": GuidanceMap(images)}, 16, 16)
