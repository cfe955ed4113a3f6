"""Made-up speakers: within their ranges, the same for the same seed, and seen as MediaPipe would see them."""

import cv2
import numpy as np
import pytest

from data_gen.utils.evaluate_fit.made_up_speakers import (
    ScoreNetwork,
    SpeakerRanges,
    made_up_truth,
    painted_speaker,
    projected_speaker,
    speech_like,
)
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.structures.boxes import BoundingBox
from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.landmarks import inter_ocular_px, lip_opening
from tests.data_gen.utils.evaluate_fit.made_up import real_model


@pytest.mark.parametrize("seed", range(8))
def test_a_speaker_stays_within_the_ranges(seed):
    ranges = SpeakerRanges()
    truth = made_up_truth(real_model(), np.random.default_rng(seed), 75, ranges)
    pitch, yaw, roll = np.degrees(np.abs(truth.euler)).max(axis=0)
    assert pitch <= 15.01 and roll <= 10.01 and 0.95 * 45 < yaw <= 45.01
    assert np.degrees(truth.euler[:, 1]).min() < -0.9 * 45 and np.degrees(truth.euler[:, 1]).max() > 0.9 * 45
    distance = CAMERA_DISTANCE - truth.translation[:, 2]
    assert distance.min() >= 4 * 0.9 and distance.max() <= 12 * 1.1
    assert 0.89 <= truth.camera.fx / truth.camera.width <= 2.01 and truth.camera.width == truth.camera.height
    points = fitted_points(truth, real_model())
    assert points.min() > 0 and points.max() < truth.camera.width, "the face stays in the picture"
    height = np.ptp(points[:, :, 1], axis=1)
    assert height.min() > 150 and height.max() < 400
    assert truth.expression.min() >= 0 and truth.expression.max() <= 1


def test_movements_are_smooth_and_lips_close():
    generator = np.random.default_rng(0)
    expression = speech_like(real_model(), generator, 500)
    jaw = expression[:, real_model().unit("jawOpen")]
    assert (jaw < 0.02).mean() > 0.05 and jaw.max() > 0.4 and np.abs(np.diff(jaw)).max() < 0.5
    blink = expression[:, real_model().unit("eyeBlinkLeft")]
    assert blink.max() > 0.8 and (blink > 0.5).mean() < 0.1
    truth = made_up_truth(real_model(), generator, 75)
    assert np.degrees(np.abs(np.diff(truth.euler, axis=0))).max() < 6


def test_equal_seeds_make_equal_speakers_and_the_noise_is_as_said():
    network = ScoreNetwork()
    first, second = (projected_speaker(real_model(), np.random.default_rng(3), 6, network) for _ in range(2))
    assert np.array_equal(first.landmarks.points, second.landmarks.points)
    noise = first.landmarks.points - fitted_points(first.truth, real_model())
    assert noise.std() == pytest.approx(1, abs=0.05) and abs(noise.mean()) < 0.05
    assert first.landmarks.blendshapes.min() >= 0 and first.landmarks.blendshapes.max() <= 1
    assert first.size_wh == (first.truth.camera.width, first.truth.camera.height)


def test_the_network_alone_gives_the_landmarkers_scores(demo_dir):
    capture = cv2.VideoCapture(str(demo_dir / "carphone_pristine.mp4"))
    rgb = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    found = FaceLandmarker().detect(rgb, BoundingBox(50, 20, 130, 120))
    assert ScoreNetwork().scores(found.points[None])[0] == pytest.approx(found.blendshapes, abs=1e-6)
    assert ScoreNetwork().scores(found.points[None][:0]).shape == (0, 52)


def test_the_landmarker_finds_a_painted_speaker():
    """A few frontal frames: landmarks lie near the truth, and the mouth opens when the painted one does."""
    ranges = SpeakerRanges(yaw_deg=10, pitch_deg=5, roll_deg=5)
    speaker = painted_speaker(real_model(), np.random.default_rng(1), 4, FaceLandmarker(), ranges)
    assert speaker.landmarks.valid.all()
    true = fitted_points(speaker.truth, real_model())
    off = np.linalg.norm(speaker.landmarks.points - true, axis=2) / inter_ocular_px(true)[:, None]
    assert 0.001 < off.mean() < 0.08
    assert np.abs(lip_opening(speaker.landmarks.points) - lip_opening(true)).max() < 0.15
