"""Lags that were put in come out, chance stays undetermined, and neither rate, gaps nor drift matter."""

import math
from dataclasses import replace

import numpy as np
import pytest

from modules.metrics import synchrony
from modules.metrics.synchrony import IN_SYNC_LAG_MS, IN_SYNC_LOUDNESS_LAG_MS, loudness_correlation, speech_lag
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack


def generator(seed=0):
    return np.random.default_rng(seed)


def speech_of(opening, level_db=None):
    count = len(opening)
    level = np.full(count, -30.0) if level_db is None else level_db
    sound = AudioClip(np.zeros(count * 320, np.float32), 16_000)
    return SpeechTrack(opening.astype(np.float32), level.astype(np.float32), np.ones(count, bool), 50.0, sound)


def lip_like(seconds, seed):
    """Band-limited noise at 50 Hz, as quick as lips are (about 4 openings a second)."""
    steps = generator(seed).standard_normal(round(seconds * 50) + 20)
    return np.convolve(steps, np.hanning(13)[1:-1], mode="same")[10:-10]


def frame_times(seconds, rate=25.0, jitter=0.0):
    times = np.arange(round(seconds * rate)) / rate
    return np.sort(times + generator(9).uniform(-jitter, jitter, len(times)) / rate)


def mouth_following(speech, times, late_ms):
    """The opening of a mouth that is ``late_ms`` later than people's lips are."""
    return np.interp(times - (late_ms + IN_SYNC_LAG_MS) / 1000, speech.times_s, speech.opening)


def lag_of(opening, times, speech, block=None, seed=0, **options):
    block = np.zeros(len(times), np.int64) if block is None else block
    return speech_lag(opening, times, block, speech, generator(seed), **options)


