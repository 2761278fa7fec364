"""Training's networks as a checkpoint set in files: the official layout, which Load Champ Model reads."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..model.exchanged import NETWORK
from ..model.loading import motion_names, unet_names
from ..output import whole, write_tensors
from .networks import Networks

SET_FILE = r"(denoising_unet|reference_unet|motion_module|guidance_encoder_\w+)\.safetensors"
LEFT_BY_SYSTEMS = r"\..*|(?i:thumbs\.db|desktop\.ini)"  # when somebody has looked into the folder


def export(networks: Networks, folder: Path, dtype: torch.dtype = torch.float32, about: Mapping[str, str] = {}) -> None:  # noqa: B006
    """Makes a folder of denoising_unet, reference_unet, motion_module and the guidance encoders, in the place of an
    older one; `about` goes into each file."""
    kept = [file.name for file in folder.glob("*") if not re.fullmatch(f"{SET_FILE}|{LEFT_BY_SYSTEMS}", file.name)]
    if kept:
        raise ValueError(f"{folder} holds {kept[0]}, which is no file of a checkpoint set; export into another folder.")
    unet, reference = networks.denoiser.model.diffusion_model, networks.net.patcher.model
    sizes = networks.sizes.unet
    files = {
        "denoising_unet": _named(unet.state_dict(), unet_names(sizes, unet)),
        "reference_unet": _named(reference.state_dict(), unet_names(sizes, reference)),
    }
    if networks.sizes.motion:
        files["motion_module"] = _named(unet.state_dict(), motion_names(sizes, unet))
    for name, encoder in networks.encoders.patcher.model.items():
        files[f"guidance_encoder_{name}"] = encoder.state_dict()
    with whole(folder, folder=True, replace=True) as made:
        for name, state in files.items():
            tensors = {key: value.detach().to("cpu", dtype) for key, value in state.items()}
            write_tensors(made / f"{name}.safetensors", tensors, {"format": "pt", NETWORK: name, **about})


def _named(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {name: state[key] for name, key in names.items()}
