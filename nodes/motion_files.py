"""Nodes that load motions of this pack and of other tools, and save them as motions or as animated bodies."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..champ.body.free import load_free_body
from ..champ.files.companions import tram_camera
from ..champ.motion.bvh import save_bvh
from ..champ.motion.formats import EXTENSIONS, load_with_joints, save_amass, save_motion
from ..champ.motion.report import describe
from ..champ.render.gltf import save_glb
from .files import annotated_path, media_folders, new_output_path
from .types import MAX_SIZE, ChampBody, ChampMotion, checked, progress, schema, warn_of_other_shape

NO_MOTION = "put a motion into the input folder"
FORMATS = {"Champ (.safetensors)": ".safetensors", "AMASS (.npz)": ".npz", "BVH (.bvh)": ".bvh"}
SAVERS = {".npz": save_amass, ".bvh": save_bvh}  # of the formats that need a body


def motion_files() -> list[str]:
    """Lists the files that may be motions."""
    found = [
        f"{(place / file).as_posix()}{mark}"
        for place, mark, _, files in media_folders()
        for file in files
        if Path(file).suffix.lower() in EXTENSIONS and not (mark and file.lower().endswith(".json"))
    ]  # among results, JSON is something else
    return sorted(found) or [NO_MOTION]


def motion_file(name: str) -> Path:
    """Returns the path of a choice of `motion_files`."""
    path = annotated_path(name)
    if path is None or path.suffix.lower() not in EXTENSIONS or not path.is_file():
        raise ValueError(
            f"There is no motion file called {name!r}; put a file that ends in {', '.join(EXTENSIONS)} into ComfyUI's "
            "input folder, press R, and choose it from the list."
        )
    return path


class ChampLoadMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampLoadMotion",
            display_name="Load Motion",
            category="Champ/motion",
            aliases=[
                "import motion", "AMASS", "SMPL file", "AIST++", "dance", "npz", "pkl", "mocap", "BVH", "Mixamo", "CMU",
                "Rokoko", "Kimodo", "HY-Motion", "SAM 3D Body", "HumanML3D", "retarget",
            ],
            description="Loads a motion from a file: saved by this pack or by Champ's own tools, from the AMASS "
            "collection, estimated from a video with 4D-Humans, WHAM, GVHMR, TRAM, PromptHMR, ROMP or Meshcapade, a "
            "BVH file of any skeleton (Mixamo, CMU, Rokoko, Blender, Kimodo), or the places of joints over time.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=motion_files(),
                    tooltip="A file below ComfyUI's input folder, or below its output folder (marked [output]). Press "
                    "R after adding one.",
                ),
                io.Int.Input(
                    "person",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Which person, if the file has several. 0 is the one who is seen longest.",
                ),
                io.Int.Input(
                    "width", default=512, min=8, max=MAX_SIZE,
                    tooltip="Width of the video in pixels. Used only when the file does not contain it.",
                ),
                io.Int.Input(
                    "height", default=768, min=8, max=MAX_SIZE,
                    tooltip="Height of the video in pixels. Used only when the file does not contain it.",
                ),
                io.Float.Input(
                    "fps", default=30.0, min=1.0, max=240.0, step=0.01,
                    tooltip="Frames per second. Used only when the file does not contain them.",
                ),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The body that performs the motion. An SMPL body takes its shape from the file. Empty uses "
                    "the free body.",
                ),
                io.String.Input(
                    "joints",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="joints of a BVH file, if not recognised: left_knee = LeftLeg",
                    tooltip="For BVH files whose joints are not recognised: a line for each one that is wrong, such as "
                    "left_knee = LeftLeg, spine = Spine, Chest, or left_foot = none. The report shows which joints "
                    "were taken. up = z says which axis points up, where that is wrong. Leave it empty at first.",
                ),
            ],
            outputs=[
                ChampMotion.Output(display_name="motion", tooltip="One frame for every frame of the video."),
                io.Int.Output(display_name="frames", tooltip="The number of frames."),
                io.Float.Output(display_name="rate", tooltip="Frames per second, for the nodes that save a video."),
                io.String.Output(
                    display_name="report",
                    tooltip="What was read, which frames were filled, and which joints of a BVH file are which.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, file):
        return checked(motion_file, file)

    @classmethod
    def fingerprint_inputs(cls, file, **_):
        if file is None:
            return None
        path = motion_file(file)
        return [one.stat().st_mtime_ns for one in (path, tram_camera(path)) if one is not None]

    @classmethod
    @progress("Reading the motion")
    def execute(cls, file, person, width, height, fps, body=None, joints="") -> io.NodeOutput:
        body = body or load_free_body()
        motion, told = load_with_joints(motion_file(file), body, person, width, height, fps, joints)
        return io.NodeOutput(motion, len(motion), motion.fps, "\n\n".join(filter(None, (describe(motion), told))))


class ChampSaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSaveMotion",
            display_name="Save Motion",
            category="Champ/motion",
            aliases=["export motion", "SMPL file", "npz", "Blender", "mocap", "BVH"],
            description="Writes a motion as a file: in the pack's own format, which keeps everything, in the layout of "
            "AMASS, or as BVH for Blender and other 3D programs. Each run makes a new file; nothing is overwritten.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to save."),
                io.String.Input(
                    "name",
                    default="champ/motion",
                    tooltip="Name of the file below ComfyUI's output folder. A number is added to it.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=next(iter(FORMATS)),
                    tooltip="Champ keeps camera, picture size and confidence. AMASS is for programs that know SMPL: "
                    "SMPL-H in a world with z up, without the camera. BVH is for Blender, game engines and most other "
                    "programs: a skeleton in T-pose and its rotations, in metres, y up, without the camera.",
                ),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The body that the motion was made for. AMASS and BVH need its joints and the floor under "
                    "its feet. Empty uses the free body.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="file", tooltip="Name of the new file, as in the list of Load Motion.")
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name):
        return checked(new_output_path, name)

    @classmethod
    @progress("Writing the motion")
    def execute(cls, motion, name, format, body=None) -> io.NodeOutput:
        path = new_output_path(name, FORMATS[format])
        if save := SAVERS.get(FORMATS[format]):
            body = body or load_free_body()
            warn_of_other_shape(body, motion)
            save(path, motion, body)
        else:
            save_motion(path, motion)
        return io.NodeOutput(f"{path.relative_to(folder_paths.get_output_directory()).as_posix()} [output]")


class ChampSaveGLB(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampSaveGLB",
            display_name="Save Animated Body (GLB)",
            category="Champ/motion",
            aliases=["export GLB", "glTF", "3D animation", "Blender", "mesh"],
            description="Writes the moving body as a 3D file (glTF binary) with a skeleton and an animation, for "
            "Preview 3D, Blender, game engines and the web. Each run makes a new file; nothing is overwritten.",
            inputs=[
                ChampMotion.Input("motion", tooltip="The motion to save."),
                io.String.Input(
                    "name",
                    default="champ/body",
                    tooltip="Name of the file below ComfyUI's output folder. A number is added to it.",
                ),
                ChampBody.Input(
                    "body",
                    optional=True,
                    tooltip="The body that performs the motion, with the motion's shape. Empty uses the free body.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="model_file",
                    tooltip="The new file below the output folder, for ComfyUI's Preview 3D node.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name):
        return checked(new_output_path, name)

    @classmethod
    @progress("Writing the moving body")
    def execute(cls, motion, name, body=None) -> io.NodeOutput:
        body = body or load_free_body()
        warn_of_other_shape(body, motion)
        path = new_output_path(name, ".glb")
        save_glb(path, motion, body)
        return io.NodeOutput(path.relative_to(folder_paths.get_output_directory()).as_posix())


NODES = [ChampLoadMotion, ChampSaveMotion, ChampSaveGLB]
