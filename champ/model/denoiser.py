"""The denoiser: an SD1.5 UNet with motion modules that reads references and guidance, as a native ComfyUI model."""

import functools
import math
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    TimestepEmbedSequential,
    UNetModel,
    apply_control,
    forward_timestep_embed,
    timestep_embedding,
)
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .attention import READS, SelfAttention, Source, replace_attention
from .conditioning import GUIDANCE, REFERENCES, GuidanceRun, Rows
from .config import HEADS, MotionSizes, Place
from .deep_cache import CACHE, Deep, DeepCache
from .families import FAMILIES
from .finite import all_finite, network_cause
from .guidance import Guidance
from .images import SMALLEST, TOO_SMALL
from .motion_module import MotionModule, PositionalEncoding
from .prediction import model_sampling
from .reference import Reference, ReferenceRun, tensors_of, transformer_channels, transformers
from .residence import Evaluation, spare_memory
from .span import LEVEL, NoiseLevel
from .window_norm import NormParts, span_windows

HELD = "champ_held"  # key of shapes from which memory is estimated: bytes on the device
LATENTS = 5  # of the whole clip, in float32, that a sampler holds there for each of positive and negative
_is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # not in torch 2.1


class ModelConfig(comfy.supported_models_base.BASE):
    """Stable Diffusion 1.5's configuration."""

    unet_extra_config = {"num_heads": HEADS, "num_head_channels": -1}
    latent_format = comfy.latent_formats.SD15
    memory_usage_factor = 1.0


class MotionBlock(TimestepEmbedSequential):
    """A block of the UNet with a motion module after its first residual block and transformer.

    The module comes before upsampling, and in the middle before the second residual block. The other layers keep their
    names, so that LoRAs, ControlNets and merges find them.
    """

    def __init__(self, block: TimestepEmbedSequential, motion: MotionModule):
        super().__init__(*block)
        self.position = 2 if len(block) > 1 and isinstance(block[1], SpatialTransformer) else 1
        self.motion = motion

    def __iter__(self):
        *layers, motion = self._modules.values()
        return iter([*layers[: self.position], motion, *layers[self.position :]])


