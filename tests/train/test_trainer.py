"""The loop of training on minute networks."""

import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from champ.train.networks import Champ, recompute
from champ.train.objective import Objective
from champ.train.stages import choose_parameters
from champ.train.trainer import Settings, Trainer, _append
from tests.random_samples import RandomSamples


def trainer(sizes, folder, stage: str, objective=None, wrap=None, **settings) -> Trainer:
    from champ.train.fresh import fresh_networks

    model = Champ(fresh_networks(sizes, 0))
    choose_parameters(model, stage, freeze=False)
    if wrap:
        wrap(model)
    settings = {"steps": 4, "batch": 2, "lr": 1e-3, "mean": 0.9, **settings}
    frames = 1 if stage == "stage1" else 3
    return Trainer(model, RandomSamples(frames), objective or Objective(), Settings(**settings), folder)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stage, optimizer", [("stage1", "adamw"), ("stage1", "muon"), ("stage2", "adamw")])
def test_a_killed_run_goes_on_bit_for_bit(sizes, tmp_path, stage, optimizer):
    options = {"accumulate": 2, "schedule": "cosine", "warmup": 2, "optimizer": optimizer}
    if stage == "stage1":
        options["draws"] = 2
    whole = trainer(sizes, tmp_path / "whole", stage, Objective(drop=0.3, person=1.0), **options)
    whole.run(100, lambda step, value: None, lambda: None)

    def kill(step, value):
        if step == 3:
            raise Killed

    cut = trainer(sizes, tmp_path / "cut", stage, Objective(drop=0.3, person=1.0), **options)
    with pytest.raises(Killed):
        cut.run(2, kill, lambda: None)
    (tmp_path / "cut" / "checkpoint.pt.part").write_bytes(b"half a checkpoint")
    again = trainer(sizes, tmp_path / "cut", stage, Objective(drop=0.3, person=1.0), **options)
    assert again.step == 2
    again.run(100, lambda step, value: None, lambda: None)

    for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values()):
        assert torch.equal(a, b), name
    for a, b in zip(whole.mean.values, again.mean.values):
        assert torch.equal(a, b)

    def losses(folder):
        return [line.split(', "seconds"')[0] for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]

    assert losses("whole") == losses("cut")
    assert len(losses("cut")) == 4


def test_a_run_that_was_stopped_before_its_export_exports(sizes, tmp_path):
    def killed():
        raise Killed

    with pytest.raises(Killed):
        trainer(sizes, tmp_path, "stage2", steps=1).run(100, lambda *_: None, killed)
    again, exported = trainer(sizes, tmp_path, "stage2", steps=1), []
    again.run(100, lambda *_: None, lambda: exported.append(again.step))
    assert exported == [1]


def test_another_setting_does_not_go_on(sizes, tmp_path):
    trainer(sizes, tmp_path, "stage1").save()
    with pytest.raises(ValueError, match="lr 0.001"):
        trainer(sizes, tmp_path, "stage1", lr=1e-4)


def test_another_objective_or_other_samples_do_not_go_on(sizes, tmp_path):
    one = trainer(sizes, tmp_path, "stage1", Objective(person=1.0))
    one.options = {"frames": 1, "stage": "stage1"}
    one.save()
    with pytest.raises(ValueError, match="go on with person 1.0 as it has"):
        trainer(sizes, tmp_path, "stage1")
    again = trainer(sizes, tmp_path, "stage1", Objective(person=1.0), steps=9)  # may go on for longer
    for name, value, said in (("samples", range(4), "samples 3"), ("options", {"frames": 2}, "frames 1")):
        before = getattr(again, name)
        setattr(again, name, value)
        with pytest.raises(ValueError, match=f"go on with {said} as it has"):
            again._load()
        setattr(again, name, before)


