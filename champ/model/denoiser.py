"""The denoiser: an SD1.5 UNet with motion modules that reads references and guidance, as a native ComfyUI model."""

import functools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential, UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .attention import READS, replace_attention
from .conditioning import GUIDANCE, REFERENCES, GuidanceRun, Rows
from .config import HEADS, MotionSizes, Place
from .families import CHAMP, FAMILIES
from .finite import all_finite, network_cause
from .guidance import Guidance
from .images import SMALLEST, TOO_SMALL
from .motion_module import MotionModule
from .reference import Reference, ReferenceRun, tensors_of, transformer_channels
from .window_norm import NormParts, span_windows

# ComfyUI's names of the noise schedules: what diffusers calls "linear" is its "sqrt_linear".
BETAS = {"linear": "sqrt_linear", "scaled_linear": "linear"}
# Replaces the infinite sigma of the step without signal. With ComfyUI's own 4519, its DDIM is four times as far from
# the official results; from 30000 on, the rounding of x_t * sigma in float32 dominates.
LAST_SIGMA = 25000.0


class NoiseSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Noise prediction, which begins with plain noise at whatever timestep if there is no picture in the latent.

    The official timesteps begin below the last one, where ComfyUI expects noise times sqrt(1 - alpha_bar).
    """

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return super().noise_scaling(sigma, noise, latent_image, max_denoise or not latent_image.any())


def model_sampling(betas: str, family: str = CHAMP) -> Any:
    """Returns the family's kind of prediction with 1000 steps of these betas: v, rescaled to zero terminal SNR, or the
    noise."""
    epsilon = FAMILIES[family].epsilon
    settings = {"beta_schedule": BETAS[betas], "linear_start": 0.00085, "linear_end": 0.012, "zsnr": not epsilon}
    config = SimpleNamespace(sampling_settings=settings)
    if epsilon:
        return NoiseSampling(config)
    sampling = comfy.model_base.model_sampling(config, comfy.model_base.ModelType.V_PREDICTION)
    sampling.set_sigmas(torch.cat([sampling.sigmas[:-1], sampling.sigmas.new_tensor([LAST_SIGMA])]))
    return sampling


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
        """Predicts for x (parts * frames, 4, h, w); `given` are guidance and references, one of each per part.

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
        sigma = float(transformer_options["sigmas"][0]) if "sigmas" in transformer_options else None
        window = window_frames(transformer_options)
        guidance: Sequence[GuidanceRun | None] = given.pop("guidance", None) or [None] * parts
        references: Sequence[Sequence[ReferenceRun]] = given.pop("references", None) or [()] * parts

        def add_guidance(h: Tensor, options: dict[str, Any]) -> Tensor:
            if options["block"] != ("input", 0):
                return h
            return add_features(h, guidance, sigma, window)

        def move(layer: MotionModule, x: Tensor, *args) -> Tensor:
            if x.device.type == "cpu":  # a step takes minutes there, and may be cancelled
                comfy.model_management.throw_exception_if_processing_interrupted()
            return layer(x, frames)

        patches = {**transformer_options.get("patches", {})}
        patches["input_block_patch"] = [add_guidance, *patches.get("input_block_patch", ())]
        mine = (MotionModule, move)
        patches["forward_timestep_embed_patch"] = [mine, *patches.get("forward_timestep_embed_patch", ())]
        reads = [[source for run in runs for source in run.at(sigma, window)] for runs in references]
        options = {**transformer_options, "patches": patches, READS: reads}
        return super()._forward(x, timesteps, context, y, control, options, **given)


def add_features(
    h: Tensor, guidance: Sequence[GuidanceRun | None], sigma: float | None, frames: Sequence[int] | None
) -> Tensor:
    """Adds the guidance to each part of the batch; a guidance shared by several parts is moved to the device once."""
    moved: dict[Guidance, Tensor | None] = {}
    parts = []
    for part, run in zip(h.chunk(len(guidance)), guidance):
        if run is not None:
            if run.guidance not in moved:
                features = run.at(sigma, frames)
                if features is not None:
                    check_frames(len(features), len(part))
                moved[run.guidance] = None if features is None else features.to(h)
            features = moved[run.guidance]
            part = part if features is None else part + features
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

    def extra_conds(self, **kwargs) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        guidance, references = kwargs.get(GUIDANCE), kwargs.get(REFERENCES, ())
        if guidance is not None:
            self.check_guidance(guidance, kwargs["noise"].shape)
        for reference in references:
            self.check_reference(reference, kwargs["noise"].shape)
        keep = kwargs.get("hooks") is None  # hooks may change the weights from one step to the next
        text = kwargs.get("cross_attn")
        # Both are always present, so that a positive with references and a negative without can share a batch.
        out["guidance"] = Rows(guidance and GuidanceRun(guidance, self.model_sampling))
        out["references"] = Rows([reference.run(self.model_sampling, keep, text) for reference in references])
        return out

    def apply_model(self, x, t, *args, **kwargs):
        """Calls ComfyUI's; raises if the prediction of the first sampling step holds NaN or infinity.

        Only the first step is checked, because reading the result waits for the device. A later step can only overflow.
        """
        sigmas = kwargs.get("transformer_options", {}).get("sample_sigmas")
        first = sigmas is not None and bool(t[0] == sigmas[0].to(t))
        prediction = super().apply_model(x, t, *args, **kwargs)
        if first and not prediction.isfinite().all():
            cause = self.cause_of_nan(x, kwargs)
            raise ValueError(f"The first step of the sampling gave NaN or infinite values: {cause}.")
        return prediction

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
        dtype = self.manual_cast_dtype or self.get_dtype()
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
