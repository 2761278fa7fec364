"""The denoiser against the official predictions, and as a citizen of ComfyUI."""

from dataclasses import replace

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.model_management
import comfy.ops
import comfy.sd
import pytest
import torch
from golden import evaluate, frames_first, relative

from champ.model.attention import KeptSource, TokenSource
from champ.model.conditioning import REFERENCES, Rows, conditioning
from champ.model.denoiser import champ_model
from champ.model.guidance import Guidance, Layer
from champ.model.loading import load_denoiser
from champ.model.reference import Reference
from champ.model.span import Span


def latents(family) -> torch.Tensor:
    return frames_first(family.data("denoise")["latents"])


def official(family, kind: str, t: int) -> list[torch.Tensor]:
    """The official predictions for the positive and the negative."""
    uncond, cond = family.data("denoise")[f"{kind}/t{t}"].movedim(2, 1)
    return [cond, uncond]


@pytest.fixture
def clip(champ):
    """Four frames, which is enough where no official result is compared."""
    positive, negative = champ.conditioning(4)
    return positive, negative, latents(champ)[:4]


# --- against the official implementation --------------------------------------------------------------------------


@pytest.mark.parametrize("t", [999, 499, 49])
@pytest.mark.parametrize("kind", ["pred", "pred_without_motion"])
def test_predictions(family, kind, t):
    model = family.model if kind == "pred" else family.still_model
    found = evaluate(model, *family.conditioning(16), latents(family), t)
    for a, b in zip(found, official(family, f"{kind}/bank_fp32", t)):
        assert relative(a, b) < 1e-5


def test_prediction_without_guidance(champ):
    positive, negative = champ.conditioning(16)
    positive = [[positive[0][0], {REFERENCES: champ.references}]]
    found = evaluate(champ.model, positive, [[negative[0][0], {}]], latents(champ), 499)
    for a, b in zip(found, official(champ, "pred_without_guidance/bank_fp32", 499)):
        assert relative(a, b) < 1e-5


def test_prediction_with_tokens_rounded_as_the_official_pipeline_does(champ):
    (reference,) = champ.references
    half = replace(reference, tokens={place: tokens.half() for place, tokens in reference.tokens.items()})
    found = evaluate(champ.model, *conditioning(64, champ.guidance(16), [half], champ.clip_embeds), latents(champ), 499)
    for a, b in zip(found, official(champ, "pred/bank_fp16", 499)):
        assert relative(a, b) < 5e-5


# --- order, batching, ranges --------------------------------------------------------------------------------------


