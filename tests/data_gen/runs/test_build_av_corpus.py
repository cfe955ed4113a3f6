"""Talking clips out of videos: which, when, and on whose clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_gen.runs import build_av_corpus
from data_gen.runs.build_av_corpus import (
    PreparedClip,
    TrackedClip,
    clip_name,
    find_clips,
    find_offsets,
    join,
    main,
    seen_mouth,
    write_clips,
)
from data_gen.utils.av_corpus.config import CorpusConfig
from data_gen.utils.av_corpus.offset_table import SoundOffset, read_offsets, write_offsets
from data_gen.utils.av_corpus.rows import resample_rows
from data_gen.utils.av_corpus.sounds import Sound, listen, sound_renderings
from data_gen.utils.process_audio.extract_whisper import EXTRACTOR
from modules.commons.config import load_config
from modules.commons.errors import ConfigError
from modules.commons.workspace import EGS, FACE_MODEL_FILE, WHISPER_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip, AudioFeatures
from modules.structures.cameras import CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import LIP_GAP_PAIRS, MEDIAPIPE_BLENDSHAPES, OUTER_EYE_CORNERS, Landmarks2D
from modules.structures.seen_mouth import SeenMouth
from modules.structures.speech_motion import SpeechMotionClip
from tests.data_gen.process_audio.test_resample_audio_to_16k import tone, write_wav

GRID = "LipNet__evaluation-samples-GRID-bbaf2n"


def table_of(path: Path, *clips: str) -> CorpusConfig:
    lines = [f"{clip},who-{number},MIT,a,b" for number, clip in enumerate(clips)]
    path.write_text("\n".join(["clip,speaker,licence,source,media", *lines]) + "\n")
    return CorpusConfig(speakers=path)


def test_known_videos_are_found_at_any_depth(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("good.mp4", "deep/late.MPG", "unknown.mp4", "good.txt"):
        (tmp_path / name).touch()
    config = table_of(tmp_path / "speakers.csv", "good", "late", "gone")
    assert [path.name for path in find_clips(tmp_path, config)] == ["late.MPG", "good.mp4"]
    (tmp_path / "deep" / "good.mov").touch()
    with pytest.raises(ConfigError, match="two videos are named good"):
        find_clips(tmp_path, config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no video"):
        find_clips(tmp_path / "empty", config)


def test_speakers_and_names_of_large_corpora(tmp_path):
    for name in ("id1/video/00001.mp4", "id2/video/00001.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    config = CorpusConfig(speaker_from="folder")
    paths = find_clips(tmp_path, config)
    assert [config.speaker_of(path) for path in paths] == ["id1", "id2"]
    assert [clip_name(path, config) for path in paths] == ["id1__video__00001", "id2__video__00001"]
    assert CorpusConfig(speaker_from="prefix").speaker_of("WDA_Somebody_000.mp4") == "WDA_Somebody"


def test_speakers_of_the_shipped_configuration():
    config = load_config(EGS / "egs_bases" / "audio2motion" / "corpus.yaml", CorpusConfig)
    assert config == CorpusConfig()
    same = ("2026_Spring_DSL_Modeling_CV__data-obama1", "av_offset_minus7_640x360_30fps", "Speech-to_lips__obama")
    assert {config.speaker_of(name) for name in same} == {"obama"}
    assert config.speaker_of("somebody.else") == "somebody.else"


def test_the_frozen_offsets_cover_the_table_of_speakers():
    frozen = read_offsets(EGS / "datasets" / "av_corpus" / "offsets.csv")
    assert set(frozen) == set(CorpusConfig().speaker_table)
    assert not frozen["address_1280x720_25fps"].kept
    assert sum(row.kept for row in frozen.values()) > 50


@pytest.mark.parametrize("text", ["", "clip,offset\na,1\n", "clip,sound_later_ms,r_opening,z,kept\na,x,1,1,yes\n"])
def test_bad_offsets_are_one_sentence(tmp_path, text, capsys):
    (tmp_path / "a.mp4").touch()
    offsets = tmp_path / "o.csv"
    offsets.write_text(text)
    arguments = ["--clips", str(tmp_path), "--offsets", str(offsets), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "o.csv" in error
    assert not (tmp_path / "out").exists()


def test_rows_are_interpolated_between_valid_frames_only():
    times = np.array([0.0, 0.04, 0.08, 0.12, 0.5, 0.54])
    values = np.array([0.0, 1.0, np.nan, 3.0, 4.0, 5.0])[:, None]
    valid = np.array([True, True, False, True, True, True])
    at = np.array([-0.2, 0.02, 0.06, 0.3, 0.52, 0.56, 1.0])
    rows, usable = resample_rows(values, times, valid, at)
    assert usable.tolist() == [False, True, False, False, True, True, False]
    np.testing.assert_allclose(rows[usable][:, 0], [0.5, 4.5, 5.0])


def made_up_tracking(times: np.ndarray, opening: np.ndarray) -> TrackedClip:
    points = np.zeros((len(times), 478, 2), np.float32)
    points[:, OUTER_EYE_CORNERS[1], 0] = 100.0
    for _, lower in LIP_GAP_PAIRS:
        points[:, lower, 1] = 100.0 * opening
    landmarks = Landmarks2D(
        points,
        np.zeros((len(times), 478), np.float32),
        np.ones(len(times), dtype=bool),
        np.tile(np.linspace(0, 1, len(times), dtype=np.float32)[:, None], (1, len(MEDIAPIPE_BLENDSHAPES))),
    )
    return TrackedClip(landmarks, times, (640, 480))


def prepared(times: np.ndarray, opening: np.ndarray, sound_file: Path) -> PreparedClip:
    count = len(times)
    coeffs = FaceModelCoeffs(
        np.zeros(80, np.float32),
        np.tile(opening[:, None], (1, 52)).astype(np.float32),
        np.zeros((count, 3), np.float32),
        np.zeros((count, 3), np.float32),
        np.ones(count, dtype=bool),
        np.zeros(count, np.float32),
        CameraIntrinsics.for_frame(640, 480),
        "v",
    )
    return PreparedClip(Path("x.mp4"), "x", "who", made_up_tracking(times, opening), coeffs, sound_file)


def some_sound() -> Sound:
    return Sound(np.zeros((1, 190, 6), np.float16), np.ones(190, dtype=bool), np.zeros(190, np.float32), "e")


def test_mouth_and_sound_share_a_clock(tmp_path):
    """A mouth that is 0.2 s early (sound later) is moved to its sound, whatever the frame rate."""
    for frame_rate in (23.976, 30.0):
        times = np.arange(int(4 * frame_rate)) / frame_rate
        prepared_clip = prepared(times, 0.3 * np.exp(-(((times - 1.5) / 0.1) ** 2)), tmp_path / "s.npz")
        clip = join(prepared_clip, some_sound(), 0.2)
        assert clip.speaker == "who" and clip.rate_hz == 50.0
        peak = (int(clip.opening.argmax()) + 0.5) / 50.0
        assert abs(peak - 1.7) <= 0.02
        assert int(clip.expression[:, 7].argmax()) == int(clip.opening.argmax())
        seen = seen_mouth(prepared_clip, some_sound(), prepared_clip.tracked, 0.2)
        np.testing.assert_array_equal(seen.opening, clip.opening)
        steps = np.diff(seen.score("jawOpen")[seen.valid])
        assert steps.min() >= 0 and steps.max() > 0


def test_a_clip_changes_folders_with_its_verdict(tmp_path):
    times = np.arange(100) / 25
    clip = prepared(times, 0.1 + 0.1 * np.sin(times), tmp_path / "s.npz")
    sound = some_sound()
    np.savez(
        tmp_path / "s.npz",
        features=sound.features,
        is_speech=sound.is_speech,
        level_db=sound.level_db,
        extractor=np.array("e"),
    )
    for folder in build_av_corpus.FOLDERS:
        (tmp_path / folder).mkdir()
    for kept, folder, other in ((True, "clips", "set_aside"), (False, "set_aside", "clips")):
        assert write_clips([clip], {"x": SoundOffset("x", 40, 0.7, 9.0, kept)}, tmp_path) == kept
        assert (tmp_path / folder / "x.npz").is_file() and not (tmp_path / other / "x.npz").exists()
    assert SeenMouth.load(tmp_path / "seen" / "x.npz").name == "x"


def test_a_frozen_table_must_know_every_clip(tmp_path):
    times = np.arange(100) / 25
    clip = prepared(times, np.ones(100), tmp_path / "s.npz")
    write_offsets(tmp_path / "o.csv", [SoundOffset("y", 40, 0.7, 9.0, True)])
    with pytest.raises(ConfigError, match="says nothing about x"):
        find_offsets([clip], tmp_path / "o.csv", CorpusConfig())


class CountingEncoder:
    """Stands in for Whisper: rows count the 20 ms pieces of sound."""

    def __init__(self) -> None:
        self.calls = 0

    def extract(self, clip):
        self.calls += 1
        rows = -(-len(clip.samples) // 320)
        return AudioFeatures(np.arange(rows, dtype=np.float32)[:, None], 50.0, EXTRACTOR)


def test_sound_is_kept_and_renderings_stay_aligned(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(16_000, 1.0)[None], 16_000)
    encoder, config = CountingEncoder(), CorpusConfig(n_recordings=2)
    sound = listen(path, encoder, config, tmp_path / "sound.npz")  # type: ignore[arg-type]
    assert sound.features.shape == (3, 50, 1) and len(sound.is_speech) == len(sound.level_db) == 50
    leads = sound.features[:, 0, 0]
    assert leads[0] == 0 and (leads[1:] > 0).any()
    np.testing.assert_array_equal(sound.features - leads[:, None, None], np.tile(sound.features[0], (3, 1, 1)))
    again = listen(path, encoder, config, tmp_path / "sound.npz")  # type: ignore[arg-type]
    assert encoder.calls == 3
    np.testing.assert_array_equal(again.features, sound.features)
    listen(path, encoder, CorpusConfig(n_recordings=1), tmp_path / "sound.npz")  # type: ignore[arg-type]
    assert encoder.calls == 5


def test_rooms_echo_and_voices_change_where_asked():
    """Only the rooms differ, and only when asked; everything follows from the seed."""
    clip = AudioClip(tone(16_000, 1.0), 16_000)
    heard: list[AudioClip] = []

    def extract(sound: AudioClip) -> AudioFeatures:
        heard.append(sound)
        return CountingEncoder().extract(sound)

    rooms = CorpusConfig(reverb_s=0.4)
    for config in (CorpusConfig(), rooms, CorpusConfig(pitch_percent=10), rooms):
        sound_renderings(clip, extract, config)
    usual, echo, pitch, again = (heard[i : i + 3] for i in range(0, 12, 3))

    def same(one: list[AudioClip], other: list[AudioClip]) -> list[bool]:
        return [np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True)]

    assert same(usual, echo) == same(usual, pitch) == [True, True, False]
    assert all(same(echo, again))


@pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")
def test_a_real_clip(tmp_path, monkeypatch, shared_clips):
    """One GRID sentence from video to training rows; the second build reads everything it made."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{GRID}.mpg").symlink_to(shared_clips / "av_corpus" / f"{GRID}.mpg")
    write_offsets(tmp_path / "o.csv", [SoundOffset(GRID, 0, 0.7, 13.4, True)])
    arguments = ["--clips", str(tmp_path / "in"), "--offsets", str(tmp_path / "o.csv"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    (file,) = (tmp_path / "out" / "clips").iterdir()
    clip = SpeechMotionClip.load(file)
    assert clip.speaker == "grid" and clip.face_model_version == FaceModel.load(FACE_MODEL_FILE).version
    assert clip.features.shape == (3, 149, 1152) and clip.valid.mean() > 0.9
    jaw = clip.expression[:, FaceModel.load(FACE_MODEL_FILE).unit("jawOpen")]
    assert np.corrcoef(jaw[clip.valid], clip.opening[clip.valid])[0, 1] > 0.7
    monkeypatch.setattr(build_av_corpus, "track_and_landmark", None)
    monkeypatch.setattr(build_av_corpus, "fit_3dmm", None)
    assert main(arguments) == 0


@pytest.mark.slow
@pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")
def test_a_second_tracking_agrees_but_is_another_one(tmp_path, shared_clips):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{GRID}.mpg").symlink_to(shared_clips / "av_corpus" / f"{GRID}.mpg")
    write_offsets(tmp_path / "o.csv", [SoundOffset(GRID, 0, 0.7, 13.4, True)])
    arguments = ["--clips", str(tmp_path / "in"), "--offsets", str(tmp_path / "o.csv"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--again"]) == 0
    seen, again = (SeenMouth.load(tmp_path / "out" / folder / f"{GRID}.npz") for folder in ("seen", "seen_again"))
    rows = seen.valid & again.valid
    assert np.corrcoef(seen.opening[rows], again.opening[rows])[0, 1] > 0.8
    assert np.abs(seen.opening - again.opening)[rows].max() > 1e-4
