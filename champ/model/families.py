"""The families of checkpoint sets: what their files are called, and in what one differs from the next.

Whatever is not said here is the same for all of them. A new family is one more entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from PIL import Image

from .config import Place

CHAMP, ANIMATE_ANYONE, MUSEPOSE, MAGIC_ANIMATE = "Champ", "Animate Anyone", "MusePose", "MagicAnimate"

ENCODED_MAPS = ("depth", "normal", "semantic_map", "dwpose")  # that Champ reads
POSE = "pose"  # Animate Anyone's only map
DENSEPOSE = "densepose"  # MagicAnimate's only map


@dataclass(frozen=True)
class Family:
    """The official files and settings; the defaults are Champ's."""

    name: str
    # Official names of the files.
    encoders: Mapping[str, str]  # to the map that each one reads
    denoiser: str = "denoising_unet"
    reference_net: str = "reference_unet"
    motion: str = "motion_module"

    # Pictures.
    map_filter: Image.Resampling = Image.Resampling.BICUBIC  # for maps of another size
    reference_filter: Image.Resampling = Image.Resampling.LANCZOS

    # Networks.
    controlnet: bool = False  # a ControlNet sees the maps in every step, instead of encoders once
    reads: tuple[str, ...] = ("input", "middle", "output")  # parts of the UNet whose self-attention reads the reference
    every_step: bool = False  # ReferenceNet sees the image at the timestep of every step, not once at timestep 0
    text: bool = False  # all networks read the tokens of a text, not a CLIP vision embedding
    joint_norms: bool = False  # the residual blocks normalise all frames of a window together, not each by itself

    # Sampling.
    betas: str = "linear"
    # The network predicts the noise. The schedule is not rescaled to zero terminal SNR, and timesteps are n T / N + 1.
    epsilon: bool = False
    window: int = 24  # frames
    about: str = field(default="20 steps, cfg 3.5", compare=False)  # other official settings, in words

    @property
    def files(self) -> tuple[str, ...]:
        return self.denoiser, self.reference_net, self.motion, *self.encoders

    def read_from(self, place: Place) -> bool:
        """Tells whether the self-attention at this place reads the reference."""
        return place[0] in self.reads


_CHAMP = Family(CHAMP, {f"guidance_encoder_{name}": name for name in ENCODED_MAPS})

_ANIMATE_ANYONE = Family(
    ANIMATE_ANYONE,
    {"pose_guider": POSE},
    map_filter=Image.Resampling.LANCZOS,
    about="30 steps, cfg 3.5",
)

# Its files have Animate Anyone's names. They are recognised by the positions that the motion modules know.
_MUSEPOSE = replace(_ANIMATE_ANYONE, name=MUSEPOSE, betas="scaled_linear", window=48, about="20 steps, cfg 3.5")
MUSEPOSE_POSITIONS = 128

_MAGIC_ANIMATE = Family(
    MAGIC_ANIMATE,
    {"densepose_controlnet": DENSEPOSE},
    denoiser="temporal_attention",  # the whole UNet is in this file
    reference_net="appearance_encoder",
    motion="temporal_attention",
    reference_filter=Image.Resampling.BICUBIC,
    controlnet=True,
    reads=("middle", "output"),
    every_step=True,
    text=True,
    joint_norms=True,
    epsilon=True,
    window=16,
    about="25 steps, cfg 7.5",
)

FAMILIES = {family.name: family for family in (_CHAMP, _ANIMATE_ANYONE, _MUSEPOSE, _MAGIC_ANIMATE)}
