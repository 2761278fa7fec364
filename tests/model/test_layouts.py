"""Weights as they are found: every layout in which the sets are published or saved gives the same models."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePath

import comfy.ops
import pytest
import torch
from golden import COMFYUI, DATA, Golden
from safetensors.torch import save_file

import dev
from champ.model import checkpoint
from champ.model.checkpoint import ENCODER_FILES, check_tensors, find_set, read_state, set_of, shapes_of
from champ.model.config import MotionSizes, UNetSizes
from champ.model.denoiser import ChampUNet, ModelConfig
from champ.model.families import ENCODED_MAPS
from champ.model.guidance import EncoderSizes, MapEncoder
from champ.model.loading import (
    UNUSED_IN_ENCODERS,
    load_denoiser,
    load_encoders,
    load_reference_net,
    motion_names,
    unet_names,
)
from champ.model.prediction import model_sampling
from champ.model.reference import ReferenceUNet
from champ.sampling.aggregation import with_windows
from champ.sampling.schedule import with_betas
from champ.weights import FILES

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def networks(family) -> dict[str, State]:
    """The tensors of a set by the official name of their network."""
    return {name: {k: torch.from_numpy(v) for k, v in family.weights(name).items()} for name in family.spec["files"]}


@pytest.fixture(scope="module")
def family(request) -> Golden:
    return request.getfixturevalue(request.param)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def whole(networks: dict[str, State]) -> State:
    """All networks in one, the motion modules inside the denoising UNet, as its model has them."""
    networks = dict(networks)
    motion = networks.pop("motion_module")
    return {
        **{k: v for name, state in networks.items() for k, v in prefixed(f"{name}.", state).items()},
        **prefixed("denoising_unet.", motion),
    }


def official(networks: dict[str, State], folder: Path) -> Path:
    """The authors' files: plain pickles in full precision."""
    for name, state in networks.items():
        torch.save({key: value.float() for key, value in state.items()}, folder / f"{name}.pth")
    return folder


def with_too_much(networks: dict[str, State], folder: Path) -> Path:
    """Output layers in ReferenceNet, the names of a parallel trainer, its optimiser, and layers that nobody knows."""
    outputs = {k: v for k, v in networks["denoising_unet"].items() if k.startswith(("conv_norm_out.", "conv_out."))}
    for name, state in networks.items():
        if name == "reference_unet":
            state = {**state, **outputs}
        elif name in ENCODER_FILES:
            state = {**state, "extra.weight": torch.zeros(2)}
        tensors = prefixed("module.", state)
        around = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "lr": [1e-5]}
        torch.save(
            {**around, "model" if name == "motion_module" else "state_dict": tensors}, folder / f"{name}-30000.pth"
        )
    return folder


def other_names(networks: dict[str, State], folder: Path) -> Path:
    for name, state in networks.items():
        save_file(state, folder / f"champ_{name}_fp16.safetensors")
    return folder


def single_file(networks: dict[str, State], folder: Path) -> Path:
    """benjamin-paine/champ's champ.fp16.safetensors, which has the VAE and CLIP in it as well."""
    beside = {
        "vae.encoder.conv_in.weight": torch.zeros(1),
        "vae.decoder.conv_in.weight": torch.zeros(1),
        "image_encoder.vision_model.post_layernorm.weight": torch.zeros(1),
    }
    save_file({**whole(networks), **beside}, folder / "champ.fp16.safetensors")
    return folder / "champ.fp16.safetensors"


def trainers_file(networks: dict[str, State], folder: Path) -> Path:
    """What accelerate saves of the official training's network."""
    torch.save(prefixed("module.", whole(networks)), folder / "trained.bin")
    return folder / "trained.bin"


