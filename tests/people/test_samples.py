"""Synthetic people repeat from their numbers, keep the splits apart and agree with the maps of the render nodes."""

import pytest
import torch

from champ.body.free import load_free_body
from champ.body.skeleton import JOINTS
from champ.people.draw import HELD_OUT, PARTS, Draw
from champ.people.figure import dress
from champ.people.looks import draw_look
from champ.people.moves import FAMILIES, draw_move
from champ.people.portrait import portrait
from champ.people.samples import Sample, SyntheticPeople, draw_pictures, make_actor, place_actor, stand
from champ.people.scene import draw_background
from champ.render.guidance import render_guidance
from champ.render.rasterize import rasterize
from champ.render.srgb import to_linear

SIZE = 96
MAPS = ("depth", "normal", "semantic_map", "dwpose")


@pytest.fixture(scope="module")
def clip() -> Sample:
    return SyntheticPeople(SIZE, frames=3).sample(5)


def same(a: Sample, b: Sample) -> bool:
    maps = all(torch.equal(a.maps[name], b.maps[name]) for name in MAPS)
    return maps and torch.equal(a.pictures, b.pictures) and torch.equal(a.reference, b.reference)


def test_a_sample_depends_on_its_numbers_alone(clip):
    people = SyntheticPeople(SIZE, frames=3)
    other = people.sample(6)
    assert same(people.sample(5), clip)
    assert not same(other, clip)
    assert not same(SyntheticPeople(SIZE, frames=3, seed=1).sample(5), clip)
    assert not same(SyntheticPeople(SIZE, "held_out", frames=3).sample(5), clip)


def test_what_looks_like_a_photograph_shows_the_same_person_elsewhere(clip):
    photo = SyntheticPeople(SIZE, frames=3, photographic=1.0).sample(5)
    assert all(torch.equal(clip.maps[name], photo.maps[name]) for name in MAPS)
    assert torch.equal(clip.masks, photo.masks)
    room = clip.masks == 0
    apart = (clip.pictures.float() - photo.pictures.float()).abs().mean(-1)
    assert apart[room].mean() > 10 and apart[~room].mean() > 2
    room = (photo.masks.amax(0) == 0) & (photo.reference_mask == 0)
    same_place = (photo.pictures[0] == photo.reference).all(-1)[room].float().mean()
    assert same_place > 0.5  # but for shadows


def test_shapes_and_ranges(clip):
    assert clip.pictures.shape == (3, SIZE, SIZE, 3) and clip.pictures.dtype == torch.uint8
    assert clip.reference.shape == (SIZE, SIZE, 3)
    assert clip.masks.shape == (3, SIZE, SIZE) and clip.reference_mask.shape == (SIZE, SIZE)
    assert set(clip.masks.unique().tolist()) == {0, 255}
    assert tuple(clip.maps) == MAPS
    assert all(maps.shape == clip.pictures.shape and maps.dtype == torch.uint8 for maps in clip.maps.values())
    assert torch.equal(clip.motion.betas, clip.reference_motion.betas)
    assert clip.pictures.float().std() > 20


def test_the_maps_are_those_of_the_render_nodes(clip):
    guidance = render_guidance(load_free_body(), clip.motion)
    for name in MAPS:
        assert torch.equal(clip.maps[name], getattr(guidance, name)), name


def test_the_mask_is_the_silhouette_of_the_dressed_body(clip):
    bare = clip.maps["depth"].amax(-1) > 0
    dressed = clip.masks > 0
    assert (bare & ~dressed).sum() < 0.06 * bare.sum()  # an edge pixel half covered
    assert dressed.sum() < 1.6 * bare.sum()


def test_only_person_and_shadow_change_in_a_room():
    """Above the floor, what neither person covers is the same in all pictures."""
    sample = SyntheticPeople(SIZE, frames=2).sample(3)
    masks = torch.cat([sample.masks, sample.reference_mask[None]])
    covered = torch.nn.functional.max_pool2d((masks > 0).float(), 3, 1, 1).amax(0) > 0
    wall = ~covered
    wall[SIZE // 2 :] = False
    pictures = torch.cat([sample.pictures, sample.reference[None]])
    assert wall.sum() > 500
    assert (pictures[:, wall] == pictures[:1, wall]).all()


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 5.0)])
def test_the_splits_draw_from_disjoint_parts(low, high):
    def parts(split: str) -> set[int]:
        draw = Draw(split, 0)
        return {int((draw.own(low, high) - low) / (high - low) * PARTS) for _ in range(400)}

    assert parts("held_out") == set(HELD_OUT)
    assert parts("train") == set(range(PARTS)) - set(HELD_OUT)


