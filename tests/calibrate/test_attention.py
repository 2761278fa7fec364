"""Which warp a frame reads, and that reading it is nothing else than one more reference."""

from dataclasses import fields, replace
from types import FunctionType

import comfy.model_management
import comfy.ops
import comfy.samplers
import pytest
import torch
from golden import evaluate, frames_first, relative

from champ.calibrate.attention import (
    CalibratedReference,
    Calibration,
    Warp,
    at_tokens,
    groups_of,
)
from champ.model.attention import READS, SelfAttention
from champ.model.conditioning import conditioning
from champ.model.reference import Reference
from champ.model.residence import Evaluation
from champ.model.span import NoiseLevel, Span
from champ.sampling.aggregation import with_windows
from champ.sampling.sampler import ddim

FRAMES, WIDTH, HEIGHT = 6, 96, 64


def latents(champ) -> torch.Tensor:
    return frames_first(champ.data("denoise")["latents"])[:FRAMES]


def random_warp(champ, seed: int, **shares) -> Warp:
    """Tokens that no picture would give, of the right sizes."""
    generator = torch.Generator().manual_seed(seed)
    tokens = {
        place: torch.randn(x.shape, generator=generator).half() for place, x in champ.references[0].tokens.items()
    }
    return Warp(tokens, **{"valid": torch.ones(8, 12), **shares})


def calibrated(champ, warps, warp_of, size=1, seed=0, reference=None, **options) -> CalibratedReference:
    reference = reference or champ.references[0]
    own = {field.name: getattr(reference, field.name) for field in fields(Reference)}
    calibration = Calibration(tuple(warps), tuple(warp_of), groups_of([0] * len(warp_of), size), seed, **options)
    return CalibratedReference(**own, calibration=calibration, width=WIDTH, height=HEIGHT)


def predict(champ, references, t=499, model=None) -> tuple[torch.Tensor, torch.Tensor]:
    positive, negative = conditioning(64, champ.guidance(FRAMES), references, champ.clip_embeds)
    return evaluate(model or champ.still_model, positive, negative, latents(champ), t)


@pytest.fixture(scope="module")
def three(champ):
    """A calibrated reference with three warps, and the warps."""
    warps = [random_warp(champ, seed) for seed in range(3)]
    return calibrated(champ, warps, [0, 1, 2, 2, 1, 0]), warps


# --- what is read -------------------------------------------------------------------------------------------------


def test_the_reference_as_it_is_read_twice_is_the_reference_with_the_weight_of_two(family):
    """Without warps and masks: softmax over the same keys twice, or once with log 2 added."""
    (reference,) = family.references
    warp = Warp(reference.tokens, torch.ones(8, 12))
    both = predict(family, [calibrated(family, [warp], [0] * FRAMES)], model=family.model)
    strong = predict(family, [replace(reference, strength=2.0)], model=family.model)
    assert relative(both[0], strong[0]) < 1e-5 and relative(both[0], predict(family, [reference])[0]) > 1e-3


def test_each_frame_reads_its_own_warp_beside_the_reference(champ, three):
    found = predict(champ, [three[0]])[0]
    for frame in range(FRAMES):
        other = Reference(three[1][three[0].calibration.warp_of[frame]].tokens, "Champ")
        assert relative(found[frame], predict(champ, [champ.references[0], other])[0][frame]) < 1e-5


def test_the_negative_is_what_it_is_without_to_the_last_bit(champ, three):
    """It has no reference, calibrated or not."""
    for t in (999, 49):
        plain = predict(champ, champ.references, t, champ.model)
        found = predict(champ, [three[0]], t, champ.model)
        assert torch.equal(found[1], plain[1]) and relative(found[0], plain[0]) > 1e-3


