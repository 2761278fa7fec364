"""Measure a result against the true clip."""

import math
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..champ.metrics import images as pictures
from ..champ.metrics import perceptual
from ..champ.model.compat import managed
from ..champ.model.memory import loaded
from .files import register_folder
from .types import progress, to_bytes

register_folder("champ_metrics", {".pth", ".pt", ".safetensors"})

VGG, LPIPS, I3D, RESNET = "vgg16-397923af.pth", "lpips_vgg.pth", "i3d_pretrained_400.pt", "resnet-50-kinetics.pth"

# What each protocol calls a measure, and how it computes it.
PROTOCOLS = {
    "clean": {"L1": pictures.l1, "PSNR": pictures.psnr, "SSIM": pictures.ssim},
    "benchmark": {
        "L1": pictures.benchmark_l1,
        "PSNR": pictures.benchmark_psnr,
        "PSNR*": pictures.benchmark_psnr_star,
        "SSIM": pictures.benchmark_ssim,
    },
}


class ChampMeasure(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ChampMeasure",
            display_name="Measure Result",
            category="Champ/output",
            description="Compares a clip with the true one: L1, PSNR, SSIM, flicker, and on request LPIPS, FID-VID "
            "and FVD. With a mask also for the person and the background alone.",
            inputs=[
                io.Image.Input("images", tooltip="The result."),
                io.Image.Input("truth", tooltip="The true clip, of the same size and length."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the person is in the true clip; one for all frames or one each.",
                ),
                io.Combo.Input(
                    "protocol",
                    options=list(PROTOCOLS),
                    tooltip="clean: the measures as defined. benchmark: as the TikTok benchmark's published code "
                    "computes them, to compare with papers.",
                ),
                io.Boolean.Input(
                    "lpips", default=False, tooltip=f"Needs {VGG} and {LPIPS} in models/champ_metrics."
                ),
                io.Boolean.Input("fid_vid", default=False, tooltip=f"Needs {RESNET} in models/champ_metrics."),
                io.Boolean.Input("fvd", default=False, tooltip=f"Needs {I3D} in models/champ_metrics."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All values in words, for Preview Any."),
                io.Float.Output(display_name="l1", tooltip="Mean absolute difference; smaller is better."),
                io.Float.Output(display_name="psnr", tooltip="In decibels; larger is better."),
                io.Float.Output(display_name="ssim", tooltip="1 for equal clips."),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, images, truth, protocol, lpips, fid_vid, fvd, mask=None) -> io.NodeOutput:
        # Files that are missing are missed before anything is computed.
        networks = [
            ("LPIPS", perceptual.load_lpips, [VGG, LPIPS], lpips),
            ("FID-VID", perceptual.load_resnet3d, [RESNET], fid_vid),
            ("FVD", perceptual.load_i3d, [I3D], fvd),
        ]
        files = {name: (load, [_weights(name, f) for f in needed]) for name, load, needed, wanted in networks if wanted}
        if fid_vid or fvd:
            perceptual.check_length(len(images))
        made, true = (to_bytes(clip[..., :3]) for clip in (images, truth))
        inside = None if mask is None else (mask > 0.5).cpu()
        if inside is not None and len(inside) == 1:
            inside = inside.expand(len(made), -1, -1)
        pictures.check_pair(made, true, inside)
        parts = {"whole": None} if inside is None else {"whole": None, "person": inside, "background": ~inside}

        measures = PROTOCOLS[protocol] | {"flicker": pictures.flicker}
        table: dict[str, dict[str, float]] = {}
        for name, measure in measures.items():
            table[name] = {part: _mean(_frame_by_frame(measure, made, true, m)) for part, m in parts.items()}
        for name, (load, paths) in files.items():
            network = load(*paths)
            devices = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
            patcher = managed(network, *devices)
            with loaded(patcher, whole=True):
                if name == "LPIPS":
                    options = {"benchmark": protocol == "benchmark", "on_frame": progress()}
                    distances = {part: perceptual.lpips(network, made, true, m, **options) for part, m in parts.items()}
                    table[name] = {part: _mean(values) for part, values in distances.items()}
                else:
                    distance = perceptual.fvd if name == "FVD" else perceptual.fid_vid
                    table[name] = {"whole": distance(network, made, true, progress())}
        report = _report(table, len(made), protocol)
        first = [table[name]["whole"] for name in ("L1", "PSNR", "SSIM")]
        return io.NodeOutput(report, *first, ui=ui.PreviewText(report))


def _weights(measure: str, name: str) -> Path:
    path = folder_paths.get_full_path("champ_metrics", name)
    if path is None:
        raise ValueError(f"{measure} needs {name}: put it into models/champ_metrics, or switch {measure} off.")
    return Path(path)


def _frame_by_frame(
    measure: pictures.Measure, made: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """A measure of every frame, or of every frame and the next, with progress and a way to cancel."""
    on_frame, values = progress(), []
    reach = 2 if measure is pictures.flicker else 1
    for i in range(len(made)):
        here = slice(i, i + reach)
        values.append(measure(made[here], true[here], None if mask is None else mask[here]))
        on_frame(i + 1, len(made))
    return torch.cat(values)


def _mean(values: torch.Tensor) -> float:
    """Over the frames in which there is something to measure; infinite, as PSNR has it, only if all are equal."""
    finite = values[values.isfinite()]
    return float(finite.mean() if len(finite) else values.nanmean())


def _report(table: dict[str, dict[str, float]], frames: int, protocol: str) -> str:
    lines = [f"{frames} {'frame' if frames == 1 else 'frames'}, {protocol}."]
    for name, values in table.items():
        words = [f"{part} {_number(value)}" for part, value in values.items()]
        lines.append(f"{name}: " + ", ".join(words) + ".")  # a sentence, because Preview Any runs lines together
    return "\n".join(lines)


def _number(value: float) -> str:
    if math.isnan(value):
        return "none"
    return "equal" if math.isinf(value) else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


NODES = [ChampMeasure]
