"""BlazePose in ComfyUI's hands: moved as ComfyUI decides, and released after use."""

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
        """The networks are loaded in here, and make room afterwards, whatever happens."""
        with loaded(self.patcher, memory=WORKING, whole=True):
            yield

    def find_poses(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[Pose]]]:
        """Each RGB picture (H, W, 3) uint8 with its people, none where nobody is found. A few pictures wait until their
        hands and faces are looked at, and no more."""
        return find_poses(self.patcher.model, pictures, self.hands_and_face)


def load_blazepose(hands_and_face: bool = True) -> BlazePose:
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return BlazePose(managed(read_networks(), device, offload), hands_and_face)
