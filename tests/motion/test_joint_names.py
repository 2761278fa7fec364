"""The names of joints in the skeletons of many tools."""

import re

import pytest

from champ.motion.joint_names import ASKED, Tree, find_joints, told_joints, words_of

SIDES = ("left", "right")


def tree(text: str) -> Tree:
    """Reads a(b(c) d): c is below b, which is below a as d is. A wave in a name is a space."""
    names: list[str] = []
    parents: list[int] = []
    above = [-1]
    for name in re.findall(r"[()]|[^()\s]+", text):
        if name == "(":
            above.append(len(names) - 1)
        elif name == ")":
            above.pop()
        else:
            names.append(name.replace("~", " "))
            parents.append(above[-1])
    return Tree(names, parents)


def both(text: str, left: str, right: str) -> str:
    """The text for the left and for the right side."""
    return f"{text.replace('@', left)} {text.replace('@', right)}"


LR, LONG, SMALL = ("L", "R"), ("Left", "Right"), ("l", "r")
# Of each tool: its skeleton, and what pelvis, spine, neck, head and the parts of one side are called.
ARM_LEG = ("collar", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "foot")
SKELETONS = {
    "Mixamo": (
        "Hips(Spine(Spine1(Spine2(Neck(Head(HeadTop_End)) "
        + both("@Shoulder(@Arm(@ForeArm(@Hand(@HandThumb1 @HandMiddle1(@HandMiddle2)))))", *LONG)
        + "))) " + both("@UpLeg(@Leg(@Foot(@ToeBase(@Toe_End))))", *LONG) + ")",
        "Hips | Spine, Spine1, Spine2 | Neck | Head", "Shoulder Arm ForeArm Hand UpLeg Leg Foot ToeBase", "Left",
    ),
    "CMU": (
        "Hips(" + both("@HipJoint(", *LR).replace("LHipJoint(", "LHipJoint(LeftUpLeg(LeftLeg(LeftFoot(LeftToeBase))))")
        .replace("RHipJoint(", "RHipJoint(RightUpLeg(RightLeg(RightFoot(RightToeBase))))")
        + " LowerBack(Spine(Spine1(Neck(Neck1(Head)) "
        + both("@Shoulder(@Arm(@ForeArm(@Hand(@FingerBase))))", *LONG) + "))))",
        "Hips | LowerBack, Spine, Spine1 | Neck, Neck1 | Head", "Shoulder Arm ForeArm Hand UpLeg Leg Foot ToeBase",
        "Left",
    ),
    "Bandai-Namco": (
        "joint_Root(Hips(Spine(Chest(Neck(Head) " + both("Shoulder_@(UpperArm_@(LowerArm_@(Hand_@)))", *LR) + ")) "
        + both("UpperLeg_@(LowerLeg_@(Foot_@(Toes_@)))", *LR) + "))",
        "Hips | Spine, Chest | Neck | Head",
        "Shoulder_ UpperArm_ LowerArm_ Hand_ UpperLeg_ LowerLeg_ Foot_ Toes_", "L",
    ),
    "Rokoko": (
        "Hips(Spine1(Spine2(Spine3(Spine4(Neck(Head) " + both("@Shoulder(@Arm(@ForeArm(@Hand)))", *LONG) + ")))) "
        + both("@Thigh(@Shin(@Foot(@Toe(@ToeTip))))", *LONG) + ")",
        "Hips | Spine1, Spine2, Spine3, Spine4 | Neck | Head", "Shoulder Arm ForeArm Hand Thigh Shin Foot Toe", "Left",
    ),
    "Blender's metarig": (
        "spine(spine.001(spine.002(spine.003(spine.004(spine.005(spine.006(face(nose)))) "
        + both("breast.@", *LR) + both(" shoulder.@(upper_arm.@(forearm.@(hand.@(palm.01.@(f_index.01.@)))))", *LR)
        + "))) " + both("pelvis.@ thigh.@(shin.@(foot.@(toe.@ heel.02.@)))", *LR) + ")",
        "spine | spine.001, spine.002, spine.003 | spine.004, spine.005 | spine.006",
        "shoulder. upper_arm. forearm. hand. thigh. shin. foot. toe.", "L",
    ),
    "Kimodo": (
        "Root(Hips(Spine1(Spine2(Chest(Neck1(Neck2(Head(HeadEnd Jaw))) "
        + both("@Shoulder(@Arm(@ForeArm(@Hand(@HandThumb1))))", *LONG) + "))) "
        + both("@Leg(@Shin(@Foot(@ToeBase(@ToeEnd))))", *LONG) + "))",
        "Hips | Spine1, Spine2, Chest | Neck1, Neck2 | Head", "Shoulder Arm ForeArm Hand Leg Shin Foot ToeBase", "Left",
    ),
    "HY-Motion, SMPL-H": (
        "Pelvis(" + both("@_Hip(@_Knee(@_Ankle(@_Foot)))", *LR) + " Spine1(Spine2(Spine3(Neck(Head) "
        + both("@_Collar(@_Shoulder(@_Elbow(@_Wrist(@_Index1))))", *LR) + "))))",
        "Pelvis | Spine1, Spine2, Spine3 | Neck | Head", "_Collar _Shoulder _Elbow _Wrist _Hip _Knee _Ankle _Foot", "L",
    ),
    "SAM 3D Body, MHR": (
        "body_world(root("
        + both("@_upleg(@_lowleg(@_foot(@_talocrural(@_subtalar(@_transversetarsal(@_ball))))))", *SMALL)
        + " c_spine0(c_spine1(c_spine2(c_spine3(c_neck(c_head) "
        + both("@_clavicle(@_uparm(@_uparm_twist1_proc @_lowarm(@_wrist_twist(@_wrist(@_pinky0)))))", *SMALL)
        + "))))))",
        "root | c_spine0, c_spine1, c_spine2, c_spine3 | c_neck | c_head",
        "_clavicle _uparm _lowarm _wrist _upleg _lowleg _foot _ball", "l",
    ),
    "Unreal": (
        "root(pelvis(spine_01(spine_02(spine_03(neck_01(head) "
        + both("clavicle_@(upperarm_@(upperarm_twist_01_@ lowerarm_@(lowerarm_twist_01_@ hand_@(index_01_@))))", *SMALL)
        + "))) " + both("thigh_@(thigh_twist_01_@ calf_@(calf_twist_01_@ foot_@(ball_@)))", *SMALL) + ") ik_foot_root)",
        "pelvis | spine_01, spine_02, spine_03 | neck_01 | head",
        "clavicle_ upperarm_ lowerarm_ hand_ thigh_ calf_ foot_ ball_", "l",
    ),
    "VRM": (
        "Root(J_Bip_C_Hips(J_Bip_C_Spine(J_Bip_C_Chest(J_Bip_C_UpperChest(J_Bip_C_Neck(J_Bip_C_Head) "
        + both("J_Bip_@_Shoulder(J_Bip_@_UpperArm(J_Bip_@_LowerArm(J_Bip_@_Hand)))", *LR) + "))) "
        + both("J_Bip_@_UpperLeg(J_Bip_@_LowerLeg(J_Bip_@_Foot(J_Bip_@_ToeBase)))", *LR) + "))",
        "J_Bip_C_Hips | J_Bip_C_Spine, J_Bip_C_Chest, J_Bip_C_UpperChest | J_Bip_C_Neck | J_Bip_C_Head",
        "J_Bip_@_Shoulder J_Bip_@_UpperArm J_Bip_@_LowerArm J_Bip_@_Hand J_Bip_@_UpperLeg J_Bip_@_LowerLeg "
        "J_Bip_@_Foot J_Bip_@_ToeBase", "L",
    ),
    "3ds Max' biped": (
        "Bip01(Bip01~Pelvis(Bip01~Spine(Bip01~Spine1(Bip01~Neck(Bip01~Head "
        + both("Bip01~@~Clavicle(Bip01~@~UpperArm(Bip01~@~Forearm(Bip01~@~Hand)))", *LR) + "))) "
        + both("Bip01~@~Thigh(Bip01~@~Calf(Bip01~@~Foot(Bip01~@~Toe0)))", *LR) + "))",
        "Bip01 Pelvis | Bip01 Spine, Bip01 Spine1, Bip01 Neck | | Bip01 Head",
        "Bip01~@~Clavicle Bip01~@~UpperArm Bip01~@~Forearm Bip01~@~Hand Bip01~@~Thigh Bip01~@~Calf Bip01~@~Foot "
        "Bip01~@~Toe0", "L",
    ),
    "Poser and DAZ": (
        "hip(abdomen(chest(neck(head) " + both("@Collar(@Shldr(@ForeArm(@Hand(@Thumb1))))", *SMALL) + ")) "
        + both("@Buttock(@Thigh(@Shin(@Foot)))", *SMALL) + ")",
        "hip | abdomen, chest | neck | head", "Collar Shldr ForeArm Hand Thigh Shin Foot none", "l",
    ),
    "Motion Builder's old names": (
        "Hips(Chest(Chest2(Neck(Head) " + both("@Collar(@Shoulder(@Elbow(@Wrist)))", *LONG) + ")) "
        + both("@Hip(@Knee(@Ankle))", *LONG) + ")",
        "Hips | Chest, Chest2 | Neck | Head", "Collar Shoulder Elbow Wrist Hip Knee Ankle none", "Left",
    ),
}  # fmt: skip


