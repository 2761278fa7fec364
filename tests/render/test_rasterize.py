"""The rasteriser against ray casting in float64, against geometry that is known, and against OpenGL."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from champ.body.free import load_free_body
from champ.render import rasterize as module
from champ.render.preview import import_pyrender
from champ.render.rasterize import NEAR, rasterize


def soup(seed: int, triangles: int, low: tuple, high: tuple, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Random triangles around points of a box."""
    random = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(low), torch.tensor(high)
    centres = low + (high - low) * torch.rand(triangles, 1, 3, generator=random)
    corners = centres + size * torch.randn(triangles, 3, 3, generator=random)
    return corners.reshape(-1, 3), torch.arange(3 * triangles).view(-1, 3)


def grid(columns: int, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A jittered sheet over -1.5..1.5 at Z about 2, two faces a cell."""
    random = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.linspace(-1.5, 1.5, columns), torch.linspace(-1.5, 1.5, rows), indexing="xy")
    vertices = torch.stack([x, y, torch.full_like(x, 2.0)], -1).view(-1, 3)
    vertices += 0.3 * 3 / max(columns, rows) * (torch.rand(vertices.shape, generator=random) - 0.5)
    i = (torch.arange(rows - 1)[:, None] * columns + torch.arange(columns - 1)).flatten()
    upper = torch.stack([i, i + columns, i + 1], 1)
    lower = torch.stack([i + 1, i + columns, i + columns + 1], 1)
    return vertices, torch.cat([upper, lower])


def sphere(radius: float, meridians: int = 40, parallels: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed sphere around the origin, normals outward."""
    theta = torch.linspace(0, torch.pi, parallels + 1)[:, None]
    phi = torch.arange(meridians) * (2 * torch.pi / meridians)
    ring = torch.sin(theta)
    ring[-1] = 0
    x, y, z = ring * torch.cos(phi), ring * torch.sin(phi), torch.cos(theta).expand(-1, meridians)
    vertices = radius * torch.stack([x, y, z], -1).view(-1, 3)
    ring, step = torch.meshgrid(torch.arange(parallels), torch.arange(meridians), indexing="ij")
    a, b = (ring * meridians + step).flatten(), (ring * meridians + (step + 1) % meridians).flatten()
    c, d = a + meridians, b + meridians
    return vertices, torch.cat([torch.stack([a, c, b], 1), torch.stack([b, c, d], 1)])


def cast_rays(vertices: torch.Tensor, faces: torch.Tensor, focal: float, width: int, height: int) -> SimpleNamespace:
    """Z, face and barycentric coordinates at each pixel from ray-plane intersections in float64, one row per pixel;
    `clear` marks the pixels where no rounding of float32 could change the answer."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1).double().view(-1, 3)
    a, b, c = vertices.double()[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    z = (normal * a).sum(1) / (rays @ normal.T)
    point = rays[:, None] * z[..., None]
    areas = [(torch.linalg.cross((q - p)[None], point - p) * normal).sum(-1) for p, q in ((b, c), (c, a), (a, b))]
    weights = torch.stack(areas, -1) / (normal * normal).sum(-1)[:, None]
    inside = (weights >= 0).all(-1) & (z >= NEAR)
    z = torch.where(inside, z, torch.inf)
    nearest, face = z.min(1)
    near_edge = (weights.amin(-1).abs() < 1e-4) | ((point[..., 2] - NEAR).abs() < 1e-5)
    runner_up = z.topk(2, dim=1, largest=False).values[:, 1]
    clear = ~(near_edge & (point[..., 2] < 1.001 * nearest[:, None])).any(1) & ~(runner_up < 1.0001 * nearest)
    barycentric = weights[torch.arange(len(face)), face]
    return SimpleNamespace(z=nearest, face=face, barycentric=barycentric, clear=clear, hit=nearest < torch.inf)


@pytest.mark.parametrize(
    "seed, low, high, size",
    [
        (0, (-1.5, -1.5, 2.0), (1.5, 1.5, 6.0), 0.5),
        (1, (-0.5, -0.5, 0.1), (0.5, 0.5, 1.0), 0.05),
        (2, (-1.5, -1.5, -1.0), (1.5, 1.5, 3.0), 0.8),  # many cross the near plane
        (3, (-0.2, -0.2, -0.1), (0.2, 0.2, 0.3), 0.1),
    ],
)
def test_agrees_with_ray_casting(seed, low, high, size):
    vertices, faces = soup(seed, 60, low, high, size)
    focal, width, height = 70.0, 64, 47
    hits = rasterize(vertices[None], faces, focal, width, height)
    rays = cast_rays(vertices, faces, focal, width, height)
    assert rays.clear.float().mean() > 0.95 and rays.hit.float().mean() > 0.1
    hit = torch.zeros(width * height, dtype=torch.bool)
    hit[hits.pixel] = True
    assert torch.equal(hit[rays.clear], rays.hit[rays.clear])
    clear = rays.clear[hits.pixel]
    pixel = hits.pixel[clear]
    assert torch.equal(hits.face[clear], rays.face[pixel])
    torch.testing.assert_close(hits.z[clear].double(), rays.z[pixel], rtol=1e-4, atol=0)
    torch.testing.assert_close(hits.barycentric.t()[clear].double(), rays.barycentric[pixel], rtol=0, atol=1e-3)
    a, b, c = vertices[faces[hits.face]].unbind(1)
    outward = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    assert torch.equal(hits.outward[clear], outward[clear])


def test_interpolation_is_perspective_correct():
    # A floor half a metre below the camera, from Z = 1 to Z = 9.
    vertices = torch.tensor([[-1.0, 0.5, 1.0], [1.0, 0.5, 1.0], [9.0, 0.5, 9.0], [-9.0, 0.5, 9.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    hits = rasterize(vertices[None], faces, 100.0, 101, 101)
    row = hits.pixel // 101
    assert torch.equal(row.unique(), torch.arange(56, 100))
    z = 100 * 0.5 / (row - 50.0)
    torch.testing.assert_close(hits.z, z, rtol=1e-5, atol=0)
    points = (vertices[faces[hits.face]] * hits.barycentric.t()[..., None]).sum(1)
    torch.testing.assert_close(points[:, 1:], torch.stack([torch.full_like(z, 0.5), z], 1), rtol=1e-5, atol=1e-5)


def test_pixel_centres_decide():
    # In picture coordinates the triangle has corners (2, 1), (6, 1), (2, 5): its oblique side passes through centres.
    corners = torch.tensor([[2.0, 1.0], [6.0, 1.0], [2.0, 5.0]]) - 4
    vertices = torch.cat([corners, torch.ones(3, 1)], 1)[None]
    drawn = torch.zeros(8, 8, dtype=torch.bool)
    drawn.view(-1)[rasterize(vertices, torch.tensor([[0, 1, 2]]), 1.0, 8, 8).pixel] = True
    expected = torch.tensor([[y >= 1 and x >= 2 and x + 0.5 + y + 0.5 < 7 for x in range(8)] for y in range(8)])
    assert torch.equal(drawn, expected)
    # A triangle that lies between centres is not seen.
    assert len(rasterize(vertices * torch.tensor([0.1, 0.1, 1.0]), torch.tensor([[0, 1, 2]]), 1.0, 8, 8).pixel) == 0


def test_neighbours_leave_neither_gap_nor_overlap():
    vertices, faces = grid(60, 50)
    first = torch.rand(len(faces), generator=torch.Generator().manual_seed(1)) < 0.5
    some, others = (rasterize(vertices[None], part, 400.0, 333, 517).pixel for part in (faces[first], faces[~first]))
    assert torch.equal(torch.cat([some, others]).sort().values, torch.arange(333 * 517))


@pytest.mark.parametrize("focal", [60.0, 3000.0])
def test_camera_inside_a_sphere_sees_its_inner_side_everywhere(focal):
    vertices, faces = sphere(2.0)
    hits = rasterize(vertices[None] + torch.tensor([0.3, -0.2, 0.5]), faces, focal, 333, 517)
    assert len(hits.pixel) == 333 * 517
    assert not hits.outward.any()
    assert rasterize(vertices[None] + torch.tensor([0.0, 0.0, 5.0]), faces, focal, 333, 517).outward.all()


def test_near_plane_cuts_off_what_is_too_near():
    # A floor 0.5 m below the camera reaches from behind the camera to Z = 8.
    vertices = torch.tensor([[-50.0, 0.5, -4.0], [50.0, 0.5, -4.0], [50.0, 0.5, 8.0], [-50.0, 0.5, 8.0]])
    hits = rasterize(vertices[None], torch.tensor([[0, 1, 2], [0, 2, 3]]), 10.0, 40, 400)
    row = hits.pixel // 40
    expected = 10 * 0.5 / (row + 0.5 - 200)
    torch.testing.assert_close(hits.z, expected, rtol=1e-5, atol=0)
    seen = torch.arange(400) + 0.5 - 200
    rows = ((seen > 10 * 0.5 / 8) & (seen < 10 * 0.5 / NEAR)).nonzero()[:, 0]
    assert torch.equal(row.unique(), rows)
    assert len(hits.pixel) == 40 * len(rows)
    points = (vertices[torch.tensor([[0, 1, 2], [0, 2, 3]])[hits.face]] * hits.barycentric.t()[..., None]).sum(1)
    torch.testing.assert_close(points[:, 2], hits.z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [(50.0, 0, 5), (-50.0, 0, 5), (0, 50.0, 5), (0, -50.0, 5), (0, 0, -5), (0, 0, -1.97)])
def test_nothing_is_seen_outside_the_picture_or_behind_the_camera(shift):
    vertices, faces = sphere(1.0) if shift[2] != -1.97 else sphere(2.0)
    hits = rasterize(vertices[None] + torch.tensor(shift), faces, 200.0, 64, 64)
    assert all(part.shape[-1] == 0 for part in hits)


def test_frames_are_drawn_independently_and_may_be_empty():
    vertices, faces = sphere(1.0)
    shifts = torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, -9.0], [1.0, 0.0, 0.5], [9.0, 0.0, 3.0], [0.1, 0.7, 4.0]])
    together = rasterize(vertices + shifts[:, None], faces, 60.0, 50, 40)
    alone = [rasterize(vertices[None] + shift, faces, 60.0, 50, 40) for shift in shifts]
    for i, hits in enumerate(alone):
        mine = together.frame == i
        assert torch.equal(together.pixel[mine], hits.pixel + i * 50 * 40)
        assert torch.equal(together.face[mine], hits.face)
        assert torch.equal(together.z[mine], hits.z)
        torch.testing.assert_close(together.barycentric[:, mine], hits.barycentric, rtol=0, atol=1e-6)
    assert [len(hits.pixel) > 0 for hits in alone] == [True, False, True, False, True]
    assert len(rasterize(vertices[:0][None], faces[:0], 60.0, 50, 40).pixel) == 0


def test_working_memory_is_bounded_and_its_size_changes_nothing(monkeypatch):
    # Forty layers of faces larger than the picture, and a small ball in front of them.
    ball, ball_faces = sphere(0.3)
    layers, layer_faces = soup(5, 40, (-0.1, -0.1, 3.0), (0.1, 0.1, 4.0), 0.2)
    layers = layers * torch.tensor([60.0, 60.0, 1.0])
    vertices = torch.cat([ball + torch.tensor([0.1, 0.2, 2.0]), layers])[None]
    faces = torch.cat([ball_faces, layer_faces + len(ball)])
    whole = rasterize(vertices, faces, 150.0, 120, 90)
    largest = []
    repeat = module._repeat

    def watched(counts):
        for index, step in repeat(counts):
            largest.append(len(index))
            yield index, step

    monkeypatch.setattr(module, "_repeat", watched)
    monkeypatch.setattr(module, "CPU_BLOCK", 1000)
    parts = rasterize(vertices, faces, 150.0, 120, 90)
    assert max(largest) == 1000 and sum(largest) > 50 * 1000
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))


def test_slivers_give_finite_weights():
    vertices, faces = soup(7, 4000, (-1.0, -1.0, 2.0), (1.0, 1.0, 3.0), 0.3)
    corners = vertices.view(-1, 3, 3)
    random = torch.Generator().manual_seed(8)
    along = torch.rand(4000, 1, generator=random) * (corners[:, 1] - corners[:, 0])
    corners[:, 2] = corners[:, 0] + along + 1e-5 * torch.randn(4000, 3, generator=random)
    corners[:20, 1] = corners[:20, 0]
    hits = rasterize(vertices[None], faces, 300.0, 256, 256)
    assert len(hits.pixel) > 0
    assert hits.barycentric.isfinite().all() and hits.barycentric.min() >= 0
    torch.testing.assert_close(hits.barycentric.sum(0), torch.ones(len(hits.pixel)))
    assert hits.z.min() > 0.5 and hits.z.max() < 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_coordinates_that_are_no_numbers_are_refused(value):
    vertices, faces = sphere(1.0)
    vertices = (vertices + torch.tensor([0.0, 0.0, 5.0])).repeat(3, 1, 1)
    vertices[1, 7, 0] = value
    with pytest.raises(ValueError, match=r"in 1 frame\(s\), first in frame 1; check the rotations"):
        rasterize(vertices, faces, 60.0, 50, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    body = load_free_body()
    vertices = (body.rest().vertices * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, -0.3, 9.0])).repeat(3, 1, 1)
    cpu = rasterize(vertices, body.faces, 2500.0, 512, 512)
    gpu = rasterize(vertices.cuda(), body.faces.cuda(), 2500.0, 512, 512)
    common = np.intersect1d(cpu.pixel, gpu.pixel.cpu())
    assert len(common) >= 0.9999 * max(len(cpu.pixel), len(gpu.pixel))


@pytest.fixture(scope="module")
def gl_platform() -> str:
    """The first way to OpenGL without a window that works here."""
    code = "import pyrender; pyrender.OffscreenRenderer(8, 8).delete()"
    for platform in ("egl", "osmesa"):
        environment = {**os.environ, "PYOPENGL_PLATFORM": platform}
        if subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0:
            return platform
    pytest.skip("pyrender finds neither EGL nor OSMesa here")


@pytest.mark.parametrize("width, height, distance", [(512, 512, 36.0), (333, 517, 30.0), (400, 300, 9.0)])
def test_silhouette_and_depth_agree_with_opengl(gl_platform, monkeypatch, width, height, distance):
    monkeypatch.setenv("PYOPENGL_PLATFORM", gl_platform)
    pyrender, trimesh = import_pyrender()
    # pyrender always asks for 4 samples a pixel, which blurs silhouettes; one at the centre is what we draw.
    storage = pyrender.renderer.glRenderbufferStorageMultisample
    monkeypatch.setattr(
        pyrender.renderer, "glRenderbufferStorageMultisample", lambda target, samples, *rest: storage(target, 0, *rest)
    )
    body = load_free_body()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4))).Q
    vertices = (body.rest().vertices[0] - body.rest().joints[0, 0]) @ (turn * turn.det().sign()).T
    vertices = vertices + torch.tensor([0.1, -0.05, distance])
    focal = 5000 / 256 * max(width, height)

    scene = pyrender.Scene()
    to_gl = np.array([1.0, -1.0, -1.0], dtype=np.float32)  # OpenGL looks along -z with y up
    mesh = trimesh.Trimesh(vertices.numpy() * to_gl, body.faces.numpy(), process=False)
    scene.add(pyrender.Mesh.from_trimesh(mesh))
    camera = pyrender.IntrinsicsCamera(focal, focal, width / 2, height / 2, znear=distance - 2, zfar=distance + 2)
    scene.add(camera)
    renderer = pyrender.OffscreenRenderer(width, height)
    try:
        expected = renderer.render(scene, pyrender.RenderFlags.DEPTH_ONLY | pyrender.RenderFlags.SKIP_CULL_FACES)
    finally:
        renderer.delete()

    hits = rasterize(vertices[None], body.faces, focal, width, height)
    depth = np.zeros(width * height, dtype=np.float32)
    depth[hits.pixel] = hits.z
    depth = depth.reshape(height, width)
    both, either = ((depth > 0) & (expected > 0)).sum(), ((depth > 0) | (expected > 0)).sum()
    assert both > 0.1 * width * height and both / either >= 0.9995
    difference = np.abs(depth - expected)[(depth > 0) & (expected > 0)]
    assert np.quantile(difference, 0.999) < 5e-3 and difference.mean() < 1e-4
