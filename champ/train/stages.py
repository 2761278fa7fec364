"""The two stages: appearance and poses on single pictures, then motion on clips."""

import re

from .networks import Champ

STAGES = ("stage1", "stage2")


def choose_parameters(model: Champ, stage: str, freeze: bool) -> None:
    """Marks what a stage trains: all but the motion modules, or only these.

    `freeze` leaves ReferenceNet's finest level on the way up as it is, as the official first stage does; that needs
    weights that know pictures already."""
    blocks = len(model.reference.output_blocks)
    finest = range(blocks - 1 - model.reference.num_res_blocks[0], blocks)
    frozen = re.compile(rf"reference\.output_blocks\.({'|'.join(map(str, finest))})\.")
    for name, parameter in model.named_parameters():
        motion = ".motion." in name
        parameter.requires_grad_(motion if stage == "stage2" else not motion and not (freeze and frozen.match(name)))
