import lzma
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from champ.body.skeleton import JOINTS
from champ.body.smpl import load_smpl
from champ.keypoints.layouts import KEYPOINTS

DATA = Path(__file__).parents[1] / "data" / "smpl"
PICKLES = sorted(file.name.removesuffix(".xz") for file in DATA.glob("*.pkl.xz"))
NPZ = DATA / "SMPL_small_synth.npz"


@pytest.fixture
def arrays():
    """A small random body in SMPL's format, 240 vertices."""
    with np.load(NPZ) as file:
        return dict(file)


@pytest.fixture(scope="module")
def expected():
    """What smplx computes for it."""
    with np.load(DATA / "expected.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def unpacked(name, folder):
    """Pickles of real Python 2.7 and chumpy are large; the repository keeps them compressed."""
    path = folder / name
    path.write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
    return path


def pickled(model, folder, protocol=4):
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(model, protocol))
    return path


def check(body, expected):
    assert body.shapedirs.shape == (240, 3, 10)
    for i in range(5):
        shaped = body.with_betas(expected["betas"][i])
        posed = shaped.pose(expected["rotmats"][i : i + 1], expected["transl"][i : i + 1])
        torch.testing.assert_close(posed.vertices[0], expected["vertices"][i], atol=1e-5, rtol=0)
        torch.testing.assert_close(posed.joints[0], expected["joints"][i, :24], atol=1e-5, rtol=0)


def test_the_pickles_are_what_people_have():
    assert len(PICKLES) == 6


@pytest.mark.parametrize("name", PICKLES)
def test_original_and_cleaned_pickles(name, tmp_path, expected):
    check(load_smpl(unpacked(name, tmp_path)), expected)


def test_npz(expected):
    check(load_smpl(NPZ), expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(arrays, protocol, tmp_path, expected):
    check(load_smpl(pickled(arrays, tmp_path, protocol)), expected)


def test_column_major_and_big_endian_arrays(arrays, tmp_path, expected):
    arrays["shapedirs"] = np.asfortranarray(arrays["shapedirs"])
    arrays["posedirs"] = arrays["posedirs"].astype(">f8")
    check(load_smpl(pickled(arrays, tmp_path)), expected)


def test_safetensors_and_pth(arrays, tmp_path, expected):
    arrays["f"] = arrays["f"].astype(np.int64)
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, tmp_path / "model.safetensors")
    torch.save({key: torch.tensor(value) for key, value in arrays.items()}, tmp_path / "model.pth")
    check(load_smpl(tmp_path / "model.safetensors"), expected)
    check(load_smpl(str(tmp_path / "model.pth")), expected)


def test_first_ten_of_many_shape_components(arrays, tmp_path, expected):
    more = np.ones((240, 3, 290), np.float32)
    arrays["shapedirs"] = np.concatenate([arrays["shapedirs"], more], axis=2)
    check(load_smpl(pickled(arrays, tmp_path)), expected)


def test_name_parts_and_default_shape():
    body = load_smpl(NPZ)
    assert body.name == "SMPL_small_synth"
    assert torch.equal(body.part_labels, body.weights.argmax(1))
    assert body.faces.dtype == torch.long and body.faces.shape == (400, 3)
    assert body.betas.tolist() == [0.0] * 10


def test_gradients_reach_shape_pose_and_place(expected):
    leaves = [expected[key][:1].clone().requires_grad_() for key in ("betas", "rotmats", "transl")]
    posed = load_smpl(NPZ).with_betas(leaves[0][0]).pose(*leaves[1:])
    for gradient in torch.autograd.grad(posed.vertices.square().sum(), leaves):
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_keypoints_of_a_mesh_that_is_not_smpls_come_from_joints(expected):
    body = load_smpl(NPZ)
    posed = body.pose(expected["rotmats"], expected["transl"])
    points = dict(zip(KEYPOINTS, body.keypoints(posed).unbind(1), strict=True))
    joints = dict(zip(JOINTS, posed.joints.unbind(1), strict=True))
    for point, joint in {"left_knee": "left_knee", "nose": "head", "right_big_toe": "right_foot"}.items():
        torch.testing.assert_close(points[point], joints[joint], atol=1e-6, rtol=0)


