"""Nodes for the body that performs: the free one that comes with the pack, or the user's SMPL file."""

import torch
from comfy_api.latest import io

from ..champ.body.free import free_body_betas, load_free_body
from ..champ.body.smpl import load_smpl
from .files import SMPL_EXTENSIONS, register_folder, smpl_file, smpl_files
from .types import ChampBody, checked, progress, schema

register_folder("smpl", SMPL_EXTENSIONS)


class ChampFreeBody(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def slider(name, default, low, high, step, tooltip):
            return io.Float.Input(
                name,
                default=default,
                min=low,
                max=high,
                step=step,
                display_mode=io.NumberDisplay.slider,
                tooltip=tooltip,
            )

        return schema(
            node_id="ChampFreeBody",
            display_name="Free Body",
            category="Champ/body",
            aliases=["SMPL", "human body", "mannequin", "body shape", "3D person"],
            advanced=["proportions"],
            description="A human body that comes with the pack. Nothing to download, and commercial use is allowed. "
            "The sliders set its shape.",
            inputs=[
                slider("gender", 0.5, 0.0, 1.0, 0.01, "0 is a male body, 1 a female one."),
                slider("age", 30.0, 18.0, 90.0, 1.0, "Years. The body was made from adults."),
                slider("height", 1.70, 1.30, 2.20, 0.01, "Metres."),
                slider("weight", 0.5, 0.0, 1.0, 0.01, "From light to heavy. With little muscle the weight is fat."),
                slider("muscle", 0.5, 0.0, 1.0, 0.01, "From weak to strong muscles."),
                slider("proportions", 0.5, 0.0, 1.0, 0.01, "From idealised to uncommon proportions."),
            ],
            outputs=[ChampBody.Output(display_name="body", tooltip="For the motion, camera and map nodes.")],
        )

    @classmethod
    def execute(cls, gender, age, height, weight, muscle, proportions) -> io.NodeOutput:
        betas = free_body_betas(gender, age, muscle, weight, height, proportions)
        return io.NodeOutput(load_free_body().with_betas(betas))


class ChampLoadSMPL(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadSMPL",
            display_name="Load SMPL Body",
            category="Champ/body",
            aliases=["SMPL model", "human body", "body shape", "SMPL_NEUTRAL"],
            description="The SMPL body, which Champ was trained on, from your own licensed file in models/smpl "
            "(register at smpl.is.tue.mpg.de). The pack never downloads it.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=smpl_files(),
                    tooltip="An SMPL model with 6890 vertices: SMPL_NEUTRAL.pkl, basicModel_neutral_lbs_10_207_0_v1.0.0"
                    ".pkl, or an .npz or .safetensors copy of it.",
                ),
                io.Float.Input(
                    "beta_0", display_name="size (beta 0)", default=0.0, min=-5.0, max=5.0, step=0.05,
                    tooltip="SMPL's first shape parameter, mainly the size. Larger is taller for the neutral and "
                    "female models, smaller for the male one.",
                ),
                io.Float.Input(
                    "beta_1", display_name="girth (beta 1)", default=0.0, min=-5.0, max=5.0, step=0.05,
                    tooltip="SMPL's second shape parameter, mainly the girth. Larger is thinner.",
                ),
            ],
            outputs=[ChampBody.Output(display_name="body", tooltip="For the motion, camera and map nodes.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name):
        return checked(smpl_file, model_name)

    @classmethod
    @progress("Loading the body")
    def execute(cls, model_name, beta_0, beta_1) -> io.NodeOutput:
        return io.NodeOutput(load_smpl(smpl_file(model_name)).with_betas(torch.tensor([beta_0, beta_1])))


NODES = [ChampFreeBody, ChampLoadSMPL]
