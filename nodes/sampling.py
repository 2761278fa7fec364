"""Nodes that combine model, reference and guidance, and sample with the pack's own sampler or ComfyUI's."""

import comfy.sample
import comfy.utils
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..champ.model.conditioning import conditioning
from ..champ.model.denoiser import champ_model, check_latent
from ..champ.model.families import FAMILIES
from ..champ.model.finite import check_sampled
from ..champ.model.loras import lacks_attention
from ..champ.sampling.aggregation import window_count, with_windows
from ..champ.sampling.noise import NOISES
from ..champ.sampling.sampler import ddim
from ..champ.sampling.schedule import BETA_SCHEDULES, official_sigmas, with_betas
from .aggregate import window_inputs
from .live_preview import live_callback
from .types import ChampGuidance, ChampReference, progress, schema, warn

LAYOUT = (
    "per frame: a frame has the same noise whatever the clip's length, so a longer clip begins like the shorter one. "
    "official: the order of Champ's own code, for comparing results. same in every frame: much less flicker, but "
    "details may stick to the picture while the person moves. every 16 frames: the noise of 16 frames again and again, "
    "as MagicAnimate's own code has it."
)


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=20,
        min=1,
        max=1000,
        tooltip="Number of steps. Official: 20 for Champ and MusePose, 30 for Animate Anyone, 25 for MagicAnimate. "
        "More steps are slower.",
    )


def denoise_input() -> io.Float.Input:
    return io.Float.Input(
        "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
        tooltip="1 starts from noise. Below 1 keeps a part of the connected latent (video to video).",
    )  # fmt: skip


class ChampApply(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampApply",
            display_name="Apply Champ",
            category="Champ/model",
            aliases=["conditioning", "animate", "Animate Anyone", "pose control"],
            advanced=["betas"],
            description="Makes the positive and negative conditioning and the empty latent of the video, for Champ "
            "Sampler, KSampler or SamplerCustom. Both follow the guidance; only the positive reads the reference.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Champ Model, with or without LoRAs."),
                ChampGuidance.Input("guidance", tooltip="From Encode Guidance."),
                ChampReference.Input(
                    "reference",
                    optional=True,
                    tooltip="From Encode Reference. Without it, the person does not look like your image.",
                ),
                io.Combo.Input(
                    "betas",
                    display_name="beta schedule",
                    options=list(BETA_SCHEDULES),
                    tooltip="Beta schedule. official: that of the set's own inference, which is linear, and "
                    "scaled_linear for MusePose. Champ and Animate Anyone were trained with scaled_linear, which "
                    "changes light and contrast slightly.",
                ),
                io.Conditioning.Input(
                    "text",
                    optional=True,
                    tooltip="For MagicAnimate, which reads text: CLIP Text Encode with an empty prompt, by the CLIP of "
                    "Stable Diffusion 1.5. The other sets read no text.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the chosen noise schedule."),
                io.Conditioning.Output(display_name="positive", tooltip="Reference, CLIP embedding and guidance."),
                io.Conditioning.Output(display_name="negative", tooltip="Guidance alone."),
                io.Latent.Output(
                    display_name="latent", tooltip="An empty latent with one entry per frame of the guidance."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, guidance, betas, reference=None, text=None) -> io.NodeOutput:
        denoiser = champ_model(model)
        references, embeds = ((), None) if reference is None else (reference.references, reference.clip_embeds)
        if text is not None and not FAMILIES[denoiser.family].text:
            warn(f"Apply Champ: {denoiser.family} reads no text, so what is connected to text does nothing.")
        if lacks_attention(model):
            warn(
                "A LoRA on the model was loaded without its attention layers, because ComfyUI does not know the names "
                "that they have in its file (unet....lora_A); get the file in kohya's layout (lora_unet_...) instead."
            )
        tokens = text[0][0] if text else None
        positive, negative = conditioning(denoiser.context_dim, guidance, references, embeds, tokens)
        latent = {"samples": guidance.empty_latent().to(intermediate_device())}
        return io.NodeOutput(with_betas(model, betas), positive, negative, latent)


class ChampSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSampler",
            display_name="Champ Sampler",
            category="Champ/sampling",
            aliases=["KSampler", "animate", "human image animation", "dance video", "image to video"],
            advanced=["overlap", "schedule", "weights"],
            description="Samples a video with the official settings: exact DDIM, and the timesteps and "
            "the windows that the set was made for.",
            inputs=[
                io.Model.Input("model", tooltip="From Apply Champ."),
                io.Conditioning.Input("positive", tooltip="From Apply Champ."),
                io.Conditioning.Input("negative", tooltip="From Apply Champ."),
                io.Latent.Input("latent", tooltip="From Apply Champ, or a video encoded with the VAE."),
                io.Int.Input(
                    "seed", default=42, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Another seed gives another video.",
                ),
                steps_input(),
                io.Float.Input(
                    "cfg", default=3.5, min=1.0, max=30.0, step=0.1,
                    tooltip="How closely the video follows the reference. 1 is the fastest and the weakest. Official: "
                    "3.5, and 7.5 for MagicAnimate.",
                ),
                denoise_input(),
                io.Combo.Input("noise", options=list(NOISES), tooltip=LAYOUT),
                *window_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The video, for VAE Decode.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, negative, latent, seed, steps, cfg, denoise, noise, length, overlap, schedule, weights
    ) -> io.NodeOutput:
        champ_model(model)
        if "context_handler" not in model.model_options:
            model = with_windows(model, length, overlap, schedule, weights)
        samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        check_latent(samples.shape)
        sigmas = official_sigmas(model.get_model_object("model_sampling"), steps, denoise)
        if len(sigmas) == 0:
            return io.NodeOutput(latent)
        latent = {**latent, "samples": samples}
        steps, windows = len(sigmas) - 1, window_count(model, len(samples))
        what = ("Sampling", "step") if windows == 1 else (f"Sampling {steps} steps of {windows} windows", "window")
        with progress(*what, bar=False):
            samples = comfy.sample.sample_custom(
                model,
                NOISES[noise](seed).generate_noise(latent),
                cfg,
                ddim(),
                sigmas,
                positive,
                negative,
                samples,
                noise_mask=latent.get("noise_mask"),
                callback=live_callback(model, steps, windows),
                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                seed=seed,
            )
        check_sampled(samples)
        frames, _, rows, columns = samples.shape
        window = getattr(model.model_options["context_handler"], "context_length", frames)
        # For the timeline in the page.
        size = {"frames": frames, "width": 8 * columns, "height": 8 * rows, "length": window}
        return io.NodeOutput({**latent, "samples": samples}, ui={"champ_size": [size]})


class ChampSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSigmas",
            display_name="Champ Trailing Sigmas",
            category="Champ/sampling/custom",
            aliases=["scheduler", "timesteps", "trailing spacing", "zero terminal SNR"],
            description="The noise levels of the official timesteps, for SamplerCustom and SamplerCustomAdvanced. "
            "Exact for any number of steps.",
            inputs=[io.Model.Input("model", tooltip="From Apply Champ."), steps_input(), denoise_input()],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise levels from the first step to 0.")],
        )

    @classmethod
    def execute(cls, model, steps, denoise) -> io.NodeOutput:
        return io.NodeOutput(official_sigmas(model.get_model_object("model_sampling"), steps, denoise))


class ChampDDIM(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampDDIM",
            display_name="Champ DDIM",
            category="Champ/sampling/custom",
            aliases=["sampler", "DDIM", "zero terminal SNR"],
            description="The official sampler for SamplerCustom and SamplerCustomAdvanced. It is exact in the first "
            "step, which contains no signal at all. ComfyUI's own ddim comes very close.",
            inputs=[],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="Deterministic DDIM.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(ddim())


class ChampNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampNoise",
            display_name="Champ Noise",
            category="Champ/sampling/custom",
            aliases=["random noise", "seed", "initial noise", "flicker"],
            description="Noise for SamplerCustomAdvanced.",
            inputs=[
                io.Int.Input(
                    "seed", default=42, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Another seed gives another video.",
                ),
                io.Combo.Input("layout", options=list(NOISES), tooltip=LAYOUT),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, seed, layout) -> io.NodeOutput:
        return io.NodeOutput(NOISES[layout](seed))


NODES = [ChampApply, ChampSampler, ChampSigmas, ChampDDIM, ChampNoise]
