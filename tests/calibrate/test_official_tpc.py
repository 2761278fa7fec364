"""Calibration of MagicAnimate against the authors' code, where both mean the same: masks, keys, and every warp as it
is."""

from dataclasses import replace

import torch
from golden import evaluate_noise, frames_first, relative

from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.calibrate.correspondences import covered
from champ.model.conditioning import conditioning
from champ.model.guidance import GuidanceMap, encode_guidance
from champ.model.reference import ChangingTokens, Reference

FRAMES, SIDE, T = 16, 64, 481


def predict(golden, data, reference) -> torch.Tensor:
    """Predicts for a window of the clip, as [negative, positive]."""
    pictures = data["control"].movedim(1, -1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    guidance = encode_guidance(golden.encoders, {"densepose": GuidanceMap(pictures)}, SIDE, SIDE)
    exact = replace(guidance.controls[0], pictures=pictures)  # these are no 8-bit pictures
    guidance = replace(guidance, controls=(exact,))
    negative_text, text = data["encoder_hidden_states"].split(1)
    positive, negative = conditioning(golden.net.context_dim, guidance, [reference], text=text)
    negative = [[negative_text, {**negative[0][1], "cross_attn_controlnet": text}]]
    x = frames_first(data["latents"])[data["frames"]]
    return torch.stack(evaluate_noise(golden.model, positive, negative, x, T)[::-1]).movedim(1, 2)


def test_the_person_reads_its_warp_and_the_background_the_reference(magic_animate):
    data, family, net = magic_animate.data("tpc"), magic_animate.files.family, magic_animate.net
    tokens = ChangingTokens(net, data["ref_latents"])
    plain = predict(magic_animate, data, Reference(tokens, family))
    assert relative(plain, data[f"pred_uncalibrated/t{T}"]) < 5e-5

    window = data["frames"].tolist()
    people = covered(data["pose_mask"][window] / 255, 8, 8)
    warped = covered(data["cal_mask"][window] / 255, 8, 8)
    warps = [
        Warp(ChangingTokens(net, data["cal_latents"][frame][None]), torch.ones(8, 8), warped[i])
        for i, frame in enumerate(window)
    ]
    calibration = Calibration(
        tuple(warps),
        tuple(range(FRAMES)),
        groups_of([0] * FRAMES, 1),
        seed=0,
        people=people,
        person=covered(data["ref_mask"] / 255, 8, 8)[0],
    )
    reference = CalibratedReference(tokens, family, calibration=calibration, width=SIDE, height=SIDE)
    found = predict(magic_animate, data, reference)
    wanted = data[f"pred_calibrated/t{T}"]
    assert relative(found, wanted) < 5e-5 and relative(plain, wanted) > 0.1
    assert torch.equal(found[0], plain[0])
