"""The annotated clips: the files say what the clips show, and their loader refuses contradictions."""

import json

import numpy as np
import pytest

from modules.structures.boxes import BoundingBox
from modules.video.reader import VideoReader
from tests.support.annotations import DATA_DIR, SCHEMA, annotation_of, load_annotation

FILES = sorted(DATA_DIR.glob("faces_*.json"))


def written(folder, **changes):
    data = {
        "schema": SCHEMA,
        "clip": "a.mp4",
        "frames": 20,
        "cuts": [10],
        "people": [
            {"name": "P1", "spans": [{"first": 2, "stop": 8, "boxes": {"2": [0, 0, 10, 20], "6": [4, 8, 14, 28]}}]}
        ],
        "ignore": [{"first": 0, "stop": 2, "box": None}, {"first": 12, "stop": 15, "box": [0, 0, 10, 10]}],
        "note": "",
    }
    path = folder / "a.json"
    path.write_text(json.dumps(data | changes))
    return path


def test_boxes_move_between_key_frames_and_rest_outside_them(tmp_path):
    truth = load_annotation(written(tmp_path))
    assert truth.faces_at(4) == {"P1": BoundingBox(2, 4, 12, 24)}
    assert truth.faces_at(7) == {"P1": BoundingBox(4, 8, 14, 28)}
    assert truth.faces_at(1) == truth.faces_at(8) == {}


def test_what_is_ignored(tmp_path):
    truth = load_annotation(written(tmp_path))
    assert truth.is_ignored(1, BoundingBox(300, 300, 310, 310)), "no box means the whole frame"
    assert truth.is_ignored(12, BoundingBox(5, 5, 12, 12))
    assert not truth.is_ignored(12, BoundingBox(8, 8, 20, 20)), "a corner is not enough"
    assert not truth.is_ignored(15, BoundingBox(0, 0, 10, 10))


def span(first, stop, key):
    return {"name": "P1", "spans": [{"first": first, "stop": stop, "boxes": {str(key): [0, 0, 1, 1]}}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "face-annotation/0"},
        {"cuts": [10, 10]},
        {"cuts": [20]},
        {"people": [span(8, 12, 9)]},
        {"people": [span(2, 8, 9)]},
        {"people": [span(12, 21, 12)]},
        {"people": [span(2, 8, 2), span(2, 8, 2)]},
        {"ignore": [{"first": 3, "stop": 3, "box": None}]},
    ],
    ids=[
        "schema",
        "equal cuts",
        "cut at the end",
        "over a cut",
        "key outside",
        "past the end",
        "same name",
        "empty part",
    ],
)
def test_contradictions_are_refused(tmp_path, changes):
    with pytest.raises(ValueError):
        load_annotation(written(tmp_path, **changes))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_annotations_fit_their_clips(path, shared_clips):
    truth = load_annotation(path)
    assert path.stem == f"faces_{truth.clip.rpartition('.')[0]}"
    with VideoReader(shared_clips / truth.clip) as reader:
        width, height = reader.info.width, reader.info.height
        assert sum(1 for _ in reader.frames()) == truth.frames
    for frame in range(truth.frames):
        for box in truth.faces_at(frame).values():
            assert box.x0 >= -0.2 * box.width and box.x1 <= width + 0.2 * box.width
            assert box.y0 >= -0.2 * box.height and box.y1 <= height + 0.2 * box.height
            assert box.height > 23, "smaller ones are ignored"


def test_enough_is_annotated():
    clips = ("promo_cuts_noface_320x180_30fps.mp4", "concert_cuts_hands_640x360_30fps.mp4")
    truths = [annotation_of(clip) for clip in clips]
    usable = [len(truth.faces_at(frame)) > 0 for truth in truths for frame in range(truth.frames)]
    assert np.count_nonzero(usable) >= 300 and usable.count(False) >= 300