def diffusers_folders(networks: dict[str, State], folder: Path) -> Path:
    """Folders with the networks' names; the files in full precision beside the others are not to be read."""
    networks = dict(networks)
    networks["denoising_unet"] = {**networks["denoising_unet"], **networks.pop("motion_module")}
    (folder / "model_index.json").write_text("{")  # nobody looks at it
    for name in ("vae", *networks):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{")
        (folder / name / "diffusion_pytorch_model.bin").write_bytes(b"")
        state = networks.get(name, {"decoder.conv_in.weight": torch.zeros(1)})
        save_file(state, folder / name / "diffusion_pytorch_model.fp16.safetensors")
    return folder


LAYOUTS = [official, with_too_much, other_names, single_file, trainers_file, diffusers_folders]


@pytest.mark.parametrize(
    ("family", "layout"),
    [*(("champ", layout) for layout in LAYOUTS), ("animate_anyone", official), ("animate_anyone", single_file)],
    ids=lambda value: getattr(value, "__name__", value),
    indirect=["family"],
)
def test_every_layout_gives_the_same_models(family, networks, layout, tmp_path, caplog):
    place = layout(networks, tmp_path)
    files = find_set(place)
    assert files.family == family.files.family and list(files.encoders) == list(family.files.encoders)
    loaded = [
        load_denoiser(files).model.diffusion_model,
        load_reference_net(files).patcher.model,
        load_encoders(files).patcher.model,
    ]
    wanted = [family.model.model.diffusion_model, family.net.patcher.model, family.encoders.patcher.model]
    for model, own in zip(loaded, wanted):
        state = model.state_dict()
        assert state.keys() == own.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in own.state_dict().items())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if layout is with_too_much:
        [reference] = [text for text in warnings if "reference_unet" in text and "conv_out.weight" in text]
        assert reference.startswith("[Champ] reference_unet-30000.pth holds 4 tensors that are not used: conv_norm_")
        assert sum("extra.weight" in text for text in warnings) == len(files.encoders)
    else:
        assert warnings == []


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("family", ["champ"], indirect=True)
def test_every_layout_is_offered_once(networks, layout, tmp_path):
    place = layout({name: {"a": torch.zeros(1)} for name in networks}, tmp_path)
    files = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert {found for file in files if (found := set_of(file))} == {place.relative_to(tmp_path)}


def test_what_lies_beside_a_set_is_not_offered():
    """The folders of Champ's repository on Hugging Face, and a motion module that lies alone."""
    for name in (
        "champ/README.md",
        "champ/image_encoder/pytorch_model.bin",
        "champ/sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        "champ/stable-diffusion-v1-5/unet/diffusion_pytorch_model.bin",
        "champ/image_encoder/model.fp16.safetensors",
        "motion_module.pth",
    ):
        assert set_of(PurePath(name)) is None, name
    assert set_of(PurePath("champ/champ/denoising_unet.pth")) == PurePath("champ/champ")


@pytest.mark.parametrize(
    ("names", "half", "full"),
    [
        (["x_fp16.safetensors", "x.safetensors", "x.pth"], "x_fp16.safetensors", "x.safetensors"),
        (["x.pth", "x.safetensors"], "x.safetensors", "x.safetensors"),
        (["x-fp16.pth", "x.pth", "x.bin"], "x-fp16.pth", "x.pth"),
        (["x.bf16.safetensors", "x.fp16.safetensors", "x.fp32.pth"], "x.fp16.safetensors", "x.fp32.pth"),
        (["x_fp16.pth", "x.safetensors"], "x.safetensors", "x.safetensors"),
        (["x/diffusion_pytorch_model.bin", "x/diffusion_pytorch_model.fp16.bin"],
         "x/diffusion_pytorch_model.fp16.bin", "x/diffusion_pytorch_model.bin"),
    ],
)  # fmt: skip
def test_one_of_several_precisions_is_taken_and_said(tmp_path, caplog, names, half, full):
    caplog.set_level(logging.INFO)
    (tmp_path / "denoising_unet").mkdir()
    for name in ("reference_unet.pth", "pose_guider.pth", *(n.replace("x", "denoising_unet", 1) for n in names)):
        (tmp_path / name).touch()
    for wanted, full_precision in ((half, False), (full, True)):
        caplog.clear()
        file = find_set(tmp_path, full_precision).denoising_unet.file
        assert file.relative_to(tmp_path).as_posix() == wanted.replace("x", "denoising_unet", 1)
        [said] = caplog.messages
        assert f"{file.name} is used for denoising_unet, not " in said


def test_a_name_without_another_word_goes_first(tmp_path):
    for name in ("champ_denoising_unet.pth", "old-denoising_unet.pth", "reference_unet.pth", "my_pose_guider.pth"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"more than one denoising_unet \(champ_denoising_unet.pth, old-denoising_unet"
    ):
        find_set(tmp_path)
    (tmp_path / "denoising_unet.pth").touch()
    assert find_set(tmp_path).denoising_unet.name == "denoising_unet.pth"


def test_a_file_that_is_no_set(champ, tmp_path):
    with pytest.raises(
        ValueError, match=r"reference_unet.safetensors is a reference UNet, but a checkpoint set belongs"
    ):
        find_set(champ.files.reference_unet.file)
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(1)}, tmp_path / "sd15.safetensors")
    with pytest.raises(ValueError, match=r"sd15.safetensors is a complete text-to-image checkpoint, but a checkpoint"):
        find_set(tmp_path / "sd15.safetensors")
    names = ("denoising_unet", "motion_module", "guidance_encoder_depth")
    save_file(whole({name: {"conv_in.weight": torch.zeros(1)} for name in names}), tmp_path / "half.safetensors")
    with pytest.raises(
        ValueError, match=r"half.safetensors has denoising_unet in half.safetensors, .*lacks reference_u"
    ):
        find_set(tmp_path / "half.safetensors")


