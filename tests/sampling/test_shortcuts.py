"""Shortcuts: what they leave out, and that they are exact where nothing is left out."""

from collections.abc import Callable
from dataclasses import fields

import comfy.context_windows
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras import nodes_freelunch, nodes_pag, nodes_sag
from comfyui_nodes import patched
from golden import relative
from two_levels import a_reference, clip_of, two_levels

from champ.calibrate.attention import CalibratedReference, Calibration, Warp, groups_of
from champ.model.guidance import Guidance, Layer
from champ.model.reference import Reference
from champ.model.span import Span
from champ.sampling.aggregation import SamplingRun, with_windows
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas
from champ.sampling.shortcuts import with_cfg_interval, with_deep_cache

FRAMES = 4
# Steps in groups of one noise level: what the first of a group keeps is right for the others.
PAIRS = torch.tensor([3.0, 2.999999, 1.0, 0.9999997, 0.0])
TRIPLE = torch.tensor([3.0, 2.999999, 2.999998, 0.0])


@pytest.fixture(scope="module")
def small():
    return two_levels()


@pytest.fixture
def rows(small, monkeypatch):
    """Rows of each evaluation of the denoiser, and those of its middle block."""
    unet = small.model.diffusion_model
    seen: dict[str, list[int]] = {"all": [], "middle": []}
    forward = unet._forward
    monkeypatch.setattr(unet, "_forward", lambda x, *a, **k: seen["all"].append(len(x)) or forward(x, *a, **k))
    hook = unet.middle_block[0].register_forward_hook(lambda module, given, out: seen["middle"].append(len(out)))
    yield seen
    hook.remove()


def noise(frames: int = FRAMES, size: int = 16) -> torch.Tensor:
    return torch.randn(frames, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0))


def sample(model, conds, x, steps=5, cfg=3.5, sampler=None, sigmas=None):
    sigmas = official_sigmas(model.get_model_object("model_sampling"), steps) if sigmas is None else sigmas
    return comfy.sample.sample_custom(
        model, x, cfg, sampler or ddim(), sigmas, *conds, torch.zeros_like(x), disable_pbar=True, seed=0
    )


# --- CFG interval -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [ddim, lambda: comfy.samplers.ksampler("dpmpp_2m")], ids=["ddim", "dpmpp_2m"])
def test_the_negative_is_evaluated_inside_the_interval_only(small, rows, sampler: Callable):
    conds, x = clip_of(FRAMES), noise()
    part = with_cfg_interval(small, Span(0.3, 0.7))
    found = sample(part, conds, x, sampler=sampler())
    assert rows["all"] == [4, 4, 8, 8, 4]  # of the steps at timesteps 999, 799, 599, 399, 199
    for span, cfg in ((Span(), 3.5), (Span(0.0, 0.001), 1.0)):
        ended = sample(with_cfg_interval(small, span), conds, x, sampler=sampler())
        plain = sample(small, conds, x, cfg=cfg, sampler=sampler())
        assert relative(found, plain) > 1e-3
        if cfg == 3.5:
            assert torch.equal(ended, plain)


def test_outside_the_interval_a_step_is_that_of_cfg_1(small):
    """Also in windows, and without a negative."""
    conds, x = clip_of(6), noise(6)
    windows = with_windows(small, 4, 2, "open", "ramps")
    late = with_cfg_interval(windows, Span(0.9, 1.0))
    assert torch.equal(sample(late, conds, x, 2), sample(windows, conds, x, 2, cfg=1.0))
    assert torch.equal(sample(late, conds, x, 2, cfg=1.0), sample(windows, conds, x, 2, cfg=1.0))


# --- feature cache ------------------------------------------------------------------------------------------------


def windows_of_comfyui(model, length: int, overlap: int):
    """The model with the windows of ComfyUI's node Context Windows, with frames as the batch."""
    schedule = comfy.context_windows.get_matching_context_schedule("standard_static")
    weights = comfy.context_windows.get_matching_fuse_method("pyramid")
    handler = comfy.context_windows.IndexListContextHandler(
        schedule, weights, context_length=length, context_overlap=overlap, dim=0
    )
    model = model.clone()
    model.model_options["context_handler"] = handler
    comfy.context_windows.create_prepare_sampling_wrapper(model)
    return model


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # in ComfyUI 0.3.75
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("sampler", [ddim, lambda: comfy.samplers.ksampler("euler")], ids=["ddim", "euler"])
def test_in_windows_of_comfyui(small, rows, sampler, guided):
    """They cut the sigmas of a step, so that each window has others."""
    frames = len(PAIRS)  # ComfyUI 0.3.75 compares the sigmas of the frames with those of the steps
    model = windows_of_comfyui(small, 3, 1)
    conds, x, model = clip_of(frames), noise(frames), pag(model) if guided else model
    whole = sample(model, conds, x, sampler=sampler(), sigmas=PAIRS)
    count = sum(rows["middle"])
    rows["middle"].clear()
    assert (
        relative(sample(with_deep_cache(model, 2, 2, Span()), conds, x, sampler=sampler(), sigmas=PAIRS), whole) < 1e-5
    )
    assert 2 * sum(rows["middle"]) == count


