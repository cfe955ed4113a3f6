"""The truth of frame t under the motion of t + k: carried to the pose of t, and scored where the mouth is."""

from itertools import islice

import numpy as np
import pytest

from inference.evaluation.persons import Person
from inference.evaluation.transfer import (
    comparable_rows,
    later_motion,
    later_plan,
    measure_transfer,
    psnr_db,
    thinned,
    transfer_scores,
    true_picture,
)
from inference.jobs import EvaluationJob
from inference.prepared import open_source
from modules.commons.progress import silent
from modules.structures.dataset import NeRFDataset, Split
from modules.video.colour import rgb_float_from_planes
from modules.video.reader import VideoReader
from tests.support.tiny_run import own_folders, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def scene(run):
    """(source, its first frames)."""
    with own_folders(run.root):
        source = open_source(run.clip, silent)
    with VideoReader(run.clip) as reader:
        return source, list(islice(reader.frames(), 0, 12))


def test_a_frame_carried_to_its_own_pose_is_itself(scene):
    source, frames = scene
    truth = true_picture(source, 4, 0, frames[4])
    assert truth is not None and truth.mouth.sum() > 100 and (truth.lower_face | ~truth.mouth).all()
    own = rgb_float_from_planes(frames[4], truth.bounds)
    assert psnr_db(truth.rgb, own, truth.lower_face) > 45


def test_the_later_mouth_is_the_one_tracked_later(scene):
    source, _ = scene
    moved, tracked = later_motion(source, 5), source.coeffs.expression
    assert not np.array_equal(moved[3], tracked[3])
    jaw = source.face_model.unit("jawOpen")
    assert moved[3, jaw] == tracked[8, jaw]
    assert later_plan(source, 0).is_as_shown(tracked) and not later_plan(source, 5).is_as_shown(tracked)


def test_rows_beyond_the_clip_or_with_the_same_mouth_are_no_test(scene):
    source, _ = scene
    rows = np.arange(len(source))
    assert comparable_rows(source, rows, 0) == []
    assert all(row + 5 < len(source) for row in comparable_rows(source, rows, 5))


def test_a_picture_left_alone_scores_what_it_is_off(scene):
    source, frames = scene
    truth = true_picture(source, 2, 6, frames[8])
    assert truth is not None
    by_hand = psnr_db(rgb_float_from_planes(frames[2], truth.bounds), truth.rgb, truth.mouth)
    scores = measure_transfer(source, dict(enumerate(frames)), {}, [2], 6)
    assert scores["left alone"].frames == 1 and scores["left alone"].mouth_db == pytest.approx(by_hand)
    assert np.isnan(measure_transfer(source, {}, {}, [], 6)["left alone"].mouth_db)


def test_scores_are_of_held_out_frames_that_can_be_compared(run, scene):
    source, _ = scene
    split = Split(np.arange(len(source)) > 8, np.arange(len(source)) <= 8)
    person = Person(run.identity, NeRFDataset.load(source.workspace.dataset), split)
    job = EvaluationJob(run.clip, run.root / "report", device="cpu")
    scores = transfer_scores(job, source, person, ("alpha",), silent, late_s=(0.2, 50.0), most_rows=2)
    few = len(thinned(comparable_rows(source, np.arange(9), round(0.2 * 25)), 2))
    assert [(s.late_s, s.row, s.frames) for s in scores] == [
        (0.2, "left alone", few), (0.2, "alpha", few), (50.0, "left alone", 0), (50.0, "alpha", 0),
    ]  # fmt: skip
    assert few and scores[0].mouth_db > 15 and scores[1].mouth_db != scores[0].mouth_db


def test_rows_are_thinned_evenly():
    assert thinned(range(10), 3) == [0, 4, 8] and thinned(range(2), 5) == [0, 1] and thinned([], 5) == []


def test_psnr_is_that_of_a_known_error():
    truth = np.zeros((4, 4, 3), np.float32)
    inside = np.zeros((4, 4), bool)
    inside[1:3, 1:3] = True
    result = truth.copy()
    result[inside], result[~inside] = 0.1, 1
    assert psnr_db(result, truth, inside) == pytest.approx(20.0, abs=1e-4)
