"""Temporal aggregation: videos of any length in windows, and more frames between the frames."""

from comfy_api.latest import io

from ..champ.sampling.aggregation import with_windows
from ..champ.sampling.interpolate import METHODS, interpolate
from ..champ.sampling.windows import SCHEDULES, WEIGHTS
from .types import schema


def window_inputs() -> list[io.Int.Input | io.Combo.Input]:
    return [
        io.Int.Input(
            "length", default=24, min=1, max=1024,
            tooltip="Frames that are denoised together; this decides the memory needed. The official models know up "
            "to 32.",
        ),
        io.Int.Input(
            "overlap", default=4, min=0, max=1023, tooltip="Frames that neighbouring windows share. More is smoother "
            "and slower."
        ),
        io.Combo.Input(
            "schedule",
            options=list(SCHEDULES),
            default="open",
            tooltip="open: from the first frame to the last. looped: joins the end to the beginning, for clips that "
            "loop, as the official code always does. moving: other windows in every step.",
        ),
        io.Combo.Input(
            "weights",
            options=list(WEIGHTS),
            default="ramps",
            tooltip="How overlapping windows are mixed. flat: the plain average of the official code. ramps: a "
            "cross-fade. pyramid: the middle of a window counts most.",
        ),
    ]  # fmt: skip


class ChampTemporalAggregation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampTemporalAggregation",
            display_name="Temporal Aggregation",
            category="Champ/sampling",
            aliases=["context windows", "sliding window", "long video", "AnimateDiff context options"],
            advanced=["weights"],
            description="Lets any sampler make a video of any length: in each step the model denoises overlapping "
            "windows, and their predictions are averaged. Memory depends on the window, not on the video.",
            inputs=[io.Model.Input("model", tooltip="From Load Champ Model or Apply Champ."), *window_inputs()],
            outputs=[io.Model.Output(display_name="model", tooltip="For KSampler, SamplerCustom or Champ Sampler.")],
        )

    @classmethod
    def execute(cls, model, length, overlap, schedule, weights) -> io.NodeOutput:
        return io.NodeOutput(with_windows(model, length, overlap, schedule, weights))


class ChampInterpolateLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampInterpolateLatents",
            display_name="Interpolate Latent Frames",
            category="Champ/sampling",
            aliases=["frame interpolation", "double frame rate", "slerp", "smooth video"],
            advanced=["method"],
            description="Puts new frames between the frames of a latent video, before decoding.",
            inputs=[
                io.Latent.Input("latent", tooltip="The sampled video."),
                io.Int.Input("factor", default=2, min=1, max=16, tooltip="2 doubles the frame rate."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    tooltip="slerp keeps the contrast of the frames between; linear softens it.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The longer video.")],
        )

    @classmethod
    def execute(cls, latent, factor, method) -> io.NodeOutput:
        return io.NodeOutput({"samples": interpolate(latent["samples"], factor, method)})


NODES = [ChampTemporalAggregation, ChampInterpolateLatents]
