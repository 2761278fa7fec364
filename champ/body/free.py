"""The free body that comes with the pack: baked by tools/bake_free_body.py, licence in assets/NOTICE.md."""

from functools import cache, reduce
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from .body import Body

ASSET = Path(__file__).parents[1] / "assets" / "free_body.safetensors"

# The asset's first two betas follow SMPL's; height in metres is HEIGHT + HEIGHT_PER_BETA . betas[:2].
HEIGHT = 1.70
HEIGHT_PER_BETA = (0.075, 0.010)


@cache
def _asset() -> dict[str, np.ndarray]:
    return load_file(ASSET)


def _tensor(array: np.ndarray) -> Tensor:
    """Converts to float32 or int64, whatever the width in the file."""
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _dense(name: str, rows: int, columns: int) -> Tensor:
    """Builds a dense matrix from a (row, column, value) list."""
    row, column, value = (_tensor(_asset()[f"{name}.{part}"]) for part in ("row", "column", "value"))
    matrix = torch.zeros(rows, columns)
    matrix[row, column] = value
    return matrix


@cache
@torch.inference_mode(False)  # in which ComfyUI runs nodes; this body is kept, and others need gradients of it
def load_free_body() -> Body:
    """Loads the free body at betas 0: an average adult of 1.70 m. betas[0] is size; betas[1] > 0 is thinner."""
    asset = _asset()
    count = len(asset["template"])
    weights = _dense("weights", count, 24)
    keypoints = _dense("keypoint_regressor", 23, count)
    return Body(
        name="free body",
        template=_tensor(asset["template"]),
        shapedirs=_tensor(asset["shapedirs"].transpose(1, 2, 0) * asset["shapedirs_scale"]).contiguous(),
        joint_regressor=_dense("joint_regressor", 24, count),
        weights=weights / weights.sum(1, keepdim=True),
        faces=_tensor(asset["uv_vertex"][asset["faces_uv"]]),
        part_labels=_tensor(asset["part_labels"]),
        keypoint_regressor=torch.cat([keypoints / keypoints.sum(1, keepdim=True), torch.zeros(23, 24)], dim=1),
        betas=torch.zeros(len(asset["shapedirs"])),
    )


def free_body_uv() -> tuple[Tensor, Tensor]:
    """Returns the texture coordinates (U, 2) in 0..1, v up, and the three of each face (T, 3), in the order of
    Body.faces."""
    return _tensor(_asset()["uv"]), _tensor(_asset()["faces_uv"])


def free_body_betas(
    gender: float = 0.5,
    age: float = 30.0,
    muscle: float = 0.5,
    weight: float = 0.5,
    height: float = 1.70,
    proportions: float = 0.5,
) -> Tensor:
    """Returns the betas (16,) of the free body for a description of a person.

    gender 0 male to 1 female; age in years, 10 to 90 (made from adults, a guess below 18); muscle and weight 0 to 1;
    height in metres; proportions 0 idealised to 1 uncommon.
    """

    def betas(tallness: float) -> Tensor:
        sliders = (
            (gender, (0, 1)),
            (age, (0, 10, 25, 90)),
            (muscle, (0, 0.5, 1)),
            (weight, (0, 0.5, 1)),
            (tallness, (0, 1)),
            (proportions, (0, 1)),
        )
        hats = [
            np.array([np.interp(value, anchors, row) for row in np.eye(len(anchors))]) for value, anchors in sliders
        ]
        return _tensor(reduce(np.kron, hats) @ _asset()["slider_betas"])

    # Betas are linear in the tallness slider, and height is linear in betas.
    short, tall = betas(0.0), betas(1.0)
    per_beta = torch.tensor(HEIGHT_PER_BETA)
    lowest, highest = (HEIGHT + per_beta @ b[:2] for b in (short, tall))
    return short + (height - lowest) / (highest - lowest) * (tall - short)
