"""Which joint of another skeleton is which of ours: by its name, by its place in the tree, or as the user says."""

import re
from collections.abc import Sequence

from ..body.skeleton import JOINTS

# What a joint of ours is called elsewhere, without side, numbers and prefixes; the surest name first. Where one name
# means two joints, such as Mixamo's LeftLeg and Kimodo's, the other names on its side decide, see _sided.
CALLED = {
    "hip": ("thigh", "upleg", "upperleg", "thighbend", "hip"),
    "knee": ("shin", "calf", "knee", "lowleg", "lowerleg"),
    "ankle": ("ankle", "foot"),
    "foot": ("toebase", "toe", "toes", "ball"),
    "collar": ("collar", "clavicle", "clav"),
    "shoulder": ("upperarm", "uparm", "arm", "shldr", "shldrbend", "upperarmbend"),
    "elbow": ("forearm", "lowerarm", "lowarm", "elbow", "forearmbend"),
    "wrist": ("wrist", "hand"),
    "hand": ("fingers",),
}
PELVIS = ("hips", "pelvis", "hip")
SIDES = {"left": "left", "l": "left", "lft": "left", "right": "right", "r": "right", "rgt": "right"}
# Words that tools put around the names of joints.
AROUND = {"bip", "j", "jnt", "joint", "jt", "def", "org", "b", "c", "m", "bone", "bn", "mixamorig", "character", "sk"}
HELPERS = {"ik", "fk", "mch", "ctrl", "twist", "tweak", "roll", "pole", "target", "end", "nub", "site"}
NEEDED = ("hip", "knee", "ankle", "shoulder", "elbow")  # on both sides
SPINE = ("spine1", "spine2", "spine3")
ROWS = ("spine", "neck")  # of which others have more or fewer than we
ASKED = tuple(dict.fromkeys("spine" if joint in SPINE else joint for joint in JOINTS))
NONE = "none"

Found = dict[str, int]  # names of ours to joints of theirs; instead of a spine and a neck, "spine 1", "spine 2", ...


class Tree:
    """Names and parents (-1 at the top) of the joints of a skeleton."""

    def __init__(self, names: Sequence[str], parents: Sequence[int]):
        self.names, self.parents = list(names), list(parents)

    def line(self, joint: int) -> list[int]:
        """Returns a joint and all above it, from the top."""
        found = []
        while joint >= 0:
            found.append(joint)
            joint = self.parents[joint]
        return found[::-1]

    def meeting(self, one: int, other: int) -> int:
        """Returns the lowest joint that two have above them; -1 if there is none."""
        same = [a for a, b in zip(self.line(one), self.line(other)) if a == b]
        return same[-1] if same else -1

    def below(self, upper: int, joint: int) -> list[int]:
        """Returns the joints that lead to one, without those that also lead to another, `upper`."""
        above = set(self.line(upper))
        return [step for step in self.line(joint) if step not in above]


