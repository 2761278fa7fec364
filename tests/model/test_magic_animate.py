"""MagicAnimate against its official code: single forward passes; and as a citizen of ComfyUI."""

from dataclasses import replace

import comfy.lora
import comfy.model_management
import comfy.sampler_helpers
import comfy.sd
import pytest
import torch
from golden import HEIGHT, WIDTH, evaluate_noise, frames_first, relative

from champ.model.checkpoint import read_state, shapes_of
from champ.model.conditioning import REFERENCES, conditioning
from champ.model.config import UNetSizes
from champ.model.families import FAMILIES
from champ.model.guidance import GuidanceMap, encode_guidance
from champ.model.images import fit_images, resize
from champ.model.loading import load_denoiser, load_encoders, load_reference_net
from champ.model.reference import Reference, TokensInStep, encode_reference
from champ.model.span import Span
from champ.sampling.aggregation import with_windows


def latents(family) -> torch.Tensor:
    return frames_first(family.data("denoise")["latents"])


def pair(family, positive, negative):
    """The conditioning with the two texts of the single passes, whose ControlNet saw the positive one in both."""
    negative_text, text = family.data("reference")["text"].split(1)
    negative = {**negative[0][1], "cross_attn_controlnet": text}
    return [[text, positive[0][1]]], [[negative_text, negative]]


def official(family, key: str) -> torch.Tensor:
    """Predictions as (positive, negative)."""
    return family.data("denoise")[key].movedim(2, 1).flip(0)


@pytest.fixture
def clip(magic_animate):
    """Four frames, which is enough where no official result is compared."""
    positive, negative = magic_animate.conditioning(4)
    return positive, negative, latents(magic_animate)[:4]


# --- against the official implementation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "t"), [("pred", 961), ("pred", 1), ("pred_without_motion", 481), ("pred_8_frames", 481)]
)
def test_predictions(magic_animate, kind, t):
    model = magic_animate.still_model if kind == "pred_without_motion" else magic_animate.model
    frames = 8 if kind == "pred_8_frames" else 16
    positive, negative = pair(magic_animate, *magic_animate.conditioning(frames))
    found = evaluate_noise(model, positive, negative, latents(magic_animate)[:frames], t)
    for a, b in zip(found, official(magic_animate, f"{kind}/t{t}")):
        assert relative(a, b) < 2e-5


def test_without_reference_or_maps(magic_animate):
    """Also with no strength, which is the same."""
    (reference,) = magic_animate.references
    maps = {"densepose": GuidanceMap(magic_animate.pictures("forward"), strength=0.0)}
    nothing = encode_guidance(magic_animate.encoders, maps, WIDTH, HEIGHT)
    for key, guidance, references in (
        ("pred_without_reference", magic_animate.guidance(16), [replace(reference, strength=0.0)]),
        ("pred_without_controlnet", nothing, [reference]),
    ):
        given = conditioning(64, guidance, references, text=magic_animate.text)
        found = evaluate_noise(magic_animate.model, *pair(magic_animate, *given), latents(magic_animate), 481)
        for a, b in zip(found, official(magic_animate, f"{key}/t481")):
            assert relative(a, b) < 2e-5


@pytest.mark.parametrize("t", [961, 1])
def test_what_reference_net_sees_at_a_timestep(magic_animate, t):
    data, net = magic_animate.data("reference"), magic_animate.net
    sizes = UNetSizes.read(shapes_of(read_state(magic_animate.files.reference_unet)))
    (reference,) = magic_animate.references
    found = reference.tokens.at(t, data["text"][1:])
    assert reference.channels() == {place: tokens.shape[-1] for place, tokens in found.items()} and len(found) == 10
    for key, wanted in data.items():
        if key.startswith(f"bank/t{t}/"):
            block, _, rest = key.removeprefix(f"bank/t{t}/").partition(".attentions.")
            assert relative(found[sizes.place(block, int(rest.split(".")[0]))], wanted) < 1e-5
    assert reference.networks() == [net.patcher]


