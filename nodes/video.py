"""Clips as nodes receive them: a batch of images, or a video that is decoded one frame at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import torch
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io

# libswscale's bilinear | full chroma in and out | accurate rounding, within one level of what newer ComfyUI decodes.
SMOOTH = 0x2 | 0x2000 | 0x4000 | 0x40000
# In a video, neighbouring pixels share one colour sample. Old versions of ComfyUI repeated it for each pixel; versions
# that know 10-bit videos interpolate it, in floats. We do as the installed version does, so that a video and its
# pictures give the same.
COLOURS = SMOOTH if hasattr(VideoFromFile, "get_bit_depth") else None


def clip_input(name: str, tooltip: str, optional: bool = False) -> io.Input:
    """Returns an input that takes an IMAGE or a VIDEO."""
    return io.MultiType.Input(name, [io.Image, io.Video], tooltip=tooltip, optional=optional)


class Pictures:
    """A clip that can be iterated repeatedly, as uint8 RGB arrays (height, width, 3).

    A video's frames are never all in memory; every pass decodes them again.
    """

    def __init__(self, count: int, width: int, height: int, fps: float | None):
        self.count = count
        self.width = width
        self.height = height
        self.fps = fps  # None for a batch of images, which has no frame rate

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError


class _Batch(Pictures):
    def __init__(self, images: torch.Tensor, fps: float | None):
        count, height, width, channels = images.shape
        if count == 0:
            raise ValueError("This batch contains no pictures; check the node before it.")
        super().__init__(count, width, height, fps)
        self.images = images if channels > 1 else images.expand(-1, -1, -1, 3)

    def __iter__(self) -> Iterator[np.ndarray]:
        for image in self.images:
            yield image[..., :3].mul(255).add_(0.5).clamp_(0, 255).to("cpu", torch.uint8).numpy()


class _Video(Pictures):
    """A video file. It has one frame for each packet that is shown and that ComfyUI's trimming keeps. Every pass yields
    the same number of frames: a broken frame is replaced by the one before it."""

    def __init__(self, video: VideoFromFile):
        trim = getattr(video, "get_active_trim_window", None)  # not in ComfyUI 0.3.75
        self.source = video.get_stream_source()
        self.start, self.duration = trim() if trim else (0.0, 0.0)
        with self._open() as (container, stream):
            packets = (p for p in container.demux(stream) if p.size > 0 and not p.is_discard)
            self.times = sorted(_time(p.pts) for p in packets if self._keeps(p.pts, stream))
        _, first = next(self._decoded(), (None, None))
        if not self.times or first is None:
            raise ValueError("No frame of this video can be decoded; convert it to MP4 (H.264) and load that file.")
        self.part = _part(video, first.shape[1], first.shape[0])
        height, width = first[self.part].shape[:2]
        super().__init__(len(self.times), width, height, float(video.get_frame_rate()))

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = self._decoded()
        shown = ahead = next(frames, None)
        for time in self.times:
            if ahead is not None and ahead[0] <= time:
                shown, ahead = ahead, next(frames, None)
            yield np.ascontiguousarray(shown[1][self.part])

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yields time and picture of the frames that can be decoded."""
        with self._open() as (container, stream):
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue
                for frame in frames:
                    keeps = self._keeps(frame.pts, stream)
                    if keeps is None:
                        return
                    if keeps:
                        yield _time(frame.pts), _upright(frame)

    def _keeps(self, pts: int | None, stream: av.VideoStream) -> bool | None:
        """Tells whether a time lies in the trimmed part; None after its end."""
        if pts is None:
            return True
        time = float(pts * stream.time_base)
        if self.duration and time >= self.start + self.duration:
            return None
        return time >= self.start

    @contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        if not isinstance(self.source, str):
            self.source.seek(0)
        with av.open(self.source, mode="r") as container:
            if not container.streams.video:
                raise ValueError("This file contains no video; choose another one.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if self.start:
                container.seek(int(self.start / stream.time_base), stream=stream)
            yield container, stream


def _time(pts: int | None) -> float:
    """Returns the time of a packet or frame; without times, frames keep their order."""
    return -math.inf if pts is None else pts


def _part(video: VideoFromFile, width: int, height: int) -> tuple[slice, slice]:
    """Returns the rows and columns of ComfyUI's crop: newer versions crop videos without encoding them again."""
    crop = getattr(video, "_VideoFromFile__crop", None)  # unlike the trimming, the crop has no public name
    if crop is None:
        return slice(None), slice(None)
    from comfy_api.latest._util import normalize_crop_rect

    x, y, columns, rows = normalize_crop_rect(*crop, width, height) or (0, 0, width, height)
    return slice(y, y + rows), slice(x, x + columns)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Returns the picture as a player shows it: phones store it rotated and record by how much."""
    smooth = {} if COLOURS is None or frame.format.name.startswith("yuvj") else {"interpolation": COLOURS}
    picture = frame.to_ndarray(format="rgb24", **smooth)
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))


def pictures(source: Any) -> Pictures:
    """Returns the frames of an IMAGE or of a VIDEO."""
    if isinstance(source, torch.Tensor):
        return _Batch(source, None)
    if isinstance(source, VideoFromFile):
        video = _Video(source)
        if {video.width, video.height} == set(source.get_dimensions()):  # a phone's video has width and height swapped
            return video
    parts = source.get_components()  # made in the workflow, with its pictures in memory, or cropped in an unknown way
    return _Batch(parts.images, float(parts.frame_rate))
