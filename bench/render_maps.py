"""Time of the four maps of a dancing free body, stage by stage, beside pyrender's picture and depth of the same meshes.

All in processor time of one thread, which a busy machine changes less than the time that passes.
pyrender gives a flat-coloured picture and a depth buffer: no normals, no blended part colours, no skeleton.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer on one thread, like torch below

import numpy as np
import torch

from champ.body.body import Body
from champ.body.free import load_free_body
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
from champ.render.maps import Maps, draw_maps, motion_hits, part_colors
from champ.render.preview import import_pyrender
from champ.render.skeleton import draw_skeleton, project_poses

FRAMES = 48
PASSES = 7


def stages(body: Body, motion: Motion) -> tuple[float, float, float]:
    """Seconds for skinning and rasterising, for the three maps and the mask, and for the skeleton."""
    spent = [0.0, 0.0, 0.0]
    maps = Maps.blank(1, motion.height, motion.width)
    colors = part_colors(body.faces, body.part_labels)
    runs = motion_hits(body, motion)
    while True:
        marks = [time.process_time()]
        run = next(runs, None)
        if run is None:
            return spent[0], spent[1], spent[2]
        frames, posed, hits = run
        marks.append(time.process_time())
        draw_maps(maps, hits, posed.vertices, body.faces, colors)
        marks.append(time.process_time())
        for pose in project_poses(body, frames, posed, hits):
            draw_skeleton([pose], motion.width, motion.height)
        marks.append(time.process_time())
        spent = [total + end - start for total, start, end in zip(spent, marks, marks[1:])]


def pyrender_passes(body: Body, motion: Motion) -> Iterator[tuple[float, float]]:
    """Seconds for drawing with pyrender, without and with putting the mesh of each frame onto the GPU."""
    pyrender, _ = import_pyrender()
    vertices = motion.posed(body).vertices.numpy() * np.array([1, -1, -1], dtype=np.float32)
    faces, normals = body.faces.numpy().astype(np.uint32), np.ones_like(vertices[0])
    colors = np.full((len(normals), 4), 0.5, dtype=np.float32)
    focal, width, height = motion.focal, motion.width, motion.height
    camera = pyrender.IntrinsicsCamera(focal, focal, width / 2, height / 2, znear=1.0, zfar=100.0)
    renderer = pyrender.OffscreenRenderer(width, height)
    for _ in range(PASSES):
        drawing, everything = 0.0, 0.0
        for frame in vertices:
            start = time.process_time()
            primitive = pyrender.Primitive(frame, normals=normals, color_0=colors, indices=faces)
            scene = pyrender.Scene()
            scene.add(pyrender.Mesh([primitive]))
            scene.add(camera)
            renderer.render(scene, pyrender.RenderFlags.FLAT)
            everything += time.process_time() - start
            start = time.process_time()
            renderer.render(scene, pyrender.RenderFlags.FLAT)
            drawing += time.process_time() - start
        yield drawing, everything
    renderer.delete()


def row(name: str, seconds: list[float]) -> float:
    best, middle = 1000 * min(seconds) / FRAMES, 1000 * float(np.median(seconds)) / FRAMES
    print(f"| {name} | {best:.1f} | {middle:.1f} |")
    return middle


def clock(call: Callable[[], object], now: Callable[[], float] = time.process_time) -> float:
    start = now()
    call()
    return now() - start


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    body = load_free_body()
    size = 512
    motion = make_motion("dance", body, FRAMES, width=size, height=size)
    print(f"{FRAMES} frames of {size} x {size}, {len(body.faces)} faces, CPU, one thread, torch {torch.__version__}\n")
    print(f"| what | best of {PASSES} (ms a frame) | median |\n|---|---|---|")
    stages(body, motion)
    passes = [stages(body, motion) for _ in range(PASSES)]
    for name, seconds in zip(("skinning and rasterising", "depth, normal, semantic, mask", "skeleton"), zip(*passes)):
        row(name, list(seconds))
    ours = row("**four maps and the mask**", [clock(lambda: render_guidance(body, motion)) for _ in range(PASSES)])
    try:
        theirs = list(pyrender_passes(body, motion))
    except Exception as error:  # not installed, or no OpenGL: the rest is still worth printing
        print(f"\npyrender does not run here: {error}")
    else:
        row("pyrender, colour and depth", [drawing for drawing, _ in theirs])
        both = row("pyrender, with the frame's mesh", [everything for _, everything in theirs])
        print(f"\nour four maps / pyrender's two pictures, mesh included: {ours / both:.2f}")
    if torch.cuda.is_available():
        size = 768
        motion, body = make_motion("dance", body, FRAMES, width=size, height=size), body.to("cuda")
        print(f"\n{size} x {size}, {torch.cuda.get_device_name()}\n\n| what | best of {PASSES} (ms a frame) | median |")
        print("|---|---|---|")
        render_guidance(body, motion, device="cuda")
        drawn = partial(render_guidance, body, motion, device="cuda")
        row("four maps and the mask, brought to the CPU", [clock(drawn, time.perf_counter) for _ in range(PASSES)])


if __name__ == "__main__":
    main()
