"""Looking at a tracked clip once more, frame by frame."""

from dataclasses import replace
from itertools import islice

import numpy as np

from data_gen.utils.evaluate_fit.unsmoothed import landmarks_frame_by_frame
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.landmark_track import track_and_landmark
from modules.structures.landmarks import INNER_LIP, inter_ocular_px
from modules.video.reader import VideoReader


def test_unsmoothed_landmarks_lie_around_the_smoothed_ones(demo_dir):
    clip = demo_dir / "carphone_pristine.mp4"
    with VideoReader(clip) as reader:
        _, smoothed = track_and_landmark(islice(reader.frames(), 12), FaceLandmarker(), FaceDetector())
    lost = replace(smoothed, valid=smoothed.valid & (np.arange(12) != 5))
    with VideoReader(clip) as reader:
        raw = landmarks_frame_by_frame(reader.frames(), lost, FaceLandmarker())
    assert len(raw) == 12 and not raw.valid[5] and np.isnan(raw.points[5]).all() and raw.valid.sum() == 11
    off = np.linalg.norm(raw.points - smoothed.points, axis=2)[raw.valid] / inter_ocular_px(smoothed.points).mean()
    assert 1e-4 < off.mean() < 0.03 and off[:, list(INNER_LIP)].mean() < 0.03
