"""Windows of a clip inside ComfyUI's sampling."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from golden import evaluate, relative

from champ.model.conditioning import GUIDANCE, conditioning
from champ.model.denoiser import LATENTS, window_frames
from champ.model.guidance import Guidance, Layer
from champ.model.span import NoiseLevel
from champ.sampling.aggregation import Window, current_step, with_windows
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas
from champ.sampling.windows import SCHEDULES, WEIGHTS
from tests.counter import Counter

FRAMES, LENGTH, OVERLAP = 10, 4, 1


def cut(family, frames: list[int]) -> Guidance:
    guidance = family.guidance(FRAMES)
    (layer,) = guidance.layers
    return Guidance((Layer(layer.features[frames]),), len(frames), 96, 64, guidance.family)


def averaged(family, x, schedule, weights, predict):
    """Predictions of each window for itself, averaged with the weights."""
    sums, total = [torch.zeros_like(x), torch.zeros_like(x)], torch.zeros(FRAMES, 1, 1, 1)
    for frames in SCHEDULES[schedule](FRAMES, LENGTH, OVERLAP, 0):
        weight = torch.tensor(WEIGHTS[weights](LENGTH, OVERLAP)).reshape(-1, 1, 1, 1)
        for sum_, part in zip(sums, predict(frames)):
            sum_[frames] += weight * part
        total[frames] += weight
    return [sum_ / total for sum_ in sums]


def with_sigmas(model, t: float):
    """evaluate() is no whole sampling; schedules that move want to know its steps."""
    sigma = model.get_model_object("model_sampling").sigma(torch.tensor(float(t)))
    model.model_options["transformer_options"]["sample_sigmas"] = torch.stack([sigma, sigma * 0])
    return model


@pytest.mark.parametrize("schedule, weights", [("looped", "flat"), ("open", "pyramid"), ("open, moving", "ramps")])
def test_windows_are_evaluated_alone_and_averaged(champ, schedule, weights):
    x = torch.randn(FRAMES, 4, 8, 12)
    model = with_sigmas(with_windows(champ.model, LENGTH, OVERLAP, schedule, weights), 499)
    found = evaluate(model, *champ.conditioning(FRAMES), x, 499)

    def predict(frames):
        values = conditioning(64, cut(champ, frames), champ.references, champ.clip_embeds)
        return evaluate(champ.model, *values, x[frames], 499)

    for a, b in zip(found, averaged(champ, x, schedule, weights, predict)):
        assert relative(a, b) < 1e-5


def test_what_a_sampling_holds_of_the_whole_clip_is_in_the_estimate(champ):
    model = with_windows(champ.model, LENGTH, OVERLAP)
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 2)

    def peak(frames: int) -> int:
        """In bytes, without the features of the maps, which are counted for themselves."""
        guidance = cut(champ, [i % FRAMES for i in range(frames)])
        values = conditioning(64, guidance, champ.references, champ.clip_embeds)
        noise, latent = torch.randn(frames, 4, 8, 12), guidance.empty_latent()
        with Counter() as counter:
            comfy.sample.sample_custom(model, noise, 2.0, ddim(), sigmas, *values, latent)
        return counter.peak - sum(layer.features.nbytes for layer in guidance.layers)

    peak(LENGTH + 1)  # loads the model
    latents = (peak(31) - peak(FRAMES)) / (21 * 4 * 4 * 8 * 12)
    print(f"{latents:.2f} latents of the clip are held at the peak")
    assert LATENTS < latents < 2 * LATENTS  # positive and negative


def tiny_controlnet(champ) -> comfy.controlnet.ControlNet:
    config = {k: v for k, v in champ.model.model.model_config.unet_config.items() if k != "out_channels"}
    network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            torch.nn.init.normal_(parameter, std=fan_in**-0.5) if parameter.ndim > 1 else parameter.fill_(
                "norm" in name
            )
    return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


@pytest.mark.parametrize("hints", [FRAMES, 3, 1])
def test_controlnet_sees_the_hints_of_each_window(champ, hints):
    torch.manual_seed(0)
    control, x, hint = tiny_controlnet(champ), torch.randn(FRAMES, 4, 8, 12), torch.rand(hints, 3, 64, 96)
    earlier = control.copy().set_cond_hint(torch.rand(FRAMES, 3, 64, 96), 0.5, (0.0, 1.0))

    def controlled(values, frames):
        first = earlier.copy()
        first.cond_hint_original = earlier.cond_hint_original[frames]
        second = control.copy().set_cond_hint(hint[[i % hints for i in frames]], 1.0, (0.0, 1.0))
        second.set_previous_controlnet(first)
        return [[[c, {**v, "control": second, "control_apply_to_uncond": False}] for c, v in part] for part in values]

    model = with_sigmas(with_windows(champ.model, LENGTH, OVERLAP), 499)
    whole = controlled(champ.conditioning(FRAMES), range(FRAMES))
    kept = whole[0][0][1]["control"]
    kept.cond_hint_original = hint  # as many pictures as were given
    found = evaluate(model, *whole, x, 499)
    assert kept.cond_hint is None and kept.cond_hint_original is hint

    def predict(frames):
        values = conditioning(64, cut(champ, frames), champ.references, champ.clip_embeds)
        return evaluate(champ.model, *controlled(values, frames), x[frames], 499)

    for a, b in zip(found, averaged(champ, x, "looped", "flat", predict)):
        assert relative(a, b) < 1e-4
    plain = evaluate(model, *champ.conditioning(FRAMES), x, 499)
    assert relative(found[0], plain[0]) > 0.01


def test_masks_and_other_values_per_frame(champ):
    (positive,), negative = champ.conditioning(FRAMES)
    x, mask = torch.randn(FRAMES, 4, 8, 12), torch.rand(FRAMES, 64, 96) + 0.1
    halves = [[positive[0], {**positive[1], "mask": m}] for m in (mask, 1.2 - mask)]
    model = with_sigmas(with_windows(champ.model, LENGTH, OVERLAP), 499)
    # Both halves predict the same, so that the masks must cancel in every frame.
    found = evaluate(model, halves, negative, x, 499)
    for a, b in zip(found, evaluate(model, [positive], negative, x, 499)):
        assert relative(a, b) < 1e-4


def test_memory_is_estimated_for_a_window(champ, monkeypatch):
    shapes = []
    monkeypatch.setattr(champ.model.model, "memory_required", lambda shape, **kwargs: shapes.append(shape[0]) or 0)
    model = with_windows(champ.model, LENGTH, OVERLAP)
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 1)
    positive, negative = champ.conditioning(FRAMES)
    latent = torch.zeros(FRAMES, 4, 8, 12)
    comfy.sample.sample_custom(model, latent, 3.5, ddim(), sigmas, positive, negative, latent, disable_pbar=True)
    assert shapes and max(shapes) == 2 * LENGTH


def windows_of_evolved(model, told: bool = True):
    """The model with windows as AnimateDiff-Evolved makes them: around ComfyUI's evaluation of conditionings."""

    def sliding(executor, model, conds, x_in, timestep, model_options):
        sums, counts = [torch.zeros_like(x_in) for _ in conds], x_in.new_zeros(FRAMES, 1, 1, 1)
        for frames in SCHEDULES["open"](FRAMES, LENGTH, OVERLAP, 0):
            if told:
                model_options["transformer_options"]["ad_params"]["sub_idxs"] = frames
            for sum_, part in zip(sums, executor(model, conds, x_in[frames], timestep[frames], model_options)):
                sum_[frames] += part
            counts[frames] += 1
        return [sum_ / counts for sum_ in sums]

    patched, kind = model.clone(), comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    comfy.patcher_extension.add_wrapper(kind, sliding, patched.model_options, is_model_options=True)
    if told:
        patched.model_options["transformer_options"]["ad_params"] = {"sub_idxs": None, "context_length": LENGTH}
    return patched