def test_a_checkpoint_of_an_older_version_goes_on(sizes, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "fixed", lambda self: asdict(self.settings))
    one = trainer(sizes, tmp_path, "stage1", steps=1)
    one.run(1, lambda *_: None, lambda: None)
    monkeypatch.undo()
    assert trainer(sizes, tmp_path, "stage1", Objective(person=1.0)).step == 1
    with pytest.raises(ValueError, match="lr 0.001"):
        trainer(sizes, tmp_path, "stage1", lr=1e-4)


def test_matching_needs_to_know_what_is_seen(sizes, tmp_path):
    one = trainer(sizes, tmp_path, "stage1", Objective(matching=0.1, drop=0))
    with pytest.raises(ValueError, match="--matching needs single pictures"):
        one.train_step()
    batch = RandomSamples(1).read([0, 1], torch.Generator())
    surface = torch.rand(2, 1, 4, 4, 4)
    batch = replace(batch, surface=surface, reference_surface=surface[:, 0])
    values = []
    for weight in (0.0, 0.1):
        one.objective = replace(one.objective, matching=weight)
        values.append(float(one.batch_loss(batch, torch.Generator().manual_seed(0))))
    assert values[1] > values[0] + 0.01


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_stage_moves_its_own_weights_alone(sizes, tmp_path, stage):
    one = trainer(sizes, tmp_path, stage, steps=3)
    before = {name: x.clone() for name, x in one.model.state_dict().items()}
    one.run(100, lambda step, value: None, lambda: None)
    moved = {name for name, x in one.model.state_dict().items() if not torch.equal(x, before[name])}
    assert moved and all((".motion." in name) == (stage == "stage2") for name in moved)
    if stage == "stage1":
        assert {name.split(".")[0] for name in moved} == {"denoiser", "reference", "encoders"}


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(sizes, tmp_path):
    running = trainer(sizes, tmp_path, "stage1", steps=2)
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="loss of step 2 is nan, .* begin another run with --init .*lower --lr"):
        running.run(1, lambda *_: None, lambda: running.trained[0].data.fill_(float("nan")))
    assert trainer(sizes, tmp_path, "stage1", steps=2).step == 1


def test_gradients_that_are_no_numbers_end_the_run_before_it_is_saved(sizes, tmp_path):
    running = trainer(sizes, tmp_path, "stage2", steps=2)

    def spoil():
        running.trained[0].register_hook(lambda gradient: gradient * float("nan"))

    with pytest.raises(ValueError, match="norm of the gradients of step 2 is nan, .* another run with a lower --lr"):
        running.run(1, lambda *_: None, spoil)
    again = trainer(sizes, tmp_path, "stage2", steps=2)
    assert again.step == 1 and all(x.isfinite().all() for x in again.model.parameters())


def test_the_scaler_skips_such_a_step_in_fp16(sizes, tmp_path, monkeypatch):
    """As on a graphics card: the first scale of a run is often too large."""
    running = trainer(sizes, tmp_path, "stage2", steps=1)
    monkeypatch.setattr(running, "train_step", lambda: (0.5, math.inf))
    running.accelerator.scaler = torch.amp.GradScaler("cpu")
    running.run(1, lambda *_: None, lambda: None)
    assert running.step == 1


def test_freezing_is_of_the_finest_level_up(champ):
    from champ.train.start import load_networks

    model = Champ(load_networks(champ.folder, "none"))
    choose_parameters(model, "stage1", freeze=True)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert len(frozen) == 114  # as many as the official script freezes
    assert all(name.startswith(tuple(f"reference.output_blocks.{i}." for i in (9, 10, 11))) for name in frozen)


