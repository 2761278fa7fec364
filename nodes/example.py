"""Node that draws an example person."""

from comfy_api.latest import io

from ..champ.people.portrait import portrait
from .types import MAX_SIZE, ChampBody, ChampMotion, progress, schema, to_image


class ChampExamplePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampExamplePerson",
            display_name="Example Person",
            category="Champ/body",
            aliases=["sample picture", "test person", "reference image", "character"],
            description="Draws an invented person, together with the body of that person: something to animate while "
            "you have no image of your own. Champ-Tiny, which comes with the pack, was trained on such people.",
            inputs=[
                io.Int.Input(
                    "person", default=0, min=0, max=99999,
                    tooltip="Each number draws another person in another room.",
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=MAX_SIZE, step=8,
                    tooltip="Width of the picture in pixels. Champ-Tiny works best at 256x256 to 288x384.",
                ),
                io.Int.Input("height", default=512, min=64, max=MAX_SIZE, step=8, tooltip="Height of the picture in "
                "pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, for Encode Reference."),
                io.Mask.Output(display_name="mask", tooltip="Where the person is."),
                ChampMotion.Output(
                    display_name="motion",
                    tooltip="Pose, shape and camera of the picture, as a motion of one frame: the reference for Put "
                    "Reference into Motion.",
                ),
                ChampBody.Output(display_name="body", tooltip="The person's body, for motions and maps."),
            ],
        )  # fmt: skip

    @classmethod
    @progress("Drawing the person")
    def execute(cls, person, width, height) -> io.NodeOutput:
        sitter = portrait(width, height, person)
        return io.NodeOutput(to_image(sitter.picture[None]), to_image(sitter.mask[None]), sitter.motion, sitter.body)


NODES = [ChampExamplePerson]