@pytest.mark.parametrize("ours_too", [False, True])
def test_windows_of_animatediff_evolved(champ, ours_too):
    x = torch.randn(FRAMES, 4, 8, 12)
    model = windows_of_evolved(with_windows(champ.model, LENGTH + 1, OVERLAP) if ours_too else champ.model)
    found = evaluate(model, *champ.conditioning(FRAMES), x, 499)

    def predict(frames):
        values = conditioning(64, cut(champ, frames), champ.references, champ.clip_embeds)
        return evaluate(champ.model, *values, x[frames], 499)

    for a, b in zip(found, averaged(champ, x, "open", "flat", predict)):
        assert relative(a, b) < 1e-5


def test_windows_of_which_the_model_is_not_told(champ):
    model = windows_of_evolved(champ.model, told=False)
    with pytest.raises(ValueError, match="given 4 of the clip's 10 frames, and not told which.* use Temporal Aggrega"):
        evaluate(model, *champ.conditioning(FRAMES), torch.randn(FRAMES, 4, 8, 12), 499)


def test_windows_inside_windows():
    inner = Window([3, 1], 4)
    assert window_frames({"context_window": inner}) == [3, 1]
    assert window_frames({"ad_params": {"sub_idxs": [5, 6, 7, 8]}, "context_window": inner}) == [8, 6]
    assert window_frames({"ad_params": {"sub_idxs": [5, 6]}}) == [5, 6]
    assert window_frames({"ad_params": {"sub_idxs": None}}) is window_frames({}) is None


