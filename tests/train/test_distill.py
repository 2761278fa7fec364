"""Distillation: where a step of the student should lead, and that it learns to lead there."""

import pytest
import torch

from champ.train.distill import Distillation, Distiller, ddim_step, velocity_between
from champ.train.fresh import fresh_networks
from champ.train.networks import Champ
from champ.train.objective import Objective
from champ.train.stages import choose_parameters
from champ.train.trainer import Settings
from tests.random_samples import RandomSamples


@pytest.fixture
def model(random_networks, sizes):
    """Makes the same model each time."""
    return lambda: Champ(random_networks(sizes))


def distiller(model, folder, how=None, **settings) -> Distiller:
    model = model()
    choose_parameters(model, "distill", freeze=False)
    settings = Settings(**{"steps": 4, "batch": 2, "lr": 1e-3, **settings})
    how = how or Distillation()
    return Distiller(model, RandomSamples(3), Objective(drop=0), settings, folder, distillation=how)


def test_one_step_leads_where_many_led(model, tmp_path):
    """For every timestep of the student, the first without signal and the last to the clean picture among them."""
    made = distiller(model, tmp_path)
    timesteps = torch.tensor([[999, 749, 499, 249]])
    noisy = torch.randn(1, 4, 4, 5, 5, dtype=torch.float64)
    asked = []

    def predict(x, shift):
        asked.append(shift)
        return 0.3 * x + (timesteps - shift)[:, :, None, None, None] / 1000

    v = made.led_to(noisy, timesteps, predict)
    assert asked == [0, 83, 167]
    x = noisy
    for before, after in zip((0, 83, 167), (83, 167, 250)):
        x = ddim_step(x, predict(x, before), made.alpha_bar(timesteps - before), made.alpha_bar(timesteps - after))
    here, there = made.alpha_bar(timesteps), made.alpha_bar(timesteps - 250)
    assert here[0, 0].item() == 0 and there[0, 3].item() == 1
    assert (ddim_step(noisy, v, here, there) - x).abs().max() < 1e-5
    assert (velocity_between(noisy, ddim_step(noisy, v, here, there), here, there) - v).abs().max() < 1e-5


def test_a_teacher_of_as_many_steps_is_its_own_target(model, tmp_path):
    """Without guidance the student at the beginning is its teacher, so the loss is zero; with guidance it is not."""
    still = {"optimizer": "adamw", "lr": 0.0}
    same = distiller(model, tmp_path / "same", how=Distillation(substeps=1, teacher_cfg=1), **still)
    assert same.train_step()[0] < 1e-9
    guided = distiller(model, tmp_path / "guided", how=Distillation(substeps=1, teacher_cfg=3), **still)
    assert guided.train_step()[0] > 1e-6


def test_only_the_timesteps_of_the_student_are_trained(model, tmp_path):
    made = distiller(model, tmp_path)
    drawn = made.draw_timesteps((200, 1), torch.Generator().manual_seed(0))
    assert set(drawn.flatten().tolist()) == {999, 749, 499, 249}


def test_it_learns_and_goes_on_where_it_was_stopped(model, tmp_path):
    how = Distillation(substeps=2, teacher_cfg=3)
    made = distiller(model, tmp_path / "run", how=how, steps=24, batch=3, lr=3e-3)
    teacher = [x.clone() for x in made.teacher.parameters()]
    losses: list[float] = []
    made.run(100, lambda step, value: losses.append(value), lambda: None)
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert all(torch.equal(a, b) for a, b in zip(teacher, made.teacher.parameters()))

    cut = distiller(model, tmp_path / "cut", how=how, steps=2, batch=3, lr=3e-3)
    cut.run(1, lambda step, value: None, lambda: None)
    again = distiller(model, tmp_path / "cut", how=how, steps=4, batch=3, lr=3e-3)
    assert again.step == 2  # and its teacher is the set that it began with, not what it has become
    assert all(torch.equal(a, b) for a, b in zip(teacher, again.teacher.parameters()))
    again.run(100, lambda step, value: losses.append(value), lambda: None)
    assert losses[-2:] == losses[2:4]


def test_another_teacher_does_not_go_on(model, sizes, tmp_path):
    distiller(model, tmp_path).save()
    with pytest.raises(ValueError, match="go on with few 4 as it has"):
        distiller(model, tmp_path, how=Distillation(few=5))
    with pytest.raises(ValueError, match="go on with teacher ........ as it has"):
        distiller(lambda: Champ(fresh_networks(sizes, 0)), tmp_path)


def test_steps_that_do_not_divide_the_schedule_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="--few is 7"):
        distiller(model, tmp_path, how=Distillation(few=7))