def test_conditions_are_dropped_for_a_whole_batch(sizes, tmp_path):
    one = trainer(sizes, tmp_path, "stage1", Objective(drop=0.25))
    seen = []

    def look(noisy, timesteps, maps, reference, clip_embeds):
        seen.append((reference is None, bool((clip_embeds == 0).all()), len(maps)))
        return noisy

    one.wrapped = look
    batch = replace(RandomSamples(1).read([0, 1], torch.Generator()), clip_embeds=torch.ones(2, 32))
    for number in range(400):
        one.batch_loss(batch, torch.Generator().manual_seed(number))
    dropped = [without for without, _, _ in seen]
    assert 75 <= sum(dropped) <= 125
    assert all(zero == without for without, zero, _ in seen)
    assert {maps for _, _, maps in seen} == {4}  # the guidance is never dropped


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_recomputing_gives_the_same_gradients(sizes, tmp_path, stage):
    def gradients(wrap):
        one = trainer(sizes, tmp_path / str(wrap), stage, Objective(drop=0), wrap)
        for parameter in one.model.parameters():  # nothing may be zero, as the last layers of new networks are
            parameter.data.add_(0.02)
        read, generator = one._take(0)
        one.batch_loss(one.samples.batch(read), generator).backward()
        return {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}

    kept, computed_again = gradients(None), gradients(recompute)
    assert kept.keys() == computed_again.keys()
    assert all(torch.allclose(x, computed_again[name], rtol=1e-4, atol=1e-7) for name, x in kept.items())


def test_a_share_of_the_clips_has_the_same_noise_in_every_frame():
    objective = Objective(noise_offset=0.0, same_noise=0.25)
    noise = objective.noise((400, 3, 4, 4, 4), torch.Generator().manual_seed(0))
    same = (noise == noise[:, :1]).flatten(1).all(1)
    assert same.float().mean() == pytest.approx(0.25, abs=0.06)
    # Otherwise no two frames are alike.
    apart = noise[~same]
    assert (apart[:, 0] - apart[:, 1]).square().mean() == pytest.approx(2, abs=0.1)
    assert noise.square().mean() == pytest.approx(1, abs=0.05)


def test_draws_share_a_picture_but_not_the_noise(sizes, random_networks):
    model = Champ(random_networks(replace(sizes, motion=None))).requires_grad_(False)
    noisy = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([[5, 500, 900], [1, 99, 300]])
    batch = RandomSamples(1).read([0, 1], torch.Generator())
    maps = {name: x.movedim(-1, -3).float() / 255 for name, x in batch.maps.items()}
    together = model(noisy, timesteps, maps, batch.reference, torch.zeros(2, 32))
    for row in (slice(0, 1), slice(1, 2)):
        own = {name: x[row] for name, x in maps.items()}
        for j in (slice(0, 1), slice(1, 2), slice(2, 3)):
            alone = model(noisy[row, j], timesteps[row, j], own, batch.reference[row], torch.zeros(1, 32))
            assert torch.allclose(alone, together[row, j], atol=1e-4)  # sums of other lengths round differently
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
def test_a_log_that_cannot_be_written_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="full cannot be saved in /dev: the disk is full"):
        _append(Path("/dev/full"), "{}")


def test_the_mean_is_that_of_the_weights_where_they_are_trained(sizes, tmp_path, monkeypatch):
    """Preparing moves them to the device of the process, and with several processes to the values of the first."""
    prepare = Accelerator.prepare

    def moved(self, model, optimizer):
        for parameter in model.parameters():
            parameter.data = torch.ones_like(parameter)
        return prepare(self, model, optimizer)

    monkeypatch.setattr(Accelerator, "prepare", moved)
    one = trainer(sizes, tmp_path, "stage1")
    assert all((x == 1).all() for x in one.mean.values)


# Tells which device a process of several has chosen, when ComfyUI is imported, which puts networks there.
PROCESS = """
import runpy, sys, torch
chosen = []
torch.cuda.is_available, torch.cuda.set_device = lambda: True, chosen.append

class Told:
    def find_spec(self, name, path=None, target=None):
        if name == "comfy":
            print("device", *chosen)
            raise SystemExit

sys.meta_path.insert(0, Told())
runpy.run_module("champ.train", run_name="__main__")
"""


def test_each_process_has_its_own_graphics_card_before_comfyui_is_imported():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LOCAL_RANK": "3"}
    command = [sys.executable, "-c", PROCESS]
    result = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=100)
    assert result.stdout == "device 3\n", result.stderr
