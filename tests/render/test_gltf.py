"""The GLB, read back by a small viewer of our own: every frame shows the posed body."""

import json
import struct
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from champ.body.body import Body
from champ.body.free import load_free_body
from champ.body.skeleton import JOINTS
from champ.body.smpl import load_smpl
from champ.motion.presets import make_motion
from champ.progress import listening
from champ.render.gltf import save_glb

DATA = Path(__file__).parents[1] / "data"
DTYPES = {5121: np.uint8, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


class Viewer:
    """As much of glTF 2.0 as an animated skin needs, from the specification."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.scene = json.loads(data[20 : 20 + size])
        rest, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == len(data)
        self.content = data[28 + size :]
        assert self.scene["buffers"] == [{"byteLength": rest}]
        self.skin = self.scene["skins"][0]
        self.attributes = self.scene["meshes"][0]["primitives"][0]["attributes"]

    def array(self, index: int) -> np.ndarray:
        accessor = self.scene["accessors"][index]
        view = self.scene["bufferViews"][accessor["bufferView"]]
        dtype, shape = np.dtype(DTYPES[accessor["componentType"]]), WIDTHS[accessor["type"]]
        count = accessor["count"] * int(np.prod(shape, dtype=int))
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == count * dtype.itemsize
        values = np.frombuffer(self.content, dtype, count, view["byteOffset"]).reshape(-1, *shape)
        for name, of in (("min", np.min), ("max", np.max)):
            if name in accessor:
                np.testing.assert_array_equal(np.float32(accessor[name]), np.atleast_1d(of(values, axis=0)))
        return values.swapaxes(1, 2) if shape == (4, 4) else values

    def keys(self, node: int, path: str) -> np.ndarray | None:
        animation = self.scene["animations"][0]
        for channel in animation["channels"]:
            if channel["target"] == {"node": node, "path": path}:
                return self.array(animation["samplers"][channel["sampler"]]["output"])
        return None

    def matrices(self, frame: int) -> dict[int, np.ndarray]:
        """The place of every node in the scene at a key of the animation."""
        found = {}

        def visit(index: int, above: np.ndarray) -> None:
            node = self.scene["nodes"][index]
            turns, places = self.keys(index, "rotation"), self.keys(index, "translation")
            x, y, z, w = np.array([0, 0, 0, 1.0]) if turns is None else turns[frame].astype(float)
            local = np.eye(4)
            local[:3, :3] = [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
            local[:3, 3] = node.get("translation", (0, 0, 0)) if places is None else places[frame]
            found[index] = above @ local
            for child in node.get("children", ()):
                visit(child, found[index])

        for root in self.scene["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return found

    def vertices(self, frame: int) -> np.ndarray:
        nodes, inverse = self.matrices(frame), self.array(self.skin["inverseBindMatrices"])
        joints = np.stack([nodes[joint] @ bind for joint, bind in zip(self.skin["joints"], inverse)])
        points = self.array(self.attributes["POSITION"])
        points = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        seen = np.zeros((len(points), 3))
        for name in [name for name in self.attributes if name.startswith("JOINTS_")]:
            index, weight = (self.array(self.attributes[n]) for n in (name, name.replace("JOINTS", "WEIGHTS")))
            seen += np.einsum("vk,vkij,vj->vi", weight, joints[index][..., :3, :], points)
        return seen


def expected(motion, body) -> np.ndarray:
    """The posed body, y up, from over the origin, on the floor."""
    posed = motion.posed(body)
    vertices, pelvis = (value.numpy() * (1, -1, -1) for value in (posed.vertices, posed.joints[:, 0]))
    return vertices - (pelvis[0, 0], vertices[..., 1].min(), pelvis[0, 2])


@pytest.fixture(scope="module")
def body():
    return load_free_body()


@pytest.fixture(scope="module")
def walk(body):
    return make_motion("walk", body.with_betas(torch.tensor([1.5, -1.0])), 40, 12.5, travel=True)


def test_every_frame_shows_the_posed_body(tmp_path, body, walk):
    save_glb(tmp_path / "walk.glb", walk, body)
    viewer, truth = Viewer(tmp_path / "walk.glb"), expected(walk, body)
    for frame in (0, 7, 39):
        np.testing.assert_allclose(viewer.vertices(frame), truth[frame], atol=1e-4)


def test_the_tables_are_right(tmp_path, body, walk):
    save_glb(tmp_path / "walk.glb", walk, body)
    viewer = Viewer(tmp_path / "walk.glb")
    scene, arrays = viewer.scene, [viewer.array(i) for i in range(len(viewer.scene["accessors"]))]
    assert [scene["nodes"][joint]["name"] for joint in viewer.skin["joints"]] == list(JOINTS)
    faces = arrays[scene["meshes"][0]["primitives"][0]["indices"]].reshape(-1, 3)
    np.testing.assert_array_equal(faces, body.faces.numpy())
    samplers = scene["animations"][0]["samplers"]
    assert len(samplers) == 25 and len({sampler["input"] for sampler in samplers}) == 1
    np.testing.assert_allclose(arrays[samplers[0]["input"]], np.arange(40) / 12.5, rtol=1e-6)
    for sampler in samplers[1:]:
        turns = arrays[sampler["output"]]
        np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-6)
        assert ((turns[1:] * turns[:-1]).sum(1) > 0).all(), "a viewer would turn the long way round"
    weights = np.concatenate([arrays[viewer.attributes[f"WEIGHTS_{i}"]] for i in range(2)], axis=1)
    assert "WEIGHTS_2" not in viewer.attributes and (np.diff(weights, axis=1) <= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    normals = arrays[viewer.attributes["NORMAL"]]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_at_rest_it_stands_on_the_floor_over_the_origin(tmp_path, body, walk):
    """What a viewer shows that does not play animations."""
    save_glb(tmp_path / "walk.glb", walk, body)
    viewer = Viewer(tmp_path / "walk.glb")
    viewer.scene["animations"][0]["channels"] = []
    standing = body.with_betas(walk.betas).rest().vertices[0].numpy()
    np.testing.assert_allclose(viewer.vertices(0), standing - (0, standing[:, 1].min(), 0), atol=1e-5)


def test_smpl_without_its_pose_correctives(tmp_path):
    smpl = load_smpl(DATA / "smpl" / "SMPL_small_synth.npz")
    plain = Body(**{field.name: getattr(smpl, field.name) for field in fields(Body)})
    motion = make_motion("dance", plain, 5)
    save_glb(tmp_path / "a.glb", motion, plain)
    truth = expected(motion, plain)
    np.testing.assert_allclose(Viewer(tmp_path / "a.glb").vertices(3), truth[3], atol=1e-4)
    save_glb(tmp_path / "b.glb", motion, smpl)
    seen = Viewer(tmp_path / "b.glb").vertices(3)
    np.testing.assert_allclose(seen - seen.mean(0), truth[3] - truth[3].mean(0), atol=1e-4)


def test_another_reader_opens_it(tmp_path, body, walk):
    trimesh = pytest.importorskip("trimesh")
    save_glb(tmp_path / "walk.glb", walk[:1], body)
    mesh = trimesh.load(tmp_path / "walk.glb", process=False).to_geometry()
    assert (len(mesh.vertices), len(mesh.faces)) == (len(body.template), len(body.faces))


def test_progress_is_told(tmp_path, body, walk):
    steps = []
    with listening(lambda *step: steps.append(step)):
        save_glb(tmp_path / "walk.glb", walk, body)
    assert steps == [(32, 40), (40, 40)]