class ChampUNet(UNetModel):
    """UNetModel with other attentions and with motion modules; its batch is the frames of one or more evaluations."""

    middle_block: TimestepEmbedSequential

    def __init__(
        self,
        *args,
        motion: MotionSizes | None = None,
        joint_norms: bool = False,
        operations: Any = nn,
        device: Any = None,
        **kwargs,
    ):
        super().__init__(*args, operations=operations, device=device, **kwargs)
        replace_attention(self, operations)
        self.transformer_channels = transformer_channels(self)
        self.parts = NormParts()
        if joint_norms:
            span_windows(self, self.parts, operations)
        self.motion_sizes = motion
        self.max_frames = None
        self.tables: list[PositionalEncoding] = []
        if motion:
            self.max_frames = motion.frames
            for place, channels in motion.channels.items():
                self.add_motion(place, MotionModule(channels, motion.frames, self.dtype, device, operations))

    def add_motion(self, place: Place, module: MotionModule) -> None:
        part, number = place
        if part == "middle":
            self.middle_block = MotionBlock(self.middle_block, module)
        else:
            blocks = self.input_blocks if part == "input" else self.output_blocks
            blocks[number] = MotionBlock(blocks[number], module)
        self.tables += [layer for layer in module.modules() if isinstance(layer, PositionalEncoding)]

    def bring_tables(self, device: torch.device) -> None:
        """Moves the frames' encodings to the device, where ComfyUI leaves them behind if a model does not fit."""
        for table in self.tables:
            if table.pe.device != device:
                table.pe = table.pe.to(device)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor]] | None = None,
        transformer_options: dict[str, Any] = {},  # noqa: B006
        **given: Any,
    ) -> Tensor:
        """Predicts for x (parts * frames, 4, h, w); `given` are guidance and sources of keys, one of each per part.

        A part is one evaluation of a conditioning (positive, negative, ...), in whatever order ComfyUI batches them.
        """
        parts = len(transformer_options.get("cond_or_uncond", (0,)))
        frames = len(x) // parts
        self.parts.count = parts
        if self.max_frames is not None and frames > self.max_frames:
            raise ValueError(
                f"The motion modules know windows of up to {self.max_frames} frames but were given {frames}; connect "
                "Temporal Aggregation, with a short enough window, between the model and the sampler."
            )
        guidance: Sequence[Tensor | None] = given.pop("guidance", None) or [None] * parts
        references: Sequence[Sequence[Source]] = given.pop("references", None) or [()] * parts

        def add_guidance(h: Tensor, options: dict[str, Any]) -> Tensor:
            return add_features(h, guidance) if options["block"] == ("input", 0) else h

        def move(layer: MotionModule, x: Tensor, *args) -> Tensor:
            if x.device.type == "cpu" and not _is_compiling():  # a step takes minutes there, and may be cancelled
                comfy.model_management.throw_exception_if_processing_interrupted()
            return layer(x, frames)

        patches = {**transformer_options.get("patches", {})}
        patches["input_block_patch"] = [add_guidance, *patches.get("input_block_patch", ())]
        mine = (MotionModule, move)
        patches["forward_timestep_embed_patch"] = [mine, *patches.get("forward_timestep_embed_patch", ())]
        options = {**transformer_options, "patches": patches, READS: references}
        deep: Deep | None = given.pop("deep", None)
        if deep is not None and deep.features is not None:
            return self.shallow(x, timesteps, context, control, options, deep)
        if deep is not None:
            patches["output_block_patch"] = [self.keeping(deep), *patches.get("output_block_patch", ())]
        return super()._forward(x, timesteps, context, y, control, options, **given)

    def keeping(self, deep: Deep) -> Callable:
        """Returns a patch that keeps what enters the first of the last blocks."""
        place = ("output", len(self.output_blocks) - deep.blocks)

        def keep(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            if options["block"] == place:
                deep.seen.append(h.clone())  # others, such as FreeU, write into h
            return h, skip

        return keep

    def shallow(
        self,
        x: Tensor,
        timesteps: Tensor | None,
        context: Tensor | None,
        control: dict[str, list[Tensor]] | None,
        options: dict[str, Any],
        deep: Deep,
    ) -> Tensor:
        """Evaluates the first and the last blocks as ComfyUI's UNetModel does, with kept features between them."""
        patches = options["patches"]
        options |= {"original_shape": list(x.shape), "transformer_index": 0}
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        h, skips = x, []
        for i, block in enumerate(self.input_blocks[: deep.blocks]):
            options["block"] = ("input", i)
            h = apply_control(forward_timestep_embed(block, h, emb, context, options), control, "input")
            for patch in patches["input_block_patch"]:
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        first = len(self.output_blocks) - deep.blocks
        residuals = None if control is None else {"output": list(control.get("output", ()))[: deep.blocks]}
        h = deep.features
        for i, block in enumerate(self.output_blocks[first:], first):
            options["block"] = ("output", i)
            skip = apply_control(skips.pop(), residuals, "output")
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            shape = skips[-1].shape if skips else None
            h = forward_timestep_embed(block, torch.cat([h, skip], 1), emb, context, options, shape)
        return self.out(h.type(x.dtype))

    def self_attentions(self) -> dict[Place, SelfAttention]:
        """Returns the self-attention of every transformer."""
        return {place: transformer.transformer_blocks[0].attn1 for place, transformer in transformers(self).items()}


def add_features(h: Tensor, guidance: Sequence[Tensor | None]) -> Tensor:
    """Adds to each part of the batch its guidance."""
    first = guidance[0]
    if first is not None and all(features is first for features in guidance):
        check_frames(len(first), len(h) // len(guidance))
        return (h.unflatten(0, (len(guidance), -1)) + first).flatten(0, 1)
    parts = []
    for part, features in zip(h.chunk(len(guidance)), guidance):
        if features is not None:
            check_frames(len(features), len(part))
            part = part + features
        parts.append(part)
    return torch.cat(parts)


def check_frames(known: int, given: int) -> None:
    if known != given:
        raise ValueError(
            f"The model was given {given} of the clip's {known} frames, and not told which, because another pack cuts "
            "the clip into windows that Champ does not know; use Temporal Aggregation instead."
        )


def window_frames(transformer_options: dict[str, Any]) -> list[int] | None:
    """Returns the frames of the clip in this batch if the clip was cut into windows, by a context handler of ComfyUI or
    by AnimateDiff-Evolved."""
    outer = (transformer_options.get("ad_params") or {}).get("sub_idxs")
    window = transformer_options.get("context_window")
    if window is None:
        return None if outer is None else list(outer)
    anchor = getattr(window, "causal_anchor_index", None)  # newer handlers of ComfyUI prepend another frame
    frames = [*([anchor] if anchor is not None and anchor >= 0 else []), *window.index_list]
    return frames if outer is None else [outer[i] for i in frames]


def check_options(transformer_options: dict[str, Any]) -> None:
    """Raises for nodes of ComfyUI that cannot work here, and would give a wrong picture or an error of their own."""
    if getattr(transformer_options.get("easycache"), "name", None) == "LazyCache":
        raise ValueError(
            "LazyCache does not work with this model, whose noise begins at a level of 25000, so that steps look "
            "small to it; use Feature Cache or EasyCache instead."
        )
    replaced = transformer_options.get("patches_replace", {}).get("attn1", {}).values()
    guided = any("SelfAttentionGuidance" in getattr(patch, "__qualname__", "") for patch in replaced)
    if guided and window_frames(transformer_options) is not None:
        raise ValueError(
            "Self-Attention Guidance (SAG) looks at the attention of the last window only, and the clip is longer "
            "than one window; bypass that node, or use PerturbedAttentionGuidance (PAG) instead."
        )


def check_latent(shape: Sequence[int]) -> None:
    if len(shape) != 4 or shape[1] != 4:
        raise ValueError(
            f"The latent has shape {tuple(shape)}, but (frames, 4, height, width) is needed; use the latent of Apply "
            "Champ, or encode the video with the VAE of Stable Diffusion 1.5."
        )
    if min(shape[2:]) * 8 < SMALLEST:
        raise ValueError(f"The latent is for {shape[3] * 8}x{shape[2] * 8} pixels, {TOO_SMALL}.")


def champ_model(model: ModelPatcher) -> "ChampModel":
    """Returns the denoiser in a MODEL, or raises: other models would ignore guidance and references."""
    if not isinstance(model.model, ChampModel):
        raise ValueError(
            f"This MODEL is of the kind {type(model.model).__name__}, which reads no guidance and no reference; use "
            "the model of Load Champ Model."
        )
    return model.model


class ChampModel(comfy.model_base.BaseModel):
    """ComfyUI's model class around the denoiser; it takes guidance and references out of the conditioning."""

    def __init__(self, config: ModelConfig, family: str, motion: MotionSizes | None, device: Any = None):
        how = FAMILIES[family]
        unet = functools.partial(ChampUNet, motion=motion, joint_norms=how.joint_norms)
        kind = comfy.model_base.ModelType.EPS if how.epsilon else comfy.model_base.ModelType.V_PREDICTION
        super().__init__(config, kind, device=device, unet_model=unet)
        self.model_sampling = model_sampling(how.betas, family)
        self.family = family
        self.context_dim: int = config.unet_config["context_dim"]
        self._guidance_runs: MutableMapping[tuple[int, int], GuidanceRun] = weakref.WeakValueDictionary()
        self._reference_runs: MutableMapping[int, ReferenceRun] = weakref.WeakValueDictionary()
        self._run: Callable[[], Tensor | None] = lambda: None
        self._evaluated: set[tuple[int, ...]] = set()

    def extra_conds(self, **kwargs) -> dict[str, Any]:
        if kwargs.get("cross_attn") is not None:  # which ComfyUI would move for every evaluation
            kwargs["cross_attn"] = kwargs["cross_attn"].to(kwargs["device"])
        out = super().extra_conds(**kwargs)
        guidance, references = kwargs.get(GUIDANCE), kwargs.get(REFERENCES, ())
        if guidance is not None:
            self.check_guidance(guidance, kwargs["noise"].shape)
        for reference in references:
            self.check_reference(reference, kwargs["noise"].shape)
        keep = kwargs.get("hooks") is None  # hooks may change the weights from one step to the next
        text = kwargs.get("cross_attn")
        # Both are always present, so that a positive with references and a negative without can share a batch.
        out["guidance"] = Rows(guidance and self.guidance_run(guidance))
        runs = [reference.run(self.model_sampling, keep, text) for reference in references]
        self._reference_runs.update({id(run): run for run in runs})
        out["references"] = Rows(runs)
        return out

    def end_runs(self) -> None:
        """Empties the runs of a sampling that has ended. A guider keeps them when it was cancelled or failed."""
        runs: list[GuidanceRun | ReferenceRun] = [*self._guidance_runs.values(), *self._reference_runs.values()]
        for run in runs:
            run.forget()

    def guidance_run(self, guidance: Guidance) -> GuidanceRun:
        """Returns the run of a guidance, which positive and negative share while they are sampled."""
        run = self._guidance_runs.get((id(guidance), id(self.model_sampling)))
        if run is None:
            run = GuidanceRun(guidance, self.model_sampling)
            self._guidance_runs[id(guidance), id(self.model_sampling)] = run
        return run

    def extra_conds_shapes(self, **kwargs) -> dict[str, list[int]]:
        """Returns, beside ComfyUI's shapes, the bytes that a run holds on the device in any case."""
        guidance, references = kwargs.get(GUIDANCE), kwargs.get(REFERENCES, ())
        frames = numbers = latents = 0
        if guidance is not None:
            latents = LATENTS * guidance.empty_latent(device="meta").numel() * torch.float32.itemsize
            frames = min(guidance.frames, self.diffusion_model.max_frames or guidance.frames)
            numbers = sum(layer.features[0].numel() * frames for layer in guidance.layers)
        numbers += sum(reference.numbers(frames) for reference in references)
        return {**super().extra_conds_shapes(**kwargs), HELD: [numbers * self.compute_dtype().itemsize + latents]}

    def memory_required(self, input_shape, cond_shapes={}):  # noqa: B006
        held = sum(math.prod(shape) for shape in cond_shapes.get(HELD, ()))
        return super().memory_required(input_shape, cond_shapes=cond_shapes) + held

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """Adds the noise of a level to what is outside of a mask. An empty latent is no exception there, as it is
        where a sampling begins."""
        return comfy.model_sampling.EPS.noise_scaling(self.model_sampling, sigma, noise, latent_image)

    def compute_dtype(self) -> torch.dtype:
        return self.manual_cast_dtype or self.get_dtype()

    def apply_model(self, x, t, *args, **kwargs):
        """Calls ComfyUI's; raises if the prediction of the first sampling step holds NaN or infinity.

        Only the first step is checked, because reading the result waits for the device. A later step can only overflow.
        """
        options = kwargs.get("transformer_options", {})
        check_options(options)
        first = self.is_first(options)
        prediction = super().apply_model(x, t, *args, **kwargs)
        if first and not prediction.isfinite().all():
            cause = self.cause_of_nan(x, kwargs)
            raise ValueError(f"The first step of the sampling gave NaN or infinite values: {cause}.")
        return prediction

    def is_first(self, transformer_options: dict[str, Any]) -> bool:
        """Tells whether an evaluation is in the first step of a sampling: what the sampler or the windows say, else
        whether these parts are evaluated for the first time in this run."""
        if LEVEL in transformer_options:
            return transformer_options[LEVEL].first
        sigmas = transformer_options.get("sample_sigmas")  # another tensor in every run
        if sigmas is None:
            return False
        if self._run() is not sigmas:
            self._run, self._evaluated = weakref.ref(sigmas), set()
        parts = tuple(transformer_options.get("cond_or_uncond", ()))
        seen = parts in self._evaluated
        self._evaluated.add(parts)
        return not seen

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        """Gives the UNet tensors on the device in the place of guidance and references, so that nothing in it waits,
        and torch.compile makes one graph of it."""
        self.diffusion_model.bring_tables(x.device)
        now = self.evaluation(x, transformer_options)
        guidance, references = kwargs.get("guidance") or (), kwargs.get("references") or ()
        features = {run: run.at(now) for run in dict.fromkeys(guidance) if run is not None}
        ready: dict[str, Any] = {
            "guidance": [features.get(run) for run in guidance],
            "references": [[source for run in runs for source in run.at(now)] for runs in references],
        }
        cache: DeepCache | None = transformer_options.get(CACHE)
        deep = None if cache is None else self.plan(cache, now, transformer_options)
        if deep is not None:
            ready["deep"] = deep
        out = super()._apply_model(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs | ready)
        if cache is not None and deep is not None and deep.seen:
            cache.keep(now, deep)
        return out

    def plan(self, cache: DeepCache, now: Evaluation, transformer_options: dict[str, Any]) -> Deep | None:
        # All evaluations of a step have one noise level, or are made of one tensor of sigmas, which others than Champ
        # cut for each of their windows.
        step = transformer_options.get(LEVEL, transformer_options.get("sigmas"))
        if LEVEL not in transformer_options and now.frames is not None and now.level is not None:
            step = now.level.sigma
        return cache.plan(now, step, transformer_options["uuids"], self.model_sampling)

    def evaluation(self, x: Tensor, transformer_options: dict[str, Any]) -> Evaluation:
        unet = self.diffusion_model
        level = transformer_options.get(LEVEL)
        if level is None and "sigmas" in transformer_options:
            level = NoiseLevel(transformer_options["sigmas"][0], False)

        def fits(size: int) -> bool:
            return spare_memory(self, x.shape, x.device) >= size

        window = window_frames(transformer_options)
        return Evaluation(level, window, x.device, self.compute_dtype(), fits, unet.self_attentions())

    def cause_of_nan(self, x: Tensor, inputs: Mapping[str, Any]) -> str:
        guidance = [run.guidance for run in inputs.get("guidance") or () if run is not None]
        references = [run.reference for runs in inputs.get("references") or () for run in runs]
        given = {
            "they are already in the latent; encode the video again with another VAE, or start ComfyUI with "
            "--fp32-vae": [x],
            "they are already in the CLIP vision embedding; get the CLIP vision file again": [
                inputs.get("c_crossattn", x)
            ],
            "they are already in the guidance; encode the maps again": [
                layer.features for one in guidance for layer in one.layers
            ],
            "they are already in the reference; encode its image again": [
                tensor for one in references for tensor in tensors_of(one.tokens)
            ],
        }
        dtype = self.compute_dtype()
        remedy = "get its file again, or remove the LoRA from it"
        inside = f"in the denoiser {network_cause(self.diffusion_model, dtype, remedy)}"
        return next((cause for cause, values in given.items() if values and not all_finite(values)), inside)

    def check_guidance(self, guidance: Guidance, shape: Sequence[int]) -> None:
        self.check_family(guidance.family, "The guidance")
        channels = self.diffusion_model.model_channels
        for layer in guidance.layers:
            if layer.features.shape[1] != channels:
                raise ValueError(
                    f"The guidance has {layer.features.shape[1]} channels but this denoising UNet adds {channels}; "
                    "load encoders and denoising UNet from one checkpoint set."
                )
        check_latent(shape)
        frames, _, height, width = shape
        if (guidance.frames, guidance.height, guidance.width) != (frames, height * 8, width * 8):
            raise ValueError(
                f"The guidance has {guidance.frames} frames of {guidance.width}x{guidance.height} pixels, the latents "
                f"have {frames} of {width * 8}x{height * 8}; use the latent of Apply Champ."
            )

    def check_reference(self, reference: Reference, shape: Sequence[int]) -> None:
        self.check_family(reference.family, "The reference")
        reads = FAMILIES[self.family].read_from
        channels = {place: c for place, c in self.diffusion_model.transformer_channels.items() if reads(place)}
        if reference.channels() != channels:
            raise ValueError(
                "The reference was encoded by a ReferenceNet of other sizes than this denoising UNet; "
                "load both from one checkpoint set."
            )
        if reference.clip is not None:
            check_latent(shape)
            frames, _, height, width = shape
            if reference.clip != (frames, width * 8, height * 8):
                wanted, wanted_width, wanted_height = reference.clip
                raise ValueError(
                    f"The reference is calibrated for {wanted} frame{'s' * (wanted != 1)} of "
                    f"{wanted_width}x{wanted_height} pixels, the latents have {frames} of {width * 8}x{height * 8}; "
                    "calibrate it with the motion or the keypoints of this video, and encode it at this size."
                )

    def check_family(self, family: str, what: str) -> None:
        if family != self.family:
            raise ValueError(
                f"{what} comes from a checkpoint set of {family}, the model from one of {self.family}; connect all "
                "parts of one set."
            )
