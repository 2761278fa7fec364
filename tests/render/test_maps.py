"""The maps against Blender renders of the official scene, and against geometry that is known."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.body.skeleton import PART_COLORS
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.render import maps as module
from champ.render.maps import Maps, draw_maps, motion_hits, part_colors, vertex_normals
from champ.render.rasterize import rasterize

DATA = Path(__file__).parents[1] / "data" / "render"


def draw(vertices, faces, labels=None, focal=100.0, width=64, height=48):
    """Maps of a mesh; every vertex is of part 0 unless labels are given."""
    vertices = vertices if vertices.dim() == 3 else vertices[None]
    labels = torch.zeros(vertices.shape[1], dtype=torch.int64) if labels is None else labels
    maps = Maps.blank(len(vertices), height, width)
    hits = rasterize(vertices, faces, focal, width, height)
    draw_maps(maps, hits, vertices, faces, part_colors(faces, labels))
    return maps


@pytest.fixture(scope="module", params=["case_a", "case_b"])
def case(request):
    """Our maps of a golden mesh, Blender's pictures of it, and the pixels that both cover."""
    folder = DATA / request.param
    with np.load(folder / "mesh.npz") as mesh:
        vertices = torch.from_numpy(mesh["verts"] + mesh["cam_t"])
        faces, labels = torch.from_numpy(mesh["faces"]).long(), torch.from_numpy(mesh["labels"])
        width, height = mesh["render_res"].astype(int).tolist()
        ours = draw(vertices, faces, labels, float(mesh["scaled_focal_length"]), width, height)
    blender = {}
    for file in folder.glob("*.png"):
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        blender[file.stem] = picture[..., ::-1] if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    both = (ours.mask[0].numpy() > 0) & (blender["mask"][..., 0] > 0)
    return SimpleNamespace(ours=ours, blender=blender, both=both)


def errors(case, ours: str, blender: str) -> np.ndarray:
    """Absolute differences in levels within the common silhouette."""
    picture = getattr(case.ours, ours)[0].numpy().astype(int)
    return np.abs(picture - case.blender[blender])[case.both]


def test_mask_is_blenders(case):
    ours, blender = case.ours.mask[0].numpy(), case.blender["mask"][..., 0]
    assert set(np.unique(ours)) == {0, 255}
    assert case.both.sum() / ((ours > 0) | (blender > 0)).sum() >= 0.9999


@pytest.mark.parametrize(
    "ours, blender, mean, outliers",
    [
        ("depth", "depth", 0.01, 2e-4),
        ("normal", "normal_nodither", 0.015, 2e-4),
        ("semantic_map", "semantic_map_nodither", 0.002, 0.0),
        # The official pictures carry dither noise of -0.42 to 1.26 levels, 0.45 on average.
        ("normal", "normal", 0.47, 1e-3),
        ("semantic_map", "semantic_map", 0.43, 1e-3),
    ],
)
def test_levels_are_blenders(case, ours, blender, mean, outliers):
    difference = errors(case, ours, blender)
    assert difference.mean() <= mean
    assert (difference > 2).mean() <= outliers


def test_background_is_black(case):
    outside = case.ours.mask[0] == 0
    assert all(not picture[0][outside].any() for picture in case.ours)


def test_depth_is_scaled_to_the_visible_pixels_of_each_frame():
    # Three upright strips at Z = 2, 3 and 5; in the second frame the nearest is beside the picture.
    strip = torch.tensor([[-0.1, -9.0, 0], [0.1, -9.0, 0], [0.1, 9.0, 0], [-0.1, 9.0, 0]])
    places = torch.tensor([[[0.0, 0, 2], [0.5, 0, 3], [-1.0, 0, 5]], [[9.0, 0, 2], [0.5, 0, 3], [-1.0, 0, 5]]])
    vertices = (strip + places[:, :, None]).view(2, 12, 3)
    faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * i for i in range(3)])
    maps = draw(vertices, faces)
    row = maps.depth[:, 24, :, 0]
    assert row[0].unique().tolist() == [0, int(255 * 2 / 3 + 0.5), 255]
    assert row[0, 32] == 255 and row[0, 48] == 170
    assert row[1].unique().tolist() == [0, 255]
    assert row[1, 48] == 255 and row[1, 12] == 0 and maps.mask[1, 24, 12] == 255
    assert torch.equal(maps.depth[..., 0], maps.depth[..., 1]) and torch.equal(maps.depth[..., 0], maps.depth[..., 2])


def test_a_frame_at_one_depth_is_all_nearest():
    triangle = torch.tensor([[-0.5, -0.5, 4.0], [0.5, -0.5, 4.0], [0.0, 0.5, 4.0]])
    maps = draw(triangle, torch.tensor([[0, 1, 2]]))
    assert torch.equal(maps.depth[..., 0], maps.mask) and maps.mask.any()


def test_an_empty_frame_is_black_and_leaves_the_others_alone():
    triangle = torch.tensor([[-0.5, -0.5, 4.0], [0.5, -0.5, 5.0], [0.0, 0.5, 6.0]])
    beside, behind = triangle + torch.tensor([50.0, 0, 0]), triangle - torch.tensor([0, 0, 9.0])
    frames = torch.stack([triangle, beside, behind, triangle])
    maps = draw(frames, torch.tensor([[0, 1, 2]]))
    alone = draw(triangle, torch.tensor([[0, 1, 2]]))
    for picture, expected in zip(maps, alone):
        assert not picture[1:3].any() and expected.any()
        assert torch.equal(picture[0], expected[0]) and torch.equal(picture[3], expected[0])


