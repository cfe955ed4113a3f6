"""Ways of things, and what the catalogue promises."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_gen.utils.evaluate_occlusion.catalogue import CATALOGUE, PAINTED, REAL
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.overlay import FACE_HEIGHT_DM, REFERENCE_FACE_PX, solid_of
from data_gen.utils.evaluate_occlusion.specification import THIN, Pose2D, Way
from data_gen.utils.evaluate_occlusion.sprites import paint_sprite
from modules.commons.workspace import OCCLUDER_HAND_FILE

WAY = Way(Pose2D(2, 1, 0.5), Pose2D(0.1, 0.2), Pose2D(-2, 1), (1.0, 1.5, 2.5, 3.0), wobble=0.0)


def test_a_thing_is_out_of_sight_before_and_after():
    assert WAY.at(0.99) is None and WAY.at(3.01) is None


@pytest.mark.parametrize(("time_s", "pose"), [(1.0, WAY.enter), (1.5, WAY.stay), (2.0, WAY.stay), (3.0, WAY.leave)])
def test_a_way_goes_through_its_places(time_s, pose):
    at = WAY.at(time_s)
    assert at is not None
    assert np.allclose((at.x, at.y, at.angle_rad), (pose.x, pose.y, pose.angle_rad))


def test_ways_begin_and_end_at_rest_and_never_jump():
    times = np.arange(1.0, 3.0, 0.002)
    x = np.array([pose.x for pose in map(WAY.at, times) if pose is not None])
    speed = np.diff(x) / 0.002
    assert abs(speed[0]) < 0.05 and abs(speed[-1]) < 0.05
    assert np.abs(speed).max() < 10 and np.abs(np.diff(speed)).max() < 0.5


def test_the_catalogue_holds_what_was_promised():
    assert len(REAL) >= 20 and len({spec.name for spec in CATALOGUE}) == len(CATALOGUE)
    kinds = {spec.kind for spec in REAL}
    assert {"cup", "microphone", "phone", "straw", "sandwich", "finger"} <= kinds
    assert sum(kind.startswith("hand") for kind in kinds) >= 2
    assert {"hand_flat", "straw"} <= {spec.kind for spec in PAINTED}
    for spec in CATALOGUE:
        start, _, _, gone = spec.way.times_s
        assert 2.5 <= spec.seconds <= 4.0
        assert spec.seconds - (gone - start) >= 2.0, f"{spec.name}: two seconds must be clean"


def test_what_counts_as_thin_is_thin():
    """Widths at a face height of 300 px: twice the largest distance to the outside, near the thing's own end."""
    hand = HandMesh.load(OCCLUDER_HAND_FILE)
    scale = REFERENCE_FACE_PX / FACE_HEIGHT_DM
    widest = {s.kind: s for s in sorted(REAL, key=lambda s: (s.size, s.width_px)) if s.kind in THIN}
    for spec in widest.values():
        sprite = paint_sprite(solid_of(spec, hand, (0.7, 0.5, 0.4)), spec.size * scale, euler_rad=spec.euler_rad)
        x, y = (round(v) for v in sprite.origin_px)
        near = (sprite.rgba[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30, 3] > 0.5).astype(np.uint8)
        width = 2 * float(cv2.distanceTransform(near, cv2.DIST_L2, 5).max())
        assert width < (34 if spec.kind == "stem" else 24), f"{spec.name}: {width:.1f} px"
