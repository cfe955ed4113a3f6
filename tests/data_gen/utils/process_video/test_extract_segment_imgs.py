"""The person cut out of stored crops."""

from __future__ import annotations

import cv2
import numpy as np

from data_gen.utils.process_video.extract_segment_imgs import cut_out, extract_segment_imgs
from modules.commons.progress import silent
from modules.structures.dataset import write_crop
from tests.support.synthetic_clip import CROP_SIZE, prepare_synthetic_clip


class LeftHalf:
    """A segmenter that takes the left half for the person, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, rgb):
        self.asked += 1
        mask = np.zeros(rgb.shape[:2], np.float32)
        mask[:, : rgb.shape[1] // 2] = 1.0
        return mask


def test_cut_out_keeps_colour_and_blackens_the_rest():
    rgb = np.full((4, 4, 3), 90, np.uint8)
    alpha = np.zeros((4, 4), np.float32)
    alpha[:, 2:] = [0.5, 1.0]
    cut = cut_out(rgb, alpha)
    assert cut.shape == (4, 4, 4) and not cut[:, :2].any()
    assert (cut[:, 2:, :3] == 90).all() and cut[0, 2:, 3].tolist() == [128, 255]


def test_every_stored_crop_is_written_once(tmp_path):
    dataset, _ = prepare_synthetic_clip(tmp_path, n_frames=11)
    segmenter = LeftHalf()
    written = extract_segment_imgs(dataset, tmp_path / "person", segmenter, silent)
    assert [p.name for p in written] == [f"{row:06d}.png" for row in range(11)]
    image = cv2.imread(str(written[3]), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.shape == (CROP_SIZE, CROP_SIZE, 4)
    rgb = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(rgb[:, :128], dataset.crop(3)[:, :128])
    extract_segment_imgs(dataset, tmp_path / "person", segmenter, silent)
    assert segmenter.asked == 11


def test_what_is_in_front_of_the_face_is_no_part_of_the_person(tmp_path):
    dataset, _ = prepare_synthetic_clip(tmp_path, n_frames=11)
    occluder = np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    occluder[: CROP_SIZE // 2] = 1.0
    occluder[CROP_SIZE // 2 : CROP_SIZE // 2 + 10] = 0.4
    write_crop(dataset.crops_dir, int(dataset.rows[2]), dataset.crop(2), occluder)
    written = extract_segment_imgs(dataset, tmp_path / "person", LeftHalf(), silent)
    image = cv2.imread(str(written[2]), cv2.IMREAD_UNCHANGED)
    assert image is not None
    alpha = image[:, 40, 3]
    assert not alpha[: CROP_SIZE // 2].any() and (alpha[CROP_SIZE // 2 + 10 :] == 255).all()
    assert abs(int(alpha[CROP_SIZE // 2 + 5]) - 153) <= 1 and not image[..., 3][:, CROP_SIZE // 2 :].any()
