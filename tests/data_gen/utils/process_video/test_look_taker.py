import numpy as np

from data_gen.utils.process_video.appearance import mean_face
from data_gen.utils.process_video.look_taker import LookTaker, build_look_taker
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import LandmarkResult


def a_face():
    """The mean face seen from the front, 100 px per unit, on a green picture."""
    reference = mean_face(FaceModel.load(FACE_MODEL_FILE))
    points = (reference[:, :2] - reference[:, :2].min(axis=0)) * 100 + 150
    rgb = np.zeros((700, 700, 3), np.uint8)
    rgb[..., 1] = 200
    depth = reference[:, 2].astype(np.float32) * 100
    return rgb, LandmarkResult(points.astype(np.float32), depth, 1.0, np.zeros(52, np.float32))


def test_a_look_holds_shape_and_colours():
    rgb, result = a_face()
    look = build_look_taker()(rgb, result)
    assert look.sights == 1
    assert np.abs(look.shape).max() < 1e-3, "the mean face differs from itself in nothing"
    assert look.colours[0, 1] < -40, "green skin"
    assert len(look.embedding_sum) == 0, "no recognition network is shipped"


def test_a_recogniser_adds_its_embedding():
    class Recogniser:
        def embed(self, rgb, points):
            return np.array([0.6, 0.8], np.float32)

    rgb, result = a_face()
    look = LookTaker(FaceModel.load(FACE_MODEL_FILE), Recogniser())(rgb, result)
    np.testing.assert_allclose(look.embedding_sum, [0.6, 0.8], atol=1e-6)