def test_a_thousand_frames(champ):
    """Through the whole sampler, without a negative, with windows that move."""
    guidance = Guidance((Layer(torch.zeros(1000, 32, 2, 2)),), 1000, 16, 16, "Champ")
    positive = [[torch.zeros(1, 1, 64), {GUIDANCE: guidance}]]
    model = with_windows(champ.model, 32, 4, "looped, moving")
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 1)
    latent, noise = guidance.empty_latent(), torch.randn(1000, 4, 2, 2)
    found = comfy.sample.sample_custom(model, noise, 1.0, ddim(), sigmas, positive, [], latent, disable_pbar=True)
    assert found.shape == (1000, 4, 2, 2) and torch.isfinite(found).all()


def test_cancelling(champ, monkeypatch):
    model = with_windows(champ.model, LENGTH, OVERLAP)
    sigmas = official_sigmas(model.get_model_object("model_sampling"), 1)
    latent, noise = torch.zeros(FRAMES, 4, 8, 12), torch.randn(FRAMES, 4, 8, 12)
    positive, negative = champ.conditioning(FRAMES)

    def sample():
        return comfy.sample.sample_custom(model, noise, 3.5, ddim(), sigmas, positive, negative, latent)

    wanted = sample()
    forward, windows = champ.model.model.diffusion_model._forward, []

    def cancel(*args, **kwargs):
        windows.append(len(args[0]))
        comfy.model_management.interrupt_current_processing()
        return forward(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(champ.model.model.diffusion_model, "_forward", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample()
    assert windows == [2 * LENGTH]  # the first window is the last
    assert torch.equal(sample(), wanted)


def test_copies_of_the_model_keep_the_windows(champ):
    model = with_windows(champ.model, 8, 2, "open", "ramps").clone()
    handler = model.model_options["context_handler"]
    assert (handler.context_length, handler.context_overlap, handler.schedule, handler.weights) == (
        8,
        2,
        "open",
        "ramps",
    )
    assert "context_handler" not in champ.model.model_options


def test_current_step():
    sigmas = [10.0, 5.0, 1.0, 0.0]
    assert [current_step(NoiseLevel(s, False), sigmas) for s in (10.0, torch.tensor(7.6), 5.1, 0.9)] == [0, 0, 1, 2]


def test_bad_input(champ):
    with pytest.raises(ValueError, match="know windows of up to 32 frames but were given 33; choose a shorter window"):
        with_windows(champ.model, 33)
    with_windows(champ.still_model, 33)
    with pytest.raises(ValueError, match="overlap of 8 frames does not fit windows of 8; choose a smaller overlap"):
        with_windows(champ.model, 8, 8)
    with pytest.raises(ValueError, match="nothing called 'round' here; choose from looped, open, looped, moving"):
        with_windows(champ.model, 8, 2, "round")
