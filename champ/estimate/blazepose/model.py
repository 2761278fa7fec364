"""BlazePose under ComfyUI's model management: loaded when needed, released after use."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management
import numpy as np
from comfy.model_patcher import ModelPatcher

from ...keypoints.pose import Pose
from ...model.compat import managed
from ...model.memory import loaded
from .networks import BATCH, BODY, read_networks
from .poses import find_poses

# Bytes of the feature maps of all crops: the widest has 64 channels at half the size, and there are others beside it.
WORKING = 4 * 32 * BODY**2 * BATCH


@dataclass(frozen=True, eq=False)
class BlazePose:
    patcher: ModelPatcher  # of Networks
    hands_and_face: bool

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Loads the networks for the block, and frees their memory afterwards, whatever happens."""
        with loaded(self.patcher, memory=WORKING, whole=True):
            yield

    def find_poses(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[Pose]]]:
        """Yields each RGB picture (H, W, 3) uint8 with its people, none where nobody is found. Only a few pictures are
        held at a time, until their hands and faces are estimated."""
        return find_poses(self.patcher.model, pictures, self.hands_and_face)


def load_blazepose(hands_and_face: bool = True) -> BlazePose:
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return BlazePose(managed(read_networks(), device, offload), hands_and_face)
