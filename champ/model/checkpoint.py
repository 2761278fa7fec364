"""Checkpoint sets on disk: which file is what, reading them safely, and whether a file's tensors fit."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..files.tensors import SUFFIXES, read_tensors
from .config import ANIMATE_ANYONE, CHAMP, MOTION_KEY, TEMPORAL, Shapes

MAPS = ("depth", "normal", "semantic_map", "dwpose")  # Champ's guidance encoders
POSE = "pose"  # Animate Anyone's only map
ENCODER_FILES = {**{f"guidance_encoder_{name}": name for name in MAPS}, "pose_guider": POSE}

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class CheckpointSet:
    """The files of a Champ or Animate Anyone model."""

    family: str
    denoising_unet: Path
    reference_unet: Path
    motion_module: Path | None  # None: the denoising UNet's file may hold it
    encoders: dict[str, Path]  # by the map that each one reads


def find_set(folder: str | Path) -> CheckpointSet:
    """The files in a folder by their official names, which may end in _fp16, a step number and the like."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; put each checkpoint set into a folder of its own.")
    stems = ("denoising_unet", "reference_unet", "motion_module", *ENCODER_FILES)
    files = {stem: file for stem in stems if (file := _find(folder, stem))}
    encoders = {name: files[stem] for stem, name in ENCODER_FILES.items() if stem in files}
    if POSE in encoders and len(encoders) > 1:
        raise ValueError(
            f"{folder} mixes two families: pose_guider belongs to Animate Anyone, guidance_encoder_* to Champ; "
            "put each checkpoint set into a folder of its own."
        )
    missing = [stem for stem in ("denoising_unet", "reference_unet") if stem not in files]
    if not encoders:
        missing.append("guidance_encoder_depth, ..._normal, ..._semantic_map or ..._dwpose, or pose_guider")
    if missing:
        there = ", ".join(file.name for file in files.values()) or "no file of a checkpoint set"
        raise ValueError(
            f"{folder} has {there}, but lacks {'; '.join(missing)} (.safetensors or .pth); copy the whole set into it."
        )
    return CheckpointSet(
        family=ANIMATE_ANYONE if POSE in encoders else CHAMP,
        denoising_unet=files["denoising_unet"],
        reference_unet=files["reference_unet"],
        motion_module=files.get("motion_module"),
        encoders=encoders,
    )


def _find(folder: Path, stem: str) -> Path | None:
    name = re.compile(rf"{stem}([-_.](fp16|bf16|fp32|\d+))*")
    found = [f for f in sorted(folder.iterdir()) if f.suffix in SUFFIXES and name.fullmatch(f.stem)]
    stems = {f.stem for f in found}
    if len(stems) > 1:
        listed = ", ".join(f.name for f in found)
        raise ValueError(f"{folder} has more than one {stem} ({listed}); keep one of them in the folder.")
    return min(found, key=lambda f: SUFFIXES.index(f.suffix), default=None)


def read(path: Path) -> StateDict:
    """The tensors of a file, which stay there until they are used."""
    return read_tensors(path, nested=("state_dict", "model", "module"))


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


DENOISING, REFERENCE, MOTION = "a denoising UNet", "a reference UNet", "a motion module"
ENCODER, GUIDER = "a Champ guidance encoder", "an Animate Anyone pose guider"


def kind_of(keys: Iterable[str]) -> str:
    """What a file is, told by the names of its tensors; other packs' and tools' files are named too."""
    keys = set(keys)

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in keys)

    if has(r"model\.diffusion_model\.|first_stage_model\.|cond_stage_model\.|conditioner\."):
        return "a complete text-to-image checkpoint"
    if has(r".*(lora_|\.processor\.|hada_)"):
        return "a LoRA"
    if has(r"control_model\.|controlnet_|input_hint_block\."):
        return "a ControlNet"
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
    return "no file that this pack knows"


def check_kind(path: Path, state: StateDict, wanted: str) -> None:
    if (kind := kind_of(state)) != wanted:
        raise ValueError(f"{path.name} is {kind}, but {wanted} belongs here; choose the right file or set.")


def check_tensors(name: str, wanted: Shapes, given: Shapes, unused: str = "$") -> None:
    """Says in one sentence which tensors are missing, of another shape, or unknown and not matched by `unused`."""
    missing = [key for key in wanted if key not in given]
    other = [f"{k} {given[k]} instead of {s}" for k, s in wanted.items() if k in given and given[k] != s]
    unknown = [key for key in given if key not in wanted and not re.match(unused, key)]
    found = {"missing": missing, "of another shape": other, "unknown": unknown}
    parts = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in found.items()
        if keys
    ]
    if parts:
        for what, keys in found.items():
            for key in keys:
                logging.error("[Champ] %s: %s: %s", name, what, key)
        raise ValueError(
            f"{name} has the wrong tensors ({'; '.join(parts)}); download it again or choose another. "
            f"All are listed in the log."
        )
