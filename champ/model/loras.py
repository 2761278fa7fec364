"""LoRAs on the denoiser of which ComfyUI has loaded a part only.

In diffusers' newer layouts (`unet....lora_A`, `.lora.down`) ComfyUI finds all layers of Stable Diffusion 1.5 but those
of the attention. It names them in its log, and the video shows half of the LoRA.
"""

import re
from collections import Counter

from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase

LAYER = re.compile(r"(.+\.transformer_blocks\.\d+)\.(attn\d|ff)\..+\.weight")


def lacks_attention(model: ModelPatcher) -> bool:
    """Tells whether some LoRA changes the feed-forward layers of a transformer block but not its attention."""
    changes: dict[str, Counter[str]] = {}  # of each block: LoRAs on the layer that has most of them
    for key, patches in model.patches.items():
        if match := LAYER.fullmatch(key):
            block, part = match[1], "ff" if match[2] == "ff" else "attention"
            loras = sum(isinstance(patch[1], WeightAdapterBase) for patch in patches)
            most = changes.setdefault(block, Counter())
            most[part] = max(most[part], loras)
    return any(most["ff"] > most["attention"] for most in changes.values())
