"""The drawn occluders: the files are whole and plausible, and their loader refuses contradictions."""

import json
from pathlib import Path

import numpy as np
import pytest

from modules.structures.boxes import BoundingBox
from modules.video.reader import VideoReader
from tests.support.occluder_annotations import (
    SCHEMA,
    DrawnOccluder,
    OccludedFace,
    load_occluders,
    occluder_files,
)

DEMO = "WolfgangLanger_Pexels.mp4"
SQUARE = [[2.0, 3.0], [6.0, 3.0], [6.0, 5.5], [2.0, 5.5]]
SHIFTED = np.add(SQUARE, [3, 0])


def face_with(*outlines, soft=False):
    drawn = tuple(DrawnOccluder("hand", soft, np.array(points)) for points in outlines)
    return OccludedFace(3, BoundingBox(0, 0, 8, 8), BoundingBox(1, 2.5, 7, 8), drawn)


def written(folder, **changes):
    face = {"frame": 3, "face": [0, 0, 8, 8], "region": [1, 2, 7, 8], "occluders": []}
    outline = {"what": "hand", "soft": True, "points": SQUARE}
    faces = [face, face | {"frame": 5, "occluders": [outline]}]
    data = {"schema": SCHEMA, "clip": "a.mp4", "width": 10, "height": 8, "note": "", "faces": faces}
    path = folder / "a.json"
    path.write_text(json.dumps(data | changes))
    return path


def test_a_mask_is_the_share_of_each_pixel_that_is_covered():
    mask = face_with(SQUARE).mask((8, 10))
    wanted = np.zeros((8, 10), np.float32)
    wanted[3:5, 2:6], wanted[5, 2:6] = 1.0, 0.5
    assert np.allclose(mask, wanted, atol=0.26), "a border sample may fall on either side"
    assert mask.sum() == pytest.approx(10.0, rel=0.35)
    big = face_with([[10.0, 10.0], [50.0, 10.0], [50.0, 30.0], [10.0, 30.0]]).mask((60, 60))
    assert big.sum() == pytest.approx(800, rel=0.03)
    rows, columns = np.indices(big.shape)
    centre = (big * rows).sum() / big.sum() + 0.5, (big * columns).sum() / big.sum() + 0.5
    assert centre == pytest.approx((20, 30), abs=0.15), "no half pixel is lost between outline and mask"


def test_soft_and_sharp_outlines_are_told_apart():
    both = OccludedFace(
        0, BoundingBox(0, 0, 8, 8), BoundingBox(0, 0, 8, 8),
        (DrawnOccluder("hand", True, np.array(SQUARE)), DrawnOccluder("cup", False, SHIFTED)),
    )  # fmt: skip
    soft, sharp, all_of_them = (both.mask((8, 12), soft=kind) for kind in (True, False, None))
    assert soft[3, 2] == 1 and soft[3, 7] == 0 and sharp[3, 2] == 0 and sharp[3, 7] == 1
    assert np.array_equal(all_of_them, np.maximum(soft, sharp))
    assert face_with().mask((8, 8)).max() == 0


def test_only_pixels_wholly_inside_the_region_are_judged():
    judged = face_with(SQUARE).judged((8, 10))
    assert np.argwhere(judged).min(axis=0).tolist() == [3, 1]
    assert np.argwhere(judged).max(axis=0).tolist() == [7, 6]


def test_the_loader_reads_what_is_written(tmp_path):
    truth = load_occluders(written(tmp_path))
    assert (truth.clip, truth.size_wh, [face.frame for face in truth.faces]) == ("a.mp4", (10, 8), [3, 5])
    assert truth.faces[0].occluders == ()
    assert truth.faces[1].occluders[0].soft and truth.faces[1].occluders[0].points.tolist() == SQUARE


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "other/1"},
        {"faces": [{"frame": n, "face": [0, 0, 8, 8], "region": [1, 2, 7, 8], "occluders": []} for n in (5, 3)]},
        {"faces": [{"frame": 1, "face": [0, 0, 11, 8], "region": [1, 2, 7, 8], "occluders": []}]},
        {"width": 5},
        {"faces": [{"frame": 1, "face": [0, 0, 8, 8], "region": [1, 2, 7, 8],
                    "occluders": [{"what": "hand", "soft": False, "points": SQUARE[:2]}]}]},
    ],
)  # fmt: skip
def test_contradictions_are_refused(tmp_path, changes):
    with pytest.raises(ValueError, match=r"schema|order|leaves|three points"):
        load_occluders(written(tmp_path, **changes))


def test_enough_is_drawn():
    annotations = {Path(path).stem: load_occluders(path) for path in occluder_files()}
    drawn = {name: sum(bool(face.occluders) for face in truth.faces) for name, truth in annotations.items()}
    empty = sum(not face.occluders for truth in annotations.values() for face in truth.faces)
    demo = drawn.pop("occluders_WolfgangLanger_Pexels")
    assert len(drawn) == 5 and min(drawn.values()) >= 10 and sum(drawn.values()) >= 60
    assert demo >= 20 and empty >= 10


@pytest.mark.parametrize("path", occluder_files(), ids=lambda path: path.stem)
def test_outlines_are_plausible(path):
    """Every drawn face has an occluder of some size in its region, below the face's middle or reaching there."""
    truth = load_occluders(path)
    width, height = truth.size_wh
    for face in truth.faces:
        assert face.region.y0 == pytest.approx(face.face.center[1], abs=60), "the region is the face's lower half"
        seen = face.mask((height, width))[face.judged((height, width))]
        if face.occluders:
            assert 0.01 * face.face.area < seen.sum() < 1.5 * face.face.area, face.frame


@pytest.mark.parametrize("path", occluder_files(), ids=lambda path: path.stem)
def test_the_clips_are_those_that_were_drawn_on(path, request):
    truth = load_occluders(path)
    folder = request.getfixturevalue("demo_dir" if truth.clip == DEMO else "shared_clips")
    with VideoReader(folder / truth.clip) as reader:
        assert (reader.info.width, reader.info.height) == truth.size_wh
