"""One step of each stage on the golden models: loss and gradients of the official training code."""

import pytest
import torch
from golden import relative

from champ.model.families import ENCODED_MAPS
from champ.model.loading import motion_names, unet_names
from champ.train.networks import Champ
from champ.train.objective import Objective, loss
from champ.train.stages import choose_parameters
from champ.train.start import load_networks


def frames_first(x):
    return x.movedim(2, 1)


class Step:
    """A step of training on the inputs of the golden one."""

    def __init__(self, golden, stage: str):
        self.stage, self.data = stage, {
            key.removeprefix(f"{stage}/"): value for key, value in golden.data("train").items() if key.startswith(stage)
        }  # fmt: skip
        self.networks = load_networks(golden.folder, "none" if stage == "stage1" else "set")
        self.model = Champ(self.networks)
        choose_parameters(self.model, stage, freeze=True)

    def loss(self, reference: bool) -> tuple[torch.Tensor, torch.Tensor]:
        data, objective = self.data, Objective()
        schedule = objective.schedule()
        latents, noise = frames_first(data["latents"]), frames_first(data["noise"])
        timesteps = data["timesteps"][:, None].expand(latents.shape[:2])
        flat = latents.flatten(0, 1), noise.flatten(0, 1), timesteps.flatten()
        noisy, target = (make(*flat).view_as(latents) for make in (schedule.add_noise, schedule.get_velocity))
        weights = objective.weights(schedule, timesteps)
        assert torch.allclose(weights[:, 0], data["loss_weights"], rtol=1e-5)
        guidance = frames_first(data["guidance"]) / 255
        maps = {name: guidance[:, :, 3 * i : 3 * i + 3] for i, name in enumerate(ENCODED_MAPS)}
        seen = data["ref_latents"] if reference else None
        prediction = self.model(noisy, timesteps, maps, seen, data["clip_image_embeds"][:, 0])
        return prediction, loss(prediction, target, weights)

    def parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """By official file and name."""
        model, sizes = self.model, self.networks.sizes.unet

        def named(module, names):
            own = dict(module.named_parameters())
            return {name: own[key] for name, key in names.items() if key in own}

        return {
            "denoising_unet": named(model.denoiser, unet_names(sizes, model.denoiser)),
            "motion_module": named(model.denoiser, motion_names(sizes, model.denoiser)),
            "reference_unet": named(model.reference, unet_names(sizes, model.reference)),
            **{
                f"guidance_encoder_{name}": dict(encoder.named_parameters()) for name, encoder in model.encoders.items()
            },
        }


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("reference", [True, False])
def test_loss_is_the_official_one(champ, stage, reference):
    kind = "reference" if reference else "none"
    step = Step(champ, stage)
    with torch.no_grad():
        prediction, value = step.loss(reference)
    assert relative(prediction, frames_first(step.data[f"{kind}/pred"])) < 1e-4
    assert float(value) == pytest.approx(float(step.data[f"{kind}/loss"]), rel=1e-4)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_gradients_are_the_official_ones(champ, stage):
    step = Step(champ, stage)
    step.loss(reference=True)[1].backward()
    parameters = step.parameters()
    everything = {f"{file}.{name}": p for file, own in parameters.items() for name, p in own.items()}
    everything |= {f"denoising_unet.{name}": p for name, p in parameters["motion_module"].items()}
    checked = 0
    for key, wanted in step.data.items():
        if key.startswith("gradient/"):
            assert relative(everything[key.removeprefix("gradient/")].grad, wanted) < 1e-3, key
            checked += 1
    assert checked >= 4

    trained = 0
    for file, own in parameters.items():
        names = list(champ.spec["files"][file]["keys"])
        norms = dict(zip(names, step.data[f"norms/{file}"].tolist()))
        largest = max((n for n in norms.values() if n == n), default=0)
        for name, parameter in own.items():
            if parameter.grad is None:
                assert not norms[name] > 1e-6 * largest, f"{file}: {name} gets no gradient"
                continue
            trained += 1
            # A single token leaves cross-attention's queries and keys without effect; officially they get rounding.
            assert float(parameter.grad.norm()) == pytest.approx(norms[name], rel=1e-3, abs=1e-6 * largest), name
    assert trained >= (1100 if stage == "stage1" else 546)
