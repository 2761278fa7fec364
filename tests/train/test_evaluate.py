"""How good a model is: the measures and the baselines on two small held-out clips."""

from dataclasses import replace

import pytest
import torch

from champ.people.samples import draw_room
from champ.progress import listening
from champ.train.codec import Codec, block_basis

SIZE = 64


@pytest.fixture(scope="module")
def clips():
    from champ.train.evaluate import held_out

    return held_out(SIZE, 2, 2, first=1)


@pytest.fixture(scope="module")
def codec(tmp_path_factory, clips):
    from champ.train.latents import ImageCodec

    file = tmp_path_factory.mktemp("codec") / "codec.pt"
    pictures = torch.cat([clip.pictures for clip in clips])
    torch.save(Codec.of(*block_basis(pictures), 0).state_dict(), file)
    return ImageCodec(file)


def test_the_room_is_what_the_pictures_show_beside_the_person(clips):
    for clip in clips:
        room = draw_room(clip.actor, clip.motion, clip.up)
        near = torch.nn.functional.max_pool2d((clip.masks > 0).float(), 3, 1, 1) > 0
        assert torch.equal(clip.pictures[~near], room[~near])


def test_true_pictures_have_the_best_scores():
    """At the size of the tiny model; every one of these people is told from the wall."""
    from champ.train.evaluate import held_out, measure, rooms_of

    for clip in held_out(128, 2, 2):
        scores = measure(clip.pictures, clip, rooms_of(clip))
        assert scores["IoU off the room"] > 0.97 and scores["IoU"] > 0.85
        assert scores["person PSNR"] == float("inf") and scores["person SSIM"] == pytest.approx(1)
        assert scores["flicker"] == scores["L1"] == 0 and scores["ghost"] < 0.01  # but for mixed pixels at the edge
        assert scores["face PSNR"] == float("inf")


def test_a_face_without_eyes_and_mouth_lacks_its_details():
    from champ.train.evaluate import head_of, held_out, measure, rooms_of

    (clip,) = held_out(128, 2, 1, close=1.0)
    head = head_of(clip)
    assert head.face.any() and not (head.face & ~head.box).any() and 10 < head.width < 64
    blank = clip.pictures.clone()
    for picture, face in zip(blank, head.face):
        picture[face] = picture[face].float().mean(0).byte()
    true, without = (measure(x, clip, rooms_of(clip), head=head) for x in (clip.pictures, blank))
    assert true["face details"] == pytest.approx(1) and without["face details"] < 0.5
    assert without["face PSNR"] < 30 < without["background PSNR"]


def test_the_reference_in_the_place_of_the_frame_is_a_ghost(clips):
    """A copy shows the reference's person where the frame shows none, and an empty room shows nobody."""
    from champ.train.evaluate import copied, ghost, rooms_of

    for clip in clips:
        rooms = rooms_of(clip)
        assert ghost(copied(clip), clip, rooms).min() > 0.9
        assert ghost(rooms[0], clip, rooms).max() == 0


def test_an_empty_room_has_no_person(clips):
    from champ.train.evaluate import measure, rooms_of

    (room,) = rooms_of(clips[0])
    scores = measure(room, clips[0], [room])
    assert scores["IoU off the room"] == 0 and scores["background PSNR"] > 30 > scores["person PSNR"]


def test_specks_are_not_the_person(clips):
    from champ.train.evaluate import measure, off_the_room, rooms_of

    (room,) = rooms_of(clips[0])
    speckled = clips[0].pictures.clone()
    free = off_the_room(clips[0].pictures, room).logical_not()
    away = torch.zeros_like(free)
    away[:, :3, :3] = free[:, :3, :3]
    speckled[away] = 255 - room[away]
    assert away.any()
    clean, specked = (measure(x, clips[0], [room])["IoU off the room"] for x in (clips[0].pictures, speckled))
    assert specked == clean


def test_a_warped_reference_is_on_the_person(clips):
    """Where the same picture is to be made, nothing is moved; elsewhere the person is met better than by a copy."""
    from champ.train.evaluate import copied, warped

    clip = clips[0]
    same = replace(clip, motion=clip.reference_motion)
    assert (warped(same)[0].int() - clip.reference.int()).abs().float().mean() < 0.5
    assert copied(clip).shape == warped(clip).shape == clip.pictures.shape

    def means(method):
        from champ.metrics.images import psnr

        return sum(float(psnr(method(one), one.pictures, one.masks > 0).mean()) for one in clips)

    assert means(warped) > means(copied)


def test_the_table_has_a_row_for_each_method(sizes, random_networks, codec, clips, tmp_path):
    from champ.train.evaluate import Sampling, coded, compare, copied, sampled, table

    sampling = Sampling(steps=2, cfg=1.5)
    networks = random_networks(sizes)
    methods = {
        "copy": copied,
        "codec": coded(codec),
        "model": sampled(networks, codec, sampling),
        "euler": sampled(networks, codec, replace(sampling, sampler="euler")),
    }
    seen = []
    with listening(lambda *done: seen.append(done)):
        found = compare(clips, methods, codec, sheets=tmp_path)
    lines = table(found).splitlines()
    columns = [cell.strip() for cell in lines[0].split("|")[2:-1]]
    assert columns[:2] == ["person PSNR", "person SSIM"] and "IoU" in columns and "person flicker" in columns
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(methods)
    assert all(len(line.split("|")) == len(columns) + 3 for line in lines)
    assert list(dict.fromkeys(seen)) == [(0, 2), (1, 2), (2, 2)] and len(list(tmp_path.glob("clip_*.png"))) == 2
    copy, model = (sum(one["person PSNR"] for one in found[name]) / 2 for name in ("copy", "model"))
    assert float(lines[2].split("|")[2]) == pytest.approx(copy, abs=0.006)
    assert model == model and model < 20  # nothing was learnt
    assert torch.equal(methods["model"](clips[0]), methods["model"](clips[0]))


def test_means_are_those_of_batches():
    """The table of a batch (`champ.batch`) and that of `evaluate` say the same of the same clips."""
    from champ.batch.report import as_table
    from champ.train.evaluate import table

    scores = [{"PSNR": 31.25, "LPIPS": 0.125}, {"PSNR": float("nan"), "LPIPS": 0.25}, {"PSNR": 32.5, "LPIPS": 0.5}]
    assert table({"3": scores}).splitlines()[-1] == "| 3 | 31.875 | 0.292 |"
    assert as_table(scores).splitlines()[-1] == "| 3 | 31.88 | 0.2917 |"
