"""The two stages: appearance and poses on single pictures, then motion on clips."""

import re

from .networks import Champ

STAGES = ("stage1", "stage2")


def choose_parameters(model: Champ, stage: str, freeze: bool) -> None:
    """Selects the parameters that a stage trains: all but the motion modules, or only these.

    `freeze` excludes ReferenceNet's finest up-sampling level, as the official first stage does; that needs pretrained
    weights.
    """
    blocks = len(model.reference.output_blocks)
    finest = range(blocks - 1 - model.reference.num_res_blocks[0], blocks)
    frozen = re.compile(rf"reference\.output_blocks\.({'|'.join(map(str, finest))})\.")
    for name, parameter in model.named_parameters():
        motion = ".motion." in name
        parameter.requires_grad_(motion if stage == "stage2" else not motion and not (freeze and frozen.match(name)))
