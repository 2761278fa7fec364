"""Checkpoint sets on disk: finds the files, recognises and reads them safely, and checks their tensors."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from torch import Tensor

from ..files.tensors import SUFFIXES, StateDict, read_tensors
from .config import MOTION_KEY, TEMPORAL, Shapes
from .families import ANIMATE_ANYONE, CHAMP, FAMILIES, MUSEPOSE, MUSEPOSE_POSITIONS, Family

ENCODER_FILES = {file: name for family in FAMILIES.values() for file, name in family.encoders.items()}
DENOISERS = tuple(dict.fromkeys(family.denoiser for family in FAMILIES.values()))
NETWORKS = tuple(dict.fromkeys(file for family in FAMILIES.values() for file in family.files))  # their official names
# Weights that are numbers only together with the scale of their layer, as tools for smaller files write them.
SCALES, INT8 = (".scale_weight", ".weight_scale"), (torch.int8, torch.uint8)
PRECISIONS = ("fp16", "bf16", "fp32")  # in order of preference

# Suffixes after a network's name in a file name: precision, step number.
_ENDING = rf"([-_.]({'|'.join(PRECISIONS)}|\d+))*"
_NAMED = re.compile(rf"(.*[-_.])?(?P<network>{'|'.join(NETWORKS)}){_ENDING}")
# In a folder with the network's name, as diffusers saves it.
_DIFFUSERS = re.compile(rf"diffusion_pytorch_model{_ENDING}")
# Models beside a set, such as the VAE and CLIP, as diffusers and transformers save them.
_BESIDE = re.compile(r"(diffusion_)?(pytorch_)?model([-_.].*)?")
# Each network has one of these tensor names; the prefix before it is the prefix of all its tensors.
_ANCHOR = re.compile(r"(|.*\.)(?:conv_in\.weight|down_blocks\.\d+\.motion_modules\..*)")


@dataclass(frozen=True)
class NetworkFile:
    """The place of a network: its own file, or a file with the whole set."""

    file: Path
    network: str  # its official name

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        if self.network in self.file.name:
            return self.file.name
        if self.network == self.file.parent.name:
            return f"{self.network}/{self.file.name}"
        return f"{self.network} in {self.file.name}"


@dataclass(frozen=True)
class CheckpointSet:
    """The networks of a model."""

    place: Path  # the folder or the file
    family: str
    denoising_unet: NetworkFile
    reference_unet: NetworkFile
    motion_module: NetworkFile | None  # None: it may be in the denoising UNet's file
    encoders: dict[str, NetworkFile]  # by the map that each one reads


def set_of(file: PurePath) -> PurePath | None:
    """Returns the checkpoint set of a file by its name: the folder of a denoising UNet, or a file that may hold a whole
    set. None for the other files of a set, and for models beside it."""
    if file.suffix not in SUFFIXES:
        return None
    if match := _NAMED.fullmatch(file.stem):
        if match["network"] not in DENOISERS:
            return None
        return file.parent.parent if file.parent.name == match["network"] else file.parent
    if _BESIDE.fullmatch(file.stem):
        return file.parent.parent if file.parent.name in DENOISERS and _DIFFUSERS.fullmatch(file.stem) else None
    return file


def find_set(place: str | Path, full_precision: bool = False) -> CheckpointSet:
    """Finds the networks of a set: files with the official names in a folder, folders with these names as diffusers
    saves them, or one file with everything.

    A name may begin with another word, and end in _fp16, a step number and the like. Of several precisions, half
    precision is taken, or full with `full_precision`.
    """
    place = Path(place)
    if place.is_file():
        found = _networks_in(place)
    elif place.is_dir():
        found = {network: file for network in NETWORKS if (file := _find(place, network, full_precision))}
    else:
        raise ValueError(f"{place} does not exist; put each checkpoint set into a folder of its own.")
    family = _family_of(place, found)
    encoders = {name: found[network] for network, name in family.encoders.items() if network in found}
    missing = [network for network in (family.denoiser, family.reference_net) if network not in found]
    if not encoders:
        known = "guidance_encoder_depth, ..._normal, ..._semantic_map or ..._dwpose, or pose_guider"
        missing.append(known if family.name == CHAMP else next(iter(family.encoders)))
    if missing:
        there = ", ".join(file.name for file in found.values()) or "no file of a checkpoint set"
        raise ValueError(
            f"{place} has {there}, but lacks {'; '.join(missing)} (.safetensors or .pth); copy the whole set into it."
        )
    return CheckpointSet(
        place=place,
        family=family.name,
        denoising_unet=found.get("denoising_unet", found[family.denoiser]),  # or in the file of the motion modules
        reference_unet=found[family.reference_net],
        motion_module=found.get(family.motion),
        encoders=encoders,
    )


def _family_of(place: Path, found: Mapping[str, NetworkFile]) -> Family:
    """Tells the family of a set by the names of its files; Champ's if there is no sign of another."""
    signs = {name: family for name in NETWORKS for family in FAMILIES.values() if _belongs_to(name, family)}
    families = {signs[name].name: name for name in found if name in signs}
    if len(families) > 1:
        listed = ", ".join(f"{file} belongs to {name}" for name, file in families.items())
        raise ValueError(f"{place} mixes two families: {listed}; put each checkpoint set into a folder of its own.")
    name = next(iter(families), CHAMP)
    if name == ANIMATE_ANYONE and _positions(place, found) == MUSEPOSE_POSITIONS:
        name = MUSEPOSE
    return FAMILIES[name]