def test_looks_and_moves_of_the_splits_differ():
    def heights(split: str) -> list[float]:
        body = load_free_body()
        looks = [draw_look(Draw(split, 0, i)) for i in range(30)]
        rest = [body.with_betas(look.betas).rest().vertices[0, :, 1] for look in looks]
        return [round(float(y.max() - y.min()), 4) for y in rest]

    assert not set(heights("train")) & set(heights("held_out"))
    assert "dance" not in FAMILIES["train"] and FAMILIES["held_out"]["dance"] >= 0.5


def test_a_split_must_exist():
    with pytest.raises(ValueError, match="choose one of train, held_out"):
        SyntheticPeople(SIZE, "validation").sample(0)


@pytest.mark.parametrize("index", range(4))
def test_clothes_stick_to_the_body(index):
    """What a face of the mesh shows in two pictures has one colour up to the brightness and tint of the light."""
    size = 256
    actor = make_actor(draw_look(Draw("train", 0, index)), Draw("train", 1, index), size, size)
    clips = [
        place_actor(actor, draw_move(Draw("train", n, index)), Draw("train", n, index), 1, (size, size), 0)
        for n in (2, 3)
    ]
    shown = []
    for motion, up in clips:
        picture = to_linear(draw_pictures(actor, motion, up)[0][0].float() / 255)
        vertices = actor.figure.pose(motion.rotations, motion.cam_t)[0]
        hits = rasterize(vertices, actor.figure.faces, motion.focal, size, size)
        colors = torch.full((len(actor.figure.faces), 3), torch.nan)
        colors[hits.face] = picture.view(-1, 3)[hits.pixel]
        shown.append(colors / colors.sum(1, keepdim=True))
    first, second = (colors[(~torch.stack(shown).isnan()).all(2).all(0)] for colors in shown)
    assert len(first) > 300
    apart = (first - second).abs().amax(1)
    chance = (first - second.roll(len(second) // 3, 0)).abs().amax(1)
    assert apart.median() < 0.04
    assert apart.mean() < 0.5 * chance.mean()


def test_clothes_lie_on_the_skin_or_stand_off_it():
    for index in range(6):
        look = draw_look(Draw("train", 0, index))
        body = load_free_body().with_betas(look.betas)
        figure = dress(body, look)
        count = len(body.template)
        assert torch.equal(figure.canonical[:count], body.template)
        assert ((figure.vertices[:count] - body.rest().vertices[0]).norm(dim=1) < 0.12).all()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_moves_are_rotations_and_stand_on_the_floor(split):
    look = draw_look(Draw(split, 0, 0))
    figure = dress(load_free_body().with_betas(look.betas), look)
    for i in range(8):
        rotations = draw_move(Draw(split, 3, i))(torch.arange(4) / 12)
        assert rotations.shape == (4, len(JOINTS), 3, 3)
        torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=2e-5, rtol=0)
        path = stand(figure, rotations)
        lowest = figure.pose(rotations, path)[0][..., 1].amin(1)
        assert lowest.abs().max() < 0.25  # a hand or a skirt may reach below the feet, not far
        assert (path[0, [0, 2]] - path[-1, [0, 2]]).abs().max() < 1e-5


def test_a_person_is_in_the_picture():
    people = SyntheticPeople(64)
    shares = torch.tensor([(people.sample(i).masks > 0).float().mean() for i in range(8)])
    assert (shares > 0.04).all() and (shares < 0.6).all()


def test_a_background_is_light():
    for i in range(12):
        room = draw_background(Draw("train", i), 40, 30)
        assert room.shape == (30, 40, 3) and room.min() >= 0 and room.max() < 1.2


def test_the_portrait_is_the_same_each_time():
    first, second = portrait(96, 96), portrait(96, 96)
    assert torch.equal(first.picture, second.picture) and len(first.motion) == 1
    person = first.picture[first.mask > 0].float()
    red = (person[:, 0] > 150) & (person[:, 1] < 90)
    assert 0.08 < red.float().mean() < 0.35  # the stripes
