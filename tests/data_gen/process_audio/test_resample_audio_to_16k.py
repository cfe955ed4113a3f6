"""Sound of any container as 16 kHz mono, and the sentences for what is not sound."""

from __future__ import annotations

import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_gen.utils.process_audio import resample_audio_to_16k, sample_store
from data_gen.utils.process_audio.resample_audio_to_16k import channel_shares, is_silent, load_audio_16k
from modules.commons.errors import AudioReadError
from modules.commons.workspace import ROOT
from modules.structures.audio import AudioClip


def tone(rate_hz: int, seconds: float, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def write_wav(path: Path, channels: np.ndarray, rate_hz: int) -> Path:
    """Channels ``[C, N]`` float to 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((channels.T * 32767).round().astype("<i2").tobytes())
    return path


def write_video(path: Path, *, audio_delay_s: float | None, codec: str = "aac") -> Path:
    """2 s of grey picture; 1 s of tone from ``audio_delay_s`` on, or no sound at all."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        audio = container.add_stream(codec, rate=48_000, layout="stereo") if audio_delay_s is not None else None
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and audio_delay_s is not None:
            samples = np.tile(tone(48_000, 1.0), (2, 1))
            for start in range(0, 48_000, 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout="stereo"
                )
                frame.rate, frame.time_base = 48_000, Fraction(1, 48_000)
                frame.pts = round(audio_delay_s * 48_000) + start
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_becomes_16k_with_the_same_wave(tmp_path, rate_hz):
    clip = load_audio_16k(write_wav(tmp_path / "a.wav", tone(rate_hz, 1.0)[None], rate_hz))
    assert clip.sample_rate_hz == 16_000 and abs(len(clip.samples) - 16_000) <= 2
    inner = slice(400, 15_600)
    np.testing.assert_allclose(clip.samples[inner], tone(16_000, 1.0)[inner], atol=5e-3)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_one_or_two_channels_count_alike(tmp_path, n_channels):
    channels = np.zeros((n_channels, 16_000), np.float32)
    channels[0] = tone(16_000, 1.0)
    clip = load_audio_16k(write_wav(tmp_path / "a.wav", channels, 16_000))
    np.testing.assert_allclose(clip.samples, channels.mean(axis=0), atol=1e-4)


def test_surround_sound_is_its_front(tmp_path):
    """5.1: speech in the centre, music left and right, rumble and noises elsewhere."""
    channels = np.stack([tone(16_000, 1.0, hz) for hz in (300.0, 400.0, 500.0, 60.0, 700.0, 800.0)])
    clip = load_audio_16k(write_surround(tmp_path / "a.wav", channels, 16_000))
    level = 2 * np.abs(np.fft.rfft(clip.samples))[[300, 400, 500, 60, 700, 800]] / 16_000
    np.testing.assert_allclose(level / level[2], [0.71, 0.71, 1.0, 0.0, 0.0, 0.0], atol=1e-3)
    shares = channel_shares(("FL", "FR", "FC", "LFE", "BL", "BR"))
    assert shares.sum() == pytest.approx(1.0) and channel_shares(("FL", "FR")).tolist() == [0.5, 0.5]
    assert channel_shares(("FL", "FR", "LFE")).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("n_channels", [2, 6])
def test_channels_that_cancel_are_not_lost(tmp_path, caplog, n_channels):
    """One wire swapped, or speech where the mix does not listen: the loudest channel alone is used."""
    channels = np.zeros((n_channels, 22_050), np.float32)
    channels[-1] = tone(44_100, 0.5)
    if n_channels == 2:
        channels[0] = -channels[1]
    write = write_wav if n_channels == 2 else write_surround
    clip = load_audio_16k(write(tmp_path / "a.wav", channels, 44_100))
    assert np.abs(clip.samples).max() == pytest.approx(0.5, abs=0.02) and "cancel" in caplog.text


def write_surround(path: Path, channels: np.ndarray, rate_hz: int) -> Path:
    """Six channels that say which is which."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate_hz, layout="5.1")
        values = np.ascontiguousarray((channels.T * 32767).round().astype(np.int16)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout="5.1")
        frame.rate = rate_hz
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_values_that_are_no_numbers_do_not_spread(tmp_path, caplog, codec):
    samples = tone(48_000, 1.0)
    broken = samples.copy()
    broken[24_000:24_010] = [np.nan, np.inf, -np.inf, 1e30, -1e20] * 2
    clip = load_audio_16k(write_float_wav(tmp_path / "a.wav", broken, codec))
    assert np.isfinite(clip.samples).all() and "10 values" in caplog.text
    good = load_audio_16k(write_float_wav(tmp_path / "b.wav", samples, codec)).samples
    np.testing.assert_allclose(clip.samples[:7_900], good[:7_900], atol=1e-6)
    np.testing.assert_allclose(clip.samples[8_100:], good[8_100:], atol=1e-6)


def write_float_wav(path: Path, samples: np.ndarray, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        kind = np.float32 if codec == "pcm_f32le" else np.float64
        frame = av.AudioFrame.from_ndarray(
            samples[None].astype(kind), format="flt" if kind is np.float32 else "dbl", layout="mono"
        )
        frame.rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_long_sound_lies_in_a_file(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", tone(16_000, 3.0)[None], 16_000)
    short = load_audio_16k(path).samples
    make = sample_store.SampleStore
    monkeypatch.setattr(resample_audio_to_16k, "SampleStore", lambda: make(20_000))
    long = load_audio_16k(path).samples
    assert isinstance(long, np.memmap) and not isinstance(short, np.memmap)
    np.testing.assert_array_equal(long, short)


@pytest.mark.slow
def test_three_hours_take_no_more_memory(tmp_path):
    """8 kHz FLAC of 3 h, decoded and prepared: less than 200 MB over what a minute takes."""
    path = tmp_path / "long.flac"
    minute = np.tile((tone(8_000, 1.0) * 20_000).astype(np.int16), 60)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=8_000, layout="mono", format="s16")
        for index in range(180):
            frame = av.AudioFrame.from_ndarray(minute[None], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = 8_000, index * 480_000, Fraction(1, 8_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from data_gen.utils.process_audio.front_end import load_speech\n"
        "speech = load_speech(Path(sys.argv[1]))\n"
        "anonymous = next(line for line in open('/proc/self/smaps_rollup') if line.startswith('Anonymous'))\n"
        "print(speech.clip.duration_s, int(anonymous.split()[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, kilobytes = (float(word) for word in result.stdout.split())
    assert seconds == pytest.approx(10_800, abs=1) and kilobytes < 500_000


def test_sound_of_a_video_stands_on_the_videos_clock(tmp_path):
    clip = load_audio_16k(write_video(tmp_path / "late.mkv", audio_delay_s=0.5, codec="pcm_s16le"))
    assert np.abs(clip.samples[: round(0.48 * 16_000)]).max() < 1e-3
    assert np.abs(clip.samples[round(0.52 * 16_000) : round(1.4 * 16_000)]).max() > 0.4
    assert abs(clip.duration_s - 1.5) < 0.03


def test_compressed_sound(tmp_path):
    clip = load_audio_16k(write_video(tmp_path / "v.mp4", audio_delay_s=0.0))
    assert abs(clip.duration_s - 1.0) < 0.1
    spectrum = np.abs(np.fft.rfft(clip.samples[:16_000] * np.hanning(16_000)))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_falls_back_to_the_ffmpeg_program(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "-odd name;$(x).wav", tone(44_100, 1.0)[None], 44_100)
    decode = resample_audio_to_16k._decode

    def only_bytes(source):
        if isinstance(source, str):
            raise av.InvalidDataError(1, "cannot decode")
        return decode(source)

    expected = load_audio_16k(path)
    monkeypatch.setattr(resample_audio_to_16k, "_decode", only_bytes)
    actual = load_audio_16k(path)
    assert len(actual.samples) == len(expected.samples)
    np.testing.assert_allclose(actual.samples, expected.samples, atol=1e-4)


def make_bad_input(kind: str, folder: Path) -> Path:
    path = folder / "input.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no sound\n" * 50)
    elif kind == "no samples":
        write_wav(path, np.zeros((1, 0), np.float32), 16_000)
    elif kind == "short":
        write_wav(path, tone(16_000, 0.1)[None], 16_000)
    elif kind == "video without sound":
        path = write_video(folder / "mute.mp4", audio_delay_s=None)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such audio file"),
        ("folder", "no such audio file"),
        ("empty", "empty"),
        ("text", "not an audio or video file"),
        ("no samples", "no samples|not an audio"),
        ("short", r"only 0\.10 s"),
        ("video without sound", "no audio stream"),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path, kind, words):
    path = make_bad_input(kind, tmp_path)
    with pytest.raises(AudioReadError, match=words) as caught:
        load_audio_16k(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_silence_is_judged_by_the_loudest_moment():
    quiet = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 1e-4
    assert is_silent(AudioClip(quiet + np.float32(0.2), 16_000))
    quiet[8_000:8_400] += tone(16_000, 0.025) * 0.2
    assert not is_silent(AudioClip(quiet, 16_000))
    assert is_silent(AudioClip(np.zeros(0, np.float32), 16_000))
