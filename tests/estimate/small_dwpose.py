"""A detector and a pose network of a few kilobytes with the inputs and outputs of yolox_l and dw-ll_ucoco_384, which
find the person of a skeleton map: the coloured figure on black or grey, and its joints by their colours.

    python -m tests.estimate.small_dwpose

writes the ONNX form (needs the package onnx) and a video of such a figure into tests/data/dwpose; the TorchScript form
is made by the tests.
"""

import warnings
from pathlib import Path

import av
import torch
from torch import Tensor, nn

from champ.body.free import load_free_body
from champ.estimate.detect import SIZE
from champ.estimate.dwpose import HEIGHT, MEAN, POINTS, STD, WIDTH
from champ.keypoints.layouts import OPENPOSE_FROM_COCO
from champ.motion.presets import make_motion
from champ.render.guidance import render_guidance
from champ.render.skeleton import COLORS

BODY = 17  # of COCO's points, which have a colour each
TOLERANCE = 80.0  # sum of the differences of three channels, of 255; colours of two joints are 85 apart or more
DOT = 4.0  # pixels of the crop that a joint covers in its middle, to be certain


class SmallDetector(nn.Module):
    """One box, in the last cell: all that is coloured."""

    def __init__(self):
        super().__init__()
        self.differences = nn.Conv2d(3, 3, 1, bias=False)
        self.differences.weight.data = torch.tensor([[1.0, -1, 0], [0, 1, -1], [-1, 0, 1]])[..., None, None]
        self.saturation = nn.Conv2d(3, 1, 1)
        self.saturation.weight.data.fill_(0.5 / 20)
        self.saturation.bias.data.fill_(-60 / 20)
        self.columns = nn.MaxPool2d((SIZE, 1))
        self.rows = nn.MaxPool2d((1, SIZE))
        self.register_buffer("ramp", torch.arange(SIZE, dtype=torch.float32)[None])

    def forward(self, images: Tensor) -> Tensor:
        coloured = self.saturation(self.differences(images).abs()).clamp(0, 1)
        profile = torch.cat([self.columns(coloured).flatten(1), self.rows(coloured).flatten(1)], dim=0)  # x, y
        first = SIZE - (profile * (SIZE - self.ramp)).amax(dim=1, keepdim=True)
        last = (profile * (self.ramp + 1)).amax(dim=1, keepdim=True)
        seen = profile.amax(dim=1, keepdim=True)
        centre = (first + last) / 64 - 19  # cells of 32 pixels
        size = ((last - first).clamp(min=1) / 32).log()
        row = torch.cat([centre, size, seen], dim=0).reshape(1, 1, 6)
        return nn.functional.pad(row, [0, 79, 8399, 0])


class SmallPoseNet(nn.Module):
    """SimCC: the share of each column and each row that has a joint's colour."""

    def __init__(self):
        super().__init__()
        colors = torch.tensor([COLORS[OPENPOSE_FROM_COCO.index(k)] for k in range(BODY)], dtype=torch.float32)
        self.differences = nn.Conv2d(3, 3 * BODY, 1)
        self.differences.weight.data = torch.diag(torch.tensor(STD, dtype=torch.float32)).repeat(BODY, 1)[
            ..., None, None
        ]
        self.differences.bias.data = (torch.tensor(MEAN, dtype=torch.float32) - colors).flatten()
        self.likeness = nn.Conv2d(3 * BODY, BODY, 1)
        self.likeness.weight.data = -torch.eye(BODY).repeat_interleave(3, 1)[..., None, None] / TOLERANCE
        self.likeness.bias.data.fill_(1)
        average = nn.AvgPool2d((1, 5), stride=1, padding=(0, 2))
        self.smooth = nn.Sequential(average, average)  # puts the maximum into a joint's middle

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        like = self.likeness(self.differences(input).abs()).relu()
        x = self.smooth(like.mean(dim=2, keepdim=True)).flatten(2) * (HEIGHT / DOT)
        y = self.smooth(like.mean(dim=3).unsqueeze(2)).flatten(2) * (WIDTH / DOT)
        return simcc(x, WIDTH), simcc(y, HEIGHT)


def simcc(values: Tensor, length: int) -> Tensor:
    """(N, 17, length) to (N, 133, 2 length): two bins for each pixel, and points without a colour."""
    bins = torch.stack([values, values], dim=-1).reshape(-1, BODY, 2 * length)
    return nn.functional.pad(bins, [0, 0, 0, POINTS - BODY])


NETWORKS = {
    "yolox_l": (SmallDetector, (1, 3, SIZE, SIZE)),
    "dw-ll_ucoco_384": (SmallPoseNet, (5, 3, HEIGHT, WIDTH)),
}


def write_torchscript(folder: Path) -> None:
    """Under the names of the community's files; the pose network is for batches of 5."""
    for (name, (network, shape)), ending in zip(NETWORKS.items(), ("", "_bs5")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # which says that TorchScript is old
            traced = torch.jit.trace(network().eval(), torch.rand(shape), check_trace=False)
        traced.save(str(folder / f"{name}{ending}.torchscript.pt"))


def write_onnx(folder: Path) -> None:
    for name, (network, shape) in NETWORKS.items():
        torch.onnx.export(network().eval(), (torch.rand(1, *shape[1:]),), folder / f"{name}.onnx", opset_version=11,
                          dynamo=False)  # fmt: skip


def write_video(file: Path) -> None:
    """The free body's dance as a skeleton map of 320 x 480, with dots that are large enough to survive H.264."""
    body = load_free_body()
    motion = make_motion("dance", body, 24, fps=12.0, width=160, height=240)
    pictures = render_guidance(body, motion)[3]
    with av.open(file, "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"crf": "20", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = 320, 480, "yuv420p"
        for picture in pictures.repeat_interleave(2, 1).repeat_interleave(2, 2).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "data" / "dwpose"
    write_onnx(folder)
    write_video(folder / "dance.mp4")
