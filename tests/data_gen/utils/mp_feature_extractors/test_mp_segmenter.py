import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from modules.commons.errors import ModelFileError
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


def test_person_and_wall_are_told_apart(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    mask = PersonSegmenter().segment(rgb)
    assert mask.shape == rgb.shape[:2]
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask[120:330, 350:520].mean() > 0.95, "face"
    assert mask[:, :200].mean() < 0.05, "wall"


def test_works_on_small_and_odd_sizes(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / "carphone_pristine.mp4", 0))[:143, :175]
    mask = PersonSegmenter().segment(np.ascontiguousarray(rgb))
    assert mask.shape == (143, 175)
    assert mask[50:90, 70:105].mean() > 0.9


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"selfie_segmentation\.tflite is missing"):
        PersonSegmenter(models=tmp_path)
