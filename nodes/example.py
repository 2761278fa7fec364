"""A person to begin with, for whom no picture has to be found."""

from comfy_api.latest import io

from ..champ.people.portrait import portrait
from .types import MAX_SIZE, ChampBody, ChampMotion, schema, to_image


class ChampExamplePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampExamplePerson",
            display_name="Example Person",
            category="Champ/body",
            aliases=["sample picture", "test person", "reference image", "character"],
            description="A drawn picture of an invented person, with the body in it: something to animate before there "
            "is a picture of your own. Champ-Tiny, which comes with the pack, was trained on such people.",
            inputs=[
                io.Int.Input(
                    "person", default=0, min=0, max=99999,
                    tooltip="Another number is another person in another room.",
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=MAX_SIZE, step=8,
                    tooltip="Width of the picture in pixels; Champ-Tiny draws best at 256x256.",
                ),
                io.Int.Input("height", default=512, min=64, max=MAX_SIZE, step=8, tooltip="Height in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, for Encode Reference."),
                io.Mask.Output(display_name="mask", tooltip="Where the person is."),
                ChampMotion.Output(
                    display_name="motion",
                    tooltip="Pose, shape and camera of the picture, one frame: the reference of Put Reference into "
                    "Motion.",
                ),
                ChampBody.Output(display_name="body", tooltip="The person's body, for motions and maps."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, person, width, height) -> io.NodeOutput:
        sitter = portrait(width, height, person)
        return io.NodeOutput(to_image(sitter.picture[None]), to_image(sitter.mask[None]), sitter.motion, sitter.body)


NODES = [ChampExamplePerson]
