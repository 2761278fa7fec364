"""Nodes for temporal aggregation (videos of any length in windows) and for frame interpolation of latents."""

from comfy_api.latest import io

from ..champ.sampling.aggregation import with_windows
from ..champ.sampling.interpolate import METHODS, interpolate
from ..champ.sampling.windows import SCHEDULES, WEIGHTS
from .types import progress, schema


def window_inputs() -> list[io.Int.Input | io.Combo.Input]:
    return [
        io.Int.Input(
            "length", display_name="window length", default=0, min=0, max=1024,
            tooltip="Frames in one window, which are denoised together. Memory depends on this number. 0 takes the "
            "number of the official inference: 24 for Champ and Animate Anyone, 16 for MagicAnimate, 48 for MusePose. "
            "They know at most 32 frames (Champ, Animate Anyone), 24 (MagicAnimate, Champ-Tiny) or 128 (MusePose).",
        ),
        io.Int.Input(
            "overlap", display_name="window overlap", default=4, min=0, max=1023,
            tooltip="Frames that neighbouring windows share. A larger overlap is smoother and slower.",
        ),
        io.Combo.Input(
            "schedule",
            display_name="window schedule",
            options=list(SCHEDULES),
            default="open",
            tooltip="open: windows from the first frame to the last. looped: also joins the end to the beginning, for "
            "clips that loop; the official code always does this. moving: other windows in every step.",
        ),
        io.Combo.Input(
            "weights",
            display_name="window blending",
            options=list(WEIGHTS),
            default="ramps",
            tooltip="How overlapping windows are blended. flat: a plain average, as in the official code. ramps: a "
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
            description="Lets any sampler make a video of any length. In each step the model denoises overlapping "
            "temporal windows, and their predictions are averaged. Memory depends on the length of a window, not on "
            "the length of the video.",
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
            description="Adds frames between the frames of a latent video, before decoding.",
            inputs=[
                io.Latent.Input("latent", tooltip="The sampled video."),
                io.Int.Input("factor", default=2, min=1, max=16, tooltip="2 doubles the frame rate."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    tooltip="slerp keeps the contrast of the new frames; linear makes them softer.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The longer video.")],
        )

    @classmethod
    @progress("Interpolating")
    def execute(cls, latent, factor, method) -> io.NodeOutput:
        return io.NodeOutput({"samples": interpolate(latent["samples"], factor, method)})


NODES = [ChampTemporalAggregation, ChampInterpolateLatents]