def test_strength_and_part_of_the_sampling(champ, three):
    reference, warps = three
    plain = predict(champ, champ.references)[0]

    def found(t=499, **options):
        return predict(champ, [replace(reference, calibration=replace(reference.calibration, **options))], t)[0]

    assert torch.equal(found(strength=0.0), plain)
    assert torch.equal(found(span=Span(end=0.3)), plain) and torch.equal(found(span=Span(start=0.9)), plain)
    assert torch.equal(found(t=900, span=Span(end=0.3)), found(t=900))
    doubled = calibrated(champ, warps, [0] * FRAMES, strength=2.0)
    tokens = Reference(warps[0].tokens, "Champ")
    assert relative(predict(champ, [doubled])[0], predict(champ, [*champ.references, tokens, tokens])[0]) < 1e-5
    alone = replace(calibrated(champ, warps, [0] * FRAMES), strength=0.0)  # the reference itself counts nothing
    assert relative(predict(champ, [alone])[0], predict(champ, [tokens])[0]) < 1e-5


def test_what_lies_outside_the_reference_picture_is_not_read(champ):
    valid = torch.ones(8, 12)
    valid[:, 8:] = 0  # whole tokens of all four sizes: 8, 4, 2 and 1 rows
    warps = [random_warp(champ, seed, valid=valid) for seed in range(2)]
    first = predict(champ, [calibrated(champ, warps, [0] * FRAMES)])[0]
    changed = {place: x.clone() for place, x in warps[0].tokens.items()}
    for tokens in changed.values():
        tokens[:, at_tokens(valid, tokens.shape[1]) < 0.5] = 7.0
    warps[0] = replace(warps[0], tokens=changed)
    assert torch.equal(predict(champ, [calibrated(champ, warps, [0] * FRAMES)])[0], first)


def test_a_calibrated_and_another_reference(champ, three):
    other = Reference(random_warp(champ, 9).tokens, "Champ", strength=0.5)
    found = predict(champ, [other, three[0]])[0]
    warp = Reference(three[1][1].tokens, "Champ")
    assert relative(found[1], predict(champ, [champ.references[0], warp, other])[0][1]) < 1e-5


# --- person and background ----------------------------------------------------------------------------------------


def masked(champ):
    """The person on the right half of frames, on the lower half of the reference, on the upper half of the warp."""
    people, person, above = torch.zeros(2, 8, 12), torch.zeros(8, 12), torch.zeros(8, 12)
    people[:, :, 6:], person[4:], above[:4] = 1, 1, 1
    people[1] = 0
    return people, person, random_warp(champ, 0, person=above)


def test_person_and_background_read_what_is_theirs(champ):
    """Against the formula: softmax over the allowed keys alone, query by query, in float64."""
    people, person, warp = masked(champ)
    layer = SelfAttention(query_dim=32, heads=2, dim_head=16, operations=comfy.ops.disable_weight_init)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer = layer.requires_grad_(False)
    block = ("input", 1)
    only = {block: champ.references[0].tokens[block]}
    warp = replace(warp, tokens={block: warp.tokens[block]})
    x = torch.randn(2, 96, 32)
    reference = calibrated(
        champ, [warp], [0, 0], reference=replace(champ.references[0], tokens=only), people=people, person=person
    )
    for keep in (True, False):
        run = reference.run(champ.model.model.model_sampling, keep)
        found = layer(x, transformer_options={READS: [run.at(here({block: layer}))], "block": block})
        for row in range(2):
            of_person = people[row].flatten() > 0
            for queries, keys in (
                (of_person, warp.tokens[block][0].float()[warp.person.flatten() > 0]),
                (~of_person, only[block][0][person.flatten() == 0]),
            ):
                if queries.any():
                    expected = layer(x[row : row + 1, queries], context=torch.cat([x[row], keys])[None])
                    assert relative(found[row, queries], expected[0]) < 1e-5


