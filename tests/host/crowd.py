"""Nodes for the tests: keypoints of two clips in one, as if two people were in it, in another order in every frame; and
pictures with a single channel, as some packs make them."""


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


NODE_CLASS_MAPPINGS = {"TestCrowd": Crowd, "TestGrey": Grey}
