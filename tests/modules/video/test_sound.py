"""Sound on the output's clock: clicks land to the sample, the source's own sound stays outside the part, sums fit."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.commons.errors import AudioReadError
from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.video.mixing import Mixture, Span, Voice, common_gain
from modules.video.sound import AudioTrack, SoundPlan, Speech
from modules.video.writer import EncodeConfig, VideoWriter

FAST = EncodeConfig(preset="ultrafast", audio_bit_rate=320_000)
LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
TIME_BASE = Fraction(1, 1000)
CLICK_S = 0.0005
TOLERANCE_S = 0.001


def wav(path, samples, rate_hz):
    """``samples`` [C, N] or [N] in -1..1 as 16 bits."""
    samples = np.atleast_2d(samples)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(len(samples))
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(np.rint(samples.T * 32767).astype("<i2").tobytes())
    return path


def clicks(path, times_s, duration_s, rate_hz=48000, channels=1, level=0.8):
    """Short bursts that begin at ``times_s``."""
    at = np.arange(round(duration_s * rate_hz)) / rate_hz
    samples = sum((np.abs(at - t - CLICK_S / 2) <= CLICK_S / 2) * level for t in times_s)
    return wav(path, np.repeat(np.atleast_2d(samples), channels, axis=0), rate_hz)


def tone(path, duration_s, hz, rate_hz=48000, channels=2, level=0.3):
    at = np.arange(round(duration_s * rate_hz)) / rate_hz
    return wav(path, np.repeat(level * np.sin(2 * np.pi * hz * at)[None], channels, axis=0), rate_hz)


def write(out, audio, *, duration_s=3.0, start_s=0.0, passengers=None):
    """A small grey video of 25 frames per second from ``start_s`` on, with this sound."""
    info = VideoInfo(out.parent / "none", 32, 32, Fraction(25), TIME_BASE, 0, LAYOUT, (1, 1, 1, 1), False, None)
    chroma = np.full((16, 16), 128, np.uint8)
    grey = (np.full((32, 32), 90, np.uint8), chroma, chroma)
    with VideoWriter(out, info, quality=FAST, audio=audio, passengers=passengers) as writer:
        for i in range(round(duration_s * 25)):
            writer.write(Frame(i, round(start_s * 1000) + 40 * i, TIME_BASE, grey, LAYOUT))
    return out


def heard(path, number=0):
    """(samples [C, N] from output time 0 on, rate), read without the project's reader."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        rate, blocks, start = stream.sample_rate, [], None
        for frame in container.decode(stream):
            assert frame.pts is not None and frame.time_base is not None
            start = round(frame.pts * frame.time_base * rate) if start is None else start
            data = frame.to_ndarray().astype(np.float32)
            if not frame.format.is_planar:
                data = data.reshape(-1, len(frame.layout.channels)).T
            blocks.append(data / 32768 if frame.format.name.startswith("s16") else data)
    samples = np.concatenate(blocks, axis=1)
    assert start is not None
    return (np.pad(samples, ((0, 0), (start, 0))) if start > 0 else samples[:, -start:]), rate


def click_times(path, number=0):
    """Where clicks begin, from their middles: an encoder smears their edges."""
    samples, rate = heard(path, number)
    level = np.abs(samples).max(axis=0)
    loud = np.flatnonzero(level > 0.3 * level.max())
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 0.05 * rate) + 1)
    return [float(np.average(g, weights=level[g]) + 0.5) / rate - CLICK_S / 2 for g in groups]


def level(samples, rate, hz, start_s, stop_s):
    """Amplitude of a tone in a stretch of the first channel."""
    part = samples[0, round(start_s * rate) : round(stop_s * rate)]
    at = np.arange(len(part)) / rate
    return 2 * abs(np.mean(part * np.exp(-2j * np.pi * hz * at) * np.hanning(len(part)) * 2))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("rate_hz", "start_s"), [(16000, 0.0), (44100, 0.834), (48000, 0.0), (37000, 0.5)])
