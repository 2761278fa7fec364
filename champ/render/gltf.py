"""Writes a motion as an animated, skinned body in one binary glTF 2.0 file, for Blender and 3D viewers.

The scene has y up and z towards the viewer: the camera frame rotated by 180 degrees about x. The camera is lost.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..motion.camera import CAMERA_FROM_WORLD, CHUNK
from ..motion.motion import Motion
from ..motion.rotation import continuous, to_quaternion
from ..output import whole
from ..progress import advance
from .maps import vertex_normals
from .preview import CLAY

COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
KINDS = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTICES, INDICES = 34962, 34963  # glTF's targets of buffers


class _Content:
    """The binary data of the file, and the tables with the place of each array."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Adds an array whose first axis counts the elements; returns the index of its accessor."""
        view = {"buffer": 0, "byteOffset": len(self.bytes), "byteLength": array.nbytes}
        self.views.append(view if target is None else {**view, "target": target})
        self.bytes += array.tobytes() + bytes(-array.nbytes % 4)  # every array begins at a multiple of 4
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": KINDS[array.shape[1:]],
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def save_glb(path: str | Path, motion: Motion, body: Body) -> None:
    """Writes the body with the motion's shape, and its joints' rotations as an animation.

    The person begins above the origin, and the lowest point of the clip is the floor. Skinning is linear, as in glTF:
    smplx's without pose correctives. A vertex may follow more than four joints. The four with the largest weights are
    in JOINTS_0; viewers that read no other set ignore the rest.
    """
    motion, body = motion.to("cpu"), body.to("cpu")
    shaped = body.with_betas(motion.betas)
    vertices, joints = (value[0] for value in shaped.rest())
    path_of_root = (joints[0] + motion.cam_t) @ CAMERA_FROM_WORLD
    floor = min(part.posed(body).vertices[..., 1].neg().amin().item() for part in _chunks(motion))
    path_of_root = path_of_root - torch.stack([path_of_root[0, 0], torch.tensor(floor), path_of_root[0, 2]])
    root = CAMERA_FROM_WORLD @ motion.rotations[:, :1]
    quaternions = continuous(to_quaternion(torch.cat([root, motion.rotations[:, 1:]], dim=1)))

    content = _Content()
    positions = _floats(vertices)
    attributes = {
        "POSITION": content.add(positions, VERTICES, bounds=True),
        "NORMAL": content.add(_floats(vertex_normals(vertices[None], body.faces)[0]), VERTICES),
    }
    for i, (index, weight) in enumerate(_influences(body.weights)):
        attributes[f"JOINTS_{i}"] = content.add(index, VERTICES)
        attributes[f"WEIGHTS_{i}"] = content.add(weight, VERTICES)
    faces = content.add(body.faces.numpy().astype(np.uint32).reshape(-1), INDICES)
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (24, 1, 1))
    inverse_bind[:, 3, :3] = -_floats(joints)  # glTF stores matrices by columns
    bind = content.add(inverse_bind)

    animation = _animation(content, motion, path_of_root, quaternions)
    standing = joints - torch.stack([torch.zeros(()), vertices[:, 1].min(), torch.zeros(())])
    nodes: list[dict[str, Any]] = []
    for j, (name, parent) in enumerate(zip(JOINTS, PARENTS)):
        offset = standing[j] if parent < 0 else joints[j] - joints[parent]
        children = [child for child, other in enumerate(PARENTS) if other == j]
        nodes.append({"name": name, "translation": offset.tolist(), **({"children": children} if children else {})})
    nodes.append({"name": body.name, "mesh": 0, "skin": 0})
    _write(
        Path(path),
        {
            "asset": {"version": "2.0", "generator": "ComfyUI-Champ"},
            "scene": 0,
            "scenes": [{"nodes": [0, 24]}],
            "nodes": nodes,
            "meshes": [{"primitives": [{"attributes": attributes, "indices": faces, "material": 0}]}],
            "materials": [{"pbrMetallicRoughness": {"baseColorFactor": (*CLAY, 1.0), "metallicFactor": 0.0}}],
            "skins": [{"joints": list(range(24)), "inverseBindMatrices": bind, "skeleton": 0}],
            "animations": [animation],
            "accessors": content.accessors,
            "bufferViews": content.views,
            "buffers": [{"byteLength": len(content.bytes)}],
        },
        content.bytes,
    )


def _animation(content: _Content, motion: Motion, path_of_root: Tensor, quaternions: Tensor) -> dict[str, Any]:
    """The way of the root (F, 3) and the turns of the joints (F, 24, 4) as (w, x, y, z)."""
    times = content.add((np.arange(len(motion)) / motion.fps).astype(np.float32), bounds=True)
    samplers = [{"input": times, "output": content.add(_floats(path_of_root)), "interpolation": "LINEAR"}]
    channels: list[dict[str, Any]] = [{"sampler": 0, "target": {"node": 0, "path": "translation"}}]
    for j in range(24):
        turns = content.add(_floats(quaternions[:, j].roll(-1, dims=-1)))  # (x, y, z, w)
        channels.append({"sampler": len(samplers), "target": {"node": j, "path": "rotation"}})
        samplers.append({"input": times, "output": turns, "interpolation": "LINEAR"})
    return {"name": motion.source, "samplers": samplers, "channels": channels}


def _chunks(motion: Motion):
    for start in range(0, len(motion), CHUNK):
        yield motion[start : start + CHUNK]
        advance(min(start + CHUNK, len(motion)), len(motion))


def _floats(values: Tensor) -> np.ndarray:
    return values.detach().float().contiguous().numpy()


def _influences(weights: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns joints and weights of each vertex by decreasing weight, in as many sets of four as the skin needs."""
    count = int((weights > 0).sum(1).max())
    weight, joint = weights.topk(-(-count // 4) * 4, dim=1)
    joint = joint.where(weight > 0, 0).to(torch.uint8)
    return [(j.contiguous().numpy(), _floats(w)) for j, w in zip(joint.split(4, dim=1), weight.split(4, dim=1))]


def _write(path: Path, scene: dict[str, Any], content: bytearray) -> None:
    """Writes a GLB: 12 bytes of header, then the scene as JSON and the binary data, each after its length and type."""
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    with whole(path) as made:
        made.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
