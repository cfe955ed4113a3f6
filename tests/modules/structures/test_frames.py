"""Frame and patch carriers: exact times, validated patches."""

from fractions import Fraction

import numpy as np
import pytest

from modules.structures.frames import Frame, FramePatch, PlaneLayout

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")


def make_patch(**changes):
    fields = {
        "bounds": (2, 3, 6, 8),
        "rgb": np.full((5, 4, 3), 0.5, np.float32),
        "alpha": np.ones((5, 4), np.float32),
    }
    return FramePatch(**(fields | changes))


def test_frame_time_is_exact_and_repr_shows_shapes_only():
    planes = (np.zeros((6, 8), np.uint8), np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8))
    frame = Frame(7, 1001 * 7, Fraction(1, 24000), planes, LAYOUT)
    assert frame.time_s == Fraction(7007, 24000)
    assert frame.size_hw == (6, 8)
    assert "8x6" in repr(frame) and "array" not in repr(frame)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bounds": (2, 3, 2, 8)}, "bounds"),
        ({"bounds": (-1, 3, 3, 8)}, "bounds"),
        ({"alpha": np.ones((4, 5), np.float32)}, "must be"),
        ({"rgb": np.ones((5, 4, 3), np.float64)}, "float32"),
        ({"alpha": np.full((5, 4), 1.01, np.float32)}, "outside"),
        ({"alpha": np.full((5, 4), np.nan, np.float32)}, "outside"),
        ({"rgb": np.full((5, 4, 3), np.nan, np.float32)}, "finite"),
    ],
)
def test_patch_refuses_what_cannot_be_blended(changes, words):
    with pytest.raises(ValueError, match=words):
        make_patch(**changes)


def test_patch_colour_may_be_anything_where_alpha_is_zero():
    rgb = np.full((5, 4, 3), 0.5, np.float32)
    alpha = np.ones((5, 4), np.float32)
    rgb[0, 0], alpha[0, 0] = np.nan, 0.0
    assert "covered=0.950" in repr(make_patch(rgb=rgb, alpha=alpha))
