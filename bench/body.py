"""Skinning time on one CPU thread: Body.pose beside smplx.lbs.lbs, for the free body and a body of SMPL's size.

smplx.lbs.lbs always adds pose correctives; the free body has none and gives it zeros.
"""

import time
from collections.abc import Callable

import torch
from smplx.lbs import batch_rodrigues, lbs
from torch import Tensor

from champ.body.body import Body
from champ.body.free import load_free_body
from champ.body.skeleton import PARENTS
from champ.body.smpl import SmplBody

FRAMES = 64


def milliseconds(call: Callable[[], object], repeats: int = 7) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def smpl_sized() -> SmplBody:
    """Random numbers in the shape of SMPL's file, pose correctives included."""
    count = 6890
    return SmplBody(
        name="SMPL-sized",
        template=torch.randn(count, 3),
        shapedirs=torch.randn(count, 3, 10),
        joint_regressor=torch.rand(24, count) / count,
        weights=torch.rand(count, 24).softmax(1),
        faces=torch.zeros(13776, 3, dtype=torch.long),
        part_labels=torch.zeros(count, dtype=torch.long),
        keypoint_regressor=torch.zeros(23, count + 24),
        betas=torch.zeros(10),
        posedirs=torch.randn(207, count * 3),
    )


def compare(body: Body, rotations: Tensor, transl: Tensor) -> tuple[float, float]:
    frames = len(rotations)
    posedirs = body.posedirs if isinstance(body, SmplBody) else torch.zeros(207, body.template.numel())
    betas, template = body.betas.expand(frames, -1), body.template.expand(frames, -1, -1)
    shape = (body.shapedirs, posedirs, body.joint_regressor, torch.tensor(PARENTS), body.weights)
    ours = milliseconds(lambda: body.pose(rotations, transl))
    theirs = milliseconds(lambda: lbs(betas, rotations, template, *shape, pose2rot=False))
    return ours, theirs


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rotations = batch_rodrigues(0.3 * torch.randn(FRAMES * 24, 3, generator=generator)).view(FRAMES, 24, 3, 3)
    transl = torch.randn(FRAMES, 3, generator=generator)
    print(f"{FRAMES} frames, one thread, torch {torch.__version__}, best of 7")
    print("| body | vertices | Body.pose (ms) | smplx.lbs.lbs (ms) | ratio |\n|---|---|---|---|---|")
    for body in (load_free_body(), smpl_sized()):
        ours, theirs = compare(body, rotations, transl)
        print(f"| {body.name} | {len(body.template)} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main()
