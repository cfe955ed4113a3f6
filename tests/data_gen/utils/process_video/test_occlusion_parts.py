import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.occlusion_parts import grown


@pytest.mark.parametrize("box", [(0, 0, 5, 3), (20, 30, 25, 31), (40, 0, 48, 48), (0, 0, 48, 48)])
@pytest.mark.parametrize("reach", [1, 4, 13])
def test_growing_only_what_is_there_is_growing_everything(box, reach):
    values = np.zeros((48, 48), np.float32)
    left, top, right, bottom = box
    values[top:bottom, left:right] = np.random.default_rng(reach).random((bottom - top, right - left), dtype=np.float32)
    values[10, 40] = 0.5
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    np.testing.assert_array_equal(grown(values, reach), cv2.dilate(values, disc))


def test_nothing_grows_into_nothing():
    assert not grown(np.zeros((8, 8), np.uint8), 3).any()
