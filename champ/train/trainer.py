"""The training loop. Every step depends only on the seed and its number, so an interrupted run resumes exactly."""

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.optimization import get_scheduler
from torch import Tensor

from ..files.errors import reading
from ..files.tensors import mapped
from ..files.torch_files import read_torch, with_tensors
from ..output import not_saved, whole
from .batches import Batch, Samples
from .matching import Matching, Surfaces
from .muon import Muon
from .networks import Champ
from .objective import TIMESTEPS, Objective, loss, setting

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True)
class Settings:
    """Settings of the training; the defaults are the official ones."""

    steps: int = field(metadata={"help": "steps of the optimiser"})
    batch: int = setting(4, "samples in a step, on each device")
    draws: int = setting(1, "noises for each picture of stage 1; the encoders and ReferenceNet run once for all")
    accumulate: int = setting(1, "batches whose gradients are added up in a step")
    lr: float = setting(1e-5, "learning rate")
    schedule: str = setting(
        "constant", "of the learning rate, named as in diffusers: constant_with_warmup, cosine, ..."
    )
    warmup: int = setting(0, "steps until the learning rate is reached, if the schedule has any")
    optimizer: str = setting("adamw", "adamw, or muon, which learns more in a step where everything is new")
    weight_decay: float = setting(1e-2, "of the optimiser")
    beta2: float = setting(0.999, "AdamW's; Muon has it for what is no matrix")
    clip: float = setting(1.0, "largest norm of the gradients")
    mean: float = setting(0.0, "decay of the weights' mean (EMA), which is then exported; 0: the weights are")
    precision: str = setting("no", "autocast to bf16 or fp16, or no")
    seed: int = setting(0, "of everything that is random")


class Mean:
    """The exponential moving average of parameters (EMA), with a short memory at first."""

    def __init__(self, parameters: list[Tensor], decay: float):
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self.parameters, share)

    @torch.no_grad()
    def swap(self) -> None:
        """Swaps the parameters' values and their averages."""
        for mean, parameter in zip(self.values, self.parameters):
            mean.data, parameter.data = parameter.data, mean.data


def make_optimizer(parameters: list[Tensor], settings: Settings) -> torch.optim.Optimizer:
    lr, betas, decay = settings.lr, (0.9, settings.beta2), settings.weight_decay
    match settings.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, lr, betas, weight_decay=decay, fused=True)
        case "muon":
            return Muon(parameters, lr, betas, decay)
        case other:
            raise ValueError(f"There is no optimiser called {other!r}; choose adamw or muon.")


def _append(file: Path, line: str) -> None:
    try:
        with open(file, "a") as log:
            print(line, file=log)
    except OSError as error:
        raise ValueError(not_saved(file, error)) from None


def surfaces_of(batch: Batch, device: torch.device) -> Surfaces:
    if batch.surface is None or batch.reference_surface is None or batch.surface.shape[1] > 1:
        raise ValueError(
            "--matching needs single pictures that say where on the person their pixels are; use it in stage 1, with "
            "people drawn by this version of `prepare`."
        )
    corner = None if batch.corner is None else batch.corner.to(device)
    return Surfaces(batch.surface[:, 0].to(device), batch.reference_surface.to(device), corner)


