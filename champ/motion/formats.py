"""Motions on disk: our own files, and those of other tools, converted to our camera."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.smpl import SmplBody
from ..files.errors import DamagedError, reading
from ..files.tensors import read_safetensors
from ..output import save_tensors, whole
from ..progress import portion
from .bvh import WHAT, read_bvh, skeleton_of
from .camera import CAMERA_FROM_WORLD, frame_person, transform
from .containers import READERS
from .foreign import AT_ONCE, FRAMES, SMPL_PELVIS, Z_UP, Recording, people_in
from .joint_lists import KNOWN, as_skeleton, named_points, our_points, people_as_points, rate_in, turned
from .joint_names import find_joints, told_joints
from .motion import Motion
from .retarget import read_up, retarget, stood, upwards
from .retime import repeat, sample
from .rotation import to_axis_angle
from .transfer import lowest

EXTENSIONS = (".safetensors", ".bvh", *READERS)
TENSORS = ("rotations", "betas", "cam_t", "confidence")
LATER = {"shot": torch.int64, "misfit": torch.float32, "doubt": torch.float32}  # not in all files
KIND = "champ motion 1"
# What a file is read as, and what to do if that fails.
OWN = ("a motion", "save the motion again")
FOREIGN = ("a motion", "make it again with the same tool, or convert it to AMASS' .npz")

SIDE = 16384  # pixels
FPS = 1000
FAR = 10_000  # metres, or betas
BETAS = 400  # SMPL-X has 300 and 100


def load_motion(
    path: str | Path,
    body: Body,
    person: int = 0,
    width: int = 512,
    height: int = 768,
    fps: float = 30.0,
    joints: str = "",
) -> Motion:
    """Loads the motion in a file, with one frame for every frame of its video; gaps have confidence 0.

    `person` counts from the one who is seen longest. Width, height and fps are used where the file does not contain
    them. A motion in world axes gets a camera that sees all of it. SMPL's betas are used only for an SMPL body; every
    other body keeps its own shape. `joints` says which joints of a BVH file are which, where that is not known.
    """
    return load_with_joints(path, body, person, width, height, fps, joints)[0]


def load_with_joints(
    path: str | Path, body: Body, person: int, width: int, height: int, fps: float, joints: str
) -> tuple[Motion, str]:
    """Loads a motion as `load_motion`, and tells which joints of the file were taken for ours, if it has others."""
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        return _load_own(path), ""
    if path.suffix.lower() == ".bvh":
        motion, told = _load_bvh(path, body, joints)
        return _filmed(motion, body, CAMERA_FROM_WORLD, width, height), told
    people, points, rate = _people(path)
    if not people and not points:
        raise ValueError(
            f"{path.name} holds no motion of Champ, AMASS, 4D-Humans, WHAM, GVHMR, TRAM, PromptHMR, ROMP or "
            f"Meshcapade, and no list of joints (frames, joints, 3) with {KNOWN} joints; choose the file that one of "
            "these tools wrote."
        )
    count = len(people or points)
    if not 0 <= person < count:
        raise ValueError(f"{path.name} has {count} people, so there is no person {person}; choose 0 to {count - 1}.")
    if not people:
        motion, told = _from_points(path, points[person], rate or fps, body, joints)
        return _filmed(motion, body, CAMERA_FROM_WORLD, width, height), told
    with reading(path, *FOREIGN):
        seen = people[person]()
        del people  # this also releases everything read from the file
        motion = _to_motion(seen, body, width, height, fps)
        world, repeats = seen.world, seen.repeats
        del seen
    if world is not None:
        motion = _filmed(motion, body, world, width, height)
    return (repeat(motion, repeats) if repeats > 1 else motion), ""


def _filmed(motion: Motion, body: Body, world: Tensor, width: int, height: int) -> Motion:
    """Returns a motion in a world, of which `world` makes a camera's axes, with a camera that sees all of it."""
    return frame_person(transform(motion, body, world, torch.zeros(3)), body, width, height)


