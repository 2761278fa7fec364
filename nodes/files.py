"""Files and folders that a widget may name: only those in ComfyUI's own folders."""

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePath

import folder_paths

from ..champ.estimate.hmr2_files import OFFICIAL
from ..champ.model.checkpoint import set_of
from ..champ.output import is_part, not_saved
from ..champ.render.folder import MAP_FOLDERS

SHIPPED = Path(__file__).parents[1] / "champ" / "assets" / "models"

SMPL_EXTENSIONS = {".pkl", ".npz", ".safetensors", ".pth"}
NO_SMPL = "put SMPL_NEUTRAL.pkl into models/smpl"
NO_HMR2 = f"put {OFFICIAL} into models/hmr2"
NO_DWPOSE = "put yolox_l.onnx and dw-ll_ucoco_384.onnx into models/dwpose"
# Below the folder of custom nodes: where the pack from which most people have DWPose keeps the same files.
OTHER_DWPOSE = [
    "comfyui_controlnet_aux/ckpts/yzd-v/DWPose",
    "comfyui_controlnet_aux/ckpts/hr16/yolox-onnx",
    "comfyui_controlnet_aux/ckpts/hr16/DWPose-TorchScript-BatchSize5",
]


def register_folder(name: str, extensions: set[str]) -> None:
    """Registers models/<name> with ComfyUI, in addition to the places that extra_model_paths.yaml names."""
    folder = os.path.join(folder_paths.models_dir, name)
    paths, known = folder_paths.folder_names_and_paths.get(name, ([], set()))
    folder_paths.folder_names_and_paths[name] = ([*paths, *({folder} - set(paths))], known or extensions)


def register_shipped(*names: str) -> None:
    """Adds the files that come with the pack to the lists of models/<name>, after the user's own."""
    for name in names:
        folder_paths.add_model_folder_path(name, str(SHIPPED / name))


def _chosen(folder: str, name: str, missing: str) -> Path:
    """Returns the path of a file chosen from the list of models/<folder>; `missing` is the error if there is none."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise ValueError(missing)
    return Path(path)


def smpl_files() -> list[str]:
    return folder_paths.get_filename_list("smpl") or [NO_SMPL]


def smpl_file(name: str) -> Path:
    """Returns the path of a choice of `smpl_files`."""
    return _chosen(
        "smpl",
        name,
        f"SMPL model {name!r} not found: put SMPL_NEUTRAL.pkl or .npz into models/smpl (register at "
        "smpl.is.tue.mpg.de) and press R, or use the Free Body node.",
    )


def register_dwpose(extensions: set[str]) -> None:
    register_folder("dwpose", extensions)
    for root in folder_paths.get_folder_paths("custom_nodes"):
        for folder in OTHER_DWPOSE:
            folder_paths.add_model_folder_path("dwpose", os.path.join(root, *folder.split("/")))


def dwpose_files(kind: str) -> list[str]:
    """Lists the possible network files of DWPose; those whose names contain `kind` come first."""
    return sorted(folder_paths.get_filename_list("dwpose"), key=lambda name: kind not in name.lower()) or [NO_DWPOSE]


def dwpose_file(name: str) -> Path:
    """Returns the path of a choice of `dwpose_files`."""
    return _chosen(
        "dwpose",
        name,
        f"DWPose file {name!r} not found: press Download files... in Load DWPose, or put yolox_l.onnx and "
        "dw-ll_ucoco_384.onnx (huggingface.co/yzd-v/DWPose) into models/dwpose and press R; then choose them.",
    )


def hmr2_files() -> list[str]:
    return folder_paths.get_filename_list("hmr2") or [NO_HMR2]


def hmr2_file(name: str) -> Path:
    """Returns the path of a choice of `hmr2_files`."""
    return _chosen(
        "hmr2",
        name,
        f"HMR2 checkpoint {name!r} not found: put {OFFICIAL} of 4D-Humans into models/hmr2, or press "
        "Download files... in Load HMR2.",
    )


def checkpoint_sets() -> list[str]:
    """Lists folders below models/champ that hold the networks of a set, files that may hold a whole set, and the sets
    that come with the pack."""
    found = {set_of(PurePath(name)) for name in folder_paths.get_filename_list("champ")}
    return sorted(place.as_posix() for place in found if place and not any(map(is_part, place.parts)))


def set_place(name: str) -> Path:
    """Returns the folder or file of a choice of `checkpoint_sets`."""
    if name not in checkpoint_sets():
        raise ValueError(
            f"There is no checkpoint set called {name!r}: press Download files... in Load Champ Model, or put the "
            "files of Champ or Animate Anyone into their own folder below models/champ and press R; then choose it, or "
            "choose champ_tiny, which comes with the pack."
        )
    return next(place for root in folder_paths.get_folder_paths("champ") if (place := Path(root, name)).exists())


def media_folders() -> Iterator[tuple[PurePath, str, list[str], list[str]]]:
    """Walks the input and the output folder, at most three levels deep. Yields the place below, the mark for names in
    the output folder, the folders inside (clear the list to stop descending), and the files."""
    for root, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), " [output]")):
        for folder, children, files in os.walk(root):
            children[:] = [name for name in children if not is_part(name)]
            place = Path(folder).relative_to(root)
            yield place, mark, children, files
            if len(place.parts) == 3:
                children.clear()


def map_folders() -> list[str]:
    """Lists folders with maps in the official layout."""
    found = []
    for place, mark, children, _ in media_folders():
        if any(name in children for name in MAP_FOLDERS):
            found.append(f"{place.as_posix()}{mark}")
            children.clear()
    return sorted(found)


def annotated_path(name: str) -> Path | None:
    """Returns the path of a name such as "dance/maps [output]"; None if it would lead outside."""
    inside, base = folder_paths.annotated_filepath(name)
    parts = re.split(r"[/\\]", inside)
    if any(part in ("", "..") or len(part) > 255 or is_part(part) or re.search(r"[:\0]", part) for part in parts):
        return None
    return Path(base or folder_paths.get_input_directory(), *parts)


def map_folder(name: str) -> Path:
    """Returns the folder of a choice of `map_folders`."""
    folder = annotated_path(name)
    if folder is None or not any((folder / map_name).is_dir() for map_name in MAP_FOLDERS):
        raise ValueError(
            f"There is no folder of maps called {name!r}; put a folder that contains depth, normal, semantic_map or "
            "dwpose into ComfyUI's input folder, then choose it from the list."
        )
    return folder


def is_file_name(part: str) -> bool:
    """Tells whether every system accepts this as a file name; Windows reserves some names for devices."""
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", part, re.IGNORECASE)
    long = len(part.encode(errors="replace")) > 200  # of the 255 bytes that most disks allow
    return not (part == "" or long or device or re.search(r'[<>:"|?*\x00-\x1f\ud800-\udfff]|[. ]$', part))


def new_output_path(prefix: str, suffix: str = "") -> Path:
    """Returns a new path below ComfyUI's output folder: prefix_00001, prefix_00002, ..."""
    parts = re.split(r"[/\\]", prefix.strip())
    if not all(map(is_file_name, parts)):
        raise ValueError(
            f"{prefix!r} cannot be a name in ComfyUI's output folder; use letters, digits and single slashes, for "
            "example champ/dance."
        )
    place = Path(folder_paths.get_output_directory(), *parts)
    paths = (place.with_name(f"{place.name}_{number:05}{suffix}") for number in count(1))
    try:
        return next(path for path in paths if not path.exists())
    except OSError as error:  # for example, the path is too long
        raise ValueError(not_saved(place, error)) from None
