"""What drives the rows of a trial: outcomes per frame, expressions, the lips they ask for, and speech on its clock."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from data_gen.utils.process_audio.vad import RATE_HZ
from inference.driving import MOUTH_ROWS, source_motion
from inference.edit_plan import COVERED, NO_FACE, POOR_FIT, EditConfig
from inference.evaluation.motion import (
    driven_landmarks,
    frame_outcomes,
    full_plan,
    jaw_gap_px,
    lower_face_px,
    lower_face_triangles,
    mean_mouth,
    model_opening,
    own_speech,
    projected_landmarks,
    resting_mouth,
    reversed_speech,
    rolled,
    speech_track,
    tracked_later,
    with_mouth,
)
from inference.evaluation.protocols import SHIFT_S
from inference.prepared import open_source
from inference.usable_faces import MAX_COVER
from modules.commons.errors import AudioReadError
from modules.commons.progress import silent
from modules.face_model.model import ARKIT_NAMES
from modules.structures.audio import AudioClip
from modules.structures.evaluation import EDITED
from modules.structures.landmarks import JAW_LINE, LM68_MOUTH, lip_opening
from modules.structures.motion import MotionSequence
from modules.video.reader import VideoReader
from tests.support.spoken_clip import with_sound
from tests.support.synthetic_video import ClipSpec, make_clip, write_tone
from tests.support.tiny_run import mouth_in_view, own_folders, tiny_run

JAW = ARKIT_NAMES.index("jawOpen")


@pytest.fixture(scope="module")
def source(tmp_path_factory, demo_dir):
    run = tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")
    with own_folders(run.root):
        found = open_source(run.clip, silent)
    return mouth_in_view(found)


def open_jaw(source, amount):
    """What was tracked, with the jaw open by ``amount``."""
    expression = source.coeffs.expression.copy()
    expression[:, JAW] = amount
    return expression


# ---- frames ----


def test_every_frame_is_edited_or_says_why_not(source):
    coverage = np.zeros_like(source.occlusion.coverage)
    valid, residual = source.coeffs.valid.copy(), source.coeffs.residual.copy()
    coverage[2] = MAX_COVER  # as much as is bearable
    coverage[[3, 4, 9]] = MAX_COVER + 0.01
    valid[[4, 5]] = False
    limit = EditConfig().max_residual
    residual[[2, 5, 6, 7, 8, 9]] = limit + 0.1, np.nan, np.nan, limit, limit + 0.001, limit + 0.1
    broken = replace(
        source,
        occlusion=replace(source.occlusion, coverage=coverage),
        coeffs=replace(source.coeffs, valid=valid, residual=residual),
    )
    outcomes = frame_outcomes(broken)
    assert outcomes[2:10] == [EDITED, COVERED, NO_FACE, NO_FACE, POOR_FIT, EDITED, POOR_FIT, COVERED]
    assert set(outcomes[:2] + outcomes[10:]) == {EDITED} and len(outcomes) == len(source)
    rows = np.arange(len(source))
    assert source_motion(broken, rows, source.times_s).reasons == tuple(outcomes), "a job goes by the same rule"
    plan = full_plan(broken, source.coeffs.expression)
    assert plan.reasons == tuple(outcomes)
    np.testing.assert_array_equal(plan.strength, [float(outcome == EDITED) for outcome in outcomes])


def test_a_whole_plan_neither_fades_nor_pauses(source):
    expression = open_jaw(source, 0.3)
    plan = full_plan(source, expression)
    assert plan.strength.tolist() == [1.0] * len(source) and plan.strength.dtype == np.float32
    np.testing.assert_array_equal(plan.expression, expression)


# ---- expressions ----


def test_another_mouth_leaves_the_rest_of_the_face_alone(source):
    others = np.setdiff1d(np.arange(source.coeffs.expression.shape[1]), MOUTH_ROWS)
    before = source.coeffs.expression.copy()
    still = np.linspace(0, 1, len(MOUTH_ROWS), dtype=np.float32)
    moving = np.random.default_rng(0).random((len(source), len(MOUTH_ROWS)), dtype=np.float32)
    for mouth in (still, moving):
        made = with_mouth(source, mouth)
        np.testing.assert_array_equal(made[:, others], before[:, others])
        np.testing.assert_array_equal(made[:, MOUTH_ROWS], np.broadcast_to(mouth, (len(source), len(MOUTH_ROWS))))
    np.testing.assert_array_equal(source.coeffs.expression, before, err_msg="the source's own table was written to")


def test_the_mean_mouth_is_the_mean_of_those_rows_alone(source):
    rows = np.array([1, 2, 7])
    expected = sum(source.coeffs.expression[row, MOUTH_ROWS].astype(float) for row in rows) / 3
    np.testing.assert_allclose(mean_mouth(source, rows), expected, rtol=1e-5, atol=1e-7)


def test_the_resting_mouth_is_shut(source):
    shut = model_opening(source, with_mouth(source, resting_mouth(source)))
    assert shut.max() < 0.02 < model_opening(source, open_jaw(source, 0.5)).min()


@pytest.mark.parametrize("frames", [0, 1, 3, 11, 39])
@pytest.mark.parametrize("rate", [25.0, 24000 / 1001, 30.0])
def test_motion_tracked_earlier_is_shown_later_and_wraps(source, frames, rate):
    clip = replace(source, times_s=np.arange(len(source)) / rate)
    made = tracked_later(clip, frames / rate)
    earlier = np.roll(np.arange(len(source)), frames)
    np.testing.assert_array_equal(made[:, MOUTH_ROWS], source.coeffs.expression[earlier][:, MOUTH_ROWS])
    others = np.setdiff1d(np.arange(made.shape[1]), MOUTH_ROWS)
    np.testing.assert_array_equal(made[:, others], source.coeffs.expression[:, others])


def test_a_shift_of_two_seconds_never_shows_a_frame_twice(source):
    """Two seconds are a whole number of frames at 25 fps; rounded times must not make a slow frame and a jump."""
    count = 200
    table = np.zeros((count, source.coeffs.expression.shape[1]), np.float32)
    table[:, MOUTH_ROWS] = np.arange(count, dtype=np.float32)[:, None]
    rows = np.zeros(count, np.int64)
    coeffs = replace(
        source.coeffs, expression=table, euler=source.coeffs.euler[rows], translation=source.coeffs.translation[rows],
        valid=source.coeffs.valid[rows], residual=source.coeffs.residual[rows],
    )  # fmt: skip
    long = replace(source, coeffs=coeffs, times_s=np.arange(count) / 25)
    shown = tracked_later(long, SHIFT_S)[:, MOUTH_ROWS[0]]
    np.testing.assert_array_equal(shown, np.roll(np.arange(count), 50))


def test_predicted_motion_rolls_with_all_that_belongs_to_it():
    count = 60
    expression = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    gate = np.linspace(0, 1, count, dtype=np.float32)
    motion = MotionSequence(expression, gate, 50.0, "v", opening=gate * 2)
    late = rolled(motion, 0.2)
    assert late.opening is not None
    for made, own in ((late.expression, expression), (late.is_speech, gate), (late.opening, gate * 2)):
        np.testing.assert_array_equal(made[10:], own[:-10])
        np.testing.assert_array_equal(made[:10], own[-10:])
    assert (late.rate_hz, late.face_model_version, len(late)) == (50.0, "v", count)
    assert rolled(replace(motion, opening=None), 0.2).opening is None


# ---- lips and jaws ----


def test_the_models_opening_is_what_landmarks_show(source):
    tracked = model_opening(source, source.coeffs.expression)
    assert tracked.shape == (len(source),) and tracked.dtype == np.float32
    seen = lip_opening(source.landmarks.points)
    clean = source.occlusion.coverage == 0
    np.testing.assert_allclose(tracked[clean], seen[clean], atol=0.015)  # her lips are shut
    wide = open_jaw(source, 0.6)
    opening, projected = model_opening(source, wide), lip_opening(projected_landmarks(source, wide))
    assert opening.min() > 0.1
    np.testing.assert_allclose(projected, opening, rtol=0.2)  # a head that is bent foreshortens its mouth
    moved = lip_opening(driven_landmarks(source, wide))
    np.testing.assert_allclose(moved[clean], projected[clean], atol=0.03)


def test_more_jaw_is_more_opening(source):
    openings = [model_opening(source, open_jaw(source, amount)).mean() for amount in (0.2, 0.4, 0.6, 0.9)]
    assert (np.diff(openings) > 0.02).all()


def test_landmarks_driven_by_what_was_tracked_are_the_detected_ones(source):
    gap = source.landmarks.points.copy()
    gap[2] = np.nan
    holed = replace(source, landmarks=replace(source.landmarks, points=gap))
    np.testing.assert_array_equal(driven_landmarks(holed, source.coeffs.expression), gap)
    moved = driven_landmarks(source, open_jaw(source, 0.6)) - source.landmarks.points
    lips, lids = np.abs(moved[:, list(LM68_MOUTH)]).max(), np.abs(moved[:, [159, 145, 386, 374]]).max()
    assert lips > 5 and lids < 0.1, "an open jaw moves lips and leaves eyes where they are"
    assert moved[:, 14, 1].min() > 1 > np.abs(moved[:, 13, 1]).max(), "the lower lip goes down, the upper stays"


def test_the_projected_head_lies_on_the_detected_face(source):
    error = np.linalg.norm(
        projected_landmarks(source, source.coeffs.expression) - source.landmarks.points, axis=2
    ).mean()
    assert error < 0.03 * source.face_height_px


def test_the_jaw_gap_is_zero_for_the_same_pose_and_grows_with_the_jaw(source):
    assert jaw_gap_px(source, source.coeffs.expression).max() == 0
    gaps = [jaw_gap_px(source, open_jaw(source, amount)) for amount in (0.2, 0.4, 0.8)]
    assert (np.diff(gaps, axis=0) > 0.5).all() and gaps[0].min() > 0.5
    points = projected_landmarks(source, open_jaw(source, 0.4)), projected_landmarks(source, source.coeffs.expression)
    row = 4
    naive = max(float(np.hypot(*(points[0][row, i] - points[1][row, i]))) for i in JAW_LINE)
    assert gaps[1][row] == pytest.approx(naive, rel=1e-5)


def test_the_lower_face_is_an_area_of_both_poses(source):
    triangles = lower_face_triangles(source.face_model)
    weights = source.face_model.region_weights["lower_face"].numpy()
    assert len(triangles) and (weights[triangles] > 0).all()
    row, tracked = 5, source.coeffs.expression[5]
    own = lower_face_px(source, row, tracked, triangles)
    face = source.face_height_px**2
    assert 0.1 * face < own < face
    areas = [lower_face_px(source, row, open_jaw(source, amount)[row], triangles) for amount in (0.2, 0.5, 0.9)]
    assert (np.diff([own, *areas]) > 0).all(), "the chin of the new pose lies below that of the old one"
    shut, wide = open_jaw(source, 0.0), open_jaw(source, 0.9)
    as_shut, as_wide = (replace(source, coeffs=replace(source.coeffs, expression=shown)) for shown in (shut, wide))
    both = [lower_face_px(clip, row, other[row], triangles) for clip, other in ((as_shut, wide), (as_wide, shut))]
    assert both[0] == both[1] > own, "which of both is the source's does not matter"


# ---- speech ----

ONSET_S = 0.5
CODER_S = 0.03
"""AAC smears a sharp onset over a block of 1024 samples."""


def onset_of(speech):
    return float(np.argmax(np.abs(speech.samples) > 0.25)) / speech.sample_rate_hz


@pytest.fixture(scope="module")
def late_picture(tmp_path_factory):
    """Twenty frames, the first one at 0.4 s, and a sound that is silent for half a second."""
    root = tmp_path_factory.mktemp("speech")
    spec = ClipSpec(pts=tuple(5120 + 512 * i for i in range(40)))
    tone = write_tone(root / "tone.wav", 2.0, onset_s=ONSET_S, rate_hz=48000)
    return make_clip(root / "clip.mp4", spec).path, tone


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("late_s", [Fraction(0), Fraction(1, 5), Fraction(-3, 10)])
def test_a_videos_own_sound_is_put_on_its_pictures_clock(late_picture, tmp_path, late_s, suffix):
    clip, tone = late_picture
    begins_s = Fraction(2, 5)
    video = with_sound(clip, tmp_path / f"spoken{suffix}", tone, begins_s + late_s)
    with VideoReader(video) as reader:
        shown_s = next(reader.frames()).time_s
    assert abs(shown_s - begins_s) < Fraction(1, 100), "the picture does not begin with the file"
    speech = own_speech(video)
    assert speech.sample_rate_hz == 16000
    assert onset_of(speech) == pytest.approx(ONSET_S + float(late_s), abs=CODER_S)


def test_a_video_without_sound_has_no_speech_of_its_own(late_picture):
    with pytest.raises(AudioReadError, match=r"clip\.mp4.*no audio stream"):
        own_speech(late_picture[0])


def test_speech_played_backwards_is_itself_when_played_backwards_again():
    speech = AudioClip(np.linspace(0, 1, 100, dtype=np.float32), 16000)
    backwards = reversed_speech(speech)
    assert backwards.samples[0] == speech.samples[-1] and backwards.samples.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(reversed_speech(backwards).samples, speech.samples)


def test_the_track_of_a_speech_knows_when_it_is_loud():
    rate = 16000
    tone = 0.5 * np.sin(np.arange(2 * rate) * 0.2).astype(np.float32)
    tone[: rate // 2] = 0
    speech = AudioClip(tone, rate)
    opening = np.linspace(0, 1, 97, dtype=np.float32)
    motion = MotionSequence(np.zeros((97, 4), np.float32), np.zeros(97, np.float32), float(RATE_HZ), "v", opening)
    track = speech_track(speech, motion)
    assert len(track.opening) == len(track.level_db) == len(track.is_speech) == 97, "as long as the shorter of both"
    assert track.rate_hz == RATE_HZ and track.sound is speech and track.opening.dtype == np.float32
    np.testing.assert_allclose(track.opening, opening, atol=1e-6)
    silent_db, loud_db = track.level_db[track.times_s < 0.45], track.level_db[track.times_s > 0.55]
    assert silent_db.max() < -60 < -30 < loud_db.min()
    with pytest.raises(ValueError, match="lip opening"):
        speech_track(speech, replace(motion, opening=None))
    with pytest.raises(ValueError, match="25"):
        speech_track(speech, replace(motion, rate_hz=25.0))
