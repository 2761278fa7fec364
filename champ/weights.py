"""The official weight files: where their authors publish them, and under which terms.

SMPL is not among them: its licence forbids passing it on, so only the user may get it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    folder: str  # of ComfyUI's models, by the name it has in extra_model_paths.yaml
    path: str  # below that folder
    source: str  # repository on Hugging Face
    place: str  # inside the repository
    what: str
    licence: str
    size: int  # bytes, rounded; the server says it exactly
    sha256: str | None = None  # None: the file is verified against the server's announcement
    models: tuple[str, ...] = ()  # that need it: none, where another file does as well

    @property
    def name(self) -> str:
        return f"{self.folder}/{self.path}"


CHAMP, ANIMATE_ANYONE, MAGIC_ANIMATE, DWPOSE = "Champ", "Animate Anyone", "MagicAnimate", "DWPose"
TAGGED = "Apache-2.0, as the source is tagged"
CLIP_TERMS = "the source is tagged Apache-2.0; comes from Lambda's Image Variations, which has terms of its own"
APACHE, BSD = "Apache-2.0", "BSD-3-Clause, as the source is tagged"
MAGIC_ANIMATE_SOURCE = "zcxu-eric/MagicAnimate"
HMR2_LICENCE = "code MIT; the weights came without terms of their own"
HMR2_FOLDER = "logs/train/multiruns/hmr2/0/checkpoints"
# Bytes of the networks of a set in 32 bits.
UNET, MOTION_MODULE, ENCODER, POSE_GUIDER = 3_440_000_000, 1_820_000_000, 15_400_000, 4_350_000


def _set(model: str, folder: str, source: str, inside: str, encoder: int, encoders: dict[str, str]) -> list[WeightFile]:
    networks = {
        "denoising_unet": ("the denoiser", UNET),
        "reference_unet": ("ReferenceNet", UNET),
        "motion_module": ("joins the frames", MOTION_MODULE),
        **{name: (what, encoder) for name, what in encoders.items()},
    }
    return [
        WeightFile("champ", f"{folder}/{name}.pth", source, f"{inside}{name}.pth", what, TAGGED, size, models=(model,))
        for name, (what, size) in networks.items()
    ]


FILES = [
    WeightFile(
        "dwpose", "yolox_l.onnx", "yzd-v/DWPose", "yolox_l.onnx", "finds people", APACHE,
        216_746_733, "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
        models=(DWPOSE,),
    ),
    WeightFile(
        "dwpose", "dw-ll_ucoco_384.onnx", "yzd-v/DWPose", "dw-ll_ucoco_384.onnx", "finds keypoints",
        APACHE, 134_399_116, "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
        models=(DWPOSE,),
    ),
    WeightFile(
        "dwpose", "yolox_l.torchscript.pt", "hr16/yolox-onnx", "yolox_l.torchscript.pt",
        "finds people, as yolox_l.onnx does", APACHE,
        217_697_649, "80bc14b13c260c24b3014cd42c02994bf52296ab8fa2d80a60b6afe08c93ef42",
    ),
    WeightFile(
        "dwpose", "dw-ll_ucoco_384_bs5.torchscript.pt", "hr16/DWPose-TorchScript-BatchSize5",
        "dw-ll_ucoco_384_bs5.torchscript.pt", "finds keypoints, as dw-ll_ucoco_384.onnx does", APACHE,
        135_059_124, "d86a0b2b59fddc0901a7076e9f59c9f8602602133ed72511c693fd11eea23d91",
    ),
    WeightFile(
        "hmr2", "epoch=35-step=1000000.ckpt", "spaces/brjathu/HMR2.0", f"{HMR2_FOLDER}/epoch%3D35-step%3D1000000.ckpt",
        "4D-Humans 2.0b, bodies from pictures", HMR2_LICENCE, 2_690_000_000,
    ),
    *_set(CHAMP, "champ", "fudan-generative-ai/champ", "champ/", ENCODER, {
        "guidance_encoder_depth": "reads depth maps",
        "guidance_encoder_normal": "reads normal maps",
        "guidance_encoder_semantic_map": "reads semantic maps",
        "guidance_encoder_dwpose": "reads skeleton maps",
    }),
    *_set(
        ANIMATE_ANYONE, "animate_anyone", "patrolli/AnimateAnyone", "", POSE_GUIDER,
        {"pose_guider": "reads skeleton maps"},
    ),
    WeightFile(
        "champ", "magic_animate/temporal_attention.ckpt", MAGIC_ANIMATE_SOURCE,
        "temporal_attention/temporal_attention.ckpt", "the denoiser, and joins the frames", BSD, 5_110_000_000,
        models=(MAGIC_ANIMATE,),
    ),
    WeightFile(
        "champ", "magic_animate/appearance_encoder.safetensors", MAGIC_ANIMATE_SOURCE,
        "appearance_encoder/diffusion_pytorch_model.safetensors", "ReferenceNet", BSD, 3_428_346_912,
        models=(MAGIC_ANIMATE,),
    ),
    WeightFile(
        "champ", "magic_animate/densepose_controlnet.safetensors", MAGIC_ANIMATE_SOURCE,
        "densepose_controlnet/diffusion_pytorch_model.safetensors", "reads DensePose maps", BSD, 1_445_157_120,
        models=(MAGIC_ANIMATE,),
    ),
    WeightFile(
        "vae", "vae-ft-mse-840000-ema-pruned.safetensors", "stabilityai/sd-vae-ft-mse-original",
        "vae-ft-mse-840000-ema-pruned.safetensors", "between pictures and latents, for all models", "MIT",
        334_641_190, "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75",
        models=(CHAMP, ANIMATE_ANYONE, MAGIC_ANIMATE),
    ),
    WeightFile(
        "clip_vision", "champ_image_encoder.bin", "fudan-generative-ai/champ", "image_encoder/pytorch_model.bin",
        "sees the reference picture, for all but MagicAnimate", CLIP_TERMS, 1_220_000_000,
        models=(CHAMP, ANIMATE_ANYONE),
    ),
]  # fmt: skip
