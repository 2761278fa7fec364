"""From where a person is to what ReferenceNet sees of them, and what is said about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import relative

from champ.calibrate.attention import Reading
from champ.calibrate.branch import CHUNK, Picture, calibrate, plan_warps
from champ.calibrate.correspondences import People
from champ.calibrate.report import calibration_sheet, calibration_summary, doubts
from champ.model.reference import encode_reference
from champ.model.span import Span
from champ.progress import listening

WIDTH, HEIGHT = 96, 64
# Nose, eyes and ears, shoulders, elbows, wrists, hips, knees, ankles of somebody 40 pixels tall.
BODY = np.array([
    (0, 3), (1, 2), (-1, 2), (2, 3), (-2, 3), (5, 8), (-5, 8), (6, 14), (-6, 14), (6, 20), (-6, 20), (3, 20), (-3, 20),
    (3, 30), (-3, 30), (4, 39), (-4, 39),
])  # fmt: skip


def somebody(x=48.0, y=12.0, size=1.0, score=1.0) -> np.ndarray:
    return np.column_stack([size * BODY + (x, y), np.full(17, score)])


def people(*frames: np.ndarray) -> People:
    return People(np.stack(frames), WIDTH, HEIGHT)


def picture(person=None) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    return Picture(pixels, WIDTH, HEIGHT, "crop", person)


def plan_of(*frames: np.ndarray, reference=None, most=32, shot=None):
    ours = People(np.stack([somebody() if reference is None else reference]), WIDTH, HEIGHT)
    return plan_warps(picture(), ours, people(*frames), "auto", most, shot)


class Encoder:
    """Stands for the VAE: means of 8x8 pixels; counts the pictures."""

    def __init__(self):
        self.batches = []

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        cells = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2), 8)
        return torch.cat([cells, cells.mean(1, keepdim=True)], 1)


# --- what is encoded ----------------------------------------------------------------------------------------------


def test_points_of_other_picture_sizes_end_in_the_pixels_of_the_clip():
    """The reference's points belong to the picture of 192x128 pixels, which becomes 96x64."""
    ours = People(np.stack([somebody() * (2, 2, 1)]), 192, 128)
    theirs = People(np.stack([somebody(x=60) * (3, 2, 1)]), 3 * WIDTH, 2 * HEIGHT)
    plan = plan_warps(picture(), ours, theirs)
    np.testing.assert_allclose(plan.reference, somebody())
    np.testing.assert_allclose(plan.alignments[0].matrix, [[1, 0, 12], [0, 1, 0]], atol=1e-9)


def test_one_pass_of_reference_net_for_each_distinct_warp(champ):
    plan = plan_of(*(somebody(x=48 + x) for x in (0, 20, 21, -18, 1, 20)))
    assert plan.passes == 2 and plan.warp_of.tolist() == [0, 1, 1, 2, 0, 1]
    encode, heard = Encoder(), []
    (reference,) = champ.references
    with listening(lambda *count: heard.append(count)):
        found = calibrate(reference, champ.net, encode, picture(), plan, champ.clip_embeds, Reading(2, 3, strength=0.7))
    assert sum(encode.batches) == 2 and heard == [(2, 4), (3, 4), (4, 4)]
    assert found.clip == (6, WIDTH, HEIGHT) and found.tokens is reference.tokens and found.family == "Champ"
    assert found.calibration.warps[0].tokens is reference.tokens
    assert found.calibration.strength == 0.7 and found.calibration.seed == 3 and len({*found.calibration.groups}) == 3
    pixels = torch.from_numpy(picture().warped(plan.matrices[2]).picture)[None].float() / 255
    (seen,) = encode_reference(champ.net, Encoder()(pixels), champ.clip_embeds)
    for place, tokens in found.calibration.warps[2].tokens.items():
        assert tokens.dtype == torch.float16 and relative(tokens.float(), seen.tokens[place]) < 1e-3
    valid = found.calibration.warps[1].valid  # moved to the right by 20 pixels
    assert valid.shape == (8, 12) and not valid[:, :2].any() and (valid[:, 3:] == 1).all()
    assert found.calibration.warps[1].person is None and found.calibration.people is None


def test_a_long_clip_holds_a_bounded_number_of_features(champ):
    plan = plan_of(*(somebody(x=20 + 0.2 * i, size=0.5 + 0.003 * i) for i in range(300)), most=6)
    encode = Encoder()
    found = calibrate(champ.references[0], champ.net, encode, picture(), plan)
    assert plan.passes == 6 and encode.batches == [CHUNK, 2]
    assert len(found.calibration.warps) == 7 and len(found.calibration.warp_of) == 300
    assert plan.off > 4 and f"by at most {plan.off:.1f} pixels" in calibration_summary(plan, 0)


def test_masks_are_warped_with_the_picture(champ):
    person = np.zeros((128, 192), np.uint8)
    person[32:96, 64:128] = 255
    shown = picture(person)
    plan = plan_of(somebody(), somebody(x=72))
    shares = torch.rand(2, 8, 12)
    found = calibrate(champ.references[0], champ.net, Encoder(), shown, plan._replace(shares=shares)).calibration
    expected = torch.zeros(8, 12)
    expected[2:6, 4:8] = 1
    torch.testing.assert_close(found.person, expected)
    torch.testing.assert_close(found.warps[1].person, expected.roll(3, 1))
    assert found.people is shares
    without = calibrate(champ.references[0], champ.net, Encoder(), shown, plan).calibration
    assert without.people is None and without.person is None


