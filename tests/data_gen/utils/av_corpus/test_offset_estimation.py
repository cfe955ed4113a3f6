"""Offsets of made-up talkers whose sound is late by known times."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.av_corpus.offset_estimation import HeardAndSeen, OffsetConfig, correlations, estimate_offsets
from data_gen.utils.av_corpus.offset_table import read_offsets, write_offsets
from modules.commons.errors import ConfigError

CONFIG = OffsetConfig(n_folds=3, n_blocks=1, components=6, reach=2, penalty=0.001, in_sync="synced")
RATE_HZ = 50.0


def talker(seed: int, later_s: float, *, speaker: str = "", mute: bool = False, seconds: float = 8.0) -> HeardAndSeen:
    """Features that tell the mouth linearly; the sound comes ``later_s`` after it."""
    rng = np.random.default_rng(seed)
    fine_s = np.arange(-1.0, seconds + 1.0, 0.005)
    steps = rng.standard_normal((len(fine_s), 3))
    drive = np.stack([np.convolve(column, np.hanning(41) / 20, mode="same") for column in steps.T], axis=1)

    def at(times_s: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(times_s, fine_s, column) for column in drive.T], axis=1)

    rows_s = (np.arange(round(seconds * RATE_HZ)) + 0.5) / RATE_HZ
    mixing = np.random.default_rng(99).standard_normal((3, 6))
    heard = np.random.default_rng(seed + 500).standard_normal((len(rows_s), 3)) if mute else at(rows_s - later_s)
    features = heard @ mixing + 0.05 * rng.standard_normal((len(rows_s), 6))
    frames_s = np.arange(0.0, seconds, 0.04)
    return HeardAndSeen(
        f"clip{seed}",
        speaker or f"speaker{seed}",
        features,
        RATE_HZ,
        frames_s,
        at(frames_s),
        np.ones(len(frames_s), bool),
    )


@pytest.fixture(scope="module")
def found():
    late = [0.0, 0.0, 0.0, 0.06, 0.13, -0.05, 0.2, 0.03, -0.09]
    clips = [talker(i, s, speaker="synced" if i < 3 else "") for i, s in enumerate(late)]
    clips.append(talker(20, 0.0, mute=True))
    return late, estimate_offsets(clips, CONFIG)


def test_offsets_are_found_between_rows_and_frames(found):
    late, offsets = found
    for seconds, offset in zip(late, offsets, strict=False):
        assert abs(offset.sound_later_s - seconds) < 0.02, offset
        assert offset.kept and offset.r_opening > 0.8 and offset.z > 3


def test_sound_of_something_else_is_not_kept(found):
    _, offsets = found
    assert offsets[-1].clip == "clip20" and not offsets[-1].kept


def test_nobody_is_judged_by_a_model_that_knows_them(monkeypatch):
    """Two speakers: each is predicted from the other alone."""
    from data_gen.utils.av_corpus import offset_estimation

    taught: list[int] = []
    ridge = offset_estimation.ridge_filter
    monkeypatch.setattr(
        offset_estimation, "ridge_filter", lambda rows, *rest: (taught.append(len(list(rows))), ridge(rows, *rest))[1]
    )
    clips = [talker(1, 0.0, speaker="a"), talker(2, 0.0, speaker="a"), talker(3, 0.0, speaker="b")]
    estimate_offsets(clips, OffsetConfig(turns=1, n_folds=5, n_blocks=1, components=6, reach=2))
    assert sorted(taught) == [1, 2]
    with pytest.raises(ValueError, match="at least two speakers"):
        estimate_offsets(clips[:2], CONFIG)


def test_a_still_mouth_agrees_with_nothing():
    clip = talker(1, 0.0)
    still = HeardAndSeen(clip.name, "x", clip.features, RATE_HZ, clip.times_s, clip.measures * 0, clip.valid)
    assert np.all(correlations(np.ones((len(clip.features), 3)), still, np.zeros(1)) == 0.0)


def test_the_table_survives_a_round_trip(tmp_path, found):
    _, offsets = found
    write_offsets(tmp_path / "deep" / "o.csv", offsets)
    table = read_offsets(tmp_path / "deep" / "o.csv")
    assert [table[o.clip].sound_later_ms for o in offsets] == [o.sound_later_ms for o in offsets]
    assert [table[o.clip].kept for o in offsets] == [o.kept for o in offsets]
    assert not list(tmp_path.rglob("*.tmp"))
    text = (tmp_path / "deep" / "o.csv").read_text()
    (tmp_path / "twice.csv").write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(ConfigError, match="stands there twice"):
        read_offsets(tmp_path / "twice.csv")
    (tmp_path / "bad.csv").write_text(text.splitlines()[0] + "\na,soon,0.5,3,yes\n")
    with pytest.raises(ConfigError, match=r"bad\.csv, line 2: not a sound offset"):
        read_offsets(tmp_path / "bad.csv")


@pytest.mark.slow
def test_real_clips_agree_with_offsets_found_elsewhere(shared_clips):
    """The frozen table against one made with another tracker and model: within a frame on nearly all clips."""
    import json

    from modules.commons.workspace import EGS

    given = json.loads((shared_clips / "offsets.json").read_text())["clips"]
    frozen = read_offsets(EGS / "datasets" / "av_corpus" / "offsets.csv")
    kept = [name for name, row in frozen.items() if row.kept]
    away = [abs(frozen[n].sound_later_ms - 40.0 * given[n]["sound_later_frames_at_25fps"]) for n in kept]
    assert np.mean(np.array(away) <= 40.0) >= 0.95