@pytest.mark.parametrize("rate", [23.976, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("late_ms", [-210, -33, 0, 120, 400])
def test_a_known_lag_comes_back(rate, late_ms):
    speech, times = speech_of(lip_like(10, 1)), frame_times(10, rate)
    found = lag_of(mouth_following(speech, times, late_ms), times, speech)
    assert found.is_significant and found.note == ""
    assert found.value_ms == pytest.approx(late_ms, abs=3)
    assert found.low_ms - 1 <= found.value_ms <= found.high_ms + 1 and found.high_ms - found.low_ms < 30
    assert found.r > 0.95 and found.z > 4


def test_sound_that_is_heard_later_makes_the_mouth_early():
    speech, times = speech_of(lip_like(10, 2)), frame_times(10)
    opening = mouth_following(speech, times, 0)
    assert lag_of(opening, times, speech).r_in_sync > 0.95
    late = lag_of(opening, times, speech, speech_late_s=0.12)
    assert late.value_ms == pytest.approx(-120, abs=3) and late.r_in_sync < 0.6
    assert lag_of(opening, times, speech, speech_late_s=-0.12).value_ms == pytest.approx(120, abs=3)


def test_drift_noise_jitter_and_holes_hardly_matter():
    speech, times = speech_of(lip_like(20, 3)), frame_times(20, 30.0, jitter=0.3)
    clean = mouth_following(speech, times, 80)
    opening = clean + 5 * clean.std() * np.sin(2 * np.pi * times / 7) + clean.std() * generator().standard_normal(600)
    opening[40:44], opening[200:260] = np.nan, np.nan
    found = lag_of(opening, times, speech)
    assert found.value_ms == pytest.approx(80, abs=15) and found.low_ms < 80 < found.high_ms
    assert 0.4 < found.r < 0.95


def test_stretches_are_kept_apart():
    """A cut moves the measured opening by far more than lips do."""
    speech, times = speech_of(lip_like(12, 4)), frame_times(12)
    block = (times > 5).astype(np.int64) + (times > 8)
    opening = mouth_following(speech, times, -60) + 50.0 * block
    assert lag_of(opening, times, speech, block).value_ms == pytest.approx(-60, abs=4)


def test_a_gap_in_time_is_no_lag():
    speech, times = speech_of(lip_like(20, 5)), frame_times(20)
    keep = (times < 6) | (times > 13)
    opening = mouth_following(speech, times, 40)[keep]
    found = lag_of(opening, times[keep], speech, (times[keep] > 10).astype(np.int64))
    assert found.value_ms == pytest.approx(40, abs=4)


def test_part_of_a_long_sound():
    speech, times = speech_of(lip_like(60, 6)), frame_times(60)
    part = times > 54
    opening = mouth_following(speech, times, 100)[part]
    assert lag_of(opening, times[part], speech).value_ms == pytest.approx(100, abs=4)


def test_sound_that_ends_before_the_picture():
    whole, times = speech_of(lip_like(12, 7)), frame_times(12)
    opening = mouth_following(whole, times, -40)
    short = replace(whole, opening=whole.opening[:400], level_db=whole.level_db[:400], is_speech=whole.is_speech[:400])
    assert lag_of(opening, times, short).value_ms == pytest.approx(-40, abs=4)


def test_unrelated_speech_is_undetermined():
    times = frame_times(6)
    alarms = 0
    for seed in range(24):
        own, other = speech_of(lip_like(6, 100 + seed)), speech_of(lip_like(6, 200 + seed))
        found = lag_of(mouth_following(own, times, 0), times, other, seed=seed)
        alarms += found.is_significant
        assert found.is_significant or (math.isnan(found.value_ms) and found.note.startswith("undetermined"))
        assert found.r_in_sync <= found.r < 1
    assert alarms <= 1


def test_parts_that_disagree_are_undetermined():
    """The first half 250 ms early, the second 250 ms late: two peaks, each far above chance."""
    speech, times = speech_of(lip_like(24, 8)), frame_times(24)
    first, second = (mouth_following(speech, times, late) for late in (-250, 250))
    found = lag_of(np.where(times < 12, first, second), times, speech)
    assert not found.is_significant and "disagree" in found.note and math.isnan(found.low_ms)
    assert found.z > 3


def test_a_lag_beyond_reach_is_undetermined():
    speech, times = speech_of(lip_like(12, 9)), frame_times(12)
    assert not lag_of(mouth_following(speech, times, 640), times, speech).is_significant


@pytest.mark.parametrize(
    ("opening", "text"),
    [
        (np.full(250, np.nan), "0.00 s of lips"),
        (np.where(np.arange(250) < 50, np.arange(250) % 7, np.nan), "1.97 s of lips"),
        (np.where(np.arange(250) < 1, 0.1, np.nan), "0.00 s of lips"),
        (np.full(250, 0.1), "do not move"),
        (np.zeros(0), "0.00 s of lips"),
    ],
)
def test_too_little_to_tell(opening, text):
    times = np.arange(len(opening)) / 25
    found = lag_of(opening, times, speech_of(lip_like(10, 1)))
    assert not found.is_significant and text in found.note and math.isnan(found.r) and math.isnan(found.value_ms)


@pytest.mark.parametrize("speech", [speech_of(np.zeros(500)), speech_of(np.zeros(0))])
def test_silence_tells_nothing(speech):
    times = frame_times(10)
    assert "do not move" in lag_of(lip_like(20, 1)[: len(times)], times, speech).note
    assert math.isnan(
        loudness_correlation(lip_like(20, 1)[: len(times)], times, np.zeros(len(times), np.int64), speech)
    )


def test_same_seed_same_answer():
    speech, times = speech_of(lip_like(8, 1)), frame_times(8)
    opening = mouth_following(speech, times, 20) + generator().standard_normal(200)
    assert lag_of(opening, times, speech) == lag_of(opening, times, speech)


def test_profile_matches_a_loop():
    """Sums by correlation against r of the pairs that both know, lag by lag."""
    rng = generator(12)
    speech, times = speech_of(lip_like(5, 10)), frame_times(5)
    opening = mouth_following(speech, times, 0) + rng.standard_normal(125)
    opening[50:70] = np.nan
    lips = synchrony._lips_on_grid(opening, times, np.zeros(125, np.int64))
    sound = synchrony._sound_on_grid(speech.opening, speech, lips, 0.0)
    profile = synchrony._profile(lips, sound)
    reach = round(synchrony.REACH_S * synchrony.GRID_HZ)
    for lag in (-reach, -7, 0, 21, reach):
        pairs = [
            (lips.values[i], sound.values[i - lag + reach])
            for i in range(len(lips.values))
            if lips.known[i] and sound.known[i - lag + reach]
        ]
        assert profile[lag + reach] == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1], abs=1e-9)
    assert not lips.known.all() and not sound.known.all()


def test_loudness_is_held_against_lips_where_both_are_in_sync():
    """No search for the best lag: unrelated loudness gives 0 on average."""
    times = frame_times(10)
    block = np.zeros(len(times), np.int64)
    level = 10 * lip_like(10, 11) / lip_like(10, 11).std() - 30
    speech = speech_of(np.zeros(500), level)
    shifted = times - IN_SYNC_LOUDNESS_LAG_MS / 1000
    opening = np.interp(shifted, speech.times_s, np.maximum(level, np.percentile(level, 95) - 40))
    assert loudness_correlation(opening, times, block, speech) > 0.97
    assert loudness_correlation(opening, times, block, speech, speech_late_s=0.15) < 0.4
    others = [loudness_correlation(lip_like(10, s)[: 2 * len(times) : 2], times, block, speech) for s in range(20, 60)]
    assert abs(np.mean(others)) < 0.05


def test_digital_silence_does_not_rule_the_loudness():
    times, block = frame_times(10), np.zeros(250, np.int64)
    level = 8 * lip_like(10, 11) / lip_like(10, 11).std() - 30
    opening = np.interp(times - IN_SYNC_LOUDNESS_LAG_MS / 1000, speech_of(level).times_s, level)
    quiet = level.copy()
    quiet[200:215] = -120.0
    deep = loudness_correlation(opening, times, block, speech_of(np.zeros(500), quiet))
    assert deep > 0.6
