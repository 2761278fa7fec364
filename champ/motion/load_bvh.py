"""A BVH file as a motion of ours."""

from pathlib import Path

import torch
from torch import Tensor

from ..body.body import Body
from .bvh import AT_ONCE, Clip, read_bvh
from .camera import CAMERA_FROM_WORLD, FOCAL_PER_PIXEL, frame_person, transform
from .joint_names import Found, Tree, find_joints, told
from .motion import Motion
from .retarget import SIDES, Figure, read_up, retarget


def load_bvh(path: Path, body: Body, width: int, height: int, joints: str = "") -> tuple[Motion, str]:
    clip = read_bvh(path)
    said_up, text = read_up(joints)
    tree = Tree([node.name for node in clip.nodes], [node.parent for node in clip.nodes])
    found = find_joints(tree, text)
    rotations, root = retarget(figure_of(clip, tree, found), body, said_up)
    motion = Motion(
        rotations=rotations,
        betas=body.betas,
        cam_t=root,
        focal=FOCAL_PER_PIXEL * max(width, height),
        width=width,
        height=height,
        fps=clip.fps,
        confidence=torch.ones(len(clip)),
        source="BVH",
    )
    motion = transform(motion, body, CAMERA_FROM_WORLD, torch.zeros(3))
    return frame_person(motion, body, width, height), told(found, tree)


def figure_of(clip: Clip, tree: Tree, found: Found) -> Figure:
    """Returns the skeleton of a clip, reduced to the joints that were found and to what is below the ankles."""
    soles = {
        side: [node for node in range(len(clip.nodes)) if found[f"{side}_ankle"] in tree.line(node)] for side in SIDES
    }
    kept = sorted({*found.values(), *soles["left"], *soles["right"]})
    turns, places = [], []
    for start in range(0, len(clip), AT_ONCE):
        turn, place = clip.posed(slice(start, start + AT_ONCE))
        turns.append(turn[:, kept])
        places.append(place[:, kept])
    rest = at_rest(clip)[kept]
    number = {node: i for i, node in enumerate(kept)}
    return Figure(
        torch.cat(turns), torch.cat(places), rest, {ours: number[node] for ours, node in found.items()},
        {side: [number[node] for node in soles[side]] for side in SIDES}, clip.fps,
    )  # fmt: skip


def at_rest(clip: Clip) -> Tensor:
    """Returns the places (N, 3) where nothing is turned."""
    places: list[Tensor] = []
    for node in clip.nodes:
        place = torch.tensor(node.offset)
        places.append(place + places[node.parent] if node.parent >= 0 else place)
    return torch.stack(places)