def expected(trunk: str, parts: str, side: str) -> dict[str, str]:
    """The lines that tell which joint is which."""
    pelvis, spine, neck, head = (part.strip() for part in trunk.split("|"))
    lines = {"pelvis": pelvis, "spine": spine, "neck": neck or "none", "head": head}
    for ours, mark in zip(SIDES, (side, {"L": "R", "l": "r", "Left": "Right"}[side])):
        for part, name in zip(ARM_LEG, parts.split()):
            put = name.replace("~", " ")
            if name == "none":
                lines[f"{ours}_{part}"] = name
            elif "@" in put:
                lines[f"{ours}_{part}"] = put.replace("@", mark)
            else:
                lines[f"{ours}_{part}"] = put + mark if put.endswith(("_", ".")) else mark + put
    return lines


@pytest.mark.parametrize("tool", SKELETONS)
def test_the_joints_of_a_tool_are_known(tool):
    text, trunk, parts, side = SKELETONS[tool]
    skeleton = tree(text)
    found = told_joints(find_joints(skeleton, "a.bvh"), skeleton)
    lines = dict(line.split(" = ") for line in found.splitlines())
    lines = {ours: theirs for ours, theirs in lines.items() if not ours.endswith("_hand")}
    assert lines == expected(trunk, parts, side)
    assert set(lines) <= set(ASKED)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("mixamorig:LeftUpLeg", "left", "upleg"), ("thigh.L.001", "left", "thigh"), ("def-shin.R", "right", "shin"),
        ("Bip01 R Calf", "right", "calf"), ("rShldr", "right", "shldr"), ("lthigh", "left", "thigh"),
        ("LHipJoint", "left", "hip"), ("LowerBack", "", "lowerback"), ("thigh_twist_01_l", "left", ""),
        ("Hips", "", "hips"), ("Reference", "", "reference"), ("character1:LeftFoot", "left", "foot"),
    ],
)  # fmt: skip
def test_sides_and_words(name, side, words):
    assert words_of(name) == (side, words)