def test_any_order_and_batching(champ, clip, monkeypatch):
    positive, negative, x = clip
    wanted = evaluate(champ.model, positive, negative, x, 499)
    swapped = evaluate(champ.model, negative, positive, x, 499)
    torch.testing.assert_close(swapped[::-1], wanted, rtol=1e-4, atol=1e-5)
    doubled = evaluate(champ.model, positive + positive, negative, x, 499)  # averaged
    torch.testing.assert_close(doubled, wanted, rtol=1e-4, atol=1e-5)
    sizes = []
    forward = champ.model.model.diffusion_model._forward
    monkeypatch.setattr(
        champ.model.model.diffusion_model, "_forward", lambda x, *a, **k: sizes.append(len(x)) or forward(x, *a, **k)
    )
    evaluate(champ.model, positive, negative, x, 499)
    monkeypatch.setattr(champ.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = evaluate(champ.model, positive, negative, x, 499)
    assert sizes == [8, 4, 4]
    torch.testing.assert_close(apart, wanted, rtol=1e-4, atol=1e-5)


def test_ranges(champ, clip):
    positive, negative, x = clip
    (reference,) = champ.references
    with_both = evaluate(champ.model, positive, negative, x, 499)
    late = champ.conditioning(4)[0][0][1] | {REFERENCES: (replace(reference, span=Span(end=0.3)),)}
    no_reference = evaluate(champ.model, [[positive[0][0], late]], negative, x, 499)[0]
    plain = evaluate(champ.model, [[positive[0][0], late | {REFERENCES: ()}]], negative, x, 499)[0]
    assert torch.equal(no_reference, plain) and relative(plain, with_both[0]) > 0.1
    still_on = evaluate(champ.model, [[positive[0][0], late]], negative, x, 900)[0]
    torch.testing.assert_close(still_on, evaluate(champ.model, positive, negative, x, 900)[0], rtol=1e-4, atol=1e-5)

    (layer,) = champ.guidance(4).layers
    halves = tuple(Layer(layer.features / 2, span) for span in (Span(), Span(0.0, 0.3)))
    split = replace(champ.guidance(4), layers=halves)
    early = evaluate(champ.model, *conditioning(64, split, champ.references, champ.clip_embeds), x, 900)[1]
    torch.testing.assert_close(early, evaluate(champ.model, positive, negative, x, 900)[1], rtol=1e-4, atol=1e-5)
    half = replace(split, layers=halves[:1])
    later = evaluate(champ.model, *conditioning(64, split, champ.references, champ.clip_embeds), x, 499)[1]
    wanted = evaluate(champ.model, *conditioning(64, half, champ.references, champ.clip_embeds), x, 499)[1]
    assert torch.equal(later, wanted)


def test_strength_counts_references(champ, clip):
    """A reference twice as strong is the same reference twice; one without strength is none."""
    _, negative, x = clip
    (reference,) = champ.references

    def positive(*references):
        return conditioning(64, champ.guidance(4), references, champ.clip_embeds)[0]

    twice = evaluate(champ.model, positive(reference, reference), negative, x, 499)[0]
    strong = evaluate(champ.model, positive(replace(reference, strength=2.0)), negative, x, 499)[0]
    torch.testing.assert_close(strong, twice, rtol=1e-4, atol=1e-5)
    none = evaluate(champ.model, positive(replace(reference, strength=0.0)), negative, x, 499)[0]
    assert torch.equal(none, evaluate(champ.model, positive(), negative, x, 499)[0])


def test_reference_of_another_size_and_single_frame(champ):
    other = Reference({place: torch.cat([t, t[:, :1]], 1) for place, t in champ.references[0].tokens.items()}, "Champ")
    positive, negative = conditioning(64, champ.guidance(1), [other])
    cond, uncond = evaluate(champ.model, positive, negative, latents(champ)[:1], 499)
    assert cond.shape == (1, 4, 8, 12) and torch.isfinite(cond).all() and not torch.equal(cond, uncond)


def test_projected_keys_are_kept_for_a_run_unless_hooks_may_change_the_weights(champ):
    noise, values = torch.zeros(4, 4, 8, 12), champ.conditioning(4)[0][0][1]
    for hooks, kind in ((None, KeptSource), (object(), TokenSource)):
        conds = champ.model.model.extra_conds(noise=noise, device=noise.device, hooks=hooks, **values)
        (run,) = conds["references"].cond
        options = {"cond_or_uncond": [0], "sigmas": torch.tensor([1.0])}
        with torch.no_grad():
            champ.model.model.apply_model(
                noise, torch.ones(4), c_crossattn=torch.zeros(4, 1, 64), transformer_options=options, references=[[run]]
            )
        (source,) = run.ready.values()
        assert type(source) is kind
        if kind is KeptSource:
            assert source.kept.keys() == champ.references[0].tokens.keys()


# --- ComfyUI's other packs and tools ------------------------------------------------------------------------------


def test_plain_use_is_the_stock_unet(champ):
    """Without motion modules, guidance and references it is ComfyUI's own UNet, also with text of many tokens."""
    unet = champ.still_model.model.diffusion_model
    stock = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel(
        **champ.still_model.model.model_config.unet_config, operations=comfy.ops.disable_weight_init
    )
    stock.load_state_dict(unet.state_dict())
    x, t = torch.randn(2, 4, 9, 12), torch.tensor([100.0, 900.0])
    for tokens in 1, 77:
        context = torch.randn(2, tokens, 64)
        with torch.no_grad():
            assert relative(unet(x, t, context), stock(x, t, context)) < 1e-5


def stock_attention(q, k, v, options):
    return comfy.ldm.modules.attention.attention_basic(q, k, v, options["n_heads"])


def test_patches_of_other_packs(champ, clip):
    positive, negative, x = clip
    wanted = evaluate(champ.model, positive, negative, x, 499)
    model, seen = champ.model.clone(), []
    for set_patch in model.set_model_attn1_patch, model.set_model_attn2_patch:
        set_patch(lambda n, context, value, options: seen.append(options["block"]) or (n, context, value))
    for set_patch in model.set_model_attn1_output_patch, model.set_model_attn2_output_patch:
        set_patch(lambda n, options: seen.append(n.shape) or n)
    model.set_model_input_block_patch(lambda h, options: h)
    model.set_model_output_block_patch(lambda h, skip, options: (h, skip))
    for number in 1, 4, 7:  # as IP-Adapter does
        model.set_model_attn2_replace(stock_attention, "input", number)
    torch.testing.assert_close(evaluate(model, positive, negative, x, 499), wanted, rtol=1e-4, atol=1e-5)
    assert ("middle", 0) in seen and (8, 96, 32) in seen and (8, 1, 32) not in seen
    # Who replaces a self-attention decides alone what it reads: here not the reference.
    model.set_model_attn1_replace(stock_attention, "input", 1)
    cond, uncond = evaluate(model, positive, negative, x, 499)
    assert 1e-3 < relative(cond, wanted[0]) < 1
    assert relative(uncond, wanted[1]) < 1e-5
    torch.testing.assert_close(evaluate(champ.model, positive, negative, x, 499), wanted, rtol=1e-4, atol=1e-5)


LORA = {
    "input_blocks.1.1.transformer_blocks.0.attn1.to_k": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k",
    "middle_block.1.transformer_blocks.0.attn2.to_v": "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
    "output_blocks.3.1.transformer_blocks.0.ff.net.2": "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
    "output_blocks.5.2.conv": "up_blocks.1.upsamplers.0.conv",
}


@pytest.mark.parametrize("names", ["kohya", "diffusers"])
def test_lora(champ, clip, names):
    positive, negative, x = clip
    wanted = evaluate(champ.model, positive, negative, x, 499)
    own = champ.model.model.diffusion_model.state_dict()
    changed = load_denoiser(champ.files)
    lora = {}
    for key, name in LORA.items():
        weight = own[f"{key}.weight"]
        up, down = torch.randn(len(weight), 2) * 0.05, torch.randn(2, *weight.shape[1:])
        if names == "kohya":
            name = f"lora_unet_{name.replace('.', '_')}"
            lora[f"{name}.lora_up.weight"], lora[f"{name}.lora_down.weight"] = up, down
            if weight.ndim == 4:
                lora[f"{name}.lora_up.weight"] = up[:, :, None, None]
        elif weight.ndim == 2 and ".to_" in name:
            name = f"unet.{name.replace('.to_', '.processor.to_')}_lora"
            lora[f"{name}.up.weight"], lora[f"{name}.down.weight"] = up, down
        else:
            continue
        delta = (up @ down.flatten(1)).reshape(weight.shape) * 0.5
        changed.model.diffusion_model.state_dict()[f"{key}.weight"] += delta
    model, _ = comfy.sd.load_lora_for_models(champ.model, None, lora, 0.5, 0)
    assert len(model.patches) == (4 if names == "kohya" else 2)
    found = evaluate(model, positive, negative, x, 499)
    torch.testing.assert_close(found, evaluate(changed, positive, negative, x, 499), rtol=1e-4, atol=1e-5)
    assert relative(found[0], wanted[0]) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(evaluate(champ.model, positive, negative, x, 499), wanted))


