"""The commands of `python -m champ.train`."""

import argparse
import time
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management
import torch

from ..files.tensors import read_tensors
from ..model.config import UNetSizes
from ..model.guidance import EncoderSizes
from ..output import save_picture, save_tensors
from ..people.samples import SyntheticPeople
from ..progress import listening, printed
from . import evaluate
from .batches import Batch, PreparedSamples, Samples, encode_packs
from .codec import Codec, block_basis, picture_batches, to_taesd, train_codec
from .data import FolderSamples
from .distill import Distillation, Distiller
from .export import export
from .fresh import fresh_networks
from .latents import ImageCodec
from .networks import Champ, Networks, Sizes, recompute
from .objective import Objective
from .precision import bf16_slowdown
from .prepare import packs, prepare, read_packs
from .preview import Sampling, contact_sheet
from .silhouettes import Silhouettes, train_silhouettes, with_rooms
from .stages import STAGES, choose_parameters
from .start import has_motion, load_networks, networks_from_unet, with_new_motion, with_transformers
from .trainer import Settings, Trainer

Group = TypeVar("Group")

OFFICIAL_SIZE = {"stage1": 768, "stage2": 512, "distill": 512}
OFFICIAL_FRAMES = {"stage1": 1, "stage2": 24, "distill": 24}
HELP = (
    "train the appearance on pictures",
    "train motion modules on clips",
    "train a checkpoint set to need few steps and no guidance",
)
REPORT = 25  # steps between two lines on the screen


