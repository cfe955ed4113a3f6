"""Sound and lips of real clips: a known offset is found, sync is seen, a mismatch stays undetermined."""

import functools
import subprocess
from dataclasses import dataclass

import imageio_ffmpeg
import numpy as np
import pytest

from data_gen.runs.build_av_corpus import track
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import detect_speech, frame_level_db
from inference.audio_to_motion import AudioToMotion
from modules.commons.workspace import AUDIO2MOTION_DIR, FACE_MODEL_FILE, WHISPER_FILE
from modules.face_model.model import FaceModel
from modules.metrics.synchrony import Lag, loudness_correlation, speech_lag
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack
from modules.structures.landmarks import lip_opening

pytestmark = pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")

BEGINNING_S = 11
"""Of each clip: enough speech to be sure of."""


@dataclass(frozen=True)
class Clip:
    """Lips and sound on the file's own clock."""

    opening: np.ndarray
    times_s: np.ndarray
    sound: AudioClip

    @property
    def block(self) -> np.ndarray:
        return np.zeros(len(self.times_s), np.int64)


@pytest.fixture(scope="module")
def clips(shared_clips, tmp_path_factory):
    """Lips and sound of the beginning of a clip; each is tracked once."""
    known: dict[str, Clip] = {}

    def load(name: str) -> Clip:
        if name not in known:
            folder = tmp_path_factory.mktemp("tracks")
            video = folder / name
            beginning = ["-i", shared_clips / name, "-t", BEGINNING_S, "-c", "copy", video]
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *beginning]
            subprocess.run([str(part) for part in command], check=True)
            tracked = track(video, folder / "landmarks.npz")
            opening = np.where(tracked.landmarks.valid, lip_opening(tracked.landmarks.points), np.nan)
            known[name] = Clip(opening, tracked.times_s, load_audio_16k(video))
        return known[name]

    return load


@pytest.fixture(scope="module")
def hear():
    """What a sound asks of the lips; each sound is heard once."""
    predictor = AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, FaceModel.load(FACE_MODEL_FILE).version)

    @functools.cache
    def speech_track(sound: AudioClip) -> SpeechTrack:
        motion = predictor.predict(sound)
        assert motion.opening is not None
        level, active = frame_level_db(sound), detect_speech(sound)
        assert len(level) == len(active) == len(motion)
        return SpeechTrack(motion.opening, level.astype(np.float32), active, motion.rate_hz, sound)

    return speech_track


def lag_of(clip: Clip, speech: SpeechTrack, seed: int = 0) -> Lag:
    return speech_lag(clip.opening, clip.times_s, clip.block, speech, np.random.default_rng(seed))


def test_a_mouth_seven_frames_early_is_measured(clips, hear):
    clip = clips("av_offset_minus7_640x360_30fps.mp4")
    found = lag_of(clip, hear(clip.sound))
    assert found.is_significant and found.value_ms == pytest.approx(-210, abs=60)
    assert found.high_ms - found.low_ms < 40 and found.r > 0.6 and found.r_in_sync < 0.2


def test_a_clip_in_sync_is_seen_to_be(clips, hear):
    clip = clips("anchor_german_512_25fps.mp4")
    speech = hear(clip.sound)
    found = lag_of(clip, speech)
    assert found.is_significant and found.value_ms == pytest.approx(0, abs=50)
    assert found.r_in_sync > 0.5
    assert 0.1 < loudness_correlation(clip.opening, clip.times_s, clip.block, speech) < found.r


def test_another_persons_sound_stays_undetermined(clips, hear):
    """``address``: sound and mouth do not match."""
    clip = clips("address_1280x720_25fps.mp4")
    speech = hear(clip.sound)
    for seed in range(3):
        found = lag_of(clip, speech, seed)
        assert not found.is_significant and np.isnan(found.value_ms) and found.note.startswith("undetermined")
    other = clips("anchor_german_512_25fps.mp4")
    assert not lag_of(other, speech).is_significant


@pytest.mark.parametrize("earlier_s", [0.12, -0.12])
def test_sound_moved_by_120_ms_moves_the_lag_by_120_ms(clips, hear, earlier_s):
    clip = clips("anchor_german_512_25fps.mp4")
    moved = np.roll(clip.sound.samples, -round(earlier_s * clip.sound.sample_rate_hz))
    as_is, found = (lag_of(clip, hear(s)) for s in (clip.sound, AudioClip(moved, clip.sound.sample_rate_hz)))
    assert found.value_ms - as_is.value_ms == pytest.approx(1000 * earlier_s, abs=15)
