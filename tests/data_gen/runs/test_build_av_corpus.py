"""Talking clips out of videos: which, when, and on whose clock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs import build_av_corpus
from data_gen.runs.build_av_corpus import (
    ClipEntry,
    CorpusConfig,
    Sound,
    TrackedClip,
    join,
    listen,
    main,
    resample_rows,
    select_clips,
)
from data_gen.utils.process_audio.extract_whisper import EXTRACTOR
from modules.commons.config import load_config
from modules.commons.errors import ConfigError
from modules.commons.workspace import EGS, FACE_MODEL_FILE, ROOT, WHISPER_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioFeatures
from modules.structures.cameras import CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import LIP_GAP_PAIRS, OUTER_EYE_CORNERS, Landmarks2D
from modules.structures.speech_motion import SpeechMotionClip
from tests.data_gen.process_audio.test_resample_audio_to_16k import tone, write_wav

CLIPS = ROOT.parent / "shared" / "clips"


def write_offsets(path: Path, **clips: tuple[float, float, float]) -> Path:
    rows = {n: dict(zip(("sound_later_frames_at_25fps", "r_opening", "z"), v, strict=True)) for n, v in clips.items()}
    path.write_text(json.dumps({"clips": rows}))
    return path


def test_selection_keeps_what_matches(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("good.mp4", "deep/late.mpg", "weak.mp4", "unknown.mp4", "good.txt"):
        (tmp_path / name).touch()
    offsets = write_offsets(tmp_path / "o.json", good=(0, 0.7, 9), late=(-5, 0.5, 3), weak=(1, 0.3, 9), gone=(0, 1, 9))
    entries = select_clips(tmp_path, offsets, CorpusConfig())
    assert [(e.path.name, e.sound_later_s) for e in entries] == [("late.mpg", -0.2), ("good.mp4", 0.0)]


@pytest.mark.parametrize("text", ["", "[]", '{"clips": {"a": {}}}', '{"clips": {}}'])
def test_bad_offsets_are_one_sentence(tmp_path, text, capsys):
    (tmp_path / "a.mp4").touch()
    offsets = tmp_path / "o.json"
    offsets.write_text(text)
    with pytest.raises(ConfigError, match=r"o\.json"):
        select_clips(tmp_path, offsets, CorpusConfig())
    arguments = ["--clips", str(tmp_path), "--offsets", str(offsets), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_speakers_of_the_shipped_configuration():
    config = load_config(EGS / "egs_bases" / "audio2motion" / "corpus.yaml", CorpusConfig)
    same = ("2026_Spring_DSL_Modeling_CV__data-obama1", "av_offset_minus7_640x360_30fps", "Speech-to_lips__obama")
    assert {config.speaker_of(name) for name in same} == {"obama"}
    assert config.speaker_of("glasses_512_25fps") == "glasses_512_25fps"


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
        np.zeros((len(times), 52), np.float32),
    )
    return TrackedClip(landmarks, times, (640, 480))


def test_mouth_and_sound_share_a_clock():
    """A mouth that is 0.2 s early (sound later) is moved to its sound, whatever the frame rate."""
    for frame_rate in (23.976, 30.0):
        times = np.arange(int(4 * frame_rate)) / frame_rate
        opening = 0.3 * np.exp(-(((times - 1.5) / 0.1) ** 2))
        tracked = made_up_tracking(times, opening)
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
        sound = Sound(np.zeros((1, 190, 6), np.float16), np.ones(190, dtype=bool), "e")
        clip = join(ClipEntry(Path("x.mp4"), 0.2), tracked, coeffs, sound, CorpusConfig(speakers={"x": "who"}))
        assert clip.speaker == "who" and clip.rate_hz == 50.0
        peak = (int(clip.opening.argmax()) + 0.5) / 50.0
        assert abs(peak - 1.7) <= 0.02
        assert int(clip.expression[:, 7].argmax()) == int(clip.opening.argmax())


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
    assert sound.features.shape == (3, 50, 1) and len(sound.is_speech) == 50
    leads = sound.features[:, 0, 0]
    assert leads[0] == 0 and (leads[1:] > 0).any()
    np.testing.assert_array_equal(sound.features - leads[:, None, None], np.tile(sound.features[0], (3, 1, 1)))
    again = listen(path, encoder, config, tmp_path / "sound.npz")  # type: ignore[arg-type]
    assert encoder.calls == 3
    np.testing.assert_array_equal(again.features, sound.features)
    listen(path, encoder, CorpusConfig(n_recordings=1), tmp_path / "sound.npz")  # type: ignore[arg-type]
    assert encoder.calls == 5


@pytest.mark.skipif(not CLIPS.is_dir(), reason="shared/clips is not here")
@pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")
def test_a_real_clip(tmp_path, monkeypatch):
    """One GRID sentence from video to training rows; the second build reads everything it made."""
    source = CLIPS / "av_corpus"
    monkeypatch.setattr(build_av_corpus, "VIDEO_SUFFIXES", (".mpg",))
    offsets = write_offsets(tmp_path / "o.json", **{"LipNet__evaluation-samples-GRID-bbaf2n": (0, 0.7, 13.4)})
    arguments = ["--clips", str(source), "--offsets", str(offsets), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    (file,) = (tmp_path / "out" / "clips").iterdir()
    clip = SpeechMotionClip.load(file)
    assert clip.face_model_version == FaceModel.load(FACE_MODEL_FILE).version
    assert clip.features.shape == (3, 149, 1152) and clip.valid.mean() > 0.9
    jaw = clip.expression[:, FaceModel.load(FACE_MODEL_FILE).unit("jawOpen")]
    assert np.corrcoef(jaw[clip.valid], clip.opening[clip.valid])[0, 1] > 0.7
    monkeypatch.setattr(build_av_corpus, "track_and_landmark", None)
    monkeypatch.setattr(build_av_corpus, "fit_3dmm", None)
    assert main(arguments) == 0