class Loop:
    """Evaluations of one run, outside of a sampler: negative and positive, twice the same or not."""

    def __init__(self, model, conds, x):
        model.pre_run()
        named = {key: comfy.sampler_helpers.convert_cond(c) for key, c in zip(("positive", "negative"), conds)}
        self.conds = comfy.samplers.process_conds(model.model, x, named, x.device)
        self.model, self.x = model, x
        if handler := model.model_options.get("context_handler"):
            handler.run = SamplingRun()
        model.model_options["transformer_options"]["sample_sigmas"] = torch.tensor([3.0, 2.0, 1.0, 0.0])

    def evaluate(self, order=("positive", "negative"), sigma=2.0):
        parts = [self.conds[name] for name in order]
        with torch.no_grad():
            found = comfy.samplers.calc_cond_batch(
                self.model.model, parts, self.x, torch.full((len(self.x),), sigma), self.model.model_options
            )
        return dict(zip(order, found))


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["none", "open", "open, moving"])
def test_deep_features_of_the_same_step_make_no_difference(small, rows, blocks, schedule):
    """The first and the last blocks with what the others gave: the same to the last bit, in any order of the parts."""
    model = small if schedule == "none" else with_windows(small, 3, 2, schedule, "ramps")
    loop = Loop(with_deep_cache(model, 2, blocks, Span()), clip_of(FRAMES), noise())
    first = loop.evaluate()
    whole = len(rows["middle"])
    second = loop.evaluate(("negative", "positive"))
    assert len(rows["middle"]) == whole
    for name in first:
        assert relative(second[name], first[name]) < 1e-6
    loop.evaluate()
    assert len(rows["middle"]) == 2 * whole


def test_windows_that_move_take_each_frame_where_it_was():
    still = two_levels(motion=False)
    model = with_windows(still, 3, 1, "open, moving", "flat")
    loop = Loop(with_deep_cache(model, 3, 2, Span()), clip_of(8), noise(8))
    handler, middle = loop.model.model_options["context_handler"], []
    hook = still.model.diffusion_model.middle_block[0].register_forward_hook(lambda *_: middle.append(1))
    lists = [[window.index_list for window in handler.windows(8, step)] for step in (0, 1)]
    assert lists[0] != lists[1]
    first = loop.evaluate(sigma=3.0)
    count = len(middle)
    loop.model.model_options["transformer_options"]["sample_sigmas"] = torch.tensor([9.0, 3.0, 0.0])
    loop.model.model_options["context_handler"].run._sigmas = []
    second = loop.evaluate(sigma=3.0)  # without motion modules, windows make no difference
    hook.remove()
    assert len(middle) == count
    for name in first:
        assert relative(second[name], first[name]) < 1e-5


def test_how_often_all_blocks_are_evaluated(small, rows):
    conds, x = clip_of(FRAMES), noise()
    plain = sample(small, conds, x, 6)
    rows["middle"].clear()
    cached = with_deep_cache(small, 3, 2, Span())
    found = sample(cached, conds, x, 6)
    assert len(rows["middle"]) == 2 and 1e-4 < relative(found, plain) < 0.5
    assert torch.equal(sample(cached, conds, x, 6), found), "a run begins without the features of the last one"
    rows["middle"].clear()
    assert torch.equal(sample(with_deep_cache(small, 3, 3, Span(0.9, 1.0)), conds, x, 1), sample(small, conds, x, 1))
    rows["middle"].clear()
    sample(with_cfg_interval(with_deep_cache(small, 2, 3, Span()), Span(0.0, 0.5)), conds, x, 6)
    assert rows["middle"] == [8, 8, 4]
    with pytest.raises(
        ValueError, match="cache with 4 blocks does not fit this model, whose halves have 4; choose from 1 to 3"
    ):
        with_deep_cache(small, 2, 4, Span())


def calibrated(frames: int) -> CalibratedReference:
    """Three warps, of which the frames read one after the other."""
    own = {field.name: getattr(a_reference(), field.name) for field in fields(Reference)}
    tokens = [{place: x.roll(i, -1) for place, x in own["tokens"].items()} for i in (1, 2, 3)]
    warps = tuple(Warp(each, torch.ones(2, 2)) for each in tokens)
    warp_of = tuple(i % 3 for i in range(frames))
    calibration = Calibration(warps, warp_of, groups_of([0] * frames, 1), seed=0)
    return CalibratedReference(**own, calibration=calibration, width=16, height=16)


