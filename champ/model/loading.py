"""Loads checkpoint files into models that ComfyUI manages: the denoiser, ReferenceNet, and the guidance encoders."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ..files.tensors import StateDict
from .checkpoint import (
    CONTROLNET,
    DENOISING,
    ENCODER,
    GUIDER,
    MOTION,
    REFERENCE,
    CheckpointSet,
    NetworkFile,
    check_kind,
    check_tensors,
    read_state,
    shapes_of,
    warn_unused,
)
from .compat import managed, operations
from .config import MOTION_KEY, TEMPORAL, MotionSizes, UNetSizes
from .denoiser import ChampModel, ModelConfig
from .families import FAMILIES, POSE
from .guidance import EncoderSizes, GuidanceEncoders, GuidingControlNet, MapEncoder
from .latents import latents_of
from .reference import ReferenceNet, ReferenceUNet

# How weights are stored, as in ComfyUI's diffusion model loader: (type, fast fp8 matrix products).
WEIGHT_DTYPES: dict[str, tuple[torch.dtype | None, bool]] = {
    "default": (None, False),
    "fp8_e4m3fn": (torch.float8_e4m3fn, False),
    "fp8_e4m3fn_fast": (torch.float8_e4m3fn, True),
    "fp8_e5m2": (torch.float8_e5m2, False),
}
COMPUTE_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
# In all official encoders, without effect on their output: attentions after the earlier convolutions, and one more.
UNUSED_IN_ENCODERS = r"attentions\.\d+\.|guidance_attention\."

AnySizes = TypeVar("AnySizes")


def load_denoiser(
    files: CheckpointSet,
    motion: Path | Literal["set", "none"] = "set",
    weight_dtype: str | torch.dtype = "default",
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """Loads the denoising UNet as a ComfyUI MODEL, with the set's motion modules, another file's, or none (for
    pictures). ComfyUI loads it again for another card, or without dynamic memory, as torch.compile needs it."""
    state = read_state(files.denoising_unet)
    own_motion = {key: state.pop(key) for key in list(state) if MOTION_KEY.fullmatch(key)}
    if own_motion and not state:
        raise ValueError(
            f"{files.denoising_unet.name} has motion modules but no UNet; put the UNet that they were trained for "
            "into the set's folder as denoising_unet.safetensors (Stable Diffusion 1.5's, in the layout of diffusers)."
        )
    check_kind(files.denoising_unet.name, state, DENOISING)
    sizes = _sizes(UNetSizes.read, files.denoising_unet, state)
    motion_state: StateDict = {}
    motion_sizes = None
    if motion != "none":
        motion_file, motion_state = _read_motion(files, motion, own_motion)
        motion_sizes = _sizes(lambda shapes: MotionSizes.read(shapes, sizes), motion_file, motion_state)

    config = ModelConfig(sizes.comfy())
    config.latent_format = latents_of(sizes.channels[0])
    dtype, cast, fast = _storage({**state, **motion_state}, weight_dtype)
    config.set_inference_dtype(dtype, cast)
    config.custom_operations = operations(dtype, cast, fast)
    model = ChampModel(config, files.family, motion_sizes)
    unet = model.diffusion_model
    _fill(unet, unet_names(sizes, unet), files.denoising_unet, state)
    del state, own_motion  # releases the file before the next one is read
    if motion_sizes:
        _fill(unet, motion_names(sizes, unet), motion_file, motion_state)
    patcher = _patcher(model, ModelPatcher if disable_dynamic else None)
    patcher.cached_patcher_init = (load_denoiser, (files, motion, weight_dtype))
    patcher.add_callback_with_key(CallbacksMP.ON_CLEANUP, "champ_runs", _end_runs)
    return patcher


def _end_runs(patcher: ModelPatcher) -> None:
    patcher.model.end_runs()


def load_reference_net(files: CheckpointSet, weight_dtype: str | torch.dtype = "default") -> ReferenceNet:
    file = files.reference_unet
    state = read_state(file)
    check_kind(file.name, state, REFERENCE, DENOISING)  # some files have output layers, which are not used
    sizes = _sizes(UNetSizes.read, file, state)
    config = ModelConfig(sizes.comfy())
    dtype, cast, fast = _storage(state, weight_dtype)
    config.set_inference_dtype(dtype, cast)
    unet = ReferenceUNet(**config.unet_config, operations=operations(dtype, cast, fast))
    names = unet_names(sizes, unet)
    _fill(unet, names, file, {**_unread(names, unet, sizes), **state})
    return ReferenceNet(_patcher(unet), files.family, cast or dtype, sizes.context_dim)


def _unread(names: Mapping[str, str], unet: ReferenceUNet, sizes: UNetSizes) -> StateDict:
    """Returns zeros for the layers after the last norm that is read, which not all files contain."""
    finest = sizes.transformers.index(True)
    last = f"up_blocks.{len(sizes.channels) - 1 - finest}.attentions.{sizes.resnets}."
    own = unet.state_dict()
    after = re.compile(re.escape(last) + r"(proj_out|transformer_blocks\.0\.(attn|ff|norm[23]))")
    return {name: torch.zeros(own[key].shape, dtype=own[key].dtype) for name, key in names.items() if after.match(name)}


def load_encoders(files: CheckpointSet, weight_dtype: str | torch.dtype = "default") -> GuidanceEncoders:
    """Loads the guidance encoders of a set, or its pose guider or ControlNet."""
    if FAMILIES[files.family].controlnet:
        return _load_controlnet(files, weight_dtype)
    states = {name: read_state(file) for name, file in files.encoders.items()}
    tensors = {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}
    dtype, cast, _ = _storage(tensors, weight_dtype, [torch.float16, torch.float32])
    encoders = nn.ModuleDict()
    for name, state in states.items():
        file = files.encoders[name]
        check_kind(file.name, state, GUIDER if name == POSE else ENCODER)
        sizes = _sizes(EncoderSizes.read, file, state)
        encoder = MapEncoder(sizes, dtype, operations=operations(dtype, cast))
        _fill(encoder, {key: key for key in encoder.state_dict()}, file, state, UNUSED_IN_ENCODERS)
        encoders[name] = encoder
    return GuidanceEncoders(_patcher(encoders), files.family, cast or dtype)


def _load_controlnet(files: CheckpointSet, weight_dtype: str | torch.dtype) -> GuidingControlNet:
    """Loads a ControlNet with the names of diffusers as ComfyUI's own, of whatever sizes."""
    [file] = files.encoders.values()
    state = read_state(file)
    check_kind(file.name, state, CONTROLNET)
    sizes = _sizes(UNetSizes.read, file, state)
    dtype, cast, _ = _storage(state, weight_dtype)
    config = ModelConfig(sizes.comfy())
    config.set_inference_dtype(dtype, cast)
    arguments = {key: value for key, value in config.unet_config.items() if key != "out_channels"}
    network = comfy.cldm.cldm.ControlNet(**arguments, hint_channels=3, operations=operations(dtype, cast))
    _fill(network, controlnet_names(sizes, network), file, state)
    network.requires_grad_(False)
    device = comfy.model_management.get_torch_device()
    control = comfy.controlnet.ControlNet(network, load_device=device, manual_cast_dtype=cast)
    return GuidingControlNet(control.control_model_wrapped, files.family, cast or dtype, control)


