"""The alpha of an edit comes back: nothing stays nothing, a trace stays a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modules.video.alpha import AlphaWriter, alpha_of
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, make_clip

STEP = 1 / 255


def alphas(height: int, width: int) -> list[np.ndarray]:
    """Noise, the traces that rounding would hide, and every eighth of the way between two steps."""
    rng = np.random.default_rng(0)
    traces = np.where(rng.random((height, width)) < 0.5, rng.choice([1e-6, 1e-4, 0.3 * STEP], (height, width)), 0)
    steps = np.resize(np.arange(0, 255 * 8 + 1, 7) / (255 * 8), (height, width))
    return [a.astype(np.float32) for a in (rng.random((height, width)), traces, steps)]


def round_trip(path: Path, source: Path, edits) -> tuple[list[np.ndarray], list]:
    """Alphas read back, and the frames they were written beside."""
    with VideoReader(source) as reader:
        frames = list(reader.frames())
        with AlphaWriter(path, reader.info) as writer:
            for frame, (bounds, alpha) in zip(frames, edits, strict=True):
                writer.write(frame, bounds, alpha)
    with VideoReader(path) as reader:
        back = list(reader.frames())
    assert [frame.time_s for frame in back] == [frame.time_s for frame in frames]
    return [alpha_of(frame) for frame in back], frames


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le"])
@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_alpha_comes_back_within_a_step_and_never_vanishes(tmp_path, pixel_format, size, suffix):
    width, height = size
    spec = ClipSpec(width=width, height=height, n_frames=3, pixel_format=pixel_format)
    clip = make_clip(tmp_path / "in.mkv", spec)
    wanted = alphas(height, width)
    found, _ = round_trip(tmp_path / f"alpha{suffix}", clip.path, [((0, 0, width, height), a) for a in wanted])
    for before, after in zip(wanted, found, strict=True):
        assert after.dtype == np.float32 and after.shape == (height, width)
        np.testing.assert_array_equal(after == 0, before == 0)
        assert np.abs(after - before).max() <= STEP + 1e-6
        assert (after >= before - 1e-6).all() and after.max() <= 1


def test_an_edit_lies_inside_its_bounds_and_no_edit_is_zero(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(n_frames=3))
    inside = np.full((10, 21), 1.0, np.float32)
    edits = [((5, 7, 26, 17), inside), (None, None), ((63, 47, 64, 48), np.full((1, 1), 0.5, np.float32))]
    found, _ = round_trip(tmp_path / "alpha.mkv", clip.path, edits)
    assert found[0][7:17, 5:26].min() == 1 and found[0].sum() == inside.size
    assert not found[1].any()
    assert np.argwhere(found[2]).tolist() == [[47, 63]]


def test_a_turned_video_s_alpha_lies_on_its_upright_frames(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(n_frames=1, rotation_deg=90))
    alpha = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(64, 48)
    (found,), (frame,) = round_trip(tmp_path / "alpha.mp4", clip.path, [((0, 0, 48, 64), alpha)])
    assert frame.size_hw == found.shape == (64, 48)
    assert np.abs(found - alpha).max() <= STEP + 1e-6


def test_a_failure_leaves_no_file(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(n_frames=2))
    with VideoReader(clip.path) as reader:
        frame = next(reader.frames())
        info = replace(reader.info)
    with pytest.raises(RuntimeError, match="in the middle"), AlphaWriter(tmp_path / "alpha.mkv", info) as writer:
        writer.write(frame, None, None)
        raise RuntimeError("in the middle")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
