"""The stages: appearance and poses on single pictures, then motion on clips; perhaps distillation to few steps."""

import re

from .networks import Champ

STAGES = ("stage1", "stage2", "distill")


def choose_parameters(model: Champ, stage: str, freeze: bool) -> None:
    """Selects the parameters that a stage trains: all but the motion modules, only these, or the whole denoiser.

    `freeze` excludes ReferenceNet's finest up-sampling level, as the official first stage does; that needs pretrained
    weights.
    """
    blocks = len(model.reference.output_blocks)
    finest = range(blocks - 1 - model.reference.num_res_blocks[0], blocks)
    frozen = re.compile(rf"reference\.output_blocks\.({'|'.join(map(str, finest))})\.")
    for name, parameter in model.named_parameters():
        motion = ".motion." in name
        learns = {
            "stage1": not motion and not (freeze and frozen.match(name)),
            "stage2": motion,
            "distill": name.startswith("denoiser."),
        }
        parameter.requires_grad_(learns[stage])