def test_keypoints_of_smpls_mesh_come_from_its_vertices(arrays, tmp_path):
    count = 6890
    generator = np.random.default_rng(0)
    model = {
        "v_template": generator.normal(size=(count, 3)),
        "shapedirs": np.zeros((count, 3, 10)),
        "posedirs": np.zeros((count, 3, 207)),
        "J_regressor": generator.random((24, count)) / count,
        "weights": np.eye(24)[generator.integers(0, 24, count)],
        "f": generator.integers(0, count, (13776, 3)),
    }
    body = load_smpl(pickled(model, tmp_path))
    rest = body.rest()
    points = dict(zip(KEYPOINTS, body.keypoints(rest)[0], strict=True))
    for name, vertex in {
        "nose": 332,
        "left_ear": 583,
        "right_eye": 6260,
        "left_heel": 3387,
        "right_big_toe": 6617,
    }.items():
        torch.testing.assert_close(points[name], rest.vertices[0, vertex], atol=1e-6, rtol=0)
    torch.testing.assert_close(points["left_hip"], rest.joints[0, JOINTS.index("left_hip")], atol=1e-6, rtol=0)


# Hostile pickles. Each would create the file "harm" if anything in it ran.


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def harm(tmp_path):
    return f"open({str(tmp_path / 'harm')!r}, 'w').close()"


def chumpy(state):
    """A pickle of a chumpy.ch.Ch with this state, made without chumpy."""
    body = pickle.dumps(state, 2)
    inner = body[2:-1]  # without PROTO and STOP
    return b"\x80\x02}X\x0a\x00\x00\x00v_templatecchumpy.ch\nCh\n)\x81" + inner + b"bs."


HOSTILE = {
    "os.system": lambda t: pickle.dumps(Call(os.system, f"touch {t / 'harm'}")),
    "eval": lambda t: pickle.dumps({"v_template": Call(eval, harm(t))}),
    "exec": lambda t: pickle.dumps({"bs_type": Call(exec, harm(t))}, 0),
    "getattr": lambda t: pickle.dumps(Call(getattr, "", "join")),
    "nested in chumpy": lambda t: chumpy({"x": Call(eval, harm(t))}),
    "numpy runstring": lambda t: b"cnumpy.testing._private.utils\nrunstring\n(V" + harm(t).encode() + b"\n}tR.",
    "numpy load": lambda t: b"cnumpy\nload\n(Vmodel.npy\nNI01\ntR.",
    "dotted name": lambda t: b"\x80\x04\x8c\x05numpy\x8c\x1andarray.__class__.__base__\x93.",
    "module inside chumpy": lambda t: b"cchumpy.os\nsystem\n(Vtouch " + str(t / "harm").encode() + b"\ntR.",
    "INST opcode": lambda t: b"(Vtouch " + str(t / "harm").encode() + b"\nios\nsystem\n.",
    "OBJ opcode": lambda t: b"(cposix\nsystem\nVtouch " + str(t / "harm").encode() + b"\no.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name, tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(HOSTILE[name](tmp_path))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl was refused and nothing in it was run: it calls \S+,"):
        load_smpl(path)
    assert not (tmp_path / "harm").exists()


ODD = {
    "a dtype of Python code": b"cnumpy\ndtype\n(V__import__('os').system('false')\ntR",
    "a dtype with a fields table": b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR(I3\nV|\nN(Va\nt}NI-1\nI-1\ntb",
    "a function of a function": b"c_codecs\nencode\n(c_codecs\nencode\nc_codecs\nencode\ntR",
    "a class without arguments": b"ccopy_reg\n_reconstructor\n(tR",
    "an object array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I1\ntcnumpy\ndtype\n"
    b"(VO8\nI0\nI1\ntR(I3\nV|\nNNNI-1\nI-1\ntbI00\n(lI1\natb",
    "an array with too few bytes": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    b"(I1\n(I9\ntcnumpy\ndtype\n(Vf8\nI0\nI1\ntR(I3\nV<\nNNNI-1\nI-1\ntbI00\nVabc\ntb",
    "state for a class": b"cnumpy\nndarray\n(I1\ntb",
    "a call of a number": b"I1\n(tR",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_uses_of_allowed_names_are_refused(name, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"(Vv_template\n" + ODD[name] + b"d.")
    with pytest.raises(ValueError, match=r"^model\.pkl cannot be read as an SMPL model: .*; get it from"):
        load_smpl(path)


def test_an_expression_that_contains_itself_is_refused(tmp_path):
    # chumpy.reordering.transpose whose operand is itself
    loop = b"(Vv_template\ncchumpy.reordering\ntranspose\n)\x81p1\n(Va\ng1\nVaxes\nNdbd."
    (tmp_path / "model.pkl").write_bytes(b"\x80\x02" + loop)
    with pytest.raises(ValueError, match="cannot be read as an SMPL model"):
        load_smpl(tmp_path / "model.pkl")


# Files that are not hostile, only wrong.


def test_a_missing_file_says_where_to_put_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"put SMPL_NEUTRAL\.pkl into models/smpl \(register at smpl\.is\.tue\.mpg\.de\)"
    ):
        load_smpl(tmp_path / "SMPL_NEUTRAL.pkl")


def test_missing_keys_are_named(arrays, tmp_path):
    del arrays["posedirs"], arrays["f"]
    with pytest.raises(ValueError, match=r"model\.pkl is not an SMPL model: it has no posedirs, f; choose"):
        load_smpl(pickled(arrays, tmp_path))


@pytest.mark.parametrize("content", [[1, 2], 7, "text", None])
def test_something_else_in_a_pickle(content, tmp_path):
    with pytest.raises(ValueError, match=r"model\.pkl (is not|cannot be read as) an SMPL model"):
        load_smpl(pickled(content, tmp_path))


def test_more_joints_than_smpl(arrays, tmp_path):
    arrays["weights"] = np.zeros((240, 52), np.float32)
    with pytest.raises(ValueError, match=r"weights is \(240, 52\) instead of \(240, 24\); choose an SMPL file"):
        load_smpl(pickled(arrays, tmp_path))


@pytest.mark.parametrize(
    ("key", "shape"),
    [("v_template", (240,)), ("v_template", ()), ("shapedirs", (240, 3, 8)), ("shapedirs", ()),
     ("posedirs", (207, 720)), ("J_regressor", (17, 240)), ("f", (400, 4)), ("f", ())],
)  # fmt: skip
def test_wrong_shapes_are_named(arrays, key, shape, tmp_path):
    arrays[key] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"model\.pkl is not an SMPL model: \w+ is \([\d, ]*\) instead of"):
        load_smpl(pickled(arrays, tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["SMPL_chumpy_leaf_py2_proto0.pkl", "SMPL_chumpy_select_py2_proto2.pkl", NPZ.name])
def test_truncated_files(name, share, tmp_path):
    path = DATA / name if name == NPZ.name else unpacked(name, tmp_path)
    data = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"cut\{path.suffix} cannot be read as an SMPL model"):
        load_smpl(cut)