class Trainer:
    """Trains the selected parameters of a model, and keeps its state in a folder."""

    leads_on = True  # another run can start with what this one has learned

    def __init__(
        self,
        model: Champ,
        samples: Samples,
        objective: Objective,
        settings: Settings,
        folder: Path,
        options: Mapping[str, Any] = {},  # noqa: B006
    ):
        self.samples, self.objective, self.settings, self.folder = samples, objective, settings, folder
        self.options = options  # further ones that decide what is learned from which samples
        self.accelerator = Accelerator(
            cpu=comfy.model_management.cpu_mode(),  # where Accelerate starts no processes unless told
            mixed_precision=settings.precision,
            gradient_accumulation_steps=settings.accumulate,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # ReferenceNet, at times
        )
        self.model = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.trained, settings)
        self.scheduler = get_scheduler(
            settings.schedule, optimizer, num_warmup_steps=settings.warmup, num_training_steps=settings.steps
        )
        self.noise_schedule = objective.schedule()
        self.matching = Matching(model) if objective.matching else None
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.mean = Mean(self.trained, settings.mean) if settings.mean else None
        self.step = 0
        self._reader, self._ahead = ThreadPoolExecutor(1), dict[int, Future]()
        self._epoch, self._order = -1, list[int]()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._load()

    def run(self, save_every: int, on_step: Callable[[int, float], None], on_save: Callable[[], None]) -> None:
        """Trains to the last step; the log gets a line for every step."""
        main, file = self.accelerator.is_main_process, self.folder / LOG
        kept = file.read_text().splitlines(keepends=True)[: self.step] if file.exists() else []
        if main:
            with whole(file, replace=True) as made:
                made.write_text("".join(kept))  # what came after the checkpoint is done again
        if main and self.step >= self.settings.steps:
            on_save()  # which may have been missed: the run was stopped right after its last checkpoint
        while self.step < self.settings.steps:
            started = time.perf_counter()
            value, norm = self.train_step()
            self._check_finite("loss", value)
            if self.accelerator.scaler is None:  # the scaler of fp16 skips a step whose gradients are not finite
                self._check_finite("norm of the gradients", norm)
            self.step += 1
            if main:
                lr = self.scheduler.get_last_lr()[0]
                seconds = time.perf_counter() - started
                line = {"step": self.step, "loss": value, "norm": norm, "lr": lr, "seconds": round(seconds, 3)}
                _append(file, json.dumps(line))
                on_step(self.step, value)
            if main and (self.step % save_every == 0 or self.step == self.settings.steps):
                self.save()
                on_save()

    def _check_finite(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        model = self.folder / "model"
        start = f"--init {model} and " if self.leads_on and model.exists() else ""
        raise ValueError(
            f"The {name} of step {self.step + 1} is {value}, from which nothing can be learned; begin another run with "
            f"{start}a lower --lr, or without --precision fp16."
        )

    def train_step(self) -> tuple[float, float]:
        """Takes one optimizer step; returns the mean loss and the norm of the gradients."""
        total, norm = 0.0, 0.0
        for part in range(self.settings.accumulate):
            with self.accelerator.accumulate(self.wrapped):
                read, generator = self._take(self.step * self.settings.accumulate + part)
                value = self.batch_loss(self.samples.batch(read), generator)
                self.accelerator.backward(value)
                if self.accelerator.sync_gradients:
                    norm = float(self.accelerator.clip_grad_norm_(self.trained, self.settings.clip))
                self.optimizer.step()
                self.optimizer.zero_grad()
                total += float(self.accelerator.reduce(value.detach(), "mean")) / self.settings.accumulate
        self.scheduler.step()
        if self.mean:
            self.mean.follow(self.step)
        return total, norm

    def batch_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        device, objective = self.accelerator.device, self.objective
        latents = batch.latents.repeat_interleave(self.settings.draws, 1).to(device)
        samples, frames = latents.shape[:2]
        # The frames of a clip share a timestep.
        timesteps = self.draw_timesteps((samples, self.settings.draws), generator)
        timesteps = timesteps.repeat_interleave(frames // self.settings.draws, 1).to(device)
        shape = (samples * self.settings.draws, frames // self.settings.draws, *latents.shape[2:])
        noise = objective.noise(shape, generator).reshape(latents.shape).to(device)
        drop = float(torch.rand((), generator=generator)) < objective.drop

        flat = latents.flatten(0, 1), noise.flatten(0, 1), timesteps.flatten()
        noisy = self.noise_schedule.add_noise(*flat).view_as(latents)
        maps = {name: x.to(device).movedim(-1, -3).float() / 255 for name, x in batch.maps.items()}
        clip_embeds = batch.clip_embeds
        if clip_embeds is None or drop:
            clip_embeds = torch.zeros(samples, self.model.context_dim)
        reference = None if drop else batch.reference.to(device)
        if self.matching:
            self.matching.listen(surfaces_of(batch, device))
        inputs = noisy, timesteps, maps, reference, clip_embeds.to(device)
        prediction = self.wrapped(*inputs)
        pixels = None
        if objective.person and batch.person is not None:
            pixels = 1 + objective.person * batch.person.repeat_interleave(self.settings.draws, 1)[:, :, None]
            pixels = pixels.to(device)
        weights = objective.weights(self.noise_schedule, timesteps)
        value = loss(prediction, self.target(flat, *inputs), weights, pixels)
        return value + objective.matching * self.matching.loss() if self.matching else value

    def draw_timesteps(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randint(TIMESTEPS, shape, generator=generator)

    def target(self, flat: tuple[Tensor, Tensor, Tensor], noisy: Tensor, *conditions: Any) -> Tensor:
        """Returns the v that is to be predicted for what `forward` gets, here that of latents, noise and timesteps."""
        return self.noise_schedule.get_velocity(*flat).view_as(noisy)

    def _take(self, number: int) -> tuple[Any, torch.Generator]:
        """Returns the data of a part of a step, with its random numbers; the next part is read meanwhile."""
        ahead = self._ahead.pop(number, None) or self._reader.submit(self._read, number)
        self._ahead = {number + 1: self._reader.submit(self._read, number + 1)}
        return ahead.result()

    def _read(self, number: int) -> tuple[Any, torch.Generator]:
        number = number * self.accelerator.num_processes + self.accelerator.process_index
        seed = (self.settings.seed * 1_000_003 + number + 1) * 2_654_435_761 % 2**63
        generator = torch.Generator().manual_seed(seed)
        batch = self.settings.batch
        indices = [self._index(n) for n in range(number * batch, (number + 1) * batch)]
        return self.samples.read(indices, generator), generator

    def _index(self, number: int) -> int:
        """Returns the index of a sample: passes through all samples, each in another order."""
        epoch, place = divmod(number, len(self.samples))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.samples), generator=generator).tolist()
        return self._order[place]

    def fixed(self) -> dict[str, Any]:
        """Returns what must not change when the run is resumed, by name; only the steps may."""
        data = {"samples": len(self.samples), "processes": self.accelerator.num_processes}
        return {**asdict(self.settings), **asdict(self.objective), **data, **self.options}

    def save(self) -> None:
        """Replaces the checkpoint atomically: there is always a complete one."""
        state = {
            "settings": self.fixed(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "mean": self.mean.values if self.mean else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        with whole(self.folder / CHECKPOINT, replace=True) as made, open(made, "wb") as file:
            torch.save(state, file)

    def _load(self) -> None:
        file = self.folder / CHECKPOINT
        with reading(file, "a checkpoint of training", f"take {self.folder} away to start anew"):
            state = with_tensors(read_torch(mapped(file)))
        fixed = self.fixed() | {"steps": state["settings"]["steps"]}
        # Older checkpoints do not know all of them.
        changed = [f"{k} {v}" for k, v in state["settings"].items() if v != fixed.get(k, v)]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings; go on with {', '.join(changed)} as it has, or train "
                "into another folder."
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.mean:
            self.mean.values = [value.to(own.device) for value, own in zip(state["mean"], self.mean.values)]
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def with_mean(self, do: Callable[[], None]) -> None:
        """Calls `do` with the averaged weights in place of the weights."""
        if self.mean is None:
            return do()
        self.mean.swap()
        try:
            do()
        finally:
            self.mean.swap()
