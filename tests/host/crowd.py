"""Nodes for the tests: keypoints of two clips in one, as if two people were in it, in another order in every frame; two
people of about the same size; and pictures with a single channel, as some packs make them."""

import torch


class Crowd:
    CATEGORY = "tests"
    FUNCTION = "join"
    RETURN_TYPES = ("POSE_KEYPOINT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"left": ("POSE_KEYPOINT",), "right": ("POSE_KEYPOINT",), "shift": ("INT", {"default": 0})}}

    def join(self, left, right, shift):
        """The second person stands `shift` pixels to the right and is missed in frame 2."""
        joined = []
        for i, (a, b) in enumerate(zip(left, right)):
            people = [*a["people"], *([] if i == 2 else [moved(person, shift) for person in b["people"]])]
            joined.append({**a, "people": people[:: 1 if i % 2 else -1]})
        return (joined,)


class Pair:
    """Two people side by side, who take turns at being the larger one, as keypoints without shots, and a clip with a
    cut. Before the cut, and in all of the clip, the left one is larger on the whole, after the cut the right one. Only
    who is larger before or after the cut has hands."""

    CATEGORY = "tests"
    FUNCTION = "pair"
    RETURN_TYPES = ("POSE_KEYPOINT", "IMAGE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"person": ("POSE_KEYPOINT",), "wide": ("INT", {"default": 1})}}

    def pair(self, person, wide):
        """The picture is `wide` times as wide."""
        cut, canvas = len(person) // 2, (wide * person[0]["canvas_width"], person[0]["canvas_height"])
        paired = []
        for i, frame in enumerate(person):
            larger = 0.44 if i < cut else 0.4
            sizes = (larger, larger + 0.02 if i % 2 else 0.3)
            first, second = (
                resized(frame, sizes[small], (canvas[0] * place, canvas[1] / 2), hands=not small)
                for small, place in ((i >= cut, 0.25), (i < cut, 0.75))
            )
            paired.append({"people": [first, second], "canvas_width": canvas[0], "canvas_height": canvas[1]})
        across = torch.linspace(0, 1, canvas[0]).expand(canvas[1], -1)
        down = torch.linspace(1, 0, canvas[1])[:, None].expand(-1, canvas[0])
        clip = torch.stack([across if i < cut else down for i in range(len(person))])
        return (paired, clip[..., None].expand(-1, -1, -1, 3).contiguous())


class Grey:
    CATEGORY = "tests"
    FUNCTION = "grey"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    def grey(self, images):
        return (images.mean(-1, keepdim=True),)


def moved(person: dict, shift: int) -> dict:
    flat = dict(person)
    for name in ("pose_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "face_keypoints_2d"):
        points = list(flat.get(name) or [])
        points[::3] = [x + shift * (score > 0) for x, score in zip(points[::3], points[2::3])]
        flat[name] = points
    return flat


def resized(frame: dict, size: float, place: tuple[float, float], hands: bool) -> dict:
    """A frame's person of another size and in another place, and hands that reach out of the wrists: sideways and then
    as far down."""
    points = frame["people"][0]["pose_keypoints_2d"]
    x = [(value - frame["canvas_width"] / 2) * size + place[0] for value in points[::3]]
    y = [(value - frame["canvas_height"] / 2) * size + place[1] for value in points[1::3]]
    person = {"pose_keypoints_2d": [v for point in zip(x, y, points[2::3]) for v in (point if point[2] else (0, 0, 0))]}
    for side, wrist in (("left", 7), ("right", 4)) if hands else ():
        steps = [(min(i, 10) / 2, max(i - 10, 0) / 2) for i in range(21)]
        person[f"hand_{side}_keypoints_2d"] = [v for a, b in steps for v in (x[wrist] + a, y[wrist] + b, 1)]
    return person


NODE_CLASS_MAPPINGS = {"TestCrowd": Crowd, "TestPair": Pair, "TestGrey": Grey}