def words_of(name: str) -> tuple[str, str]:
    """Returns the side, which may be empty, and the words of a joint's name, as LeftUpLeg and upleg.L have the same."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name.rpartition(":")[2])
    words = [word.lower() for word in words]
    side = next((SIDES[word] for word in words if word in SIDES), "")
    words = [word for word in words if word not in SIDES and word not in AROUND]
    joined = "".join(words)
    known = {called for names in CALLED.values() for called in names}
    if not side and joined[:1] in ("l", "r") and joined[1:] in known | {"leg"}:
        return SIDES[joined[0]], joined[1:]
    return side, "" if HELPERS & set(words) else joined


def _sided(side: str, names: dict[str, int]) -> Found:
    """Finds the joints of one side among those that are called so."""
    found = {
        part: names[called] for part, all_called in CALLED.items() for called in reversed(all_called) if called in names
    }
    if "leg" in names:  # the shin of Mixamo, the thigh of Kimodo
        found.setdefault("hip" if "knee" in found else "knee", names["leg"])
    if "shoulder" in names:  # the collar of Mixamo, the upper arm of SMPL
        found.setdefault("shoulder" if "shoulder" not in found else "collar", names["shoulder"])
    if "ankle" in names and "foot" in names:  # SMPL's foot begins at the toes
        found.setdefault("foot", names["foot"])
    if "wrist" in names and "hand" in names:
        found["hand"] = names["hand"]
    return {f"{side}_{part}": joint for part, joint in found.items()}


def guess_joints(tree: Tree, said: Found | None = None, left_out: Sequence[str] = ()) -> Found:
    """Finds our joints in a skeleton. What was `said` holds, and nothing is guessed for those `left_out`."""
    named: dict[str, dict[str, int]] = {"left": {}, "right": {}, "": {}}
    for joint, name in enumerate(tree.names):
        side, words = words_of(name)
        named[side].setdefault(words, joint)
    said = said or {}
    found = _sided("left", named["left"]) | _sided("right", named["right"]) | said
    found = {ours: joint for ours, joint in found.items() if ours not in left_out}
    if _missing(found):
        return found
    legs = tree.meeting(found["left_hip"], found["right_hip"])
    pelvis = next((named[""][name] for name in PELVIS if name in named[""]), legs)
    found.setdefault("pelvis", pelvis if pelvis in tree.line(legs) else legs)
    arms = [found.get(f"{side}_collar", found[f"{side}_shoulder"]) for side in ("left", "right")]
    chest = tree.meeting(*(tree.parents[arm] for arm in arms))
    if "spine 1" in found:
        chest = [joint for ours, joint in found.items() if ours.startswith("spine ")][-1]
    if "head" not in left_out:
        head = named[""].get("head", (_upwards(tree, chest, found) or [-1])[-1])
        found |= {"head": head} if "head" not in found and head >= 0 else {}
    lines = {"spine": tree.below(found["pelvis"], chest), "neck": tree.below(chest, found.get("head", chest))[:-1]}
    for kind, line in lines.items():
        if kind not in left_out and f"{kind} 1" not in found:
            found |= {f"{kind} {i + 1}": joint for i, joint in enumerate(line)}
    return found


def _missing(found: Found) -> list[str]:
    return [f"{side}_{part}" for part in NEEDED for side in ("left", "right") if f"{side}_{part}" not in found]


def _upwards(tree: Tree, chest: int, found: Found) -> list[int]:
    """Follows the spine above the arms, where nothing is called a head, as in Blender's metarigs."""
    line: list[int] = []
    joint = chest
    while joint >= 0:
        below = [child for child, parent in enumerate(tree.parents) if parent == joint and child not in found.values()]
        named = [child for child in below if words_of(tree.names[child]) in (("", "spine"), ("", "neck"))]
        joint = named[0] if named else -1
        line += named[:1]
    return line


def read_joints(text: str, tree: Tree) -> tuple[Found, list[str]]:
    """Reads what the user says: lines such as `left_knee = LeftLeg`, `left_foot = none`, or `spine = Spine, Chest`.
    Returns the joints, and the names of ours that have none."""
    said: Found = {}
    left_out: list[str] = []
    backwards = list(enumerate(tree.names))[::-1]
    plain = {name.rpartition(":")[2].lower(): joint for joint, name in backwards}
    plain |= {name.lower(): joint for joint, name in backwards}
    for line in filter(None, map(str.strip, text.splitlines())):
        ours, equals, theirs = (part.strip() for part in line.partition("="))
        if not equals or ours not in ASKED:
            raise ValueError(
                f"joints has the line {line[:60]!r}, and a line such as left_knee = LeftLeg is expected, which begins "
                f"with one of {', '.join(ASKED)}, or up."
            )
        if theirs.lower() in (NONE, ""):
            left_out.append(ours)
            continue
        names = [name.strip().lower() for name in theirs.split(",")] if ours in ROWS else [theirs.lower()]
        for i, name in enumerate(names):
            if name not in plain:
                raise ValueError(
                    f"joints says {line[:60]!r}, but the file has no joint {name[:40]!r}; it has {listed(tree.names)}."
                )
            said[f"{ours} {i + 1}" if ours in ROWS else ours] = plain[name]
    return said, left_out


def listed(names: Sequence[str], most: int = 400) -> str:
    """Returns names for a sentence, the first ones if they have more than so many characters."""
    shown = ", ".join(name[:40] for name in names if name)
    return shown if len(shown) <= most else f"{shown[:most].rpartition(', ')[0]} and more"


def find_joints(tree: Tree, name: str, text: str = "") -> Found:
    """Finds our joints in the skeleton of the file `name`, by their names and by what the user says; those that a body
    cannot do without are there, or the error tells how to name them."""
    found = guess_joints(tree, *read_joints(text, tree))
    if missing := _missing(found):
        raise ValueError(
            f"{name} has no joint that is known to be {', '.join(missing)}; write in joints which it is, for example "
            f"{missing[0]} = {next(filter(None, tree.names))[:40]}, of {listed(tree.names)}."
        )
    return found


def told_joints(found: Found, tree: Tree) -> str:
    """Returns the joints that were found, as lines that may be corrected."""
    lines = []
    for joint in ASKED:
        theirs = [tree.names[at] for ours, at in found.items() if ours.partition(" ")[0] == joint]
        if theirs or not joint.endswith("_hand"):
            lines.append(f"{joint} = {', '.join(theirs) or NONE}")
    return "\n".join(lines)