def add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("prepare", help="draw synthetic people and their maps into files")
    command.add_argument("--data", type=Path, required=True, help="the folder of the files")
    command.add_argument("--split", default="train", help="train or held_out")
    command.add_argument("--frames", type=int, default=1, help="1 for stage 1, the length of the clips for stage 2")
    command.add_argument("--size", type=int, default=128, help="width and height in pixels")
    command.add_argument("--first", type=int, default=0, help="the number of the first sample")
    command.add_argument("--count", type=int, required=True, help="how many samples")
    command.add_argument("--close", type=float, default=0.0, help="share of framings closer than the whole body")
    command.add_argument("--photographic", type=float, default=0.0, help="share with rooms and light like a photo's")
    command.set_defaults(run=run_prepare)

    command = commands.add_parser("codec", help="make the tiny model's image codec from prepared samples")
    command.add_argument("--out", type=Path, required=True, help="the codec's weights; beside it a VAE for ComfyUI")
    start = command.add_mutually_exclusive_group()
    start.add_argument(
        "--decoder-of", type=Path, help="a codec whose encoder stays fixed and whose decoder is trained further"
    )
    start.add_argument("--init", type=Path, help="a codec, or its file for ComfyUI, to be trained further as a whole")
    command.add_argument("--keep", type=float, default=0.0, help="weight that keeps the latents near those of --init")
    command.add_argument(
        "--crop", type=int, default=0, help="train on square crops of this many pixels; 0: whole pictures"
    )
    command.add_argument("--rates", type=float, nargs=2, default=[1e-3, 2e-3], help="of encoder and decoder")
    add_small_network(command)
    command.set_defaults(run=run_codec)

    command = commands.add_parser("silhouettes", help="train the network that finds the person for `evaluate`")
    command.add_argument("--vae", type=Path, required=True, help="a VAE that ComfyUI loads, or a Codec's weights")
    command.add_argument("--out", type=Path, required=True, help="the network's weights")
    add_small_network(command)
    command.set_defaults(run=run_silhouettes)

    command = commands.add_parser("encode", help="encode the pictures of prepared samples")
    command.add_argument("--data", type=Path, required=True, help="the folder of the files")
    command.add_argument("--vae", type=Path, required=True, help="a VAE that ComfyUI loads, or a Codec's weights")
    command.set_defaults(run=run_encode)

    for stage, help_text in zip(STAGES, HELP):
        command = commands.add_parser(stage, help=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add_stage(command, stage)
        command.set_defaults(run=run_stage, stage=stage)

    command = commands.add_parser("export", help="write a stage's networks for ComfyUI, in 16 bits")
    command.add_argument("--networks", type=Path, required=True, help="the folder `model` of a stage")
    command.add_argument("--out", type=Path, required=True, help="a new folder, in models/champ for example")
    command.add_argument("--about", nargs="*", default=[], metavar="NAME=TEXT", help="further metadata of the files")
    command.set_defaults(run=run_export)

    evaluate.add_evaluate(commands)


def add_small_network(command: argparse.ArgumentParser) -> None:
    """Adds the options of training a small network on prepared pictures."""
    command.add_argument("--data", type=Path, required=True, help="the folder of the files")
    command.add_argument("--steps", type=int, required=True, help="of its training")
    command.add_argument("--packs", type=int, default=8, help="files to train on")
    command.add_argument("--batch", type=int, default=8, help="pictures a step")
    command.add_argument("--seed", type=int, default=0, help="seed of the order and the initial weights")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")


def add_stage(command: argparse.ArgumentParser, stage: str) -> None:
    command.add_argument("--data", type=Path, required=True, help="prepared samples, or videos in the official layout")
    command.add_argument("--vae", type=Path, required=True, help="the VAE, as for `encode`")
    command.add_argument("--out", type=Path, required=True, help="folder of the run; a run in it is resumed")
    command.add_argument("--frames", type=int, default=OFFICIAL_FRAMES[stage], help="length of a clip")
    command.add_argument("--size", type=int, default=OFFICIAL_SIZE[stage], help="of the pictures cut from videos")
    command.add_argument("--around-person", action="store_true", help="crop videos around the person's mask")
    command.add_argument(
        "--crop", type=int, default=0, help="train on squares of this many pixels, cut from prepared samples; 0: whole"
    )
    command.add_argument("--clip-vision", type=Path, help="a CLIP vision model for the references of videos")
    command.add_argument("--held-out", type=Path, help="videos for previews")
    command.add_argument("--checkpointing", action="store_true", help="less memory, a third more time")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    command.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    command.add_argument("--preview-steps", type=int, default=10, help="sampling steps of previews")
    command.add_argument("--preview-cfg", type=float, default=2.0, help="guidance scale of previews")
    if stage == "stage1":
        command.add_argument("--init", type=Path, help="a checkpoint set to start from")
        command.add_argument(
            "--transformers", action="store_true", help="add the transformers that the set of --init lacks"
        )
        command.add_argument("--unet", type=Path, help="SD1.5's UNet, with the names of diffusers, to start both from")
        command.add_argument(
            "--freeze", action="store_true", help="freeze ReferenceNet's finest level, as the official stage 1 does"
        )
        command.add_argument("--channels", type=int, nargs="+", default=[64, 128], help="of a new UNet's levels")
        command.add_argument("--resnets", type=int, default=1, help="residual blocks at each level of a new UNet")
        command.add_argument("--plain", type=int, default=0, help="finest levels of a new UNet without transformers")
        command.add_argument("--context", type=int, default=32, help="width of the CLIP embedding of new networks")
        command.add_argument(
            "--encoder",
            type=int,
            nargs=4,
            default=[8, 16, 32, 32],
            help="channels of new encoders; official: 16 32 96 256",
        )
    elif stage == "distill":
        command.add_argument("--init", type=Path, required=True, help="the checkpoint set to distil")
    else:
        command.add_argument("--init", type=Path, required=True, help="the checkpoint set to start from")
        motion = command.add_mutually_exclusive_group()
        motion.add_argument(
            "--motion", type=Path, help="motion modules to start from: those of AnimateDiff or of a set"
        )
        motion.add_argument(
            "--new-motion", action="store_true", help="start with new motion modules, though the set of --init has some"
        )
        command.add_argument("--positions", type=int, default=32, help="longest window of new motion modules")
        command.add_argument("--middle", action="store_true", help="new motion modules: also one in the middle")
    for group in (Settings, Objective, *([Distillation] if stage == "distill" else [])):
        for field in fields(group):
            command.add_argument(
                "--" + field.name.replace("_", "-"),
                type=field.type,  # type: ignore[arg-type]
                default=None if field.default is MISSING else field.default,
                required=field.default is MISSING,
                help=field.metadata["help"],
            )


def run_prepare(options: argparse.Namespace) -> None:
    people = SyntheticPeople(
        options.size, options.split, options.frames, close=options.close, photographic=options.photographic
    )
    with listening(printed()):
        prepare(people, options.data, options.first, options.count)


def run_codec(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    files = packs(options.data, "train", 1)[: options.packs]
    if options.decoder_of:
        codec = Codec()
        codec.load_state_dict(read_tensors(options.decoder_of))
        codec.encoder.requires_grad_(False)
    elif options.init:
        codec = ImageCodec(options.init).tiny().requires_grad_(True)
    else:
        pictures = torch.cat([pack["pictures"].flatten(0, 1) for pack in read_packs(files[:4], ("pictures",))])
        codec = Codec.of(*block_basis(pictures), options.seed)
    batches = picture_batches(files, options.batch, options.seed, options.crop)
    on_step = meter("PSNR in dB", options.steps)
    codec.to(comfy.model_management.get_torch_device())
    train_codec(codec, batches, options.steps, tuple(options.rates), options.seed, options.keep, on_step)
    codec.cpu()
    save_tensors(options.out, codec.state_dict(), replace=True)
    half = {name: value.half() for name, value in to_taesd(codec).items()}
    save_tensors(options.out.with_name(options.out.stem + "_vae.safetensors"), half, replace=True)


def run_silhouettes(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network, codec = Silhouettes(), ImageCodec(options.vae)
    files = packs(options.data, "train", 1)[: options.packs]
    batches = with_rooms(picture_batches(files, options.batch, options.seed), options.seed)
    train_silhouettes(network, codec, batches, options.steps, seed=options.seed, on_step=meter("IoU", options.steps))
    half = {name: value.half() for name, value in network.state_dict().items()}
    save_tensors(options.out, half, replace=True)


def run_encode(options: argparse.Namespace) -> None:
    with listening(printed()):
        encode_packs(sorted(options.data.glob("*.safetensors")), ImageCodec(options.vae))


def run_export(options: argparse.Namespace) -> None:
    about = dict(text.split("=", 1) for text in options.about)
    networks = load_networks(options.networks, "set" if has_motion(options.networks) else "none")
    export(networks, options.out, torch.float16, about)


def run_stage(options: argparse.Namespace) -> None:
    if options.draws > 1 and options.frames > 1:
        raise ValueError(
            f"--draws {options.draws} is for single pictures, but this is a training on clips of {options.frames} "
            "frames; leave out --draws."
        )
    torch.set_num_threads(options.threads)
    networks = START[options.stage](options)
    model = Champ(networks)
    choose_parameters(model, options.stage, options.stage == "stage1" and options.freeze)
    codec = ImageCodec(options.vae)
    samples = find_samples(options, codec)
    trainer = make_trainer(options, model, samples, codec)
    if options.checkpointing:
        recompute(model)  # after the teacher is copied
    if options.precision == "bf16" and trainer.accelerator.device.type == "cpu" and (times := bf16_slowdown()) > 1.5:
        print(f"This CPU takes {times:.0f} times as long in bf16 as in float32; leave out --precision bf16.")
    held_out = find_held_out(options, codec)
    shown = held_out and first(held_out, 6 if options.frames == 1 else 2)
    how = Sampling(options.preview_steps, options.preview_cfg, options.betas)

    def save() -> None:
        export(networks, options.out / "model")
        if shown:
            sheet = contact_sheet(networks, shown, codec, how)
            save_picture(options.out / f"preview_{trainer.step:06}.png", sheet.numpy())

    trainer.run(options.save_every, speedometer(), lambda: trainer.with_mean(save))


def make_trainer(options: argparse.Namespace, model: Champ, samples: Samples, codec: ImageCodec) -> Trainer:
    fixed = fixed_options(options, samples, codec)
    common = model, samples, chosen(Objective, options), chosen(Settings, options), options.out, fixed
    if options.stage == "distill":
        return Distiller(*common, distillation=chosen(Distillation, options))
    return Trainer(*common)


def fixed_options(options: argparse.Namespace, samples: Samples, codec: ImageCodec) -> dict[str, Any]:
    """Returns what a resumed run must have as before, beside the settings; folders and files may have moved."""
    fixed = {"stage": options.stage, "frames": options.frames, "freeze": getattr(options, "freeze", False)}
    if isinstance(samples, PreparedSamples):
        return fixed | {"crop": options.crop, "first_pack": samples.first, "vae": samples.vae[:8]}
    fixed |= {"size": options.size, "around_person": options.around_person, "vae": codec.digest[:8]}
    return fixed | {"clip_vision": options.clip_vision.name if options.clip_vision else ""}


def chosen(group: Callable[..., Group], options: argparse.Namespace) -> Group:
    return group(**{field.name: getattr(options, field.name) for field in fields(group)})  # type: ignore[arg-type]


def pictures_start(options: argparse.Namespace) -> Networks:
    """Makes the networks at the start of stage 1."""
    if options.init:
        networks = load_networks(options.init, "none")
        return with_transformers(networks, options.seed) if options.transformers else networks
    if options.unet:
        return networks_from_unet(options.unet, tuple(options.encoder), options.seed)
    channels = tuple(options.channels)
    transformers = tuple(level >= options.plain for level in range(len(channels)))
    unet = UNetSizes(4, channels, options.resnets, transformers, options.context, linear=False)
    encoder = EncoderSizes(tuple(options.encoder), channels[0], attention=True)
    return fresh_networks(Sizes(unet, encoder), options.seed)


def clips_start(options: argparse.Namespace) -> Networks:
    """Makes the networks at the start of stage 2: a set with motion modules of another file, its own, or new ones."""
    if options.motion:
        return load_networks(options.init, options.motion)
    if has_motion(options.init) and not options.new_motion:
        print(f"Training goes on with the motion modules of {options.init}; --new-motion begins with new ones.")
        return load_networks(options.init, "set")
    return with_new_motion(load_networks(options.init, "none"), options.positions, options.middle, options.seed)


def distilled_start(options: argparse.Namespace) -> Networks:
    """Makes the networks at the start of distillation: the whole set, or all but motion modules for pictures."""
    return load_networks(options.init, "set" if options.frames > 1 else "none")


START = {"stage1": pictures_start, "stage2": clips_start, "distill": distilled_start}


def find_samples(options: argparse.Namespace, codec: ImageCodec) -> Samples:
    if any(options.data.glob("*.safetensors")):
        prepared = PreparedSamples(options.data, "train", options.frames, options.crop)
        if prepared.vae != codec.digest:
            print(
                f"The latents in {options.data} are not those of {options.vae}, which only previews use now; run "
                "`encode` again, unless it is the same VAE with another decoder."
            )
        return prepared
    if options.crop:
        raise ValueError("--crop is for prepared samples; videos are cropped with --around-person.")
    return videos(options, options.data, codec)


def videos(options: argparse.Namespace, folder: Path, codec: ImageCodec) -> FolderSamples:
    return FolderSamples(folder, options.frames, options.size, codec, options.clip_vision, options.around_person)


def find_held_out(options: argparse.Namespace, codec: ImageCodec) -> Samples | None:
    if options.held_out:
        return videos(options, options.held_out, codec)
    if any(options.data.glob(f"held_out_{options.frames}_*.latents")):
        return PreparedSamples(options.data, "held_out", options.frames)
    return None


def first(samples: Samples, count: int) -> Batch:
    """Returns the samples of previews, always the same."""
    indices = range(min(count, len(samples)))
    return samples.batch(samples.read(indices, torch.Generator().manual_seed(0)))


def meter(name: str, steps: int) -> Callable[[int, float, float], None]:
    """Returns a callback that prints the mean of a metric over some steps."""
    values: list[float] = []

    def on_step(step: int, loss: float, value: float) -> None:
        values.append(value)
        if step % REPORT == 0 or step == steps:
            print(time.strftime("%H:%M:%S"), f"step {step}: {name} {sum(values) / len(values):.4g}", flush=True)
            values.clear()

    return on_step


def speedometer() -> Callable[[int, float], None]:
    """Returns a callback that prints the mean loss and the steps per second."""
    losses: list[float] = []
    since = time.perf_counter()

    def on_step(step: int, loss: float) -> None:
        nonlocal since
        losses.append(loss)
        if len(losses) == REPORT:
            rate = REPORT / (time.perf_counter() - since)
            now = time.strftime("%H:%M:%S")
            print(f"{now} step {step}: loss {sum(losses) / REPORT:.4f}, {rate:.2f} steps/s", flush=True)
            losses.clear()
            since = time.perf_counter()

    return on_step
