"""What a step of the sampling waits for, moves to the device and keeps there, and that torch.compile sees one graph."""

from dataclasses import replace

import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from elsewhere import CPU, MPS, pretending
from golden import relative
from test_devices import calibrated
from two_levels import a_reference, clip_of, two_levels

from champ.model.denoiser import HELD, LATENTS
from champ.model.memory import release
from champ.model.residence import ClipRows, on_device, rows_of, stretches
from champ.model.span import NoiseLevel, Span
from champ.sampling.aggregation import with_windows
from champ.sampling.sampler import ddim
from champ.sampling.schedule import official_sigmas

FRAMES, STEPS, SIZE = 5, 4, 64
WINDOWS = 2  # of 4 frames with an overlap of 2, the second from the end


def warped(reference):
    return calibrated(reference, SIZE, SIZE)


def steps(sampler, given) -> list[dict[str, int]]:
    """Waits, transfers and launches in each step but the first, on a device that only counts."""
    counts = []
    with pretending() as pretend:
        model = with_windows(two_levels(MPS), 4, 3, "open", "ramps")

        def callback(i, denoised, x, total):
            counts.append({name: pretend.counts[name] for name in ("waits", "transfers", "launches")})
            counts[-1]["tables"] = sum(table.pe.device != MPS for table in model.model.diffusion_model.tables)
            pretend.counts.clear()

        sigmas = official_sigmas(model.get_model_object("model_sampling"), STEPS)
        noise = torch.randn(FRAMES, 4, 8, 8)
        comfy.sample.sample_custom(
            model, noise, 3.5, sampler, sigmas, *given, noise * 0, callback=callback, disable_pbar=True, seed=0
        )
        release(model)
    return counts[1:]


@pytest.mark.parametrize("how", ["plain", "calibrated"])
def test_no_step_waits_and_nothing_moves(how):
    """With our sampler; of a calibrated reference, with masks, the draws move."""
    reference = a_reference(SIZE)
    reference = warped(reference) if how == "calibrated" else reference
    counts = steps(ddim(), clip_of(FRAMES, SIZE, [reference]))
    assert len(counts) == STEPS - 1
    for count in counts:
        assert count["waits"] == 0
        assert count["transfers"] <= (WINDOWS if how == "calibrated" else 0)
        assert count["launches"] <= WINDOWS * (1250 if how == "calibrated" else 1050)


@pytest.mark.parametrize("span, waits", [(Span(), 0), (Span(0.0, 0.9), 1)])
def test_other_samplers_wait_once_a_step(span, waits):
    """And only if something acts in a part of the sampling; it does not matter how many windows there are."""
    late = replace(a_reference(SIZE), span=span)
    for count in steps(comfy.samplers.ksampler("euler"), clip_of(FRAMES, SIZE, [late])):
        assert (count["waits"], count["transfers"]) == (waits, 0)


def test_no_step_waits_for_a_model_that_does_not_fit(monkeypatch):
    """Its weights move in every evaluation; what is no weight is on the device all the same."""
    state = comfy.model_management.VRAMState.NO_VRAM
    monkeypatch.setattr(comfy.model_management, "vram_state", state)
    monkeypatch.setattr(comfy.model_management, "set_vram_to", state)
    late = replace(a_reference(SIZE), span=Span(0.0, 0.9))
    for count in steps(ddim(), clip_of(FRAMES, SIZE, [late])):
        assert (count["waits"], count["tables"]) == (0, 0) and count["transfers"] > 50


def test_stretches():
    assert stretches([3, 4, 5]) == [slice(3, 6)] and stretches([8, 9, 0, 1]) == [slice(8, 10), slice(0, 2)]
    assert stretches([4, 2, 0]) == [slice(4, 5), slice(2, 3), slice(0, 1)]
    values = torch.randn(10, 3)
    for frames in ([0], [2, 3, 4], [9, 0, 1], [7, 5, 3], list(range(10))):
        assert torch.equal(rows_of(values, frames), values[frames])
    assert rows_of(values, [2, 3]).data_ptr() == values[2].data_ptr()


def test_rows_that_do_not_fit_are_moved_with_each_window():
    asked, values = [], torch.randn(6, 2).half()
    rows = ClipRows(values)
    for _ in range(2):
        got = rows.at([4, 5, 0], CPU, torch.float32, lambda size: asked.append(size) or False)
        assert torch.equal(got, values[[4, 5, 0]].float()) and rows.there is None
    assert asked == [6 * 2 * 4]
    rows = ClipRows(values)
    first = rows.at([1, 2], CPU, torch.float32, lambda size: True)
    assert torch.equal(first, values[1:3].float()) and rows.at([2], CPU, torch.float32, lambda size: False) is not None
    assert torch.equal(
        on_device([values[:2], values.float()[3:]], CPU, torch.float16), torch.cat([values[:2], values[3:]])
    )


def test_the_level_is_read_once():
    read = []

    class Sigma:
        def __float__(self):
            read.append(1)
            return 2.0

    level = NoiseLevel(Sigma(), False)
    assert level.sigma == level.sigma == 2.0 and len(read) == 1


def test_what_a_run_holds_is_in_the_estimate(champ):
    model = champ.model.model
    values = champ.conditioning(4)[0][0][1]
    shapes = model.extra_conds_shapes(**values)
    tokens = sum(x.numel() for x in champ.references[0].tokens.values())
    latents = LATENTS * champ.guidance(4).empty_latent().numel()
    assert shapes[HELD] == [4 * (2 * tokens + champ.guidance(4).layers[0].features.numel() + latents)]
    shape = [8, 4, 8, 12]
    more = model.memory_required(shape, cond_shapes={HELD: [shapes[HELD]] * 2}) - model.memory_required(shape)
    assert more == 2 * shapes[HELD][0]


def test_compiled_as_one_graph_by_the_hosts_node():
    """Other windows, noise levels and draws need no other graph, nor masks that are as large in all of them."""
    model, reference = two_levels(), warped(a_reference(SIZE))
    people = reference.calibration.people[:1].expand(FRAMES, -1, -1)
    reference = replace(reference, calibration=replace(reference.calibration, people=people))
    given = clip_of(FRAMES, SIZE, [reference])
    noise, graphs = torch.randn(FRAMES, 4, 8, 8), []

    def sample(model):
        model = with_windows(model, 4, 2, "open", "ramps")
        sigmas = official_sigmas(model.get_model_object("model_sampling"), 2)
        options = {"disable_pbar": True, "seed": 0}
        return comfy.sample.sample_custom(model, noise, 3.5, ddim(), sigmas, *given, noise * 0, **options)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend, fullgraph=True)
    assert relative(sample(compiled), sample(model)) < 1e-4
    assert len(graphs) == 1
    torch._dynamo.reset()
