"""Starting points of a stage: a checkpoint set, Stable Diffusion 1.5's UNet, or untrained networks."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ..model.checkpoint import DENOISING, NetworkFile, check_kind, check_tensors, find_set, read_state, shapes_of
from ..model.config import MOTION_KEY, UNetSizes
from ..model.families import ENCODED_MAPS
from ..model.guidance import EncoderSizes
from ..model.loading import load_denoiser, load_encoders, load_reference_net, unet_names
from .fresh import fresh_networks, motion_sizes
from .networks import Networks, Sizes, patcher


def load_networks(folder: Path, motion: Path | Literal["set", "none"]) -> Networks:
    """Reads a checkpoint set in float32; `motion` may be a file of AnimateDiff."""
    files = find_set(folder, full_precision=True)
    if set(files.encoders) != set(ENCODED_MAPS):
        raise ValueError(
            f"{folder} reads {', '.join(files.encoders)}, but training needs a set that reads "
            f"{', '.join(ENCODED_MAPS)}; choose a set of Champ with all four guidance encoders."
        )
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
    motion = motion_sizes(networks.sizes.unet, positions, middle)
    return _enlarged(networks, replace(networks.sizes, motion=motion), seed)


def with_transformers(networks: Networks, seed: int) -> Networks:
    """Adds transformers to levels without them, with zero output."""
    unet = networks.sizes.unet
    unet = replace(unet, transformers=(True,) * len(unet.transformers))
    return _enlarged(networks, replace(networks.sizes, unet=unet), seed)


def _enlarged(networks: Networks, sizes: Sizes, seed: int) -> Networks:
    """Makes larger networks with all weights of networks without motion modules; what these lack is new."""
    joined = fresh_networks(sizes, seed)
    pairs = [(each.denoiser.model.diffusion_model, each.net.patcher.model) for each in (networks, joined)]
    for module, larger in zip(*pairs):
        # ComfyUI counts the parts of a block, so that a new transformer renames those behind it; diffusers does not.
        own, names = unet_names(networks.sizes.unet, module), unet_names(sizes.unet, larger)
        state = module.state_dict()
        assert len(own) == len(state)
        larger.load_state_dict({names[name]: state[key] for name, key in own.items()}, strict=False)
    joined.encoders.patcher.model.load_state_dict(networks.encoders.patcher.model.state_dict())
    return joined
