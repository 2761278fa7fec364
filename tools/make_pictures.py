"""Draws the maps of the README and the thumbnails of workflows without a model: python -m tools.make_pictures"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from champ.body.body import Body
from champ.body.free import free_body_betas, load_free_body
from champ.calibrate.warp import warp
from champ.motion.camera import View, angle_path, frame_person
from champ.motion.motion import Motion
from champ.motion.presets import PRESETS, make_motion
from champ.motion.report import plot
from champ.motion.rotation import from_axis_angle
from champ.motion.smooth import smooth
from champ.people.portrait import portrait
from champ.render.densepose import render_densepose
from champ.render.guidance import render_guidance
from champ.render.preview import preview

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 200, 300


def person(gender: float, age: float, height: float, weight: float, muscle: float) -> Body:
    return load_free_body().with_betas(free_body_betas(gender, age, muscle, weight, height))


def columns(body: Body, motion: Motion) -> torch.Tensor:
    """The shaded figure and the four maps side by side, (F, H, 5 W, 3)."""
    guidance = render_guidance(body, motion)
    pictures = (preview(body, motion), guidance.depth, guidance.normal, guidance.semantic_map, guidance.dwpose)
    return torch.cat(pictures, dim=2)


def save_animation(name: str, pictures: torch.Tensor, fps: float) -> None:
    path = ROOT / "docs" / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(picture.numpy()) for picture in pictures]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, quality=75)
    print(f"wrote {path} ({path.stat().st_size // 1024} kB)")


def save_thumbnail(name: str, picture: torch.Tensor) -> None:
    description = (ROOT / "example_workflows" / "api" / f"{name}.md").read_text(encoding="utf-8")
    path = ROOT / "example_workflows" / f"{description.splitlines()[0].removeprefix('# ')}.jpg"
    Image.fromarray(picture.numpy()).save(path, quality=88)
    print(f"wrote {path} ({path.stat().st_size // 1024} kB)")


def main() -> None:
    dancer = person(0.8, 28, 1.70, 0.45, 0.55)
    dance = make_motion("dance", dancer, 36, fps=36 / PRESETS["dance"].seconds, width=WIDTH, height=HEIGHT)
    dance = frame_person(dance, dancer, WIDTH, HEIGHT, View(azimuth=-20, elevation=5, fill=0.92))
    maps = columns(dancer, dance)
    save_animation("maps.webp", maps, fps=10)

    walker = person(0.1, 40, 1.82, 0.55, 0.6)
    walk = make_motion("walk", walker, 16, fps=16, width=WIDTH, height=HEIGHT)
    views = []
    for start in (0, 90, 180, 270):
        azimuth = angle_path([start, start + 90], len(walk))
        views.append(preview(walker, frame_person(walk, walker, WIDTH, HEIGHT, View(azimuth, 12, fill=0.92))))

    shapes = (0.0, 30, 1.95, 0.5, 0.9), (1.0, 25, 1.60, 0.3, 0.4), (0.5, 60, 1.70, 0.9, 0.2), (0.9, 75, 1.75, 0.25, 0.3)
    people = [person(*shape) for shape in shapes]
    waves = [make_motion("wave", body, 24, fps=8, width=WIDTH, height=HEIGHT) for body in people]
    bodies = [preview(body, beside(wave, body, waves[0], people[0])) for wave, body in zip(waves, people)]

    quick = [picture[8, :, :] for picture in maps.split(WIDTH, dim=2)]
    save_thumbnail("render_maps", torch.cat([quick[0], quick[2]], dim=1))
    save_thumbnail("multi_view", torch.cat([views[0][4], views[1][8]], dim=1))
    save_thumbnail("reuse_maps", torch.cat([quick[2], quick[3]], dim=1))
    save_thumbnail("smpl_body", torch.cat([quick[3], quick[4]], dim=1))
    save_thumbnail("champ_video", torch.cat([quick[2], quick[4]], dim=1))
    save_thumbnail("ksampler", torch.cat([quick[4], quick[0]], dim=1))
    parts = render_densepose(dancer, dance[8:9])[0]
    save_thumbnail("magic_animate", torch.cat([parts, quick[0]], dim=1))
    save_thumbnail("shape_transfer", torch.cat([bodies[0][12], bodies[2][12]], dim=1))
    save_thumbnail("save_motion", torch.cat([views[1][2], views[1][10]], dim=1))
    save_thumbnail("load_motion", torch.cat([views[0][2], views[0][10]], dim=1))
    save_thumbnail("custom_sampling", torch.cat([quick[1], quick[2]], dim=1))
    save_thumbnail("estimate_pose", torch.cat([quick[0] // 2, quick[4]], dim=1))
    far = preview(dancer, frame_person(dance[8:9], dancer, WIDTH, HEIGHT, View(azimuth=-20, elevation=5, fill=0.46)))[0]
    near = warp(far.numpy(), np.array([[2.0, 0, -WIDTH / 2], [0, 2, -HEIGHT / 2]]), WIDTH, HEIGHT).picture
    save_thumbnail("calibrated_reference", torch.cat([far, torch.from_numpy(near)], dim=1))
    fitted = torch.where((quick[4] > 0).any(dim=2, keepdim=True), quick[4], quick[0])
    save_thumbnail("keypoints_to_motion", torch.cat([quick[4], fitted], dim=1))
    save_thumbnail("controlnet", torch.cat([quick[4], quick[1]], dim=1))
    save_thumbnail("wan_animate", torch.cat([quick[4], quick[0]], dim=1))
    save_thumbnail("wan_scail", torch.cat([quick[0], (quick[1] > 0) * torch.tensor([0, 0, 255], dtype=torch.uint8)], 1))
    save_thumbnail("wan_vace", torch.cat([quick[1], quick[0]], dim=1))
    sitter = portrait(WIDTH, HEIGHT)
    save_thumbnail("video_to_video", torch.cat([sitter.picture, quick[3]], dim=1))
    save_thumbnail(
        "video_to_motion", torch.cat([sitter.picture, render_guidance(sitter.body, sitter.motion).normal[0]], 1)
    )
    save_thumbnail("your_video_champ", torch.cat([quick[4], sitter.picture], dim=1))
    trembling = replace(walk, rotations=walk.rotations @ shaken(walk))
    drawn = plot(smooth(trembling), trembling)
    save_thumbnail(
        "clean_motion", torch.from_numpy(cv2.resize(drawn.numpy(), (450, 300), interpolation=cv2.INTER_AREA))
    )


def shaken(motion: Motion) -> torch.Tensor:
    """Small random turns of all joints, (F, 24, 3, 3)."""
    generator = torch.Generator().manual_seed(0)
    return from_axis_angle(0.06 * torch.randn(*motion.rotations.shape[:2], 3, generator=generator))


def beside(motion: Motion, body: Body, other: Motion, other_body: Body) -> Motion:
    """The motion on the same floor and as far from the camera as another one, so that sizes compare."""
    floor = other.posed(other_body).vertices[..., 1].amax() - motion.posed(body).vertices[..., 1].amax()
    away = other.cam_t[0, 2] - motion.cam_t[0, 2]
    return replace(motion, cam_t=motion.cam_t + torch.stack([torch.tensor(0.0), floor, away]))


if __name__ == "__main__":
    main()
