"""Fitting motions to their own keypoints with 2 px of noise, on one CPU thread.

PA-MPJPE is the mean distance of the 24 joints after the best similarity of each frame; reprojection the median distance
of the 17 keypoints from where they really are, and from where they were given; "standing" is the PA-MPJPE of what the
fit starts from, a person who stands and faces the right way.
"""

import time

import torch
from torch import Tensor

from champ.body.free import free_body_betas, load_free_body
from champ.estimate.fit import fit_motion
from champ.estimate.observed import standing
from champ.keypoints.layouts import COCO_FROM_OPENPOSE
from champ.keypoints.pose import Pose, body_from_coco
from champ.motion.camera import View, frame_person
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.motion.rotation import from_axis_angle

FRAMES, SIZE, FPS, NOISE = 64, 512, 24.0, 2.0
CASES = (("walk", 0), ("walk", 40), ("walk", 90), ("walk", 180), ("wave", 0), ("dance", 0), ("dance", -40),
         ("jumping jacks", 0), ("turntable", 0))  # fmt: skip
SHAPES = {
    "average": None,
    "woman": {"gender": 1.0, "age": 40.0, "muscle": 0.3, "weight": 0.7, "height": 1.6},
    "man": {"gender": 0.0, "muscle": 0.9, "height": 1.95, "proportions": 0.3},
}


def pa_mpjpe(a: Tensor, b: Tensor) -> float:
    """Millimetres, for joints (F, 24, 3)."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(a.mT @ b)
    flip = torch.ones_like(s)
    flip[:, 2] = torch.det(u @ v).sign()
    scale = (s * flip).sum(1) / a.square().sum((1, 2))
    moved = scale[:, None, None] * (a @ u @ torch.diag_embed(flip) @ v)
    return 1000 * float((moved - b).norm(dim=-1).mean())


def keypoints(motion: Motion, noise: float) -> tuple[list[Pose], Tensor]:
    """As a pose node would give them, the face missing from behind; and where they really are (F, 17, 2)."""
    body = load_free_body()
    points = body.keypoints(motion.posed(body))[:, :17]
    real = motion.project(points)
    pixels = real + noise * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    score = torch.ones(*real.shape[:2], 1)
    score[(points[:, 0] - points[:, 3:5].mean(1))[:, 2] > 0.03, :3] = 0
    return [Pose(person) for person in body_from_coco(torch.cat([pixels, score], 2).numpy())], real


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    body = load_free_body()
    print(f"{FRAMES} frames of {SIZE}x{SIZE}, {NOISE:g} px noise, one thread, torch {torch.__version__}")
    print("| motion | from | body | CPU ms a frame | PA-MPJPE mm | standing mm | reprojection px | of the given px |")
    print("|---|---|---|---|---|---|---|---|")
    for name, azimuth in CASES:
        for who, sliders in SHAPES.items():
            person = body if sliders is None else body.with_betas(free_body_betas(**sliders))
            true = make_motion(name, person, FRAMES, FPS, width=SIZE, height=SIZE)
            true = frame_person(true, person, SIZE, SIZE, View(azimuth))
            poses, real = keypoints(true, NOISE)
            begin = time.process_time()
            found = fit_motion(poses, body, SIZE, SIZE, FPS)
            spent = 1000 * (time.process_time() - begin) / FRAMES
            joints, wanted = found.posed(body).joints, true.posed(body).joints
            pose = from_axis_angle(standing().float()).repeat(FRAMES, 1, 1, 1)
            pose[:, 0] = true.rotations[:, 0]
            pixels = found.project(body.keypoints(found.posed(body))[:, :17])
            given = torch.stack([torch.from_numpy(pose.body[COCO_FROM_OPENPOSE, :]) for pose in poses])
            seen = given[..., 2] > 0
            print(
                f"| {name} | {azimuth} | {who} | {spent:.0f} | {pa_mpjpe(joints, wanted):.0f} "
                f"| {pa_mpjpe(body.pose(pose).joints, wanted):.0f} | {(pixels - real).norm(dim=-1).median():.2f} "
                f"| {(pixels - given[..., :2]).norm(dim=-1)[seen].median():.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