@pytest.mark.parametrize("normal, color", [((2, -3, -6), (164, 182, 237)), ((-2, 3, -6), (91, 73, 237))])
def test_normal_colours(normal, color):
    # A triangle around the view axis; right is red, up is green (y points down), towards the camera is blue.
    normal = torch.tensor(normal) / 7
    right = torch.linalg.cross(torch.tensor([0, 1.0, 0]), -normal)
    down = torch.linalg.cross(-normal, right)
    corners = torch.stack([-right - down, 2 * down, right - down]) * 0.5 + torch.tensor([0, 0, 5.0])
    for faces in ([[0, 1, 2]], [[2, 1, 0]]):  # seen from its outer and from its inner side
        maps = draw(corners, torch.tensor(faces))
        seen = maps.normal[maps.mask > 0]
        assert len(seen) > 50 and torch.equal(seen, torch.tensor(color, dtype=torch.uint8).expand_as(seen))


def test_vertex_normals_are_weighted_by_angle():
    # Three sides of a cube that share a corner: unequally many triangles and unequal areas, equal angles.
    corner, x, y, z = torch.zeros(3), *torch.eye(3)
    vertices = torch.stack([corner, x, y, z, x + y, (y + z) * 5, x + z])
    # side z = 0 in two faces at the corner, the others in one; all point away from the cube
    faces = torch.tensor([[0, 4, 1], [0, 2, 4], [0, 3, 2], [2, 3, 5], [0, 1, 3], [1, 6, 3]])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turn = turn * turn.det().sign()
    normals = vertex_normals(torch.stack([vertices, vertices @ turn.T + 7]), faces)
    diagonal = torch.full((3,), -(3**-0.5))
    torch.testing.assert_close(normals[0, 0], diagonal)
    torch.testing.assert_close(normals[1, 0], turn @ diagonal, rtol=0, atol=1e-5)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(2, 7))


def test_every_part_has_exactly_its_colour():
    cells = torch.arange(24)
    place = torch.stack([cells % 6 - 2.5, cells // 6 - 1.5, torch.full((24,), 10.0)], 1)
    corners = torch.tensor([[-0.45, -0.45, 0], [0.45, -0.45, 0], [0, 0.45, 0]])
    vertices, faces = (place[:, None] + corners).view(-1, 3), torch.arange(72).view(24, 3)
    maps = draw(vertices, faces, cells.repeat_interleave(3), focal=100.0, width=64, height=48)
    for label, (x, y, _) in enumerate(place.tolist()):
        assert maps.semantic_map[0, int(10 * y + 24), int(10 * x + 32)].tolist() == PART_COLORS[label].tolist()
    assert len(maps.semantic_map.view(-1, 3).unique(dim=0)) == 25


def test_parts_blend_in_linear_light():
    # From part 0 at the left edge to part 23 at the right edge.
    vertices = torch.tensor([[-0.5, -9.0, 1.0], [0.5, -9.0, 1.0], [0.5, 9.0, 1.0], [-0.5, 9.0, 1.0]])
    maps = draw(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([0, 23, 23, 0]), 64.0, 64, 5)
    ends = PART_COLORS[[0, 23]] / 255.0
    linear = np.where(ends <= 0.04045, ends / 12.92, ((ends + 0.055) / 1.055) ** 2.4)
    t = (np.arange(64)[:, None] + 0.5) / 64
    blend = (1 - t) * linear[0] + t * linear[1]
    expected = 255 * np.where(blend <= 0.0031308, 12.92 * blend, 1.055 * blend ** (1 / 2.4) - 0.055)
    assert np.abs(maps.semantic_map[0, 2].numpy() - expected).max() < 0.51


@pytest.fixture(scope="module")
def dancer() -> tuple:
    body = load_free_body()
    return body, make_motion("dance", body, 37, width=77, height=101)


def test_runs_of_frames_change_nothing_and_hold_a_bounded_part_of_the_motion(dancer, monkeypatch):
    body, motion = dancer
    longest = []
    pose = Motion.posed

    def watched(self, body):
        longest.append(len(self))
        return pose(self, body)

    monkeypatch.setattr(Motion, "posed", watched)
    runs = list(motion_hits(body, motion))
    assert max(longest) == module.POSED_FRAMES and sum(longest) == len(motion)
    assert [len(frames) for frames, _, _ in runs] == [len(posed.vertices) for _, posed, _ in runs] == [4] * 9 + [1]
    hits = rasterize(pose(motion, body).vertices, body.faces, motion.focal, 77, 101)
    pixel = torch.cat([run.pixel + 77 * 101 * 4 * i for i, (_, _, run) in enumerate(runs)])
    assert torch.equal(pixel, hits.pixel)
    large = replace(motion[:2], width=512, height=512)
    assert [len(frames) for frames, _, _ in motion_hits(body, large)] == [1, 1]
    for frames, posed, _ in runs:
        torch.testing.assert_close(posed.joints, pose(frames, body).joints, rtol=0, atol=1e-5)
