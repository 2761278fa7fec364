"""Training's networks as a checkpoint set in files: the official layout, which Load Champ Model reads."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..model.loading import motion_names, unet_names
from .networks import Networks


def export(networks: Networks, folder: Path, dtype: torch.dtype = torch.float32, about: Mapping[str, str] = {}) -> None:  # noqa: B006
    """Writes denoising_unet, reference_unet, motion_module and the guidance encoders; `about` goes into each file."""
    folder.mkdir(parents=True, exist_ok=True)
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
    metadata = {"format": "pt", **about}
    for name, state in files.items():
        tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
        part = folder / f"{name}.part"
        save_file(tensors, part, metadata)
        part.replace(folder / f"{name}.safetensors")


def _named(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {name: state[key] for name, key in names.items()}
