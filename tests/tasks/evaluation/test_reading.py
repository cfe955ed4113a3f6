"""Rows are read side by side: the same samples look the same however they are stored, and nothing ends early unsaid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modules.commons.errors import VideoReadError
from modules.structures.crops import CropRegion
from modules.structures.evaluation import EDITED, Trial, TrialRow
from modules.structures.landmarks import N_MEDIAPIPE, Landmarks2D
from modules.video.alpha import AlphaWriter
from modules.video.reader import VideoReader
from modules.video.window import aligned_window, window_frame, window_info
from modules.video.writer import EncodeConfig, VideoWriter
from tasks.evaluation.reading import crop_512, row_frames, shown_frames
from tests.support.synthetic_video import UNTAGGED, ClipSpec, make_clip

LOSSLESS = EncodeConfig(lossless=True)
FRAMES = (2, 3, 6, 7)
BOUNDS = (9, 11, 40, 33)


def no_face(count: int) -> Landmarks2D:
    shapes = ((N_MEDIAPIPE, 2), (N_MEDIAPIPE,), (52,))
    points, depth, scores = (np.full((count, *shape), np.nan, np.float32) for shape in shapes)
    return Landmarks2D(points, depth, np.zeros(count, bool), scores)


def make_trial(folder, *, clip=None, is_whole=False, pictures=99, alphas=99) -> Trial:
    """Frames of a clip beside a row that shows the same frames, of which only so many were stored."""
    clip = clip or make_clip(folder / "clip.mp4", ClipSpec(n_frames=9))
    with VideoReader(clip.path) as reader:
        info, frames = reader.info, list(reader.frames())
    window = aligned_window(BOUNDS, info)
    shown = info if is_whole else window_info(info, window)
    size = (info.height, info.width) if is_whole else (window[3] - window[1], window[2] - window[0])
    suffix = ".mp4" if is_whole else ".mkv"
    row = TrialRow(
        "ours", True, folder / f"row{suffix}", no_face(len(FRAMES)), alpha=folder / f"alpha{suffix}", is_whole=is_whole
    )
    parts = frames if is_whole else [window_frame(frames[f], window, n) for n, f in enumerate(FRAMES)]
    with (
        VideoWriter(folder / f"row{suffix}", shown, quality=LOSSLESS) as video,
        AlphaWriter(folder / f"alpha{suffix}", shown) as alpha,
    ):
        for number, frame in enumerate(parts):
            if number < pictures or is_whole:
                video.write(frame)
            if number < alphas or is_whole:
                alpha.write(frame, (0, 0, size[1], size[0]), np.full(size, frame.index / 16, np.float32))
    times = np.array([float(frames[f].time_s) for f in FRAMES])
    return Trial(
        "trial", "dubbing", clip.path, window, np.array(FRAMES), times, np.array([0, 0, 1, 1]), (EDITED,) * 4,
        (CropRegion(25.0, 22.0, 18.0),) * 4, None, (TrialRow("source", False, None, no_face(4)), row),
    )  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(n_frames=9),
        ClipSpec(n_frames=9, rotation_deg=90),
        ClipSpec(n_frames=9, rotation_deg=270, pixel_format="yuv422p"),
        ClipSpec(n_frames=9, pixel_format="yuvj420p"),
        ClipSpec(n_frames=9, height=736, color_tags=UNTAGGED),
        ClipSpec(n_frames=9, color_tags=(9, 14, 9, 1)),
        ClipSpec(n_frames=9, pixel_format="yuv444p"),
    ],
    ids=["plain", "turned", "turned 4:2:2", "full range", "untagged HD", "BT.2020", "4:4:4"],
)
@pytest.mark.parametrize("is_whole", [False, True])
def test_the_source_s_own_samples_look_like_the_source(tmp_path, spec, is_whole):
    """A window is smaller than its video, upright and coded otherwise: what its samples mean must not be guessed."""
    trial = make_trial(tmp_path, clip=make_clip(tmp_path / "clip.mp4", spec), is_whole=is_whole)
    seen = 0
    for number, (source, ours) in shown_frames(trial):
        assert source is not None and ours is not None
        for a, b in zip(source.frame.planes, ours.frame.planes, strict=True):
            np.testing.assert_array_equal(a, b)
        assert source.frame.layout == ours.frame.layout
        np.testing.assert_array_equal(source.rgb, ours.rgb)
        assert source.alpha is None and ours.alpha is not None
        alpha_of_frame = FRAMES[number] if is_whole else number
        assert ours.alpha.shape == ours.rgb.shape[:2] and ours.alpha[0, 0] == pytest.approx(
            alpha_of_frame / 16, abs=1 / 255
        )
        seen += 1
    assert seen == len(FRAMES)


def test_the_source_may_be_shown_late(tmp_path):
    trial = make_trial(tmp_path)
    rows = [replace(trial.rows[0], name=f"{late} late", frames_late=late) for late in (1, 3)]
    shown = [s for _, s in shown_frames(replace(trial, rows=(trial.rows[0], *rows)))]
    with VideoReader(trial.source) as reader:
        frames = list(reader.frames())
    x0, y0, x1, y1 = trial.window
    for number, (_, one, three) in zip(FRAMES, shown, strict=True):
        assert one is not None
        np.testing.assert_array_equal(one.frame.planes[0], frames[number - 1].planes[0][y0:y1, x0:x1])
        assert (three is None) == (number < 3), "it had not begun"
        if three is not None:
            np.testing.assert_array_equal(three.frame.planes[0], frames[number - 3].planes[0][y0:y1, x0:x1])


@pytest.mark.parametrize(("kept", "name"), [({"pictures": 3}, "row.mkv"), ({"alphas": 3}, "alpha.mkv")])
def test_a_video_that_ends_early_is_named(tmp_path, kept, name):
    trial = make_trial(tmp_path, **kept)
    with pytest.raises(VideoReadError, match=rf"{name} ends before frame 3 of trial$"):
        list(shown_frames(trial))


def test_a_source_that_ends_early_is_named(tmp_path):
    trial = replace(make_trial(tmp_path), frames=np.array([2, 3, 6, 9]))
    with pytest.raises(VideoReadError, match=r"clip.mp4 ends before frame 3 of trial$"):
        list(shown_frames(trial))


def test_one_row_alone_shows_the_same(tmp_path):
    trial = make_trial(tmp_path)
    alone = list(row_frames(trial, trial.rows[1]))
    together = [shown[1] for _, shown in shown_frames(trial)]
    assert len(alone) == len(FRAMES)
    for a, b in zip(alone, together, strict=True):
        assert a is not None and b is not None
        np.testing.assert_array_equal(a.rgb, b.rgb)


def test_the_crop_of_a_window_is_the_crop_of_the_frame(tmp_path):
    trial = make_trial(tmp_path, clip=make_clip(tmp_path / "clip.mp4", ClipSpec(n_frames=9, pixel_format="yuv444p")))
    whole = replace(trial, window=(0, 0, 64, 48), rows=trial.rows[:1])
    (_, (part, _)), (_, (all_of_it,)) = next(shown_frames(trial)), next(shown_frames(whole))
    assert part is not None and all_of_it is not None
    of_part = crop_512(part.rgb, trial.crops[0], trial.window)
    np.testing.assert_array_equal(of_part, crop_512(all_of_it.rgb, trial.crops[0], whole.window))
