"""Building the set: a short painted sequence, what is kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_gen.utils.evaluate_occlusion.building import SetBuilder, find_clip, fingerprint
from data_gen.utils.evaluate_occlusion.catalogue import PAINTED
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.painted import painted_base
from data_gen.utils.evaluate_occlusion.specification import SequenceSpec
from data_gen.utils.evaluate_occlusion.writing import write_base
from modules.commons.errors import VideoReadError
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE, OCCLUDER_HAND_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import face_height_px
from modules.video.reader import VideoReader
from tests.data_gen.utils.evaluate_occlusion.made_up import face_points
from tests.support.synthetic_video import ClipSpec, make_clip

SHORT = replace(PAINTED[1], seconds=0.16, way=replace(PAINTED[1].way, times_s=(0.0, 0.01, 0.1, 0.12)))
"""A cup that is there at once, four frames long."""


def no_landmarker(video: Path) -> np.ndarray:
    raise AssertionError(f"a painted head's landmarks are known, {video} need not be looked at")


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> SetBuilder:
    face_model, hand = FaceModel.load(FACE_MODEL_FILE), HandMesh.load(OCCLUDER_HAND_FILE)
    return SetBuilder(tmp_path_factory.mktemp("set"), None, face_model, hand, no_landmarker)


def test_a_painted_sequence_is_written_with_its_truth_and_kept(builder):
    (built,) = builder.build([SHORT], silent)
    truth = built.read_truth()
    with VideoReader(built.video) as reader:
        frames = list(reader.frames())
        height, width = reader.info.height, reader.info.width
    assert len(frames) == len(truth) == 4 and not truth.thin and truth.kind == "cup"
    assert truth.masks[1].max() == 255 and not truth.masks[3].any()
    assert (truth.points > 0).all() and (truth.points < [width, height]).all()
    assert 190 < float(np.median(face_height_px(truth.points))) < 250
    before = built.video.stat().st_mtime_ns, built.truth.stat().st_mtime_ns
    builder.build([SHORT], silent)
    assert (built.video.stat().st_mtime_ns, built.truth.stat().st_mtime_ns) == before
    builder.build([replace(SHORT, shadow=0.3)], silent)
    assert built.video.stat().st_mtime_ns != before[0], "another specification makes another sequence"


def test_painted_heads_are_the_same_again(builder, tmp_path):
    first = painted_base(builder.face_model, 1, 1, tmp_path / "a.mp4")
    again = painted_base(builder.face_model, 1, 1, tmp_path / "b.mp4")
    other = painted_base(builder.face_model, 2, 1, tmp_path / "c.mp4")
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_a_part_of_a_clip_begins_at_zero(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", ClipSpec(n_frames=20))
    write_base(clip.path, 0.2, 0.4, tmp_path / "part.mp4")
    with VideoReader(tmp_path / "part.mp4") as reader:
        frames = list(reader.frames())
    assert len(frames) == 10 and frames[0].time_s == 0 and frames[-1].time_s == Fraction(9, 25)
    with VideoReader(clip.path) as reader:
        source = list(reader.frames())
    errors = [np.abs(frames[0].planes[0].astype(int) - source[row].planes[0]).mean() for row in range(len(source))]
    assert int(np.argmin(errors)) == 5, "0.2 s are five frames"


def test_a_clip_that_ends_too_early_or_is_missing_is_refused(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", ClipSpec(n_frames=10))
    with pytest.raises(VideoReadError, match="are needed"):
        write_base(clip.path, 0.2, 4.0, tmp_path / "part.mp4")
    assert not (tmp_path / "part.mp4").exists()
    assert find_clip(tmp_path, "clip") == clip.path
    for folder in (tmp_path, None):
        with pytest.raises(VideoReadError, match="holds no clip other"):
            find_clip(folder, "other")


def test_a_real_clips_base_is_looked_at_once_for_all_its_sequences(builder, tmp_path):
    make_clip(tmp_path / "clip.mp4", ClipSpec(width=192, height=192, n_frames=12))
    looked: list[Path] = []

    def landmarker(video: Path) -> np.ndarray:
        looked.append(video)
        return face_points(10)

    here = replace(builder, folder=tmp_path / "set", clips=tmp_path, landmarker=landmarker)
    here.folder.mkdir()
    one = SequenceSpec("one", "clip", "phone", SHORT.way, seconds=0.4)
    built = here.build([one, replace(one, name="two", kind="straw")], silent)
    assert len(looked) == 1 and [b.read_truth().thin for b in built] == [False, True]
    assert len({fingerprint(one, "a"), fingerprint(replace(one, seed=1), "a"), fingerprint(one, "b")}) == 3
    before = built[0].video.read_bytes()
    here.build([one], silent)
    assert len(looked) == 1 and built[0].video.read_bytes() == before
    make_clip(tmp_path / "clip.mp4", ClipSpec(width=192, height=192, n_frames=12, pixel_format="yuv444p"))
    here.build([one], silent)
    assert len(looked) == 2 and built[0].video.read_bytes() != before, "another clip of that name"