@pytest.mark.parametrize("family", ["champ"], indirect=True)
def test_wrong_tensors_in_one_file_say_which_network(networks, tmp_path):
    state = whole(networks)
    del state["reference_unet.mid_block.resnets.0.conv1.bias"]
    save_file(state, tmp_path / "champ.safetensors")
    with pytest.raises(
        ValueError, match=r"reference_unet in champ.safetensors has the wrong tensors \(1 missing: mid_bl"
    ):
        load_reference_net(find_set(tmp_path / "champ.safetensors"))


def test_musepose_is_told_from_animate_anyone(animate_anyone, tmp_path):
    """The same names and shapes, but 128 positions; which betas and windows it wants is in no file."""
    state = {k: torch.from_numpy(v) for k, v in animate_anyone.weights("motion_module").items()}
    for key, value in state.items():
        if key.endswith(".pe"):
            state[key] = value[:, :1].expand(1, 128, -1).contiguous()
    torch.save(state, tmp_path / "motion_module.pth")
    for name in ("denoising_unet", "reference_unet", "pose_guider"):
        shutil.copy(animate_anyone.folder / f"{name}.safetensors", tmp_path)
    files = find_set(tmp_path)
    model = load_denoiser(files)
    assert model.model.diffusion_model.max_frames == 128
    found = {model.model.family, load_reference_net(files).family, load_encoders(files).family}
    assert found == {"MusePose"} and animate_anyone.files.family == "Animate Anyone"
    assert with_windows(model).model_options["context_handler"].context_length == 48
    assert not list(with_betas(model).get_model_object("model_sampling").buffers())  # ComfyUI mixes them up
    for own in model, with_betas(model):
        sigmas = own.get_model_object("model_sampling").sigmas
        torch.testing.assert_close(sigmas, model_sampling("scaled_linear").sigmas)
    assert not torch.equal(sigmas, with_betas(animate_anyone.model).get_model_object("model_sampling").sigmas)
    assert torch.equal(with_betas(model, "linear").get_model_object("model_sampling").sigmas,
                       with_betas(animate_anyone.model).get_model_object("model_sampling").sigmas)  # fmt: skip


def test_magic_animates_folders(magic_animate, tmp_path):
    """As they are published, all in one folder, without the UNet in the file of the motion modules, and in one file."""
    wanted = magic_animate.model.model.diffusion_model.state_dict()
    files = [file.relative_to(magic_animate.folder) for file in magic_animate.folder.rglob("*") if file.is_file()]
    beside = [PurePath("stable-diffusion-v1-5/unet/diffusion_pytorch_model.bin")]
    assert {found for file in files + beside if (found := set_of("set" / file))} == {PurePath("set")}
    assert magic_animate.files.family == "MagicAnimate" and list(magic_animate.files.encoders) == ["densepose"]

    motion = {f"module.unet.{k}": torch.from_numpy(v) for k, v in magic_animate.weights("motion").items()}
    unet = {k: torch.from_numpy(v) for k, v in magic_animate.weights("unet").items()}
    for name in ("appearance_encoder", "densepose_controlnet"):
        shutil.copy(
            magic_animate.folder / name / "diffusion_pytorch_model.safetensors", tmp_path / f"{name}.safetensors"
        )
    torch.save({"state_dict": motion}, tmp_path / "temporal_attention.ckpt")
    with pytest.raises(ValueError, match="temporal_attention.ckpt has motion modules but no UNet; put the UNet"):
        load_denoiser(find_set(tmp_path))
    save_file(unet, tmp_path / "denoising_unet.safetensors")
    apart = find_set(tmp_path)

    parts = {"temporal_attention": {**unet, **{k.removeprefix("module.unet."): v for k, v in motion.items()}}}
    parts |= {name: magic_animate.weights(name) for name in ("appearance_encoder", "densepose_controlnet")}
    state = {f"{name}.{k}": torch.as_tensor(v) for name, tensors in parts.items() for k, v in tensors.items()}
    save_file(state, tmp_path / "all.safetensors")
    for found in apart, find_set(tmp_path / "all.safetensors"):
        own = load_denoiser(found).model.diffusion_model.state_dict()
        assert own.keys() == wanted.keys() and all(torch.equal(own[key], value) for key, value in wanted.items())
        assert load_reference_net(found).family == load_encoders(found).family == "MagicAnimate"


