"""Node that compares clips side by side."""

import torch
from comfy_api.latest import io

from ..champ.render.grid import side_by_side
from .animation import animated_part, preview_step
from .types import progress, schema, to_bytes

CLIPS = 6


class ChampCompareGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampCompareGrid",
            display_name="Compare Side by Side",
            category="Champ/output",
            aliases=["grid", "side by side", "contact sheet", "join images", "stack videos"],
            description="Puts up to six clips or pictures side by side, for example reference, result and maps.",
            inputs=[
                io.Image.Input("image_1", tooltip="The first clip. The others are scaled to its height."),
                *(
                    io.Image.Input(
                        f"image_{i}", optional=True, tooltip="Another clip of the same length, or one picture."
                    )
                    for i in range(2, CLIPS + 1)
                ),
                io.Int.Input(
                    "columns",
                    display_name="clips in a row",
                    default=0,
                    min=0,
                    max=CLIPS,
                    tooltip="Clips in a row; 0 puts all in one row.",
                ),
                io.Float.Input(
                    "fps",
                    default=24.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second of the preview in the node.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The clips in one picture.")],
        )

    @classmethod
    @progress("Putting the clips side by side")
    def execute(cls, columns, fps=24.0, **images) -> io.NodeOutput:
        names = [f"image_{i}" for i in range(1, CLIPS + 1)]
        clips: list[torch.Tensor] = [images[name][..., :3] for name in names if images.get(name) is not None]
        joined = side_by_side(clips, columns)
        step = preview_step(len(joined), fps)
        shown = animated_part(to_bytes(joined[::step]), fps, step, len(joined))
        return io.NodeOutput(joined, ui=shown)


NODES = [ChampCompareGrid]
