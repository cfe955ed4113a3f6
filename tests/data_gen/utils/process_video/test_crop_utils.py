import json

import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.crop_utils import (
    crop_frame,
    extract_face_crops,
    load_crop_metadata,
    save_crop_metadata,
)
from modules.commons.errors import ConfigError
from modules.structures.crops import CropMetadata, CropRegion, warp_affine
from modules.video.colour import rgb_from_planes
from tests.data_gen.utils.process_video.moving_face import box_at, make_frame
from tests.support.real_frames import DEMO_CLIP, read_frame, read_frames


def psnr(first, second):
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2))


def paste(crop, frame_rgb, metadata, index):
    """The crop warped back over the frame where it covers it; what a compositor does."""
    height, width = frame_rgb.shape[:2]
    back = warp_affine(crop, metadata.frame_from_crop(index), (width, height), flags=cv2.INTER_CUBIC)
    inside = warp_affine(
        np.ones(crop.shape[:2], dtype=np.float32), metadata.frame_from_crop(index), (width, height),
        border_mode=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    return np.where(inside[..., None] > 0.999, back, frame_rgb)


@pytest.mark.parametrize("region", [CropRegion(431.3, 205.8, 280.0), CropRegion(430.0, 210.0, 301.7, 0.2)])
def test_crop_and_paste_round_trip_on_a_natural_image(demo_dir, region):
    frame = read_frame(demo_dir / DEMO_CLIP, 0)
    metadata = CropMetadata((region,), frame.size_hw, 512)
    original = rgb_from_planes(frame)
    rows, cols = slice(110, 300), slice(340, 520)
    again = paste(crop_frame(frame, metadata), original, metadata, 0)
    assert psnr(again[rows, cols], original[rows, cols]) >= 45


def test_five_round_trips_do_not_drift(demo_dir):
    """A half-pixel mistake would move the picture by a quarter of a pixel each time."""
    frame = read_frame(demo_dir / DEMO_CLIP, 0)
    metadata = CropMetadata((CropRegion(431.3, 205.8, 290.0),), frame.size_hw, 512)
    original = rgb_from_planes(frame)
    picture = original
    for _ in range(5):
        crop = warp_affine(picture, metadata.crop_from_frame(0), (512, 512), flags=cv2.INTER_CUBIC)
        picture = paste(crop, picture, metadata, 0)
    window = (slice(110, 300), slice(340, 520))
    before, after = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[window].astype(np.float32) for p in (original, picture))
    (dx, dy), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F))
    assert abs(dx) < 0.02
    assert abs(dy) < 0.02
    assert psnr(picture[window], original[window]) >= 42


def test_half_pixel_convention_on_a_ramp():
    """Crop pixel i shows frame position (i + 0.5) / scale + corner, whatever the scale."""
    frame = make_frame(0, [], (120, 160))
    ramp = np.tile(np.arange(160, dtype=np.uint8), (120, 1))
    frame = type(frame)(0, 0, frame.time_base, (ramp, *frame.planes[1:]), frame.layout)
    metadata = CropMetadata((CropRegion(80, 60, 64),), (120, 160), 256)
    row = crop_frame(frame, metadata)[128].mean(axis=1)
    expected = 80 - 32 + (np.arange(256) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(row, expected, atol=1.0)
    assert abs((row - expected).mean()) < 0.15


def test_a_crop_may_leave_the_frame_and_repeats_its_edge():
    frame = make_frame(3, [box_at(10, 10, 20)])
    crop = crop_frame(frame, CropMetadata((CropRegion(0, 0, 80),), (180, 240), 256))
    assert crop.shape == (256, 256, 3)
    assert crop[0, 0].min() > 200, "the bright corner is repeated outwards"
    with pytest.raises(ValueError, match="outside the 240x180 frame"):
        crop_frame(frame, CropMetadata((CropRegion(1000, 0, 80),), (180, 240), 256))


def test_crops_follow_the_frame_index_and_stream(demo_dir):
    pulled = []

    def frames():
        for frame in read_frames(demo_dir / "carphone_pristine.mp4", 4, 8):
            pulled.append(frame.index)
            yield frame

    regions = tuple(CropRegion(60 + 2 * i, 70, 90) for i in range(4))
    metadata = CropMetadata(regions, (144, 176), 256, first_frame=4)
    stream = extract_face_crops(frames(), metadata)
    index, crop = next(stream)
    assert (index, pulled) == (4, [4]), "one frame in, one crop out"
    assert crop.shape == (256, 256, 3)
    np.testing.assert_array_equal(
        next(stream)[1], crop_frame(read_frame(demo_dir / "carphone_pristine.mp4", 5), metadata)
    )
    assert [i for i, _ in stream] == [6, 7]


def test_a_face_larger_than_the_crop_is_filtered():
    frame = make_frame(0, [], (1200, 1200))
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 200).astype(np.uint8)
    frame = type(frame)(0, 0, frame.time_base, (board, *frame.planes[1:]), frame.layout)
    crop = crop_frame(frame, CropMetadata((CropRegion(600, 600, 1100),), (1200, 1200), 256))
    assert np.abs(crop[8:-8, 8:-8].astype(int) - 100).max() <= 8


def test_metadata_survives_saving(tmp_path):
    metadata = CropMetadata((CropRegion(1.5, 2.5, 3.5, 0.1),), (720, 1280), 256, 3)
    path = tmp_path / "crop_metadata.json"
    save_crop_metadata(metadata, path)
    again = load_crop_metadata(path)
    assert (again.regions, again.crop_size, again.first_frame) == (metadata.regions, 256, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["crop_metadata.json"]


def test_missing_foreign_and_broken_files_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"crop\.json is missing: prepare this video again"):
        load_crop_metadata(tmp_path / "crop.json")
    for name, text in {
        "foreign.json": json.dumps({"schema": "else/1"}),
        "broken.json": "{",
        "list.json": "[1]",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=rf"{name} is not crop metadata"):
            load_crop_metadata(tmp_path / name)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"binary\.json cannot be read"):
        load_crop_metadata(tmp_path / "binary.json")