def _read_motion(files: CheckpointSet, motion: Path | str, own: StateDict) -> tuple[NetworkFile, StateDict]:
    """Returns the motion modules' file and tensors. Those in the denoising UNet's file take precedence over the set's
    other file, as in the official loading order."""
    if motion == "set" and own:
        return files.denoising_unet, own
    file = files.motion_module if motion == "set" else NetworkFile(Path(motion), "motion_module")
    if file is None:
        raise ValueError(
            f"{files.place} has no motion_module file, and {files.denoising_unet.name} contains no motion modules; "
            "copy the whole set, or choose a motion module of AnimateDiff."
        )
    state = read_state(file)
    modules = {key: value for key, value in state.items() if MOTION_KEY.fullmatch(key)}
    check_kind(file.name, modules or state, MOTION)
    warn_unused(file.name, [key for key in state if key not in modules])
    return file, modules


def _sizes(
    read_sizes: Callable[[Mapping[str, tuple[int, ...]]], AnySizes], file: NetworkFile, state: StateDict
) -> AnySizes:
    try:
        return read_sizes(shapes_of(state))
    except ValueError as error:
        raise ValueError(f"{file.name} does not fit: {error}; choose another file.") from None


def _storage(
    state: StateDict, weight_dtype: str | torch.dtype, supported: list[torch.dtype] = COMPUTE_DTYPES
) -> tuple[torch.dtype, torch.dtype | None, bool]:
    """Returns the dtype in which weights are stored, the dtype for computing (None: the same), and fast fp8.

    A torch dtype is used for both, as training needs it.
    """
    if isinstance(weight_dtype, torch.dtype):
        return weight_dtype, None, False
    if weight_dtype not in WEIGHT_DTYPES:
        raise ValueError(f"There is no weight type {weight_dtype!r}; choose from {', '.join(WEIGHT_DTYPES)}.")
    dtype, fast = WEIGHT_DTYPES[weight_dtype]
    if dtype is None:
        dtype = comfy.model_management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(state),
            supported_dtypes=supported,
            weight_dtype=comfy.utils.weight_dtype(state),
        )
    device = comfy.model_management.get_torch_device()
    return dtype, comfy.model_management.unet_manual_cast(dtype, device, supported), fast