def test_the_controlnet_alone(magic_animate):
    data = magic_animate.data("controlnet")
    hint = magic_animate.pictures("forward")[5:6].movedim(-1, 1)
    network = magic_animate.encoders.patcher.model
    with torch.no_grad():
        found = network(data["latents"], hint, torch.tensor([481.0]), magic_animate.data("reference")["text"][1:])
    for i, residual in enumerate(found["output"]):
        assert relative(residual, data[f"t481/down.{i}"]) < 1e-5
    assert relative(found["middle"][0], data["t481/mid"]) < 1e-5


def test_pictures_are_resized_as_the_official_code_does(magic_animate):
    data, family = magic_animate.data("preprocess"), FAMILIES["MagicAnimate"]
    maps = resize(data["control_in"].float() / 255, WIDTH, HEIGHT, family.map_filter)
    assert torch.equal(maps.mul(255).round().byte(), data["control_resized"])
    image = fit_images(data["source_image"][None].float() / 255, WIDTH, HEIGHT, "stretch", family.reference_filter)
    torch.testing.assert_close(image.movedim(-1, 1) * 2 - 1, data["vae_input"], rtol=0, atol=1e-5)


# --- as a model of ComfyUI ----------------------------------------------------------------------------------------


def test_parts_of_a_batch_are_normalised_apart(magic_animate, clip, monkeypatch):
    positive, negative, x = clip
    wanted = evaluate_noise(magic_animate.model, positive, negative, x, 481)
    swapped = evaluate_noise(magic_animate.model, negative, positive, x, 481)
    torch.testing.assert_close(swapped[::-1], wanted, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(magic_animate.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = evaluate_noise(magic_animate.model, positive, negative, x, 481)
    torch.testing.assert_close(apart, wanted, rtol=1e-4, atol=1e-5)


def test_reference_net_sees_the_image_once_in_a_step(magic_animate, clip, monkeypatch):
    """However many windows there are; and it is loaded with the denoiser."""
    positive, negative, x = clip
    network, seen = magic_animate.net.patcher.model, []
    tokens = network.tokens
    monkeypatch.setattr(network, "tokens", lambda *args: seen.append(args[2]) or tokens(*args))
    model = with_windows(magic_animate.model, 2, 1)
    model.model_options["transformer_options"]["sample_sigmas"] = torch.tensor([10.0, 1.0, 0.0])
    evaluate_noise(model, positive, negative, x, 481)
    assert seen == [481]
    conds = {"positive": comfy.sampler_helpers.convert_cond(positive)}
    loaded, _ = comfy.sampler_helpers.get_additional_models(conds, torch.float32)
    assert magic_animate.net.patcher in loaded and magic_animate.encoders.patcher in loaded


def test_ranges_and_added_maps(magic_animate, clip):
    positive, negative, x = clip
    pictures = magic_animate.pictures("forward")[:4]

    def predict(*given: GuidanceMap, t=481):
        parts = [encode_guidance(magic_animate.encoders, {"densepose": one}, WIDTH, HEIGHT) for one in given]
        guidance = replace(parts[0], controls=tuple(control for part in parts for control in part.controls))
        return evaluate_noise(magic_animate.model, *conditioning(64, guidance, [], text=magic_animate.text), x, t)[1]

    whole = predict(GuidanceMap(pictures))
    halves = predict(GuidanceMap(pictures, 0.5), GuidanceMap(pictures, 0.5))
    torch.testing.assert_close(halves, whole, rtol=1e-4, atol=1e-5)
    late = predict(GuidanceMap(pictures, span=Span(end=0.1)))
    assert torch.equal(late, predict(GuidanceMap(pictures, strength=0.0))) and relative(late, whole) > 0.1
    assert torch.equal(predict(GuidanceMap(pictures, span=Span(end=0.1)), t=990), predict(GuidanceMap(pictures), t=990))


def test_lora(magic_animate, clip):
    positive, negative, x = clip
    key = "middle_block.1.transformer_blocks.0.attn1.to_k"
    weight = magic_animate.model.model.diffusion_model.state_dict()[f"{key}.weight"]
    up, down = torch.randn(len(weight), 2) * 0.1, torch.randn(2, weight.shape[1])
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k"
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    model, _ = comfy.sd.load_lora_for_models(magic_animate.model, None, lora, 0.5, 0)
    changed = load_denoiser(magic_animate.files)
    changed.model.diffusion_model.state_dict()[f"{key}.weight"] += 0.5 * up @ down
    found = evaluate_noise(model, positive, negative, x, 481)
    torch.testing.assert_close(found, evaluate_noise(changed, positive, negative, x, 481), rtol=1e-4, atol=1e-5)
    assert relative(found[0], evaluate_noise(magic_animate.model, positive, negative, x, 481)[0]) > 1e-4


def test_little_memory_and_half_precision(magic_animate, clip):
    """Weights that stay in main memory until they are used give the same; fewer bits something like it."""
    positive, negative, x = clip
    files = magic_animate.files
    wanted = evaluate_noise(magic_animate.model, positive, negative, x, 481)
    for dtype, memory, limit in (("default", 500_000, 1e-5), (torch.float16, 0, 0.03), ("fp8_e4m3fn", 0, 1.0)):
        model, net, encoders = (
            load(files, weight_dtype=dtype) for load in (load_denoiser, load_reference_net, load_encoders)
        )
        pictures = magic_animate.pictures("forward")[:4]
        guidance = encode_guidance(encoders, {"densepose": GuidanceMap(pictures)}, WIDTH, HEIGHT)
        references = encode_reference(net, magic_animate.data("reference")["ref_latents"] / 0.18215)
        if memory:
            for patcher in (model, net.patcher, encoders.patcher):
                patcher.load(torch.device("cpu"), lowvram_model_memory=memory)
            assert any(getattr(m, "comfy_cast_weights", False) for m in net.patcher.model.modules())
        found = evaluate_noise(model, *conditioning(64, guidance, references, text=magic_animate.text), x, 481)
        for a, b in zip(found, wanted):
            assert relative(a.float(), b) < limit, dtype
        comfy.model_management.unload_all_models()


# --- bad input ----------------------------------------------------------------------------------------------------


def test_missing_and_foreign_text(magic_animate):
    guidance = magic_animate.guidance(2)
    with pytest.raises(ValueError, match="MagicAnimate reads text, but none is connected; connect CLIP Text Encode"):
        conditioning(64, guidance, [])
    with pytest.raises(
        ValueError, match="text has 1280 values per token but the denoising UNet reads 64; use the CLIP"
    ):
        conditioning(64, guidance, [], text=torch.zeros(1, 77, 1280))
    step = TokensInStep(magic_animate.model.model.model_sampling, context=None)
    with pytest.raises(ValueError, match="ReferenceNet reads text in this model, but the conditioning has none"):
        step.of(magic_animate.references[0].tokens, 1.5)


def test_parts_of_other_families_are_refused(magic_animate, champ, clip):
    positive, negative, x = clip
    foreign = [[positive[0][0], {**positive[0][1], REFERENCES: champ.references}]]
    with pytest.raises(ValueError, match="reference comes from a checkpoint set of Champ, the model from one of Magic"):
        evaluate_noise(magic_animate.model, foreign, negative, x, 481)
    with pytest.raises(ValueError, match="MagicAnimate checkpoint set has no encoder for dwpose maps, only for"):
        maps = {"dwpose": GuidanceMap(torch.zeros(1, 16, 16, 3))}
        encode_guidance(magic_animate.encoders, maps, 16, 16)
    less = Reference({("middle", 0): torch.zeros(1, 1, 128)}, "MagicAnimate")
    with pytest.raises(ValueError, match="encoded by a ReferenceNet of other sizes"):
        evaluate_noise(
            magic_animate.model, *conditioning(64, magic_animate.guidance(4), [less], text=magic_animate.text), x, 481
        )
    with pytest.raises(ValueError, match="windows of up to 24 frames"):
        with_windows(magic_animate.model, 25)
