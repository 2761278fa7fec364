"""DWPose under ComfyUI's memory management: moved and cast as ComfyUI decides, run in batches that fit, and unloaded
after use."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfy.model_management
import numpy as np
import torch
from torch import Tensor

from ..keypoints.pose import Pose
from ..model.compat import managed
from ..model.memory import if_it_fits, loaded
from . import detect, dwpose
from .network import Network, read_network

DETECTOR_BATCH, POSE_BATCH = 4, 8  # pictures at once on a graphics card
WORKING = 100  # numbers in memory at once for each pixel of a picture: 32 in the network, and what torch needs


class Runner:
    """A network as a function of arrays: pictures (N, 3, H, W) in, a list of arrays (N, ...) out."""

    def __init__(self, network: Network, batch: int):
        device = comfy.model_management.get_torch_device()
        self.name, self.limit = network.name, 1 if device.type == "cpu" else batch
        self.dtype = torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32
        self.patcher = managed(network.to(self.dtype), device, comfy.model_management.unet_offload_device())

    @property
    def least(self) -> int:
        """The smallest batch that is computed, even for fewer pictures."""
        network = self.patcher.model
        return network.batch if network.takes_any is False else 1

    @property
    def batch(self) -> int:
        return max(self.limit, self.least)

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Runs the network in batches, which are halved when memory runs out."""
        parts: list[list[Tensor]] = []
        start = 0
        while start < len(pictures):
            part = pictures[start : start + self.batch]
            found = if_it_fits(partial(self._finite, part), several=len(part) > self.least)
            if found is None:
                self.limit = max(1, min(self.limit, len(pictures)) // 2)
                continue
            start += len(found[0])
            parts.append(found)
        return [torch.cat(same).numpy() for same in zip(*parts)]

    def _finite(self, pictures: np.ndarray) -> list[Tensor]:
        """Runs the network, in 32 bits if its values overflow in 16."""
        network, device = self.patcher.model, self.patcher.load_device
        found = [output.float().cpu() for output in network(torch.from_numpy(pictures).to(device).to(self.dtype))]
        if all(bool(output.isfinite().all()) for output in found):
            return found
        if self.dtype == torch.float32:
            raise ValueError(f"{self.name} gives NaN or infinite values; download it again.")
        logging.info("%s needs more than 16 bits and now runs in 32.", self.name)
        self.dtype = torch.float32
        network.to(self.dtype)
        return self._finite(pictures)


@dataclass(frozen=True, eq=False)
class DWPose:
    detector: Runner
    pose_network: Runner

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Loads both networks for the block, and unloads them however it ends."""
        sizes = (detect.SIZE**2 * DETECTOR_BATCH, dwpose.HEIGHT * dwpose.WIDTH * POSE_BATCH)
        working = WORKING * max(sizes) * self.detector.dtype.itemsize
        with loaded(self.detector.patcher, self.pose_network.patcher, memory=working, whole=True):
            yield

    def find_poses(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[Pose]]]:
        """Yields each RGB picture (H, W, 3) uint8 with its people, while the networks are loaded."""
        return dwpose.find_poses(pictures, self.detector, self.pose_network)


def load_dwpose(detector: Path, pose_network: Path) -> DWPose:
    finder, pose_net = read_network(detector), read_network(pose_network)
    detect.check_detector(finder.check(detect.SIZE, detect.SIZE), finder.name)
    dwpose.check_pose_network(pose_net.check(dwpose.HEIGHT, dwpose.WIDTH), pose_net.name)
    return DWPose(Runner(finder, DETECTOR_BATCH), Runner(pose_net, POSE_BATCH))