def unet_names(sizes: UNetSizes, unet: nn.Module) -> dict[str, str]:
    """Maps the UNet's tensors to their diffusers names."""
    own = unet.state_dict().keys()
    return {name: key for name, key in comfy.utils.unet_to_diffusers(sizes.comfy()).items() if key in own}


def controlnet_names(sizes: UNetSizes, network: nn.Module) -> dict[str, str]:
    """Maps the ControlNet's tensors to their diffusers names."""
    own = network.state_dict().keys()
    names = unet_names(sizes, network)
    hints = [int(key.split(".")[1]) for key in own if key.startswith("input_hint_block.") and key.endswith(".weight")]
    blocks = ["conv_in", *(f"blocks.{i}" for i in range(len(hints) - 2)), "conv_out"]
    layers = {f"controlnet_cond_embedding.{block}": f"input_hint_block.{i}" for block, i in zip(blocks, sorted(hints))}
    count = sum(1 for key in own if re.fullmatch(r"zero_convs\.\d+\.0\.weight", key))
    layers |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(count)}
    layers["controlnet_mid_block"] = "middle_block_out.0"
    return names | {f"{a}.{kind}": f"{b}.{kind}" for a, b in layers.items() for kind in ("weight", "bias")}


def motion_names(sizes: UNetSizes, unet: nn.Module) -> dict[str, str]:
    """Maps the motion modules' tensors to their names in AnimateDiff's files."""
    own = unet.state_dict().keys()
    names = {}
    for block, row in sizes.places().items():
        for j in row:
            part, number = sizes.place(block, j)
            prefix = "middle_block.motion." if part == "middle" else f"{part}_blocks.{number}.motion."
            for key in own:
                if key.startswith(prefix):
                    names[f"{block}.motion_modules.{j}.{TEMPORAL}{key.removeprefix(prefix)}"] = key
    return names


def _fill(module: nn.Module, names: dict[str, str], file: NetworkFile, state: StateDict, unused: str = "$") -> None:
    """Copies a file's tensors into the module's, as `names` maps them, after checking that they fit."""
    own = module.state_dict()
    check_tensors(file.name, {name: tuple(own[key].shape) for name, key in names.items()}, shapes_of(state), unused)
    module.load_state_dict({key: state[name] for name, key in names.items()}, strict=False)


def _patcher(model: nn.Module, kind: type[ModelPatcher] | None = None) -> ModelPatcher:
    model.requires_grad_(False)
    offload = comfy.model_management.unet_offload_device()
    return (kind or managed)(model.to(offload), comfy.model_management.get_torch_device(), offload)
