"""Node that measures a result against the true clip."""

import math
from pathlib import Path

import comfy.model_management
import folder_paths
from comfy_api.latest import io, ui

from ..champ.metrics.measure import (
    I3D_FILE,
    LPIPS_FILE,
    NETWORKS,
    PROTOCOLS,
    RESNET_FILE,
    VGG_FILE,
    Table,
    by_frames,
    by_network,
)
from ..champ.metrics.perceptual import check_length
from ..champ.model.compat import managed
from ..champ.model.memory import loaded
from .files import register_folder
from .types import progress, schema, to_bytes

register_folder("champ_metrics", {".pth", ".pt", ".safetensors"})


class ChampMeasure(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampMeasure",
            display_name="Measure Result",
            category="Champ/output",
            aliases=["PSNR", "SSIM", "LPIPS", "FVD", "FID", "L1", "metrics", "evaluate", "quality"],
            advanced=["protocol"],
            description="Compares a clip with the true one: L1, PSNR, SSIM, flicker, and on request LPIPS, FID-VID and "
            "FVD. With a mask, also for the person alone and the background alone.",
            inputs=[
                io.Image.Input("images", tooltip="The result."),
                io.Image.Input(
                    "truth", display_name="true clip", tooltip="The true clip, with the same size and number of frames."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the person is in the true clip. One mask for all frames, or one for each.",
                ),
                io.Combo.Input(
                    "protocol",
                    options=list(PROTOCOLS),
                    tooltip="clean: the measures as they are defined. benchmark: as the published code of the TikTok "
                    "benchmark computes them, for comparison with papers.",
                ),
                io.Boolean.Input(
                    "lpips", default=False, tooltip=f"Needs {VGG_FILE} and {LPIPS_FILE} in models/champ_metrics."
                ),
                io.Boolean.Input("fid_vid", default=False, tooltip=f"Needs {RESNET_FILE} in models/champ_metrics."),
                io.Boolean.Input("fvd", default=False, tooltip=f"Needs {I3D_FILE} in models/champ_metrics."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All values as text, for Preview as Text."),
                io.Float.Output(display_name="l1", tooltip="Mean absolute difference. Smaller is better."),
                io.Float.Output(display_name="psnr", tooltip="In decibels. Larger is better."),
                io.Float.Output(display_name="ssim", tooltip="1 for equal clips."),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    @progress("Measuring")
    def execute(cls, images, truth, protocol, lpips, fid_vid, fvd, mask=None) -> io.NodeOutput:
        # Missing files are reported before anything is computed.
        wanted = {"LPIPS": lpips, "FID-VID": fid_vid, "FVD": fvd}
        files = {name: [_weights(name, file) for file in NETWORKS[name][1]] for name in NETWORKS if wanted[name]}
        if fid_vid or fvd:
            check_length(len(images))
        made, true = (to_bytes(clip[..., :3]) for clip in (images, truth))
        person = None if mask is None else (mask > 0.5).cpu()
        if person is not None and len(person) == 1:
            person = person.expand(len(made), -1, -1)
        table = by_frames(made, true, person, protocol)
        for name, paths in files.items():
            network = NETWORKS[name][0](*paths)
            devices = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
            patcher = managed(network, *devices)
            with loaded(patcher, whole=True):
                table[name] = by_network(name, network, made, true, person, protocol)
        report = _report(table, len(made), protocol)
        first = [table[name]["whole"] for name in ("L1", "PSNR", "SSIM")]
        return io.NodeOutput(report, *first, ui=ui.PreviewText(report))


def _weights(measure: str, name: str) -> Path:
    path = folder_paths.get_full_path("champ_metrics", name)
    if path is None:
        raise ValueError(f"{measure} needs {name}: put it into models/champ_metrics, or switch {measure} off.")
    return Path(path)


def _report(table: Table, frames: int, protocol: str) -> str:
    lines = [f"{frames} {'frame' if frames == 1 else 'frames'}, {protocol}."]
    for name, values in table.items():
        words = [f"{part} {_number(value)}" for part, value in values.items()]
        lines.append(f"{name}: " + ", ".join(words) + ".")  # a sentence, because Preview as Text joins lines
    return "\n".join(lines)


def _number(value: float) -> str:
    if math.isnan(value):
        return "none"
    return "equal" if math.isinf(value) else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


NODES = [ChampMeasure]