def test_an_empty_silhouette_masks_nothing_and_is_told(champ):
    nobody, cells = np.zeros((128, 192), np.uint8), torch.zeros(3, 8, 12)
    cells[0, 2:6, 4:8] = 1
    theirs = people(somebody(), somebody(x=70), somebody(score=0))._replace(shares=cells)

    def said_of(person: np.ndarray):
        plan = plan_warps(picture(person), people(somebody()), theirs)
        return plan, [sentence for sentence in doubts(plan) if "silhouette" in sentence]

    plan, [said] = said_of(nobody)
    assert said.startswith("The silhouette of the person in the reference image is empty, so nothing is masked;")
    found = calibrate(champ.references[0], champ.net, Encoder(), picture(nobody), plan).calibration
    assert found.people is None and found.warps[1].person is None
    plan, said = said_of(nobody + 255)
    assert said == ["In frame 1 the silhouette is empty; all pixels read only the background."]
    assert calibrate(
        champ.references[0], champ.net, Encoder(), picture(nobody + 255), plan
    ).calibration.people is cells  # fmt: skip


def test_the_net_of_another_family_is_refused(champ):
    other = replace(champ.net, family="Animate Anyone")
    with pytest.raises(ValueError, match="by the ReferenceNet of Champ, but the connected one is of Animate Anyone"):
        calibrate(champ.references[0], other, Encoder(), picture(), plan_of(somebody(x=70)))


def test_calibrating_again_replaces_the_calibration(champ):
    first = calibrate(champ.references[0], champ.net, Encoder(), picture(), plan_of(somebody(), somebody(x=70)))
    again = calibrate(first, champ.net, Encoder(), picture(), plan_of(somebody()))
    assert again.clip == (1, WIDTH, HEIGHT) and again.tokens is champ.references[0].tokens


def test_a_range_that_is_none_is_refused(champ):
    with pytest.raises(ValueError, match="The calibrated reference has start 0.8 and end 0.2, which is not a part"):
        calibrate(
            champ.references[0],
            champ.net,
            Encoder(),
            picture(),
            plan_of(somebody()),
            reading=Reading(span=Span(0.8, 0.2)),
        )


# --- what is said -------------------------------------------------------------------------------------------------


def test_doubtful_frames_are_told_with_their_reason():
    nobody, behind, line = somebody(score=0), somebody(), somebody()
    behind[:, 0] = 96 - behind[:, 0]
    behind[:5, 2] = 0
    line[:, 0] = 48
    one = somebody()
    one[1:, 2] = 0
    frames = [somebody(), nobody, behind, line, one, nobody]
    said = doubts(plan_of(*frames))
    assert [sentence.split(",")[0] for sentence in said] == [
        "In frames 1 and 5 nobody is seen; the position of a neighbouring frame is used.",
        "In frame 4 too few points agree with the reference; the position of a neighbouring frame is used.",
        "In frame 2 the person shows another side than in the reference; they are aligned by the middle of the body",
        "In frame 3 all points lie on a line",
    ]
    assert not doubts(plan_of(somebody()))
    small = somebody(size=8, x=40, y=-100)
    assert "frame 0 the person is more than 5 times smaller or larger" in doubts(plan_of(small))[0]


def test_a_shot_in_which_nothing_fits_reads_the_reference_as_it_is():
    nobody = somebody(score=0)
    plan = plan_of(somebody(x=60), nobody, nobody, nobody, shot=[0, 0, 1, 1])
    assert plan.warp_of.tolist() == [1, 1, 0, 0]
    assert doubts(plan) == [
        "In frame 1 nobody is seen; the position of a neighbouring frame is used.",
        "In frames 2 to 3 the person cannot be aligned with the reference, and neither in any other frame of the shot; "
        "the reference is read unmoved.",
    ]


def test_several_people_are_told():
    alone = people(somebody(), somebody(), somebody())
    plan = plan_warps(picture(), people(somebody()), alone._replace(crowded=(0, 2)))
    followed = "the largest is followed, and Follow Person can choose another."
    assert doubts(plan) == [f"There are several people in frames 0 and 2; {followed}"]
    plan = plan_warps(picture(), people(somebody())._replace(crowded=(0,)), alone)
    assert doubts(plan) == [f"There are several people in the reference image; {followed}"]
    assert followed in calibration_summary(plan, 0)


def test_nobody_to_calibrate():
    nobody = somebody(score=0)
    assert doubts(plan_of(somebody(), reference=nobody)) == [
        "Nobody was found in the reference image, so the reference stays as it is."
    ]
    assert doubts(plan_of(nobody, nobody)) == [
        "The person cannot be aligned with the reference in any of the 2 frames, so the reference stays as it is."
    ]
    for plan in (plan_of(somebody(), reference=nobody), plan_of(nobody)):
        assert plan.passes == 0 and calibration_summary(plan, 0).startswith("0 of 1 frames aligned")
        assert calibration_sheet(picture(), plan).shape[-1] == 3


def test_the_summary_and_the_sheet_show_what_was_done():
    plan = plan_of(*(somebody(x=40 + i, size=0.5) for i in range(20)))
    text = calibration_summary(plan, 3 << 20)
    assert text.splitlines()[:2] == ["20 of 20 frames aligned: 20 by auto.", "Scale 0.5 to 0.5."]
    assert "3 MiB" in text and f"Moved images: {plan.passes}, each" in text
    drawn = calibration_sheet(picture(), plan)
    assert drawn.shape == (1, 2 * 256, 4 * 384, 3) and drawn.dtype == torch.uint8
    circle = (drawn[0] == torch.tensor([80, 255, 120])).all(-1)
    assert circle[:256, 384:768].any() and not circle[:256, :384].any()