def test_object_arrays_in_an_npz_are_refused(arrays, tmp_path):
    np.savez(tmp_path / "model.npz", **arrays | {"weights": np.array([Call(eval, harm(tmp_path))], dtype=object)})
    with pytest.raises(ValueError, match=r"model\.npz was refused and nothing in it was run: it calls builtins\.eval"):
        load_smpl(tmp_path / "model.npz")
    assert not (tmp_path / "harm").exists()


def test_pth_with_code_is_refused(tmp_path):
    torch.save({"v_template": Call(eval, harm(tmp_path))}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth was refused .*: it calls __builtin__\.eval"):
        load_smpl(tmp_path / "model.pth")
    assert not (tmp_path / "harm").exists()


def test_other_kinds_of_file(tmp_path):
    (tmp_path / "body.obj").write_text("v 0 0 0")
    with pytest.raises(ValueError, match=r"body\.obj is not an SMPL model: choose a file that ends in \.pkl, \.npz"):
        load_smpl(tmp_path / "body.obj")


def damage(arrays, key: str, value):
    array = arrays[key] = arrays[key].astype(np.float64)
    array.flat[5] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("v_template", np.nan, "its v_template contain NaN or impossible numbers"),
        ("weights", np.inf, "its weights contain NaN"),
        ("f", 240, "its faces refer to vertices 0 to 240, but it has 240; get it again"),
        ("f", -1, "its faces refer to vertices -1 to 239"),
    ],
)
def test_numbers_that_no_body_has(arrays, key, value, message, tmp_path):
    damage(arrays, key, value)
    with pytest.raises(ValueError, match=rf"^model\.pkl is damaged: {message}"):
        load_smpl(pickled(arrays, tmp_path))


def test_a_body_that_is_far_too_large(arrays, tmp_path):
    arrays["f"] = np.zeros((60_000, 3), np.int32)
    with pytest.raises(ValueError, match="model.pkl is not an SMPL model: it has 240 vertices and 60000 faces, where"):
        load_smpl(pickled(arrays, tmp_path))


@pytest.mark.parametrize("shape", [(1 << 30, 1 << 30), (24, 1 << 31), (24, 240), (-1, 4)])
def test_sparse_matrices_are_checked_before_they_are_made(shape, tmp_path):
    """Lines that claim more numbers than there are, and shapes that no body has."""
    numbers = b"(" + b"".join(b"\x8a\x08" + n.to_bytes(8, "little", signed=True) for n in shape) + b"t"
    starts = b"(lp1\nI0\naI999999999999\na"
    matrix = b"cscipy.sparse.csc\ncsc_matrix\n)\x81}(V_shape\n" + numbers + b"Vindptr\n" + starts
    matrix += b"Vindices\n(lVdata\n(lub"
    (tmp_path / "model.pkl").write_bytes(b"\x80\x02}VJ_regressor\n" + matrix + b"s.")
    with pytest.raises(ValueError, match=r"model\.pkl cannot be read as an SMPL model: it "):
        load_smpl(tmp_path / "model.pkl")