def test_merging_takes_all_weights(champ, animate_anyone):
    """All of another model and nothing of one's own is that other model, motion modules included."""
    plain, x = [[torch.randn(1, 1, 64), {}]], torch.randn(4, 4, 8, 12)
    merged = champ.model.clone()
    merged.add_patches(animate_anyone.model.get_key_patches("diffusion_model."), 1.0, 0.0)
    found = evaluate(merged, plain, plain, x, 499)
    torch.testing.assert_close(found, evaluate(animate_anyone.model, plain, plain, x, 499), rtol=1e-3, atol=1e-4)


def test_unloading_and_low_vram(champ, clip):
    positive, negative, x = clip
    model = load_denoiser(champ.files)
    wanted = evaluate(model, positive, negative, x, 499)
    comfy.model_management.unload_all_models()
    again = evaluate(model, positive, negative, x, 499)
    assert all(torch.equal(a, b) for a, b in zip(again, wanted))

    unet, context = model.model.diffusion_model, torch.zeros(4, 1, 64)
    with torch.no_grad():
        full = unet(x, torch.full((4,), 499.0), context)
        model.unpatch_model(model.offload_device)
        model.load(torch.device("cpu"), lowvram_model_memory=1_000_000)
        cast = {name for name, m in unet.named_modules() if getattr(m, "comfy_cast_weights", False)}
        assert {part for name in cast for part in name.split(".")} >= {"motion", "attn1", "attn2", "ff"}
        low = unet(x, torch.full((4,), 499.0), context)
        model.unpatch_model(model.offload_device)
    assert relative(low, full) < 1e-6


