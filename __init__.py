"""ComfyUI-Champ: animate a person in a picture with Champ's 3D parametric guidance."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
