"""Node that loads checkpoint sets: the denoiser, ReferenceNet and the guidance encoders."""

import folder_paths
from comfy_api.latest import io

from ..champ.model.checkpoint import SUFFIXES, find_set
from ..champ.model.exchanged import encoder_doubts
from ..champ.model.loading import WEIGHT_DTYPES, load_denoiser, load_encoders, load_reference_net
from .files import checkpoint_sets, register_folder, register_shipped, set_place
from .types import ChampGuidanceEncoders, ChampReferenceNet, checked, progress, schema, warn

register_folder("champ", set(SUFFIXES))
register_shipped("champ", "vae")
register_folder("animatediff_models", folder_paths.supported_pt_extensions)

OWN_MOTION = {"from the set": "set", "none (single pictures)": "none"}


class ChampLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadModel",
            display_name="Load Champ Model",
            category="Champ/model",
            aliases=[
                "Animate Anyone",
                "MagicAnimate",
                "MusePose",
                "checkpoint loader",
                "human image animation",
                "animate person",
                "motion module",
            ],
            advanced=["weight_dtype"],
            description="Loads a checkpoint set of Champ, Animate Anyone, MusePose or MagicAnimate from models/champ: "
            "one folder with denoising_unet, reference_unet, motion_module and the guidance encoders or the pose "
            "guider (MagicAnimate: temporal_attention, appearance_encoder and densepose_controlnet), or one file with "
            "all of them. champ_tiny comes with the pack.",
            inputs=[
                io.Combo.Input(
                    "checkpoint_set",
                    options=checkpoint_sets(),
                    tooltip="A folder below models/champ with the files of one set under their official names, or a "
                    "file with the whole set. champ_tiny is a small model for drawn people that comes with the pack.",
                ),
                io.Combo.Input(
                    "motion_module",
                    options=[*OWN_MOTION, *folder_paths.get_filename_list("animatediff_models")],
                    tooltip="The layers that connect the frames: those of the set, or a file in AnimateDiff's format "
                    "(SD1.5) from models/animatediff_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    tooltip="How the weights are stored. fp8 takes half the memory of 16 bits and costs some quality.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The denoiser. It works with any sampler, LoRA or ControlNet."
                ),
                ChampReferenceNet.Output(display_name="reference_net", tooltip="For Encode Reference."),
                ChampGuidanceEncoders.Output(display_name="guidance_encoders", tooltip="For Encode Guidance."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint_set):
        return checked(set_place, checkpoint_set)

    @classmethod
    @progress("Loading the networks")
    def execute(cls, checkpoint_set, motion_module, weight_dtype) -> io.NodeOutput:
        files = find_set(set_place(checkpoint_set))
        motion = OWN_MOTION.get(motion_module)
        if motion is None:
            motion = folder_paths.get_full_path_or_raise("animatediff_models", motion_module)
        encoders = load_encoders(files)
        for doubt in encoder_doubts(files.encoders, encoders.networks):
            warn(doubt)
        return io.NodeOutput(
            load_denoiser(files, motion, weight_dtype), load_reference_net(files, weight_dtype), encoders
        )


NODES = [ChampLoadModel]
