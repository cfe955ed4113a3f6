from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.process_video.appearance import FaceLook
from data_gen.utils.process_video.observation_log import ObservationLog, Observations
from data_gen.utils.process_video.tracker_state import LiveFace, Sighting, TrackerState
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from modules.structures.landmarks import LandmarkResult


def sighting(row, track, seed=0):
    random = np.random.default_rng([row, track, seed])
    result = LandmarkResult(
        random.normal(size=(478, 2)).astype(np.float32), random.normal(size=478).astype(np.float32),
        float(random.uniform()), random.uniform(size=52).astype(np.float32),
    )  # fmt: skip
    return Sighting(row, track, result, 0.5 if row % 2 else float("nan"))


def state(row):
    live = LiveFace(3, CropRegion(1 / 3, 2, 5, 0.1), BoundingBox(0, 0, 1.1, 2), (0.1, -0.2), row, row / 25, 1)
    return TrackerState(row, 4, [live], row / 25, 0.3, True, [(row, [BoundingBox(0, 0, 1, 1)])])


def filled(folder, made_from="x"):
    log = ObservationLog(folder, made_from)
    assert log.resume() == (0, TrackerState())
    log.append(0, 3, [sighting(0, 0), sighting(2, 1)], state(2))
    log.append(3, 6, [], state(5))
    log.append(6, 8, [sighting(7, 1)], state(7))
    return log


def test_what_was_seen_and_known_comes_back_exactly(tmp_path):
    log = filled(tmp_path / "log")
    done, known = ObservationLog(tmp_path / "log", "x").resume()
    assert (done, known) == (8, state(7))
    first, empty, last = log.segments()
    assert (first.rows.tolist(), first.tracks.tolist(), len(empty), last.rows.tolist()) == ([0, 2], [0, 1], 0, [7])
    expected = sighting(2, 1)
    np.testing.assert_array_equal(first.points[1], expected.result.points)
    np.testing.assert_array_equal(first.blendshapes[1], expected.result.blendshapes)
    assert np.isnan(first.detector_score).all()
    assert last.detector_score.tolist() == [0.5]


def test_looks_come_back_with_their_tracks(tmp_path):
    look = FaceLook()
    look.colour_sum += 7.5
    look.colour_count += 2
    look.shape_weight = 0.25
    look.embedding_sum = np.zeros(0)
    log = ObservationLog(tmp_path / "log", "x")
    log.resume()
    log.append(0, 3, [sighting(0, 4), replace(sighting(1, 9), look=look), sighting(2, 9)], state(2))
    (segment,) = log.segments()
    ((track, again),) = segment.looks()
    assert track == 9
    for name, array in look.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], array)
    assert list(Observations.of([sighting(0, 4)]).looks()) == []


def test_a_log_of_something_else_counts_as_none_and_goes(tmp_path):
    filled(tmp_path / "log")
    assert ObservationLog(tmp_path / "log", "y").resume() == (0, TrackerState())
    assert list((tmp_path / "log").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing"])
def test_work_goes_on_before_a_damaged_segment(tmp_path, damage):
    filled(tmp_path / "log")
    victim = tmp_path / "log" / "000001.npz"
    whole = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": b"x" * 400}[damage])
    (tmp_path / "log" / "segment.tmp").write_bytes(b"half")
    log = ObservationLog(tmp_path / "log", "x")
    assert log.resume() == (3, state(2))
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["000000.npz"]
    log.append(3, 6, [], state(5))
    log.append(6, 8, [sighting(7, 1)], state(7))
    other = tmp_path / "other"
    filled(other)
    for path in sorted(other.iterdir()):
        assert path.read_bytes() == (tmp_path / "log" / path.name).read_bytes(), "the same bytes as in one go"


def test_deleting_it_leaves_nothing(tmp_path):
    filled(tmp_path / "log").delete()
    assert not (tmp_path / "log").exists()
