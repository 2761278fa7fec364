"""What a ControlNet costs in windows: steps of a clip with hints that are cut and resized once a run, beside the same
with hints that are made again for every window and step, and beside steps without a ControlNet.

The hints are pictures of another size than the clip, as from a video. All take turns, on one CPU thread."""

import statistics
import time

import torch
from _random_models import PASSES, random_guidance, random_model, random_net, random_reference, randomise

import comfy.cldm.cldm  # found by _random_models # isort: skip
import comfy.controlnet  # isort: skip
import comfy.ops  # isort: skip
import comfy.sample  # isort: skip
import comfy.samplers  # isort: skip

from champ.model.compat import managed
from champ.model.conditioning import conditioning
from champ.sampling.aggregation import SamplingRun, with_windows

CHANNELS, SIZE, FRAMES, HINT = (32, 64, 128, 128), 128, 12, 512
LENGTH, OVERLAP = 6, 2


def controlnet(config: dict) -> comfy.controlnet.ControlNet:
    config = {key: value for key, value in config.items() if key != "out_channels"}
    network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
    randomise(network)
    return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


class Loop:
    """The evaluation of a whole clip for negative and positive, step by step."""

    def __init__(self, hints: torch.Tensor | None, kept: bool):
        model, reference = random_model(CHANNELS), random_reference(random_net(CHANNELS), SIZE, SIZE)
        patcher = with_windows(managed(model, torch.device("cpu"), torch.device("cpu")), LENGTH, OVERLAP)
        given = conditioning(768, random_guidance(CHANNELS, FRAMES, SIZE, SIZE), [reference])
        if hints is not None:
            control = controlnet(model.model_config.unet_config).set_cond_hint(hints)
            control.model_sampling_current = model.model_sampling
            for ((_, values),) in given:
                values |= {"control": control, "control_apply_to_uncond": False}
        patcher.pre_run()
        conds = {name: comfy.sampler_helpers.convert_cond(part) for name, part in zip(("positive", "negative"), given)}
        self.x = torch.randn(FRAMES, 4, SIZE // 8, SIZE // 8)
        self.conds = comfy.samplers.process_conds(model, self.x, conds, self.x.device)
        self.model, self.options, self.kept = model, patcher.model_options, kept
        self.options.setdefault("transformer_options", {})["sample_sigmas"] = torch.tensor([2.45, 0.0])
        self.options["context_handler"].run = SamplingRun() if kept else None

    def step(self) -> float:
        start = time.process_time()
        sides = [self.conds["positive"], self.conds["negative"]]
        comfy.samplers.calc_cond_batch(self.model, sides, self.x, torch.full((FRAMES,), 2.45), self.options)
        return time.process_time() - start


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hints = torch.rand(FRAMES, 3, HINT, HINT)
    loops = {
        "without": Loop(None, True),
        "hints made once a run": Loop(hints, True),
        "hints made for every window and step": Loop(hints, False),
    }
    for loop in loops.values():
        loop.step()
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(PASSES):
        for name, loop in loops.items():
            found[name].append(loop.step())
    print(f"one thread, torch {torch.__version__}, median of {PASSES} steps in turns")
    print(f"{FRAMES} frames of {SIZE}x{SIZE} in windows of {LENGTH}, hints of {HINT}x{HINT}")
    print("| ControlNet | step (s) | ratio |\n|---|---|---|")
    for name, times in found.items():
        ratio = statistics.median(b / a for a, b in zip(found["without"], times))
        print(f"| {name} | {statistics.median(times):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
