import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from data_gen.utils.process_video.clean_appearance import CleanAppearance, clean_rows, learn_appearance
from modules.commons.errors import GeneFaceError
from modules.structures.masks import OcclusionTable
from tests.support.synthetic_head import Occluder
from tests.support.talking_crops import invalid, talking_crops

LEARNT = [row for row in range(20) if row % 3 != 1]


@pytest.fixture(scope="module")
def clip():
    return talking_crops()


@pytest.fixture(scope="module")
def appearance(clip):
    return learn_appearance(((row, clip.crops[row]) for row in LEARNT), clip.coeffs, clip.metadata, clip.face_model)


def difference(expected, crop):
    return np.abs(expected.rgb - crop.astype(np.float32) / 255).max(axis=2)


def test_texels_and_pixels_are_each_others_inverse(clip):
    texture = CanonicalTexture(clip.face_model, clip.coeffs, clip.metadata)
    ramp = np.dstack([*np.meshgrid(np.arange(256) / 255, np.arange(256) / 255), np.zeros((256, 256))])
    sample = texture.sample(ramp.astype(np.float32), 4)
    places = texture.places(4, 256)
    back = cv2.remap(sample.rgb, places.x, places.y, cv2.INTER_LINEAR)
    seen = cv2.remap(sample.seen.astype(np.float32), places.x, places.y, cv2.INTER_LINEAR) > 0.99
    well = (places.facing > 0.9) & seen
    assert well.sum() > 4000
    assert np.quantile(np.abs(back - ramp)[well], 0.99) * 255 < 1.0, "px"


def test_frames_that_were_not_learnt_are_predicted(clip, appearance):
    for row in (7, 12):
        expected = appearance.at(row, 256)
        well = expected.known > 0.9
        assert well.sum() > 8000
        assert np.median(difference(expected, clip.crops[row])[well]) < 0.03
        # the stated spread is about right: most of the picture lies within three of it
        assert (difference(expected, clip.crops[row]) < 3 * expected.spread + 0.03)[well].mean() > 0.97


def test_moving_lips_are_expected_to_stray_further_than_cheeks(clip, appearance):
    expected = appearance.at(7, 256)
    points = (clip.landmarks.points[7] - 100) * 256 / 190 + 128
    mouth, cheek = points[[13, 14]].mean(axis=0).astype(int), points[50].astype(int)
    assert expected.spread[mouth[1], mouth[0]] > 2 * expected.spread[cheek[1], cheek[0]]


def test_any_size_is_answered(appearance):
    small, large = appearance.at(3, 128), appearance.at(3, 256)
    reduced = cv2.resize(large.rgb, (128, 128), interpolation=cv2.INTER_AREA)
    well = small.known > 0.9
    assert np.median(np.abs(reduced - small.rgb)[well]) < 0.02


def test_an_object_that_is_no_hand_does_not_get_in(clip, appearance):
    thing = Occluder((100.0, 130.0), (22.0, 16.0))
    crops = [(row, clip.with_thing(row, thing)[0] if 5 <= row < 11 else clip.crops[row]) for row in LEARNT]
    truth = clip.with_thing(6, thing)[1]
    learnt = learn_appearance(iter(crops), clip.coeffs, clip.metadata, clip.face_model)
    assert learnt is not None
    for row in (7, 17):
        expected, clean = learnt.at(row, 256), appearance.at(row, 256)
        assert expected is not None
        there = (truth > 0.5) & (expected.known > 0.9) & (clean.spread < 0.03)
        assert there.sum() > 300
        assert np.quantile(np.abs(expected.rgb - clean.rgb).max(axis=2)[there], 0.95) < 0.08


def test_clean_rows_leave_out_hands_and_frames_without_a_fit(clip):
    hands = OcclusionTable.nothing(20, 64)
    assert clean_rows(clip.coeffs, hands, clip.times_s).tolist() == list(range(20))
    assert len(clean_rows(clip.coeffs, hands, clip.times_s, count=5)) == 5
    assert len(clean_rows(invalid(clip.coeffs, 3), hands, clip.times_s)) == 0, "1.9 s are too short"
    longer = clip.times_s * 1.5
    assert 3 not in clean_rows(invalid(clip.coeffs, 3), hands, longer)


def test_frames_without_a_fit_are_not_known(clip, appearance):
    other = CleanAppearance(
        CanonicalTexture(clip.face_model, clip.coeffs, clip.metadata), invalid(clip.coeffs, 3), appearance.exemplars
    )
    assert other.knows(2)
    assert not other.knows(3)
    assert other.at(3, 256) is None
    assert not other.knows(20)


def test_what_was_learnt_survives_the_disk(clip, appearance, tmp_path):
    path = tmp_path / "appearance.npz"
    appearance.save(path)
    loaded = CleanAppearance.load(path, clip.coeffs, clip.metadata, clip.face_model)
    again = loaded.at(5, 256)
    assert again is not None
    assert np.array_equal(again.rgb, appearance.at(5, 256).rgb)
    assert [file.name for file in tmp_path.iterdir()] == ["appearance.npz"]


def test_other_files_are_refused_in_one_sentence(clip, tmp_path):
    path = tmp_path / "appearance.npz"
    np.savez(path, schema=np.array("something-else/1"))
    with pytest.raises(GeneFaceError, match="does not hold an appearance"):
        CleanAppearance.load(path, clip.coeffs, clip.metadata, clip.face_model)


def test_nothing_is_learnt_from_nothing(clip):
    assert learn_appearance(iter(()), clip.coeffs, clip.metadata, clip.face_model) is None
