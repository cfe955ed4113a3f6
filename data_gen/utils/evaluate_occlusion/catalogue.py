"""The sequences of the set: every thing, over every kind of face."""

from __future__ import annotations

import math

from data_gen.utils.evaluate_occlusion.specification import Pose2D, SequenceSpec, Way

ADDRESS = "address_1280x720_25fps"
ANCHOR = "anchor_german_512_25fps"
GLASSES = "glasses_512_25fps"
MOUSTACHE = "moustache_480x360_30fps"
KITCHEN = "kitchen_beard_1080x1920_25fps"
HEAD = "head_motion_512_25fps"
CONVERSATION = "conversation_200s_silent_360x288_24fps"
CONVERSATION_FROM_S = 60.0
"""Where the part of the long clip begins."""
_BACK = (0.0, math.pi, 0.0)
"""The back of a hand seen, not its palm."""


def _below(x: float, y: float, angle: float = 0.0, *, from_x: float = 0.1, to_x: float = -0.1) -> Way:
    return Way(Pose2D(x + from_x, 2.2, angle + 0.3), Pose2D(x, y, angle), Pose2D(x + to_x, 2.2, angle - 0.2))


def _side(x: float, y: float, angle: float, *, side: int = 1, far: float = 1.9) -> Way:
    return Way(Pose2D(side * far, y + 0.3, angle), Pose2D(x, y, angle), Pose2D(side * far, y + 0.6, angle))


def _across(y: float, angle: float, *, side: int = 1) -> Way:
    """Right through, without a stay."""
    ends = Pose2D(side * 2.0, y + 0.2, angle), Pose2D(0.0, y, angle), Pose2D(-side * 2.0, y + 0.1, angle)
    return Way(*ends, times_s=(1.1, 1.9, 1.9, 2.7), wobble=0.0)