# --- in the sizes published -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict[str, State]:
    """The networks of the official sets, without memory for their weights."""
    shapes = json.loads((DATA / "champ" / "sd15_shapes.json").read_text())
    encoder = shapes.pop("guidance_encoder_X")
    shapes |= dict.fromkeys((f"guidance_encoder_{name}" for name in ENCODED_MAPS), encoder)
    shapes["pose_guider"] = {key: shape for key, shape in encoder.items() if "attention" not in key}
    return {
        name: {key: torch.empty(shape, device="meta") for key, shape in keys.items()} for name, keys in shapes.items()
    }


@pytest.mark.parametrize("guider", [False, True], ids=["Champ", "Animate Anyone"])
@pytest.mark.parametrize("one_file", [False, True])
def test_published_sizes(published, monkeypatch, tmp_path, caplog, guider, one_file):
    networks = {
        name: state
        for name, state in published.items()
        if (name == "pose_guider") == guider or name not in ENCODER_FILES
    }
    if one_file:
        contents = {tmp_path / "champ.fp16.safetensors": whole(networks)}
    else:
        contents = {tmp_path / f"{name}.pth": state for name, state in networks.items()}
    for file in contents:
        file.touch()
    monkeypatch.setattr(checkpoint, "read", contents.__getitem__)
    files = find_set(next(iter(contents)) if one_file else tmp_path)

    state = read_state(files.denoising_unet)
    sizes = UNetSizes.read(shapes_of(state))
    motion = state if one_file else read_state(files.motion_module)
    unet = {
        **ModelConfig(sizes.comfy()).unet_config,
        "dtype": torch.float16,
        "device": "meta",
        "operations": comfy.ops.disable_weight_init,
    }
    denoiser = ChampUNet(**unet, motion=MotionSizes.read(shapes_of(motion), sizes))
    reference = ReferenceUNet(**unet)
    given = {**state, **motion}
    for module, names, tensors in (
        (denoiser, {**unet_names(sizes, denoiser), **motion_names(sizes, denoiser)}, given),
        (reference, unet_names(sizes, reference), read_state(files.reference_unet)),
    ):
        own = module.state_dict()
        assert set(names.values()) == own.keys()
        check_tensors("file", {name: tuple(own[key].shape) for name, key in names.items()}, shapes_of(tensors))
    for file in files.encoders.values():
        shapes = shapes_of(read_state(file))
        encoder = MapEncoder(EncoderSizes.read(shapes), device="meta")
        check_tensors(file.name, shapes_of(encoder.state_dict()), shapes, UNUSED_IN_ENCODERS)
    assert len(files.encoders) == (1 if guider else 4) and caplog.text == ""


def test_sizes_in_the_download_list(published):
    """Four bytes for each number, and some 250 for the name and place of each tensor."""
    listed = [file for file in FILES if file.folder == "champ" and PurePath(file.path).stem in published]
    assert len(listed) == 7 + 4
    for file in listed:
        tensors = published[PurePath(file.path).stem].values()
        size = sum(4 * math.prod(value.shape) + 250 for value in tensors)
        assert abs(file.size - size) < 0.002 * size, file.path


LOAD = """
import resource, sys
import comfy.cli_args
comfy.cli_args.args.cpu = True
import torch
from champ.model.checkpoint import find_set
from champ.model.loading import load_denoiser, load_encoders, load_reference_net

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

files, before, kept = find_set(sys.argv[1]), peak(), 0
for load in (load_denoiser, load_reference_net, load_encoders):
    loaded = load(files, weight_dtype=torch.float16)
    model = getattr(loaded, "patcher", loaded).model
    kept += sum(value.nbytes for value in model.state_dict().values())
    globals()[load.__name__] = loaded
    print(peak() - before, kept)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is counted otherwise")
def test_memory_of_loading_the_official_files(published, tmp_path):
    """At most the weights as they are kept, and the largest file. A fifth of the official channels is enough to see."""
    for name in ("denoising_unet", "motion_module", "reference_unet", "guidance_encoder_depth"):
        shapes = shapes_of(published[name])
        torch.save(
            {key: torch.ones([n if n % 320 else n // 5 for n in shape]) for key, shape in shapes.items()},
            tmp_path / f"{name}.pth",
        )
    largest = max(file.stat().st_size for file in tmp_path.iterdir())
    paths = os.pathsep.join(map(str, (dev.ROOT, COMFYUI)))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path], env=environment, capture_output=True, text=True, timeout=300
    )
    steps = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(steps) == 3, done.stderr
    for peak, kept in steps:
        assert peak < kept + largest + (16 << 20)
