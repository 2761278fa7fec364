"""DensePose's parts on a body: where each one is, on the free body and on a body in SMPL's layout."""

import lzma
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from champ.body.free import free_body_betas, load_free_body
from champ.body.skeleton import JOINTS
from champ.body.smpl import load_smpl
from champ.motion.camera import View, frame_person
from champ.motion.presets import perform
from champ.progress import listening
from champ.render.densepose import DENSEPOSE_COLORS, LIMB_OF, LIMBS, PARTS, part_fields, render_densepose

SMPL = Path(__file__).parents[1] / "data" / "smpl" / "SMPL_plain_proto4.pkl.xz"
WIDTH, HEIGHT = 192, 256


def parts_of(pictures: torch.Tensor) -> np.ndarray:
    """The numbers of the parts, 0 to 24; every pixel must have a colour of the table."""
    codes = DENSEPOSE_COLORS.astype(int) @ (1 << 16, 1 << 8, 1)
    found = pictures.numpy().astype(int) @ (1 << 16, 1 << 8, 1)
    order = codes.argsort()
    places = np.searchsorted(codes[order], found).clip(0, 24)
    assert (codes[order][places] == found).all()
    return order[places]


def seen(body, azimuth: float, name: str = "turntable") -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """The parts in a picture from one side, and the pixels of the joints."""
    motion = frame_person(perform(name, body, 4)[:1], body, WIDTH, HEIGHT, View(azimuth=azimuth))
    joints = motion.posed(body).joints[0]
    columns, rows = (motion.focal * joints[:, :2] / joints[:, 2:] + torch.tensor([WIDTH / 2, HEIGHT / 2])).T
    pixels = {name: (int(row), int(column)) for name, row, column in zip(JOINTS, rows, columns)}
    return parts_of(render_densepose(body, motion))[0], pixels


def between(pixels, first: str, last: str) -> tuple[int, int]:
    return tuple((a + b) // 2 for a, b in zip(pixels[first], pixels[last]))


def test_colours_are_opencvs():
    levels = (np.arange(25) * 255 / 24).astype(np.uint8)[None]
    wanted = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[0, :, ::-1]
    assert np.array_equal(DENSEPOSE_COLORS, wanted)
    assert sorted({part for parts in PARTS.values() for part in parts}) == list(range(1, 25))


@pytest.mark.parametrize(
    ("azimuth", "torso", "left_thigh", "right_thigh", "left_shin", "right_shin"),
    [(0, 2, 10, 9, 14, 13), (180, 1, 8, 7, 12, 11)],
)
def test_front_and_back(azimuth, torso, left_thigh, right_thigh, left_shin, right_shin):
    parts, pixels = seen(load_free_body(), azimuth)
    assert parts[0, 0] == 0 and parts[pixels["spine2"]] == parts[pixels["pelvis"]] == torso
    assert parts[between(pixels, "left_hip", "left_knee")] == left_thigh
    assert parts[between(pixels, "right_hip", "right_knee")] == right_thigh
    assert parts[between(pixels, "left_knee", "left_ankle")] == left_shin
    assert parts[between(pixels, "right_knee", "right_ankle")] == right_shin
    assert parts[pixels["left_hand"]] == 4 and parts[pixels["right_hand"]] == 3
    assert parts[pixels["left_foot"]] == 5 and parts[pixels["right_foot"]] == 6
    row, column = pixels["head"]
    left = 1 if azimuth == 0 else -1  # the person's left is on the right of a picture from the front
    assert parts[row, column + 3 * left] == 24 and parts[row, column - 3 * left] == 23
    assert parts[row - 5, column + 3 * left] == 24  # the face and the skull alike


@pytest.mark.parametrize(("azimuth", "head", "arm", "forearm"), [(90, 24, 17, 21), (270, 23, 18, 22)])
def test_sides_show_the_outside_of_hanging_arms(azimuth, head, arm, forearm):
    parts, pixels = seen(load_free_body(), azimuth)
    name = "left" if azimuth == 90 else "right"
    assert parts[pixels["head"]] == head
    assert parts[between(pixels, f"{name}_shoulder", f"{name}_elbow")] == arm
    assert parts[between(pixels, f"{name}_elbow", f"{name}_wrist")] == forearm
    thigh = {*parts[(slice(between(pixels, f"{name}_hip", f"{name}_knee")[0], pixels[f"{name}_knee"][0]),)].flatten()}
    assert {8, 10} <= thigh if name == "left" else {7, 9} <= thigh


def test_the_inside_of_an_arm_looks_to_the_torso():
    """From the front, with the arms hanging: the inside is nearer to the body, and half of what is seen."""
    parts, pixels = seen(load_free_body(), 0)
    row = between(pixels, "left_shoulder", "left_elbow")[0]
    columns = {part: np.flatnonzero(parts[row] == part) for part in (15, 17, 16, 18)}
    assert columns[18].max() < columns[16].min() < columns[15].max() < columns[17].min()
    for inside, outside in ((15, 17), (16, 18)):  # in the videos that come with MagicAnimate it is 0.54 to 0.62
        assert 0.5 < (parts == inside).sum() / ((parts == inside) | (parts == outside)).sum() < 0.67


def test_other_shapes_and_poses_show_all_parts_in_one_piece():
    """Nothing of a limb is lost in a fold: apart from single pixels, a part is one piece, or is cut by a limb before
    it."""
    body = load_free_body()
    wide = body.with_betas(free_body_betas(0.9, 40, 0.5, 0.95, 1.6))
    for shape, name in ((body, "dance"), (wide, "jumping jacks")):
        shown = set()
        for azimuth in (0, 180):
            parts, _ = seen(shape, azimuth, name)
            shown |= set(np.unique(parts))
            for part in range(1, 25):
                _, _, stats, _ = cv2.connectedComponentsWithStats((parts == part).astype(np.uint8), connectivity=8)
                assert (stats[1:, cv2.CC_STAT_AREA] > 6).sum() <= 2, (name, azimuth, part)
        assert shown == set(range(25))


@pytest.fixture(scope="module")
def smpl(tmp_path_factory):
    file = tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.pkl"
    file.write_bytes(lzma.decompress(SMPL.read_bytes()))
    return load_smpl(file)


def test_a_body_in_smpls_layout(smpl):
    """Its 240 vertices are too few for smooth borders, but front and back, left and right, and the limbs are right."""
    fields = part_fields(smpl)
    limb = fields.limb.argmax(0)
    rest = smpl.rest()
    names = list(LIMBS)
    for vertex, place in zip(limb, rest.vertices[0]):
        side = names[vertex].partition("_")[0]
        if side in ("left", "right"):
            assert (place[0] > 0) == (side == "left")
    share = fields.share.masked_fill(torch.tensor(LIMB_OF)[:, None] != limb, -1).argmax(0)
    assert len(share.unique()) >= len(PARTS) - 1  # one of its thighs has no vertex of its own


def test_every_frame_is_drawn_and_told():
    body = load_free_body()
    motion = frame_person(perform("dance", body, 18), body, 64, 96)
    heard = []
    with listening(lambda *count: heard.append(count)):
        pictures = render_densepose(body, motion)
    assert heard[-1] == (18, 18) and pictures.shape == (18, 96, 64, 3)
    parts = parts_of(pictures)
    assert ((parts > 0).sum((1, 2)) > 300).all() and not np.array_equal(parts[0], parts[10])
    again = render_densepose(body, motion[10:11])
    assert torch.equal(again[0], pictures[10])
