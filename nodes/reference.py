"""Node that encodes the reference image with ReferenceNet and CLIP vision."""

from typing import NamedTuple

import torch
from comfy_api.latest import io

from ..champ.model.families import FAMILIES
from ..champ.model.images import FITS, clip_vision_input, fit_images, nearest_size
from ..champ.model.reference import Reference, encode_reference
from ..champ.model.span import Span
from .types import MAX_SIZE, ChampReference, ChampReferenceNet, progress, schema, span_inputs


class ReferenceImage(NamedTuple):
    """A reference image as given, and how it was fitted for ReferenceNet."""

    image: torch.Tensor  # (H, W, 3) in 0..1
    width: int
    height: int
    fit: str
    clip_embeds: torch.Tensor | None  # (1, D)


class EncodedReference(NamedTuple):
    """The value of a CHAMP_REFERENCE socket."""

    references: tuple[Reference, ...]
    clip_embeds: torch.Tensor | None  # (N, D), N from 1 to the number of references
    shown: tuple[ReferenceImage, ...]  # for every reference


class ChampEncodeReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampEncodeReference",
            display_name="Encode Reference",
            category="Champ/model",
            aliases=["ReferenceNet", "reference image", "character", "identity", "appearance"],
            advanced=["start", "end"],
            description="Encodes the image of the person with ReferenceNet, once for the whole video (with "
            "MagicAnimate, again in every step of the sampling). Several images of the same person can be given as a "
            "batch.",
            inputs=[
                ChampReferenceNet.Input("reference_net", tooltip="From Load Champ Model."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 1.5, from Load VAE."),
                io.Image.Input("image", tooltip="The person to animate."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIP vision ViT-L/14 with projection, from Load CLIP Vision. The official models use it. "
                    "Without it, the embedding is zero. MagicAnimate does not read it.",
                ),
                ChampReference.Input(
                    "add_to",
                    optional=True,
                    tooltip="Another reference, to which this one is added. The video reads both.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=0,
                    max=MAX_SIZE,
                    step=8,
                    tooltip="Width of the video in pixels, the same as for the maps. 0 takes that of the image.",
                ),
                io.Int.Input(
                    "height",
                    default=768,
                    min=0,
                    max=MAX_SIZE,
                    step=8,
                    tooltip="Height of the video in pixels, the same as for the maps. 0 takes that of the image.",
                ),
                io.Combo.Input(
                    "fit",
                    display_name="other aspect ratio",
                    options=list(FITS),
                    default="crop",
                    tooltip="What happens to an image of another aspect ratio. crop cuts the edges, pad adds black, "
                    "stretch distorts it as the official inference does.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="How much the image counts."
                ),
                *span_inputs(),
            ],
            outputs=[ChampReference.Output(display_name="reference", tooltip="For Apply Champ.")],
        )

    @classmethod
    @progress("Encoding the reference", "image")
    def execute(
        cls, reference_net, vae, image, width, height, fit, strength, start, end, clip_vision=None, add_to=None
    ) -> io.NodeOutput:
        width, height = width or nearest_size(image.shape[2]), height or nearest_size(image.shape[1])
        pictures = fit_images(image, width, height, fit, FAMILIES[reference_net.family].reference_filter)
        embeds = None
        if clip_vision is not None:
            embeds = clip_vision.encode_image(clip_vision_input(image), crop=False)["image_embeds"]
        references = encode_reference(
            reference_net,
            vae.encode(pictures),
            embeds,
            strength=strength,
            span=Span(start, end),
        )
        each = [None] * len(image) if embeds is None else embeds.reshape(-1, 1, embeds.shape[-1])
        shown = tuple(ReferenceImage(x, width, height, fit, own) for x, own in zip(image, each))
        if add_to is not None:
            references, shown = add_to.references + references, add_to.shown + shown
            known = [e for e in (add_to.clip_embeds, embeds) if e is not None]
            embeds = torch.cat(known) if known else None
        return io.NodeOutput(EncodedReference(references, embeds, shown))


NODES = [ChampEncodeReference]
