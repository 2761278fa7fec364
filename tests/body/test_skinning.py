"""Our skinning beside smplx's, which nothing but the reading of SMPL files may import."""

import subprocess
import sys

import pytest
import torch
from smplx.lbs import batch_rigid_transform, batch_rodrigues, blend_shapes, vertices2joints

from champ.body import skinning
from champ.body.skeleton import PARENTS


@pytest.fixture(params=[(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=["float32", "float64"])
def precision(request):
    return request.param


def random(*shape, seed, dtype):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_kinematic_chain_is_that_of_smplx(precision):
    dtype, atol = precision
    rotations = batch_rodrigues(random(7 * 24, 3, seed=0, dtype=dtype)).view(7, 24, 3, 3)
    joints = 0.3 * random(24, 3, seed=1, dtype=dtype)
    transl = 0.3 * random(7, 3, seed=2, dtype=dtype)
    posed, world, offset = skinning.forward_kinematics(rotations, joints, PARENTS, transl)
    theirs, transforms = batch_rigid_transform(rotations, joints.expand(7, -1, -1), torch.tensor(PARENTS), dtype=dtype)
    torch.testing.assert_close(posed, theirs + transl[:, None], atol=atol, rtol=0)
    torch.testing.assert_close(world, transforms[:, :, :3, :3], atol=atol, rtol=0)
    torch.testing.assert_close(offset, transforms[:, :, :3, 3] + transl[:, None], atol=atol, rtol=0)


def test_shape_and_joints_are_those_of_smplx(precision):
    dtype, atol = precision
    template, shapedirs = random(50, 3, seed=3, dtype=dtype), 0.1 * random(50, 3, 16, seed=4, dtype=dtype)
    betas, regressor = random(16, seed=5, dtype=dtype), random(24, 50, seed=6, dtype=dtype).softmax(1)
    vertices = skinning.blend_shapes(template, shapedirs, betas)
    theirs = template + blend_shapes(betas[None], shapedirs)
    torch.testing.assert_close(vertices[None], theirs, atol=atol, rtol=0)
    joints = skinning.regress(regressor, vertices)
    torch.testing.assert_close(joints[None], vertices2joints(regressor, theirs), atol=atol, rtol=0)


def test_the_free_body_is_posed_without_smplx():
    code = """
import sys
import torch
from champ.body.free import load_free_body
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
body = load_free_body()
render_guidance(body, make_motion("dance", body, frames=2, width=64, height=64))
assert not [name for name in sys.modules if name.partition(".")[0] == "smplx"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