def test_masks_reach_every_size_of_tokens(champ):
    """With one person everywhere nothing of the background is read, and the other way round."""
    full, empty, warp = torch.ones(FRAMES, 8, 12), torch.zeros(FRAMES, 8, 12), random_warp(champ, 0)
    warp = replace(warp, person=torch.ones(8, 12))
    tokens = Reference(warp.tokens, "Champ")

    def found(people):
        options = {"people": people, "person": torch.zeros(8, 12)}
        return predict(champ, [calibrated(champ, [warp], [0] * FRAMES, **options)])[0]

    assert relative(found(full), predict(champ, [tokens])[0]) < 1e-5
    assert relative(found(empty), predict(champ, champ.references)[0]) < 1e-5


def test_shares_of_tokens():
    shares = torch.rand(2, 7, 11)
    assert torch.equal(at_tokens(shares, 77), shares.flatten(1))
    for tokens in (4 * 6, 2 * 3, 1 * 2):
        assert at_tokens(shares, tokens).shape == (2, tokens)
    even = torch.rand(8, 12)
    torch.testing.assert_close(at_tokens(even, 24), even.view(4, 2, 6, 2).mean((1, 3)).flatten())


# --- iterative propagation ----------------------------------------------------------------------------------------


def draws(size, seed=0, frames=12, sigma=1.5):
    """The frame whose warp each frame reads: here every frame has its own."""
    calibration = Calibration((), tuple(range(frames)), groups_of([0] * frames, size), seed)
    return calibration.warps_at(sigma, range(frames))


def test_groups_follow_each_other_and_end_with_their_shot():
    assert [(g.start, g.stop) for g in groups_of([0] * 5, 2)] == [(0, 2), (0, 2), (2, 4), (2, 4), (4, 5)]
    assert [(g.start, g.stop) for g in groups_of([0, 0, 0, 1, 1], 4)] == [(0, 3)] * 3 + [(3, 5)] * 2
    assert draws(1) == list(range(12))