def _belongs_to(network: str, family: Family) -> bool:
    """Tells whether only this family has a file of that name; MusePose has no names of its own."""
    others = (other for other in FAMILIES.values() if other.name not in (family.name, MUSEPOSE))
    return family.name != MUSEPOSE and network in family.files and not any(network in other.files for other in others)


def _positions(place: Path, found: Mapping[str, NetworkFile]) -> int | None:
    """Reads for how many frames there are positions in the motion modules of a set of Animate Anyone's layout."""
    file = found.get("motion_module") or (found.get("denoising_unet") if place.is_file() else None)
    state = {} if file is None else read_state(file)
    return next((value.shape[1] for key, value in state.items() if key.endswith("pos_encoder.pe")), None)


def _find(folder: Path, network: str, full_precision: bool) -> NetworkFile | None:
    """Finds a network's file in a folder; a name without a prefix goes first."""
    own = folder / network
    files = [f for f in folder.iterdir() if (match := _NAMED.fullmatch(f.stem)) and match["network"] == network]
    plain = [f for f in files if f.stem.startswith(network)]
    if own.is_dir():
        inside = (f for f in own.iterdir() if _DIFFUSERS.fullmatch(f.stem) or f.stem == network)
        plain += [f for f in inside if f.suffix in SUFFIXES]
    choice = sorted(f for f in plain or files if f.suffix in SUFFIXES)
    if len({re.sub("|".join(rf"[-_.]{name}" for name in PRECISIONS), "", f.stem) for f in choice}) > 1:
        listed = ", ".join(f.relative_to(folder).as_posix() for f in choice)
        raise ValueError(f"{folder} has more than one {network} ({listed}); keep one of them in the folder.")

    def rank(file: Path) -> tuple[int, ...]:
        precision = next((i for i, name in enumerate(PRECISIONS) if name in file.stem), PRECISIONS.index("fp32"))
        if full_precision:
            return -precision, SUFFIXES.index(file.suffix)
        return file.suffix != SUFFIXES[0], precision, SUFFIXES.index(file.suffix)

    if not choice:
        return None
    best, *others = sorted(choice, key=rank)
    if others:
        left = ", ".join(f.name for f in others)
        logging.info("[Champ] %s: %s is used for %s, not %s.", folder.name, best.name, network, left)
    return NetworkFile(best, network)


def _networks_in(file: Path) -> dict[str, NetworkFile]:
    """Finds the networks in a file with a whole set, as diffusers' single files and trainers save it."""
    state = read(file)
    prefixes = {prefix: name for prefix in _prefixes(state) for name in NETWORKS if _is_of(prefix, name)}
    if not prefixes:
        raise ValueError(
            f"{file.name} is {kind_of(state)}, but a checkpoint set belongs here: a folder with its files, or one file "
            "with all its networks; choose another."
        )
    others = {key.partition(".")[0] for key in state if not key.startswith(tuple(prefixes))}
    if others:
        listed = ", ".join(sorted(others))
        logging.info("[Champ] %s also has %s; Load VAE and Load CLIP Vision need separate files.", file.name, listed)
    return {name: NetworkFile(file, name) for name in NETWORKS if name in prefixes.values()}


