"""A node for the tests: a video that is cut to a part of its pictures, as ComfyUI after 0.33 does it. Older hosts get a
class with the same behaviour; with `known` off it keeps the part where our nodes do not look."""

from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import _util


class Cropped(VideoFromFile):
    def __init__(self, file, part, known):
        super().__init__(file)
        self.part = part
        if known:
            self._VideoFromFile__crop = part

    def get_dimensions(self):
        return self.part[2:]

    def get_components(self):
        parts = super().get_components()
        x, y, width, height = self.part
        parts.images = parts.images[:, y : y + height, x : x + width]
        return parts


class CroppedVideo:
    CATEGORY = "tests"
    FUNCTION = "cut"
    RETURN_TYPES = ("VIDEO",)

    @classmethod
    def INPUT_TYPES(cls):
        sides = {name: ("INT", {"default": 0}) for name in ("x", "y", "width", "height")}
        return {"required": {"video": ("VIDEO",), **sides, "known": ("BOOLEAN", {"default": True})}}

    def cut(self, video, x, y, width, height, known):
        if hasattr(video, "as_cropped") and known:
            return (video.as_cropped(x, y, width, height),)
        if not hasattr(_util, "normalize_crop_rect"):
            _util.normalize_crop_rect = lambda x, y, width, height, columns, rows: (x, y, width, height)
        return (Cropped(video.get_stream_source(), (x, y, width, height), known),)


NODE_CLASS_MAPPINGS = {"TestCroppedVideo": CroppedVideo}
