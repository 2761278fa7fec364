"""Starting points of a stage: a checkpoint set, Stable Diffusion 1.5's UNet, or untrained networks."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ..model.checkpoint import DENOISING, NetworkFile, check_kind, check_tensors, find_set, read_state, shapes_of
from ..model.config import MOTION_KEY, UNetSizes
from ..model.guidance import EncoderSizes
from ..model.loading import load_denoiser, load_encoders, load_reference_net, unet_names
from .fresh import fresh_networks, motion_sizes
from .networks import Champ, Networks, Sizes, patcher


def load_networks(folder: Path, motion: Path | Literal["set", "none"]) -> Networks:
    """Reads a checkpoint set in float32; `motion` may be a file of AnimateDiff."""
    files = find_set(folder, full_precision=True)
    unet = UNetSizes.read(shapes_of(read_state(files.denoising_unet)))
    encoder = EncoderSizes.read(shapes_of(read_state(next(iter(files.encoders.values())))))
    denoiser = load_denoiser(files, motion, torch.float32)
    net, encoders = load_reference_net(files, torch.float32), load_encoders(files, torch.float32)
    return Networks(
        Sizes(unet, encoder, denoiser.model.diffusion_model.motion_sizes),
        patcher(denoiser.model),
        replace(net, patcher=patcher(net.patcher.model)),
        replace(encoders, patcher=patcher(encoders.patcher.model)),
    )


def has_motion(folder: Path) -> bool:
    """Tells whether a checkpoint set has motion modules, in their own file or in that of the denoising UNet."""
    files = find_set(folder)
    own = read_state(files.denoising_unet)
    return files.motion_module is not None or any(MOTION_KEY.fullmatch(key) for key in own)


def networks_from_unet(file: Path, encoder: tuple[int, ...], seed: int) -> Networks:
    """Makes both UNets with the weights of a UNet in diffusers' names, as the official first stage starts, and new
    encoders of these channels."""
    state = read_state(NetworkFile(file, "unet"))
    check_kind(file.name, state, DENOISING)
    unet = UNetSizes.read(shapes_of(state))
    networks = fresh_networks(Sizes(unet, EncoderSizes(encoder, unet.channels[0], attention=True)), seed)
    for module in (networks.denoiser.model.diffusion_model, networks.net.patcher.model):
        names, own = unet_names(unet, module), module.state_dict()
        wanted = {name: tuple(own[key].shape) for name, key in names.items()}
        check_tensors(file.name, wanted, shapes_of(state), r"conv_(norm_)?out\.")
        module.load_state_dict({key: state[name] for name, key in names.items()})
    return networks


def with_new_motion(networks: Networks, positions: int, middle: bool, seed: int) -> Networks:
    """Adds motion modules with zero output."""
    sizes = replace(networks.sizes, motion=motion_sizes(networks.sizes.unet, positions, middle))
    joined = fresh_networks(sizes, seed)
    Champ(joined).load_state_dict(Champ(networks).state_dict(), strict=False)
    return joined


def with_transformers(networks: Networks, seed: int) -> Networks:
    """Adds transformers to levels without them, with zero output."""
    unet = networks.sizes.unet
    unet = replace(unet, transformers=(True,) * len(unet.transformers))
    joined = fresh_networks(replace(networks.sizes, unet=unet), seed)
    Champ(joined).load_state_dict(Champ(networks).state_dict(), strict=False)
    return joined