def _prefixes(keys: Iterable[str]) -> set[str]:
    """Returns the prefixes of tensor names in a file: "", "module.", "denoising_unet.", ..."""
    found = {match[1] for key in keys if (match := _ANCHOR.fullmatch(key))}
    return {prefix for prefix in found if not re.fullmatch(r"(.*\.)?(en|de)coder\.", prefix)}  # not the halves of a VAE


def _is_of(prefix: str, network: str) -> bool:
    return f".{prefix}".endswith(f".{network}.")


def read(path: Path) -> StateDict:
    """Reads the tensors of a file; they stay on disk until they are used."""
    return read_tensors(path, nested=("state_dict", "model", "module"))


def read_state(file: NetworkFile) -> StateDict:
    """Reads a network's tensors under its own names. A trainer's prefixes are removed; the rest of the file, such as
    the optimizer's state, is left out."""
    state = read(file.file)
    prefixes = sorted(_prefixes(state), key=len)
    prefix = next((prefix for prefix in prefixes if _is_of(prefix, file.network)), next(iter(prefixes), ""))
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not _is_of(prefix, file.network):
        warn_unused(file.name, [key for key in state if not key.startswith(prefix)])
    if any(key.endswith(SCALES) or key.endswith(".weight") and value.dtype in INT8 for key, value in found.items()):
        raise ValueError(
            f"{file.name} has weights of 8 bits with a scale for each layer, which are not read; choose a file in 16 "
            "or 32 bits, or plain fp8."
        )
    return found


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


DENOISING, REFERENCE, MOTION = "a denoising UNet", "a reference UNet", "a motion module"
ENCODER, GUIDER, CONTROLNET = "a Champ guidance encoder", "an Animate Anyone pose guider", "a ControlNet"


def kind_of(keys: Iterable[str]) -> str:
    """Recognises what a file is by its tensor names, including files of other packs and tools."""
    keys = set(keys)

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in keys)

    if has(r"model\.diffusion_model\.|first_stage_model\.|cond_stage_model\.|conditioner\."):
        return "a complete text-to-image checkpoint"
    if has(r".*(lora_|\.processor\.|hada_)"):
        return "a LoRA"
    if has(r"control_model\.|controlnet_|input_hint_block\."):
        return CONTROLNET
    if has(r"(encoder|decoder)\.(conv_in|mid)"):
        return "a VAE"
    if has("add_embedding"):
        return "a UNet of Stable Diffusion XL"
    if has(r"input_blocks\.|time_embed\."):
        return "a UNet with ComfyUI's names"
    if has(r"blocks\.0\.") and has("conv_out"):
        return ENCODER if has("attentions") else GUIDER
    if has("down_blocks") and has("conv_in"):
        return DENOISING if has("conv_out") else REFERENCE
    if any(MOTION_KEY.fullmatch(key) for key in keys):
        return MOTION if any(TEMPORAL in key for key in keys) else "a motion adapter with the names of diffusers"
    return "a file that this pack does not know"


def check_kind(name: str, state: StateDict, *accepted: str) -> None:
    """Raises an error if a file is none of the accepted kinds; the message asks for the first of them."""
    if (kind := kind_of(state)) not in accepted:
        raise ValueError(f"{name} is {kind}, but {accepted[0]} belongs here; choose the right file or set.")


def check_tensors(name: str, wanted: Shapes, given: Shapes, unused: str = "$") -> None:
    """Raises an error that lists missing tensors and tensors of another shape. Additional tensors that do not match
    `unused` are a warning in the log; the official loaders ignore them."""
    found = {
        "missing": [key for key in wanted if key not in given],
        "of another shape": [
            f"{key} {given[key]} instead of {shape}"
            for key, shape in wanted.items()
            if key in given and given[key] != shape
        ],
    }
    warn_unused(name, [key for key in given if key not in wanted and not re.match(unused, key)])
    parts = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in found.items() if keys]
    if parts:
        for what, keys in found.items():
            for key in keys:
                logging.error("[Champ] %s: %s: %s", name, what, key)
        raise ValueError(
            f"{name} has the wrong tensors ({'; '.join(parts)}); download it again or choose another file (the log "
            "lists all of them)."
        )


def warn_unused(name: str, keys: list[str]) -> None:
    if keys:
        logging.warning("[Champ] %s holds %d tensors that are not used: %s.", name, len(keys), _some(keys))


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + ", ..." * (len(keys) > 3)
