"""Sound amid other speech: the clip stays what it was, everything around it is somebody else."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.av_corpus.company import in_company
from modules.structures.audio import AudioClip

RATE_HZ = 16_000
SAMPLES_PER_ROW = RATE_HZ // 50


def clip(seconds: float, value: float) -> AudioClip:
    return AudioClip(np.full(round(seconds * RATE_HZ), value, np.float32), RATE_HZ)


@pytest.mark.parametrize("seed", range(4))
def test_clip_stands_whole_at_the_row_it_says(seed: int) -> None:
    filled, row = in_company(clip(5.0, 1.0), [clip(3.0, 0.5), clip(20.0, 0.25)], np.random.default_rng(seed))
    start = row * SAMPLES_PER_ROW
    assert len(filled.samples) == 30 * RATE_HZ
    assert np.all(filled.samples[start : start + 5 * RATE_HZ] == 1.0)
    outside = np.concatenate([filled.samples[:start], filled.samples[start + 5 * RATE_HZ :]])
    assert set(np.unique(outside)) <= {0.0, 0.25, 0.5}
    assert np.mean(outside != 0.0) > 0.7  # mostly speech


def test_pauses_part_the_clip_from_its_company() -> None:
    filled, row = in_company(clip(5.0, 1.0), [clip(9.0, 0.5)], np.random.default_rng(1))
    start, stop = row * SAMPLES_PER_ROW, (row * SAMPLES_PER_ROW) + 5 * RATE_HZ
    pause = RATE_HZ // 20
    assert start > pause
    assert not filled.samples[start - pause : start].any()
    assert not filled.samples[stop : stop + pause].any()


def test_place_and_company_follow_from_the_generator() -> None:
    first, again, other = (
        in_company(clip(5.0, 1.0), [clip(9.0, 0.5)], np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first[1] == again[1]
    assert np.array_equal(first[0].samples, again[0].samples)
    assert first[1] != other[1]


def test_long_clip_comes_back_as_it_is() -> None:
    long = clip(31.0, 1.0)
    filled, row = in_company(long, [clip(9.0, 0.5)], np.random.default_rng(0))
    assert filled is long
    assert row == 0


def test_company_of_nobody_or_of_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="16000 Hz"):
        in_company(clip(1.0, 1.0), [], np.random.default_rng(0))
    with pytest.raises(ValueError, match="16000 Hz"):
        in_company(clip(1.0, 1.0), [AudioClip(np.ones(8000, np.float32), 8000)], np.random.default_rng(0))
