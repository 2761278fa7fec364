"""LPIPS (arXiv 1801.03924), FID-VID and FVD (arXiv 1812.01717): distances between features of networks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files.tensors import read_tensors
from ..progress import advance
from .images import check_pair
from .networks import I3D, VGG, VGG16, ResNet3D

# LPIPS's own normalisation of colours in -1..1.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
CLIP = 16  # frames of a clip for the video networks
SMALLEST = 16  # pixels of a side that VGG16 can halve four times
KINETICS_MEAN = (114.7748, 107.7354, 99.4750)
CLIPS_AT_ONCE = 4

OnFrame = Callable[[int, int], None]


Model = TypeVar("Model", bound=nn.Module)


class LPIPS(nn.Module):
    """Weighted squared differences of VGG16's normalised features, summed over five layers."""

    def __init__(self):
        super().__init__()
        self.vgg = VGG16()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(group[-1][2])) for group in VGG)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns distances (B,) of colours (B, 3, H, W) in -1..1, within a mask (B, H, W) if there is one."""
        colour = (a.new_tensor(SHIFT)[:, None, None], a.new_tensor(SCALE)[:, None, None])
        total = a.new_zeros(len(a))
        for x, y, weight in zip(*(self.vgg((c - colour[0]) / colour[1]) for c in (a, b)), self.weights):
            x, y = (f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in (x, y))
            distance = ((x - y) ** 2 * weight[:, None, None]).sum(1)
            share = torch.ones_like(distance)
            if mask is not None:  # the share of each feature's area that is inside the mask
                share = F.interpolate(mask[:, None].to(a), distance.shape[1:], mode="area")[:, 0]
            total += (distance * share).sum((1, 2)) / share.sum((1, 2))
        return total


def load_lpips(vgg: Path, weights: Path) -> LPIPS:
    """Loads LPIPS from torchvision's vgg16 file and LPIPS's own file for VGG (version 0.1)."""
    model = LPIPS()
    _load(model.vgg, "VGG16", vgg, _read(vgg), "classifier.")
    state = _read(weights)
    names = {f"lin{i}.model.1.weight": i for i in range(len(VGG))}
    _load(model.weights, "LPIPS", weights, {str(i): state[n].flatten() for n, i in names.items() if n in state})
    return model.eval().requires_grad_(False)


def load_i3d(file: Path) -> I3D:
    """Loads I3D from i3d_pretrained_400.pt; FVD compares its logits."""
    return _load(I3D(), "I3D", file, _read(file))


def load_resnet3d(file: Path) -> ResNet3D:
    """Loads the 3D ResNet from resnet-50-kinetics.pth; FID-VID compares its features."""
    return _load(ResNet3D(), "ResNet3D", file, _read(file), "fc.")


def lpips(
    model: LPIPS,
    made: Tensor,
    true: Tensor,
    mask: Tensor | None = None,
    *,
    benchmark: bool = False,
) -> Tensor:
    """Computes LPIPS of each frame of uint8 clips (F, H, W, 3). The benchmark feeds colours 0..1 instead of -1..1."""
    check_pair(made, true, mask)
    if min(made.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"Pictures of {made.shape[2]}x{made.shape[1]} pixels are too small for LPIPS; use larger ones, or turn "
            "lpips off."
        )
    device = model.weights[0].device

    def colours(frame: Tensor) -> Tensor:
        x = frame.to(device).permute(2, 0, 1)[None].float() / 255
        return x if benchmark else x * 2 - 1

    values = []
    for i, (a, b) in enumerate(zip(made, true)):
        values.append(model(colours(a), colours(b), None if mask is None else mask[i : i + 1].to(device)).cpu())
        advance(i + 1, len(made))
    return torch.cat(values).double()


def check_length(frames: int) -> None:
    """Checks the length: FID-VID and FVD need two clips of each video for a covariance."""
    if frames <= CLIP:
        raise ValueError(
            f"FID-VID and FVD compare clips of {CLIP} frames and need two of them, but there are {frames} frames; give "
            f"{CLIP + 1} or more, or turn fid_vid and fvd off."
        )


def fid_vid(model: ResNet3D, made: Tensor, true: Tensor) -> float:
    """Frechet distance of the features of all clips of 16 frames, one beginning at every frame."""
    mean = torch.tensor(KINETICS_MEAN)
    return _video_distance(model, made, true, 112, lambda x: x - mean)


def fvd(model: I3D, made: Tensor, true: Tensor) -> float:
    """Frechet distance of the logits of all clips of 16 frames, one beginning at every frame."""
    return _video_distance(model, made, true, 224, lambda x: x / 127.5 - 1)


def frechet(a: Tensor, b: Tensor) -> float:
    """Returns the Frechet distance |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the normal distributions
    of two sets of rows.

    With S = X^T X / (n - 1), the trace of the root is the sum of the singular values of X_a X_b^T, scaled. No matrix
    root is needed, and few rows with many features are no problem.
    """
    a, b = a.double(), b.double()
    ca, cb = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    ra, rb = (torch.linalg.qr(x, mode="r").R if x.shape[0] > x.shape[1] else x for x in (ca, cb))
    root = torch.linalg.svdvals(ra @ rb.T).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (ca**2).sum() + (cb**2).sum() - 2 * root)


def _video_distance(
    model: nn.Module,
    made: Tensor,
    true: Tensor,
    size: int,
    normalise: Callable[[Tensor], Tensor],
) -> float:
    check_pair(made, true)
    check_length(len(made))
    features = []
    done, total = 0, 2 * len(made)
    for clip in (made, true):
        rows = []
        for batch in _clips(clip, size):
            device = next(model.parameters()).device
            rows.append(_features(model, normalise(batch).permute(0, 4, 1, 2, 3).to(device)))
            done += len(batch)
            advance(done, total)
        features.append(torch.cat(rows))
    return frechet(*features)


@torch.no_grad()
def _features(model: nn.Module, clips: Tensor) -> Tensor:
    return model(clips).cpu()


def _clips(clip: Tensor, size: int) -> Iterator[Tensor]:
    """Yields all runs of 16 frames in batches: float (clips, 16, size, size, 3), resized like Pillow's bicubic."""
    for first in range(0, len(clip) - CLIP + 1, CLIPS_AT_ONCE):
        frames = clip[first : first + CLIP + CLIPS_AT_ONCE - 1].permute(0, 3, 1, 2).float()
        small = F.interpolate(frames, (size, size), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
        yield torch.stack([small[i : i + CLIP] for i in range(len(small) - CLIP + 1)])


def _read(file: Path) -> Mapping[str, Tensor]:
    return read_tensors(file, ("state_dict",), "module.", "a file of weights", "get it again from its source")


def _load(module: Model, what: str, file: Path, state: Mapping[str, Tensor], unused: str = "$") -> Model:
    """Loads a module from the tensors whose names do not begin with `unused`, for inference only."""
    try:
        module.load_state_dict({key: value for key, value in state.items() if not key.startswith(unused)})
    except RuntimeError:
        own = set(module.state_dict())
        example = next(iter(sorted(own - set(state))), None) or "another shape"
        raise ValueError(
            f"{file.name} does not hold the tensors of {what} (for example {example}); use the file that the help page "
            "of Measure Result names."
        ) from None
    return module.eval().requires_grad_(False)
