"""Nodes that make sampling faster and change the result a little."""

from comfy_api.latest import io

from ..champ.model.span import Span
from ..champ.sampling.shortcuts import with_cfg_interval, with_deep_cache
from .types import schema, span_inputs


class ChampCFGInterval(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampCFGInterval",
            display_name="CFG Interval",
            category="Champ/sampling",
            aliases=["guidance interval", "limited interval guidance", "cfg schedule", "faster", "speed"],
            description="Uses the sampler's cfg in a part of the sampling only. The other steps are those of cfg 1 and "
            "take half the time. For any sampler.",
            inputs=[
                io.Model.Input("model", tooltip="From Apply Champ or Temporal Aggregation."),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Where in the sampling cfg begins. 0 is the first step, 1 the last.",
                ),
                io.Float.Input(
                    "end", default=0.6, min=0.0, max=1.0, step=0.01,
                    tooltip="Where in the sampling cfg ends. The last steps change little but details.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For Champ Sampler, KSampler or SamplerCustom.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, start, end) -> io.NodeOutput:
        return io.NodeOutput(with_cfg_interval(model, Span(start, end)))


class ChampFeatureCache(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampFeatureCache",
            display_name="Feature Cache",
            category="Champ/sampling",
            aliases=["DeepCache", "TeaCache", "EasyCache", "faster", "speed"],
            advanced=["start", "end"],
            description="Evaluates the whole model in every few steps only. In the steps between, only its first and "
            "last blocks are evaluated, with what the others gave before. Faster, and a little less exact.",
            inputs=[
                io.Model.Input("model", tooltip="From Apply Champ or Temporal Aggregation."),
                io.Int.Input(
                    "every", default=2, min=2, max=10,
                    tooltip="The whole model is evaluated in every so many steps. More is faster and less exact.",
                ),
                io.Int.Input(
                    "blocks", default=3, min=1, max=11,
                    tooltip="Blocks at each end of the model that are evaluated in every step. Fewer are faster and "
                    "less exact, and keep more in memory.",
                ),
                *span_inputs(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For Champ Sampler, KSampler or SamplerCustom.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, every, blocks, start, end) -> io.NodeOutput:
        return io.NodeOutput(with_deep_cache(model, every, blocks, Span(start, end)))


NODES = [ChampCFGInterval, ChampFeatureCache]