def test_a_group_reads_the_warp_of_one_of_its_members():
    for sigma in (0.1, 1.5, 20.0, None):
        found = draws(4, sigma=sigma)
        assert [len({*found[i : i + 4]}) for i in (0, 4, 8)] == [1, 1, 1]
        assert [found[i] // 4 for i in (0, 4, 8)] == [0, 1, 2]


def test_every_step_draws_anew_and_the_seed_repeats_it():
    steps = [tuple(draws(4, sigma=0.1 * i)) for i in range(40)]
    assert len({*steps}) > 25  # of 4^3 possible ones
    assert [tuple(draws(4, sigma=0.1 * i)) for i in range(40)] == steps
    assert [tuple(draws(4, 1, sigma=0.1 * i)) for i in range(40)] != steps
    counts = torch.tensor([step[0] for step in steps]).bincount(minlength=4)
    assert counts.min() >= 4, "all members are drawn"


def test_a_frame_reads_the_same_in_every_window():
    whole = draws(5, frames=23)
    calibration = Calibration((), tuple(range(23)), groups_of([0] * 23, 5), 0)
    for window in ([4, 5, 6], [20, 21, 22, 0, 1], [9]):
        assert calibration.warps_at(1.5, window) == [whole[i] for i in window]


@pytest.mark.parametrize("size", [1, 4])
def test_windows_make_no_difference(champ, size):
    """Without motion modules a frame's prediction depends on its own values alone; also with masks."""
    people = torch.zeros(FRAMES, 8, 12)
    for frame in range(FRAMES):
        people[frame, :, frame : frame + 4] = 1
    warps = [random_warp(champ, seed, person=torch.eye(8, 12)) for seed in range(4)]
    options = {"people": people, "person": torch.eye(8, 12).flip(1)}
    windowed = with_windows(champ.still_model, 4, 1)
    windowed.model_options["transformer_options"]["sample_sigmas"] = torch.tensor([10.0, 1.0, 0.0])
    for more in ({}, options):
        reference = calibrated(champ, warps, [0, 1, 2, 3, 1, 2], size, **more)
        whole = predict(champ, [reference])
        cut = predict(champ, [reference], model=windowed)
        for a, b in zip(cut, whole):
            assert relative(a, b) < 1e-5


def here(attentions, frames=None, fits=True) -> Evaluation:
    """An evaluation on the CPU, with or without room for what could be kept."""
    level = NoiseLevel(1.5, False)
    return Evaluation(level, frames, torch.device("cpu"), torch.float32, lambda size: fits, attentions)


@pytest.mark.parametrize("fits", [True, False])
def test_warps_are_projected_once_in_a_run_if_they_fit(champ, three, fits):
    """Otherwise those that a window reads, whenever it reads them: with 6 frames in one group, one."""
    seen = []

    class Layer:
        def to_k(self, x):
            seen.append(len(x))
            return x

        to_v = to_k

    block = ("middle", 0)
    tokens = {block: three[0].tokens[block]}
    warps = [replace(warp, tokens={block: warp.tokens[block]}) for warp in three[1]]
    for size, count in ((1, 3), (6, 1)):
        reference = calibrated(champ, warps, [0, 1, 2, 2, 1, 0], size, reference=replace(three[0], tokens=tokens))
        run = reference.run(champ.model.model.model_sampling, True)
        for turn in range(3):
            seen.clear()
            own, source = run.at(here({block: Layer()}, fits=fits))
            keys = source.keys(block, Layer())
            assert keys.k.shape == (FRAMES, 2, 128) and keys.bias is None
            reference_too = [1, 1] if turn == 0 else []
            if fits:
                assert seen == [*reference_too, *([3, 3] if turn == 0 else [])]
            else:
                assert seen == [*reference_too, count, count]


def held(values, known: set[int]) -> int:
    """Counts the bytes of the tensors that values hold, without those that are known, and makes them known."""
    if id(values) in known or isinstance(values, (type, FunctionType)):
        return 0
    known.add(id(values))
    if isinstance(values, torch.Tensor):
        return values.nbytes
    inside = values if isinstance(values, dict) else getattr(values, "__dict__", {})
    return sum(held(each, known) for each in (values if isinstance(values, (list, tuple)) else inside.values()))


def test_a_cancelled_guider_holds_nothing_of_its_run(champ):
    """ComfyUI leaves it the conditionings, and keeps the guider itself for the next prompt. It can sample again."""
    people, person, warp = masked(champ)
    reference = calibrated(champ, [warp], [0] * FRAMES, people=people[:1].expand(FRAMES, -1, -1), person=person)
    guidance = champ.guidance(FRAMES)
    guidance = replace(
        guidance, layers=tuple(replace(layer, features=layer.features.half()) for layer in guidance.layers)
    )
    guider = comfy.samplers.CFGGuider(with_windows(champ.model, 4, 1))
    guider.set_conds(*conditioning(64, guidance, [champ.references[0], reference], champ.clip_embeds))
    guider.set_cfg(3.5)
    x, during = latents(champ), []

    def run_holds() -> int:
        known: set[int] = set()
        held([guider.original_conds, champ.model.model.model_sampling], known)
        values = [part["model_conds"] for parts in guider.conds.values() for part in parts]
        return held([each[name].cond for each in values for name in ("guidance", "references")], known)

    def sample(callback=None):
        sigmas = torch.tensor([3.0, 1.0, 0.0])
        return guider.sample(x.clone(), torch.zeros_like(x), ddim(), sigmas, None, callback, True, seed=0)

    def cancel(*args):
        during.append(run_holds())
        raise comfy.model_management.InterruptProcessingException

    whole = sample()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(cancel)
    assert during[0] > 0 and run_holds() == 0
    assert torch.equal(sample(), whole)


# --- mismatches ---------------------------------------------------------------------------------------------------


def test_a_clip_of_another_length_or_size_is_refused(champ, three):
    short = calibrated(champ, three[1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"calibrated for 3 frames of 96x64 pixels, the latents have 6 of 96x64"):
        predict(champ, [short])
    with pytest.raises(ValueError, match=r"calibrated for 6 frames of 64x96 pixels"):
        predict(champ, [replace(three[0], width=64, height=96)])