def _load_bvh(path: Path, body: Body, joints: str) -> tuple[Motion, str]:
    with portion(0, 1, 4):
        clip = read_bvh(path)
    up, joints = read_up(joints)
    tree = clip.tree()
    found = find_joints(tree, path.name, joints)
    with portion(1, 1, 4), _understanding(path, WHAT[1]):
        skeleton = skeleton_of(clip, tree, found)
    with portion(2, 1, 4), _understanding(path, WHAT[1]):
        rotations, root = retarget(skeleton, body, up)
        motion = _in_world(rotations, root, body, clip.fps, "BVH")
    return motion, f"Joints:\n{told_joints(found, tree)}"


def _from_points(path: Path, points: np.ndarray, fps: float, body: Body, joints: str) -> tuple[Motion, str]:
    said_up, _ = read_up(joints)
    with reading(path, *FOREIGN):
        name, at, seen = named_points(points)
        skeleton = as_skeleton(at, fps)
        up = upwards(skeleton, said_up)
        ours = our_points(body, skin="nose" in at)
        turns = turned(at, ours, up)
    with _understanding(path, FOREIGN[1]):
        rotations, root = stood(skeleton, turns, up, body, ours)
        motion = _in_world(rotations, root, body, fps, f"{name} joints")
    return replace(motion, confidence=seen.float()), f"{points.shape[1]} joints, as {name} has them"


def _in_world(rotations: Tensor, root: Tensor, body: Body, fps: float, source: str) -> Motion:
    """Returns a motion in a world with y up, without a camera."""
    seen = torch.ones(len(root))
    motion = Motion(rotations, body.betas, root, SIDE, SIDE, SIDE, fps, seen, source)
    _check(motion)
    return motion


@contextmanager
def _understanding(path: Path, advice: str) -> Iterator[None]:
    """Says what a skeleton lacks. Other errors inside, such as that of a user who cancels, go through."""
    try:
        yield
    except DamagedError as error:
        raise ValueError(f"{path.name} cannot be read as a motion: {error}; {advice}.") from None


def save_motion(path: str | Path, motion: Motion) -> None:
    """Saves a motion in our own format: its tensors, and its numbers in the metadata."""
    tensors = {name: getattr(motion, name).detach().cpu().float() for name in TENSORS}
    tensors |= {name: getattr(motion, name).cpu() for name in LATER}
    numbers = {name: repr(getattr(motion, name)) for name in ("focal", "width", "height", "fps")}
    save_tensors(Path(path), tensors, {"kind": KIND, "source": motion.source, **numbers})


def save_amass(path: str | Path, motion: Motion, body: Body) -> None:
    """Saves a motion in AMASS' layout for SMPL-H: z up, in the first frame the person on the floor at the origin.

    Up is the camera's up, so a motion that is filmed from above comes out tilted.
    """
    shaped = body.with_betas(motion.betas)
    rest = shaped.rest().joints[0, 0]
    root = Z_UP.T @ motion.rotations[:, 0]
    pelvis = (rest + motion.cam_t) @ Z_UP
    pelvis = pelvis - torch.stack([pelvis[0, 0], pelvis[0, 1], -lowest(motion, body)])
    smpl = isinstance(body, SmplBody)
    betas = np.zeros(16)
    betas[:10] = shaped.betas[:10] if smpl else 0
    rotations = torch.cat([root[:, None], motion.rotations[:, 1:22]], dim=1)
    poses = torch.cat([to_axis_angle(rotations).flatten(1), torch.zeros(len(motion), 90)], dim=1)
    arrays = {
        "poses": poses.double().numpy(),
        "trans": (pelvis - (rest if smpl else rest.new_tensor(SMPL_PELVIS))).double().numpy(),
        "betas": betas,
        "dmpls": np.zeros((len(motion), 8)),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(motion.fps),
    }
    with whole(path) as made, open(made, "wb") as file:
        np.savez_compressed(file, **arrays)


