"""Pictures as PNG files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from modules.commons.errors import OutputError
from modules.video.png import write_png

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_a_picture_is_written_as_it_is_and_nothing_else(tmp_path):
    target = tmp_path / "new" / "picture.png"
    for picture in (PICTURE, PICTURE[:, ::-1]):
        write_png(picture, target)
        np.testing.assert_array_equal(cv2.imread(str(target))[..., ::-1], picture)
    assert list(target.parent.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_png(PICTURE, tmp_path / "file" / "f.png")