# --- bad input ----------------------------------------------------------------------------------------------------


def test_mismatches_are_refused(champ, animate_anyone, clip):
    positive, negative, x = clip
    with pytest.raises(
        ValueError, match="guidance comes from a checkpoint set of Animate Anyone, the model from one of Ch"
    ):
        evaluate(champ.model, *animate_anyone.conditioning(4), x, 499)
    foreign = [[positive[0][0], {REFERENCES: animate_anyone.references}]]
    with pytest.raises(ValueError, match="reference comes from a checkpoint set of Animate Anyone"):
        evaluate(champ.model, foreign, negative, x, 499)
    with pytest.raises(
        ValueError, match="guidance has 4 frames of 96x64 pixels, the latents have 3 of 96x64; use the la"
    ):
        evaluate(champ.model, positive, negative, x[:3], 499)
    with pytest.raises(ValueError, match="the latents have 4 of 80x64"):
        evaluate(champ.model, positive, negative, x[..., :10], 499)
    wide = Guidance((Layer(torch.zeros(4, 320, 8, 12)),), 4, 96, 64, "Champ")
    with pytest.raises(ValueError, match="guidance has 320 channels but this denoising UNet adds 32"):
        evaluate(champ.model, *conditioning(64, wide, []), x, 499)
    small = Guidance((Layer(torch.zeros(4, 32, 1, 1)),), 4, 8, 8, "Champ")
    with pytest.raises(ValueError, match="latent is for 8x8 pixels, which is too small for the networks; use 16x16"):
        evaluate(champ.model, *conditioning(64, small, []), x[..., :1, :1], 499)
    odd = Reference({("middle", 0): torch.zeros(1, 1, 7)}, "Champ")
    with pytest.raises(ValueError, match="encoded by a ReferenceNet of other sizes"):
        evaluate(champ.model, *conditioning(64, champ.guidance(4), [odd]), x, 499)
    with pytest.raises(ValueError, match="embedding has 768 values but the denoising UNet reads 64"):
        conditioning(64, champ.guidance(4), [], torch.zeros(1, 768))


def test_other_models_are_refused(champ):
    assert champ_model(champ.model.clone()).context_dim == 64
    with pytest.raises(ValueError, match="This MODEL is of the kind ReferenceUNet, which reads no guidance"):
        champ_model(champ.net.patcher)


def test_attention_that_others_replace_leaves_the_reference_out(champ, clip):
    """As the help of Apply Champ says of PAG and SAG, which replace the middle one."""
    positive, negative, x = clip
    shapes = []

    def replaced(q, k, v, extra_options):
        shapes.append((q.shape[1], k.shape[1]))
        return v

    model = champ.model.clone()
    model.set_model_attn1_replace(replaced, "middle", 0)
    evaluate(model, positive, negative, x, 499)
    assert shapes and all(queries == keys for queries, keys in shapes)


def test_areas_are_refused(champ, clip):
    positive, negative, x = clip
    with pytest.raises(ValueError, match="take the area out of the conditioning, or use a mask"):
        evaluate(champ.model, [[positive[0][0], positive[0][1] | {"area": (4, 4, 0, 0)}]], negative, x, 499)
    assert Rows([]).process_cond(4, area=(4, 4, 0, 0))  # nothing to cut
    masked = positive[0][1] | {"mask": torch.ones(1, 64, 96)}
    found = evaluate(champ.model, [[positive[0][0], masked]], negative, x, 499)
    torch.testing.assert_close(found, evaluate(champ.model, positive, negative, x, 499), rtol=1e-4, atol=1e-5)


def test_windows_longer_than_the_positional_encoding(champ):
    x = torch.randn(33, 4, 8, 12)
    with pytest.raises(
        ValueError, match="know windows of up to 32 frames but were given 33; connect Temporal Aggregation"
    ):
        evaluate(champ.model, *champ.conditioning(33), x, 499)
    cond, _ = evaluate(champ.still_model, *champ.conditioning(33), x, 499)  # pictures have no such limit
    assert torch.isfinite(cond).all()
