"""HMR2 under ComfyUI's memory management: loaded, moved and cast as ComfyUI decides, and run in batches that fit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..files.tensors import StateDict
from ..model.checkpoint import check_tensors, kind_of, shapes_of
from ..model.compat import managed, operations
from ..model.finite import all_finite, network_cause
from ..model.memory import if_it_fits, loaded
from .hmr2 import COLUMNS, DECODER_HEADS, HEADS, ROWS, HMR2Net, HMR2Sizes, Prediction
from .hmr2_files import OFFICIAL, half_copy, read_hmr2, save_half

# How the weights are stored; ComfyUI decides whether they are cast for computing.
WEIGHT_DTYPES = {"default": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
UNUSED = r"discriminator\.|smpl\.|initialized$"  # needed in training only
BATCH = 16


@dataclass(frozen=True, eq=False)
class HMR2:
    patcher: ModelPatcher  # of an HMR2Net
    dtype: torch.dtype  # of the computation
    sizes: HMR2Sizes


def load_hmr2(
    path: str | Path,
    weight_dtype: str = "default",
    half_precision_copy: bool = False,
    heads: int = HEADS,
    decoder_heads: int = DECODER_HEADS,
) -> HMR2:
    """Loads a checkpoint of 4D-Humans (2.0a, 2.0b), or a copy of it as safetensors.

    With `half_precision_copy`, the weights are read from a copy beside the file, which is made the first time. Only
    such a copy contains the numbers of heads; otherwise the official ones are used.
    """
    if weight_dtype not in WEIGHT_DTYPES:
        raise ValueError(f"There is no weight type {weight_dtype!r}; choose from {', '.join(WEIGHT_DTYPES)}.")
    file = Path(path)
    if half_precision_copy and file.suffix.lower() != ".safetensors":
        state, sizes = _read(file, heads, decoder_heads)
        file = half_copy(file, lambda new: save_half(new, state, heads, decoder_heads))
    state, sizes = _read(file, heads, decoder_heads)
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = WEIGHT_DTYPES[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state), weight_dtype=comfy.utils.weight_dtype(state)
    )
    cast = None if _fast_bf16(dtype, device) else comfy.model_management.unet_manual_cast(dtype, device)
    net = HMR2Net(sizes, dtype, offload, operations(dtype, cast))
    net.load_state_dict(state)
    net.requires_grad_(False)
    return HMR2(managed(net, device, offload), cast or dtype, sizes)


def _fast_bf16(dtype: torch.dtype, device: torch.device) -> bool:
    """Selects bfloat16 on recent CPUs, which compute in it several times faster than in float32, to which ComfyUI would
    cast."""
    if dtype != torch.bfloat16 or device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _read(path: Path, heads: int, decoder_heads: int) -> tuple[StateDict, HMR2Sizes]:
    """Reads the weights of a file, after checking that they fit."""
    state, about = read_hmr2(path)
    if "smpl_head.decpose.weight" not in state:
        raise ValueError(
            f"{path.name} is {kind_of(state)}, but a checkpoint of HMR2 belongs here; choose {OFFICIAL} of 4D-Humans."
        )
    try:
        heads, decoder_heads = int(about.get("heads", heads)), int(about.get("decoder_heads", decoder_heads))
        sizes = HMR2Sizes.read(shapes_of(state), heads, decoder_heads)
    except ValueError as error:
        raise ValueError(f"{path.name} does not fit: {error}; choose {OFFICIAL} of 4D-Humans.") from None
    wanted = shapes_of(HMR2Net(sizes, device="meta").state_dict())
    check_tensors(path.name, wanted, shapes_of(state), UNUSED)
    return {key: state[key] for key in wanted}, sizes


@torch.no_grad()
def predict(hmr2: HMR2, crops: Iterable[Tensor], batch: int | None = None) -> Iterator[Prediction]:
    """Yields the prediction for each crop (3, 256, 256), without a batch axis and on the CPU.

    `batch` crops are processed at once (None: as many as are fastest), and half as many whenever memory runs out.
    """
    device = hmr2.patcher.load_device
    limit = batch or (1 if device.type == "cpu" else BATCH)
    tokens = limit * ROWS * COLUMNS
    working = tokens * (6 * hmr2.sizes.width + 2 * hmr2.sizes.mlp) * hmr2.dtype.itemsize
    source = iter(crops)
    waiting: list[Tensor] = []
    with loaded(hmr2.patcher, memory=working):
        while True:
            waiting += islice(source, max(0, limit - len(waiting)))
            if not waiting:
                break
            part = waiting[:limit]
            found = if_it_fits(partial(_run, hmr2, part), several=len(part) > 1)
            if found is None:
                limit = max(1, min(limit, len(waiting)) // 2)
                continue
            del waiting[:limit]
            finite = all_finite(found)
            found = Prediction(*(value.cpu() for value in found))
            if not finite:
                cause = network_cause(hmr2.patcher.model, hmr2.dtype)
                raise ValueError(f"HMR2 gave NaN or infinite values for a picture: {cause}.")
            yield from map(Prediction, *found)


def _run(hmr2: HMR2, crops: list[Tensor]) -> Prediction:
    return hmr2.patcher.model(torch.stack(crops).to(hmr2.patcher.load_device, hmr2.dtype))