REAL: tuple[SequenceSpec, ...] = (
    SequenceSpec("anchor_hand_own", ANCHOR, "hand_flat", _below(0.1, 0.12, 0.5), 2.0, euler_rad=_BACK, shadow=0.35),
    SequenceSpec("anchor_cup", ANCHOR, "cup", _below(0.0, 0.0), 2.0, euler_rad=(0.3, 0.2, 0.0), shadow=0.3, seed=1),
    SequenceSpec("address_straw", ADDRESS, "straw", _below(0.02, 0.02, -0.35), 1.0, width_px=6, seed=2),
    SequenceSpec(
        "address_hand_own",
        ADDRESS,
        "hand_relaxed",
        _side(0.05, 0.1, -1.1),
        1.0,
        euler_rad=(0.2, math.pi, 0.0),
        shadow=0.3,
        sleeve=(0.12, 0.13, 0.17),
        seed=3,
    ),
    SequenceSpec("anchor_finger", ANCHOR, "finger", _below(0.02, 0.03, 0.15), 2.0, euler_rad=_BACK, size=0.75, seed=4),
    SequenceSpec(
        "address_microphone",
        ADDRESS,
        "microphone",
        _below(0.05, 0.2, -0.3),
        1.0,
        euler_rad=(-0.3, 0.0, 0.0),
        shadow=0.2,
        seed=5,
    ),
    SequenceSpec(
        "glasses_phone", GLASSES, "phone", _side(0.15, 0.15, -1.2), 1.0, euler_rad=(0.1, 0.3, 0.0), shadow=0.3, seed=6
    ),
    SequenceSpec("glasses_sandwich", GLASSES, "sandwich", _below(0.0, 0.1), 1.0, euler_rad=(0.2, 0.3, 0.0), seed=7),
    SequenceSpec(
        "glasses_hand_dark",
        GLASSES,
        "hand_spread",
        _below(-0.1, 0.15, -0.3),
        1.0,
        skin=(0.36, 0.24, 0.18),
        shadow=0.3,
        seed=8,
    ),
    SequenceSpec(
        "glasses_straw", GLASSES, "straw", _below(0.0, 0.03, 0.4), 1.0, width_px=5, color=(0.2, 0.5, 0.8), seed=9
    ),
    SequenceSpec(
        "moustache_cup",
        MOUSTACHE,
        "cup",
        _side(-0.02, -0.02, 0.15, side=-1),
        1.5,
        euler_rad=(0.35, -0.2, 0.0),
        color=(0.35, 0.18, 0.12),
        seed=10,
    ),
    SequenceSpec(
        "moustache_hand_own", MOUSTACHE, "hand_fist", _below(0.05, 0.05, 0.2), 1.5, euler_rad=_BACK, shadow=0.3, seed=11
    ),
    SequenceSpec(
        "moustache_finger", MOUSTACHE, "finger", _side(0.05, 0.0, -1.3), 1.5, euler_rad=_BACK, size=0.8, seed=12
    ),
    SequenceSpec(
        "kitchen_microphone",
        KITCHEN,
        "microphone",
        _below(0.0, 0.22, 0.2),
        3.0,
        euler_rad=(-0.4, 0.3, 0.0),
        shadow=0.25,
        seed=13,
    ),
    SequenceSpec("kitchen_hand_own", KITCHEN, "hand_flat", _side(0.0, 0.05, 1.2, side=-1), 3.0, shadow=0.3, seed=14),
    SequenceSpec(
        "conversation_hand_own", CONVERSATION, "hand_relaxed", _below(-0.05, 0.1, -0.2), CONVERSATION_FROM_S, seed=15
    ),
    SequenceSpec(
        "conversation_phone",
        CONVERSATION,
        "phone",
        _across(0.15, 0.5),
        CONVERSATION_FROM_S,
        color=(0.75, 0.72, 0.70),
        shadow=0.2,
        seed=16,
    ),
    SequenceSpec(
        "conversation_stem", CONVERSATION, "stem", _side(-0.12, 0.16, 0.0), CONVERSATION_FROM_S, width_px=10, seed=17
    ),
    SequenceSpec(
        "head_sandwich",
        HEAD,
        "sandwich",
        _side(-0.05, 0.08, 0.1, side=-1),
        1.0,
        euler_rad=(0.25, -0.4, 0.0),
        shadow=0.3,
        seed=18,
    ),
    SequenceSpec(
        "head_hand_light",
        HEAD,
        "hand_spread",
        _across(0.1, -0.9),
        1.0,
        euler_rad=_BACK,
        skin=(0.86, 0.68, 0.58),
        seed=19,
    ),
    SequenceSpec("anchor_stem", ANCHOR, "stem", _side(-0.1, 0.14, 0.1), 2.0, width_px=9, seed=20),
    SequenceSpec(
        "address_hand_light",
        ADDRESS,
        "hand_flat",
        _across(0.12, -1.0),
        1.0,
        euler_rad=_BACK,
        skin=(0.84, 0.66, 0.56),
        shadow=0.2,
        seed=21,
    ),
)
"""Over real clips."""

PAINTED: tuple[SequenceSpec, ...] = (
    SequenceSpec(
        "painted_hand_own", "head:1", "hand_flat", _below(0.05, 0.1, 0.3), euler_rad=_BACK, shadow=0.3, seed=30
    ),
    SequenceSpec("painted_cup", "head:2", "cup", _below(0.0, 0.0), euler_rad=(0.3, 0.2, 0.0), seed=31),
    SequenceSpec("painted_straw", "head:3", "straw", _below(0.0, 0.02, -0.4), width_px=7, seed=32),
    SequenceSpec("painted_microphone", "head:4", "microphone", _side(0.05, 0.15, -0.9), shadow=0.2, seed=33),
    SequenceSpec("painted_finger", "head:5", "finger", _below(0.03, 0.03, -0.2), euler_rad=_BACK, size=0.75, seed=34),
)
"""Over painted heads, which need no clip."""

CATALOGUE: tuple[SequenceSpec, ...] = REAL + PAINTED