def test_clicks_of_a_track_land_within_a_millisecond(tmp_path, suffix, rate_hz, start_s):
    times = (0.25, 0.8, 1.5)
    sound = clicks(tmp_path / "c.wav", times, 2.0, rate_hz)
    out = write(tmp_path / f"o{suffix}", AudioTrack(sound), start_s=start_s)
    assert click_times(out) == pytest.approx([start_s + t for t in times], abs=TOLERANCE_S)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [(0.0, (0.25, 0.8, 1.5)), (0.3, (0.55, 1.1, 1.8)), (-0.5, (0.3, 1.0)), (-0.2625, (0.5375, 1.2375))],
)
def test_an_offset_moves_speech_and_cuts_its_beginning(tmp_path, suffix, offset_s, expected):
    sound = clicks(tmp_path / "c.wav", (0.25, 0.8, 1.5), 2.0, 44100)
    plan = SoundPlan((Speech(sound),), offset_s=Fraction(offset_s))
    out = write(tmp_path / f"o{suffix}", plan, start_s=0.4)
    assert click_times(out) == pytest.approx([0.4 + t for t in expected], abs=TOLERANCE_S)
    samples, rate = heard(out)
    assert rate == 44100 and len(samples) == 1
    assert samples.shape[1] / rate == pytest.approx(3.4, abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_sources_own_sound_plays_around_the_part(tmp_path, suffix):
    source = write(tmp_path / f"source{suffix}", AudioTrack(tone(tmp_path / "own.wav", 2.0, 500, 44100)), duration_s=2)
    speech = tone(tmp_path / "new.wav", 5.0, 1100, 16000, channels=1)
    plan = SoundPlan((Speech(speech),), span_s=(Fraction(3, 5), Fraction(6, 5)), source=source)
    samples, rate = heard(write(tmp_path / f"o{suffix}", plan, duration_s=2))
    assert rate == 44100 and len(samples) == 2
    for start, stop, own, new in ((0.1, 0.59, 0.3, 0), (0.62, 1.18, 0, 0.3), (1.21, 1.9, 0.3, 0)):
        assert level(samples, rate, 500, start, stop) == pytest.approx(own, abs=0.01)
        assert level(samples, rate, 1100, start, stop) == pytest.approx(new, abs=0.01)
    # outside the part not a sample is moved: it is the decoded source, encoded once more
    own, _ = heard(source)
    for start, stop in ((0.1, 0.55), (1.25, 1.9)):
        ours, theirs = (x[0, round(start * rate) : round(stop * rate)] for x in (samples, own))
        assert np.abs(ours - theirs).max() < 0.01


def test_a_late_source_sound_keeps_its_own_time(tmp_path):
    own = AudioTrack(clicks(tmp_path / "own.wav", (0.1, 2.0), 3.0), start_s=Fraction(1, 3))
    source = write(tmp_path / "source.mp4", own)
    speech = clicks(tmp_path / "new.wav", (0.2,), 0.5, 16000)
    plan = SoundPlan((Speech(speech),), span_s=(Fraction(1), Fraction(2)), source=source)
    out = write(tmp_path / "o.mp4", plan)
    assert click_times(out) == pytest.approx([1 / 3 + 0.1, 1.2, 1 / 3 + 2.0], abs=TOLERANCE_S)


def test_a_gap_in_the_sources_sound_stays_a_gap(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0, 32000):  # one second of sound from 0 s and from 2 s
            data = np.zeros((1, 16000), np.int16)
            data[0, 8000:8008] = 20000
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    speech = clicks(tmp_path / "new.wav", (0.1,), 0.3, 16000)
    plan = SoundPlan((Speech(speech),), span_s=(Fraction(1), Fraction(2)), source=path)
    out = write(tmp_path / "o.mp4", plan)
    assert click_times(out) == pytest.approx([0.5, 1.1, 2.5], abs=TOLERANCE_S)


def test_speech_that_ends_early_is_followed_by_silence(tmp_path):
    speech = tone(tmp_path / "new.wav", 0.5, 1000, 16000, channels=1)
    samples, rate = heard(write(tmp_path / "o.mp4", SoundPlan((Speech(speech, Fraction(1)),))))
    assert samples.shape[1] / rate == pytest.approx(3, abs=0.07)
    assert level(samples, rate, 1000, 1.05, 1.45) == pytest.approx(0.3, abs=0.01)
    assert (
        np.abs(samples[0, : round(0.95 * rate)]).max() < 0.01 and np.abs(samples[0, round(1.6 * rate) :]).max() < 0.01
    )


@pytest.mark.parametrize(("strength", "gain"), [(0.3, 1.0), (0.8, 0.98 / 1.6)])
def test_two_speeches_are_summed_and_turned_down_only_if_they_would_clip(tmp_path, strength, gain):
    one = tone(tmp_path / "one.wav", 2.0, 440, 16000, channels=1, level=strength)
    two = tone(tmp_path / "two.wav", 1.0, 1000, 48000, channels=1, level=strength)
    samples, rate = heard(write(tmp_path / "o.mp4", SoundPlan((Speech(one), Speech(two, Fraction(1, 2))))))
    assert rate == 48000 and len(samples) == 1
    assert np.abs(samples).max() < 1.0
    assert level(samples, rate, 440, 0.1, 0.4) == pytest.approx(gain * strength, rel=0.03)
    assert level(samples, rate, 440, 0.6, 1.4) == pytest.approx(gain * strength, rel=0.03)
    assert level(samples, rate, 1000, 0.6, 1.4) == pytest.approx(gain * strength, rel=0.03)


def test_a_mono_voice_is_as_loud_on_both_sides_as_alone(tmp_path):
    mono = tone(tmp_path / "mono.wav", 1.0, 440, 48000, channels=1)
    stereo = wav(tmp_path / "still.wav", np.zeros((2, 48000)), 48000)
    samples, rate = heard(write(tmp_path / "o.mp4", SoundPlan((Speech(mono), Speech(stereo)))))
    assert len(samples) == 2
    for side in samples:
        assert level(side[None], rate, 440, 0.1, 0.9) == pytest.approx(0.3, abs=0.01)


def test_the_second_stream_of_a_file_can_be_taken(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            data = np.zeros((1, 16000), np.int16)
            data[0, 4000 * (number + 1) : 4000 * (number + 1) + 8] = 20000
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert click_times(write(tmp_path / "o.mp4", AudioTrack(path, number=1))) == pytest.approx([0.5], abs=TOLERANCE_S)
    with pytest.raises(AudioReadError, match="holds 2 audio streams; number 2"):
        write(tmp_path / "p.mp4", AudioTrack(path, number=2))


def test_plans_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        SoundPlan(())
    for span_s in ((Fraction(-1), None), (Fraction(2), Fraction(2)), (None, Fraction(0))):
        with pytest.raises(ValueError, match="empty or begins before"):
            SoundPlan((Speech(tmp_path / "a.wav"),), span_s=span_s)


def test_a_missing_speech_or_source_fails_before_the_first_frame(tmp_path):
    there = clicks(tmp_path / "c.wav", (0.1,), 0.2)
    for plan in (
        SoundPlan((Speech(there), Speech(tmp_path / "none.wav"))),
        SoundPlan((Speech(there),), source=tmp_path / "none.wav"),
    ):
        with pytest.raises(AudioReadError, match=r"none\.wav"):
            write(tmp_path / "o.mp4", plan)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.wav"]


def blocks_of(samples, first, sizes):
    """The samples [N] from clock sample ``first`` on, in blocks of the given sizes, then the rest."""
    at = 0
    for size in [*sizes, len(samples)]:
        if at < len(samples):
            yield first + at, np.asarray(samples[at : at + size], np.float32)[None]
        at += size


@settings(max_examples=60)
@given(
    first=st.integers(-30, 30),
    length=st.integers(1, 60),
    sizes=st.lists(st.integers(1, 20), max_size=6),
    reads=st.lists(st.integers(1, 25), min_size=1, max_size=8),
    start=st.integers(-10, 40),
)
def test_reads_of_a_voice_equal_a_slice_of_the_clock(first, length, sizes, reads, start):
    samples = np.arange(1, length + 1)
    clock = np.zeros(400)
    clock[100 + first : 100 + first + length] = samples
    voice, at = Voice(blocks_of(samples, first, sizes), 1), start
    for count in reads:
        part = voice.read(at, count)[0]
        assert np.array_equal(np.pad(part, (0, count - len(part))), clock[100 + at : 100 + at + count])
        at += count


@settings(max_examples=40)
@given(
    begin=st.integers(0, 500),
    length=st.one_of(st.none(), st.integers(1, 500)),
    faded=st.tuples(st.booleans(), st.booleans()),
    cut=st.integers(1, 800),
)
def test_a_mixture_is_a_cross_fade_written_out(begin, length, faded, cut):
    total, rate = 800, 8000
    rng = np.random.default_rng(begin)
    new, own = rng.uniform(-0.5, 0.5, (2, total))
    stop = None if length is None else begin + length
    span = Span(begin, stop, *faded)
    fade = max(min(80, 80 if length is None else length // 2), 1)
    expected = []
    for n in range(total):
        weight = 0.0 if n < begin or (stop is not None and n >= stop) else 1.0
        if faded[0]:
            weight *= min(max((n - begin + 0.5) / fade, 0), 1)
        if faded[1] and stop is not None:
            weight *= min(max((stop - n - 0.5) / fade, 0), 1)
        expected.append(0.5 * new[n] * weight + own[n] * (1 - weight))
    voices = [Voice(blocks_of(new, 0, [333] * 20), 1)]
    mixture = Mixture(voices, span, rate, gain=0.5, source=Voice(blocks_of(own, 0, [1024] * 6), 1))
    got = np.concatenate([mixture.read(0, cut), mixture.read(cut, total - cut + 50)], axis=1)[0]
    assert got == pytest.approx(np.array(expected, np.float32), abs=1e-6)


def test_the_common_gain_looks_only_at_what_is_heard():
    loud = np.full(1000, 0.9)
    pair = lambda: [Voice(blocks_of(loud, 0, []), 1), Voice(blocks_of(loud, 900, []), 1)]  # noqa: E731
    assert common_gain(pair(), Span(0), 8000) == pytest.approx(0.98 / 1.8)
    assert common_gain(pair(), Span(0, 900), 8000) == 1.0