def _load_own(path: Path) -> Motion:
    with reading(path, *OWN):
        values, about = read_safetensors(path)
    if about.get("kind") != KIND:
        raise ValueError(f"{path.name} is not a motion: it was not written by Save Motion; choose another file.")
    with reading(path, *OWN):
        tensors = {name: values[name] for name in TENSORS}
        kinds = [(tensor, torch.float32) for tensor in tensors.values()]
        known = {name: values[name] for name in LATER if name in values}
        tensors |= known
        kinds += [(value, LATER[name]) for name, value in known.items()]
        if any(tensor.dtype != kind for tensor, kind in kinds):
            raise DamagedError("its numbers are not of the types that Save Motion writes")
        width, height = (int(about[name]) for name in ("width", "height"))
        focal, fps = (float(about[name]) for name in ("focal", "fps"))
        motion = Motion(**tensors, width=width, height=height, focal=focal, fps=fps, source=about["source"][:80])
        if len(motion) > FRAMES:
            raise DamagedError(f"it has {len(motion)} frames, and 1 to {FRAMES} can be read")
        _check(motion)
        for part in motion.rotations.split(AT_ONCE):
            off = (part.mT @ part - torch.eye(3)).abs().amax()
            if off > 0.01 or not (torch.linalg.det(part) > 0).all():
                raise DamagedError("it holds matrices that are not rotations")
    return motion


def _check(motion: Motion) -> None:
    """Refuses numbers that no video has, before anything of that size is allocated."""
    if max(motion.width, motion.height) > SIDE:
        raise DamagedError(
            f"it claims pictures of {motion.width}x{motion.height} pixels, and {SIDE} a side is the limit"
        )
    if motion.fps > FPS:
        raise DamagedError(f"it claims {motion.fps:.6g} frames per second, and {FPS} is the limit")
    if not SIDE / 1000 < motion.focal < SIDE * 1000:
        raise DamagedError(f"it claims a focal length of {motion.focal:.6g} pixels")
    if motion.cam_t.abs().max() > FAR:
        raise DamagedError(f"its person is {motion.cam_t.abs().max():.3g} metres away")
    if len(motion.betas) > BETAS or len(motion.betas) and motion.betas.abs().max() > FAR:
        raise DamagedError("it has betas that no body has")


def _people(path: Path) -> tuple[list[Callable[[], Recording]], list[np.ndarray], float | None]:
    """Returns the people in a file: with rotations, or else as joints (F, J, 3), with the frames per second that the
    file says."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path.name} is not a motion: choose a file that ends in {', '.join(EXTENSIONS)}.")
    with reading(path, *FOREIGN):
        values = reader(path)
        people = people_in(values, path)
        return people, [] if people else people_as_points(values), rate_in(values)


def _to_motion(seen: Recording, body: Body, width: int, height: int, fps: float) -> Motion:
    """Converts a recording to a motion. The pelvis stays in place: cam_t = transl + J0 of the tool's body - our J0."""
    smpl = isinstance(body, SmplBody)
    betas = seen.betas[:10] if smpl and seen.betas is not None else body.betas
    rest = body.with_betas(betas).rest().joints[0, 0]
    pelvis = rest if smpl and seen.betas is not None else rest.new_tensor(seen.pelvis)
    width, height = seen.size or (width, height)
    known = Motion(
        rotations=seen.rotations,
        betas=betas,
        cam_t=seen.transl + (pelvis - rest),
        focal=seen.lens(width, height),
        width=width,
        height=height,
        fps=seen.fps or fps,
        confidence=torch.ones(len(seen.frames)),
        source=seen.source,
    )
    _check(known)
    return _fill(known, seen.frames, seen.length)


def _fill(known: Motion, frames: Tensor, length: int) -> Motion:
    """Fills every frame of the video: interpolates between known frames, and holds the nearest one before and after
    them."""
    order = frames.argsort()
    position = np.interp(np.arange(length), frames[order].numpy(), np.arange(len(frames)))
    rotations, cam_t = torch.empty(length, 24, 3, 3), torch.empty(length, 3)
    for start in range(0, length, AT_ONCE):
        part = torch.from_numpy(position[start : start + AT_ONCE]).float()
        first, last = int(part[0]), int(part[-1]) + 2
        filled = sample(known[order[first:last]], part - first)
        rotations[start : start + AT_ONCE], cam_t[start : start + AT_ONCE] = filled.rotations, filled.cam_t
    confidence = torch.zeros(length)
    confidence[frames] = 1
    return replace(known, rotations=rotations, cam_t=cam_t, confidence=confidence, shot=None, misfit=None, doubt=None)