def random_lora(model):
    """Changes a self-attention that reads references and one that a shallow evaluation leaves out."""
    weights, given = model.model.diffusion_model.state_dict(), {}
    for key in ("input_blocks.1.1.transformer_blocks.0.attn1.to_k", "middle_block.1.transformer_blocks.0.attn1.to_k"):
        rows, columns = weights[f"{key}.weight"].shape
        given[f"diffusion_model.{key}.lora_up.weight"] = torch.randn(rows, 2)
        given[f"diffusion_model.{key}.lora_down.weight"] = torch.randn(2, columns)
    return comfy.sd.load_lora_for_models(model, None, given, 1.0, 0)[0]


def test_with_a_calibrated_reference_a_lora_and_windows_that_move():
    """What is kept is right in other windows, to which frames do not matter without motion modules. Nothing stays for
    another run."""
    torch.manual_seed(0)
    still = two_levels(motion=False)
    conds, plain_conds, x, middle = clip_of(8, references=[calibrated(8)]), clip_of(8), noise(8), []
    hook = still.model.diffusion_model.middle_block[0].register_forward_hook(lambda *_: middle.append(1))

    def run(model, conds=conds, cached=True):
        middle.clear()
        windows = with_windows(model, 3, 1, "open, moving", "flat")
        return sample(with_deep_cache(windows, 2, 2, Span()) if cached else windows, conds, x, sigmas=PAIRS)

    before, given = run(still), random_lora(still)
    whole = run(given, cached=False)
    count = len(middle)
    found = run(given)
    assert 0 < 2 * len(middle) <= count
    assert relative(found, whole) < 1e-4
    assert relative(found, before) > 1e-2 and relative(found, run(given, plain_conds)) > 1e-2
    assert torch.equal(run(still), before)
    hook.remove()


@pytest.mark.parametrize("blocks", [2, 3])
def test_with_freeu(small, blocks):
    """It writes into the features that are kept."""
    free = patched(nodes_freelunch.FreeU, small, b1=1.1, b2=1.4, s1=1.0, s2=1.0)
    conds, x = clip_of(FRAMES), noise()
    whole = sample(free, conds, x, sigmas=TRIPLE)
    assert relative(whole, sample(small, conds, x, sigmas=TRIPLE)) > 1e-2
    assert relative(sample(with_deep_cache(free, 3, blocks, Span()), conds, x, sigmas=TRIPLE), whole) < 1e-5


def pag(model):
    return patched(nodes_pag.PerturbedAttentionGuidance, model, scale=3.0)


def sag(model):
    return patched(nodes_sag.SelfAttentionGuidance, model, scale=0.5, blur_sigma=2.0)


@pytest.mark.parametrize("sampler", [ddim, lambda: comfy.samplers.ksampler("euler")], ids=["ddim", "euler"])
@pytest.mark.parametrize(("guided", "windows"), [(pag, False), (pag, True), (sag, False)])
def test_with_a_second_evaluation_of_a_conditioning(small, rows, guided, windows, sampler):
    """It is another one in each step, with features of its own."""
    plain = with_windows(small, 3, 0, "open", "ramps") if windows else small
    conds, x, model = clip_of(FRAMES, 64), noise(FRAMES, 64), guided(plain)
    whole = sample(model, conds, x, sampler=sampler(), sigmas=PAIRS)
    count = sum(rows["middle"])
    assert relative(whole, sample(plain, conds, x, sampler=sampler(), sigmas=PAIRS)) > 1e-2
    rows["middle"].clear()
    assert (
        relative(sample(with_deep_cache(model, 2, 2, Span()), conds, x, sampler=sampler(), sigmas=PAIRS), whole) < 1e-5
    )
    assert 2 * sum(rows["middle"]) == count


# --- ComfyUI's own caches -----------------------------------------------------------------------------------------


def easy_cache(model):
    nodes = pytest.importorskip("comfy_extras.nodes_easycache")
    return nodes.EasyCacheNode.execute(model, 3.0, 0.1, 1.0, False).args[0]


def test_easy_cache_works_in_each_window(small):
    """Two windows that share no frame are two clips."""
    positive, negative = clip_of(8)
    x, model = noise(8), small

    def clip(guidance):
        return [[[tokens, {**values, "champ_guidance": guidance}]] for ((tokens, values),) in (positive, negative)]

    found = sample(easy_cache(with_windows(model, 4, 0, "open", "flat")), (positive, negative), x)
    for frames in (slice(0, 4), slice(4, 8)):
        guidance = positive[0][1]["champ_guidance"]
        part = Guidance((Layer(guidance.layers[0].features[frames]),), 4, 16, 16, "Champ")
        alone = sample(easy_cache(model), clip(part), x[frames])
        assert relative(found[frames], alone) < 1e-4
    assert relative(found, sample(with_windows(model, 4, 0, "open", "flat"), (positive, negative), x)) > 1e-3


def test_lazy_cache_is_refused(small):
    nodes = pytest.importorskip("comfy_extras.nodes_easycache")
    model = nodes.LazyCacheNode.execute(small, 0.2, 0.15, 0.95, False).args[0]
    with pytest.raises(ValueError, match="LazyCache does not work with this model.*; use Feature Cache or EasyCache"):
        sample(model, clip_of(FRAMES), noise())
