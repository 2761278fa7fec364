"""Node that encodes the guidance maps, each with a strength and a range of the sampling."""

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..champ.model.families import DENSEPOSE, ENCODED_MAPS, POSE
from ..champ.model.guidance import GuidanceMap, encode_guidance
from ..champ.model.images import nearest_size
from ..champ.model.span import Span
from ..champ.render.palette import exchange_report
from .maps import map_inputs
from .types import MAX_SIZE, ChampGuidance, ChampGuidanceEncoders, progress, schema, span_inputs, to_bytes, warn


class ChampEncodeGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampEncodeGuidance",
            display_name="Encode Guidance",
            category="Champ/model",
            aliases=["guidance encoder", "pose guider", "depth", "normal", "skeleton", "control"],
            advanced=["width", "height", "start", "end"],
            description="Encodes the guidance maps for the denoiser. Any subset of the maps will do. Animate Anyone "
            "reads only the skeleton maps, MagicAnimate only DensePose maps.",
            inputs=[
                ChampGuidanceEncoders.Input("guidance_encoders", tooltip="From Load Champ Model."),
                *map_inputs(),
                ChampGuidance.Input(
                    "add_to",
                    optional=True,
                    tooltip="Another guidance, to which this one is added. Use it to give maps different ranges.",
                ),
                io.Int.Input(
                    "width", default=0, min=0, max=MAX_SIZE, step=8,
                    tooltip="Width of the video in pixels. 0 takes the width of the maps; any other size stretches "
                    "them.",
                ),
                io.Int.Input("height", default=0, min=0, max=MAX_SIZE, step=8, tooltip="Height of the video in pixels. "
                "0 takes the height of the maps."),
                *(
                    io.Float.Input(
                        f"{name}_strength", default=1.0, min=0.0, max=2.0, step=0.01,
                        tooltip=f"How much the {name} maps count. 0 leaves them out.",
                    )
                    for name in ENCODED_MAPS
                ),
                *span_inputs(),
                io.Image.Input(
                    "densepose",
                    optional=True,
                    tooltip="The DensePose maps, from Render DensePose Map or a DensePose node.",
                ),
                io.Float.Input(
                    "densepose_strength", default=1.0, min=0.0, max=2.0, step=0.01, optional=True,
                    tooltip="How much the densepose maps count. 0 leaves them out.",
                ),
            ],
            outputs=[ChampGuidance.Output(display_name="guidance", tooltip="For Apply Champ.")],
        )  # fmt: skip

    @classmethod
    @progress("Encoding the maps")
    def execute(cls, guidance_encoders, width, height, start, end, mask=None, add_to=None, **values) -> io.NodeOutput:
        images = {name: values[name] for name in (*ENCODED_MAPS, DENSEPOSE) if values.get(name) is not None}
        if not images:
            raise ValueError("No maps are connected to Encode Guidance; connect at least one.")
        if mask is not None and "semantic_map" in images:
            if mask.shape != images["semantic_map"].shape[:3]:
                raise ValueError(
                    f"The mask has shape {tuple(mask.shape)} but the semantic maps have "
                    f"{tuple(images['semantic_map'].shape[:3])}; connect the mask of the same maps."
                )
        depth, normal = (a_few(images[name]) if name in images else None for name in ("depth", "normal"))
        if doubt := exchange_report(depth, normal):
            warn(f"Encode Guidance: {doubt}")
        span = Span(start, end)
        masks = {"semantic_map": mask}
        maps = {
            name: GuidanceMap(x, values.get(f"{name}_strength", 1.0), span, masks.get(name))
            for name, x in images.items()
        }
        if guidance_encoders.names == (POSE,) and "dwpose" in maps:  # Animate Anyone's name for the skeleton maps
            maps[POSE] = maps.pop("dwpose")
        rows, columns = map(nearest_size, next(iter(images.values())).shape[1:3])
        guidance = encode_guidance(guidance_encoders, maps, width or columns, height or rows)
        if add_to is not None:
            guidance = add_guidance(add_to, guidance)
        return io.NodeOutput(guidance)


def a_few(pictures: torch.Tensor) -> torch.Tensor:
    """Returns some of the frames as uint8, for checks."""
    return to_bytes(pictures[:: -(-len(pictures) // 4) or 1, ..., :3])


def add_guidance(first, second):
    """Joins two guidances of the same clip."""
    for what in ("frames", "width", "height", "family"):
        if getattr(first, what) != getattr(second, what):
            raise ValueError(
                f"The two guidances differ in {what} ({getattr(first, what)} and {getattr(second, what)}); encode maps "
                "of one clip, at one size, with the encoders of one checkpoint set."
            )
    return replace(second, layers=first.layers + second.layers, controls=first.controls + second.controls)


NODES = [ChampEncodeGuidance]
