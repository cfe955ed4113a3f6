"""Talking clips → sound features beside fitted mouth coefficients, one file per clip.

Reads: a folder of videos with sound, a JSON of sound offsets, corpus.yaml, the face model and the speech encoder.
Writes: OUT/landmarks/*.npz, OUT/sounds/*.npz, OUT/fits/*.npz (kept, so that a better fit needs no new tracking) and
OUT/clips/*.npz, which joins them.
Run: ``python data_gen/runs/build_av_corpus.py --clips FOLDER --offsets FILE --out OUT``
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker  # noqa: E402
from data_gen.utils.process_audio.augment import random_recording  # noqa: E402
from data_gen.utils.process_audio.extract_whisper import (  # noqa: E402
    EXTRACTOR,
    RATE_HZ,
    SAMPLES_PER_ROW,
    WhisperEncoder,
)
from data_gen.utils.process_audio.resample_audio_to_16k import file_start_s, load_audio_16k  # noqa: E402
from data_gen.utils.process_audio.vad import detect_speech  # noqa: E402
from data_gen.utils.process_video.face_detector import FaceDetector  # noqa: E402
from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm  # noqa: E402
from data_gen.utils.process_video.landmark_track import track_and_landmark  # noqa: E402
from data_gen.utils.process_video.landmark_visibility import inside_frame  # noqa: E402
from modules.commons.config import load_config  # noqa: E402
from modules.commons.errors import ConfigError, GeneFaceError  # noqa: E402
from modules.commons.log import configure_logging  # noqa: E402
from modules.commons.workspace import EGS, FACE_MODEL_FILE, WHISPER_FILE  # noqa: E402
from modules.face_model.model import FaceModel  # noqa: E402
from modules.structures.audio import AudioClip, AudioFeatures  # noqa: E402
from modules.structures.face_coeffs import FaceModelCoeffs  # noqa: E402
from modules.structures.frames import Frame  # noqa: E402
from modules.structures.landmarks import LIP_CORNERS, LIP_GAP_PAIRS, OUTER_EYE_CORNERS, Landmarks2D  # noqa: E402
from modules.structures.speech_motion import SpeechMotionClip  # noqa: E402
from modules.video.reader import VideoReader  # noqa: E402

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mpg", ".mkv", ".mov", ".webm", ".avi")


@dataclass(frozen=True, slots=True)
class CorpusConfig:
    """Which clips are kept and who speaks in them.

    Attributes:
        min_r: least correlation of a clip's lips with a model that never saw the speaker (offsets file).
        min_z: least distinctness of the peak that gave the offset.
        offset_rate_hz: frame rate the offsets are counted in.
        n_recordings: renderings of each sound besides the clean one.
        seed: of those renderings.
        speakers: part of a clip's name → speaker; clips without a match are speakers of their own.
    """

    min_r: float = 0.45
    min_z: float = 2.5
    offset_rate_hz: float = 25.0
    n_recordings: int = 2
    seed: int = 0
    speakers: dict[str, str] = field(default_factory=dict)

    def speaker_of(self, name: str) -> str:
        """The first match in the table's order, else the name itself."""
        return next((speaker for part, speaker in self.speakers.items() if part in name), name)


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """A video and by how many seconds its sound comes later than the mouth."""

    path: Path
    sound_later_s: float


def select_clips(folder: Path, offsets_file: Path, config: CorpusConfig) -> list[ClipEntry]:
    """Videos below ``folder`` that the offsets file knows and whose sound goes with the mouth.

    Raises:
        ConfigError: the offsets file cannot be read, or names no clip that is there.
    """
    try:
        table = json.loads(offsets_file.read_text(encoding="utf-8"))["clips"]
        rates = {name: (row["sound_later_frames_at_25fps"], row["r_opening"], row["z"]) for name, row in table.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{offsets_file}: cannot be read as a table of sound offsets ({error})") from error
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.stem in rates):
        frames, r, z = rates[path.stem]
        if r < config.min_r or z < config.min_z:
            logger.info("%s left out: r %.2f, z %.1f", path.stem, r, z)
        else:
            entries.append(ClipEntry(path, frames / config.offset_rate_hz))
    if not entries:
        raise ConfigError(f"{offsets_file}: none of its clips lies below {folder}; check --clips")
    return entries


@dataclass(frozen=True, slots=True, eq=False)
class TrackedClip:
    """Landmarks with their frame times (seconds from the file's start) and the frame's size."""

    landmarks: Landmarks2D
    times_s: NDArray[np.float64]
    size_wh: tuple[int, int]


def track(path: Path, cache: Path) -> TrackedClip:
    """Landmarks of the largest face, read from ``cache`` when they are there."""
    times_file = cache.with_suffix(".times.npz")
    if not (cache.is_file() and times_file.is_file()):
        times: list[float] = []
        start_s = file_start_s(path)
        with VideoReader(path) as reader:
            frames = _noting_times(reader.frames(), times, start_s)
            _, landmarks = track_and_landmark(frames, build_landmarker(), FaceDetector())
            landmarks.save(cache)
            np.savez(times_file, times_s=np.array(times), size_wh=np.array([reader.info.width, reader.info.height]))
    with np.load(times_file, allow_pickle=False) as data:
        width, height = (int(v) for v in data["size_wh"])
        return TrackedClip(Landmarks2D.load(cache), data["times_s"], (width, height))


def _noting_times(frames: Iterator[Frame], times: list[float], start_s: float) -> Iterator[Frame]:
    for frame in frames:
        times.append(float(frame.time_s) - start_s)
        yield frame


def fit(tracked: TrackedClip, face_model: FaceModel, cache: Path) -> FaceModelCoeffs:
    """Coefficients of a tracked clip; a cached fit of another face model is made anew."""
    if cache.is_file():
        coeffs = FaceModelCoeffs.load(cache)
        if coeffs.face_model_version == face_model.version and len(coeffs) == len(tracked.landmarks):
            return coeffs
    inside = inside_frame(tracked.landmarks.points, tracked.size_wh)
    coeffs = fit_3dmm(tracked.landmarks, None, face_model, weights=inside, size_wh=tracked.size_wh)
    coeffs.save(cache)
    return coeffs


def mouth_measures(landmarks: Landmarks2D) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lip opening and mouth width ``[T]`` in three dimensions, over the distance of the outer eye corners."""
    points = np.concatenate([landmarks.points, landmarks.depth[..., None]], axis=2).astype(np.float64)

    def distance(first: int, second: int) -> NDArray[np.float64]:
        return np.linalg.norm(points[:, first] - points[:, second], axis=1)

    eyes = distance(*OUTER_EYE_CORNERS)
    opening = np.mean([distance(a, b) for a, b in LIP_GAP_PAIRS], axis=0) / eyes
    return opening, distance(*LIP_CORNERS) / eyes


def resample_rows(
    values: NDArray[np.floating], times_s: NDArray[np.float64], valid: NDArray[np.bool_], at_s: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Linear interpolation of ``values [T, ...]`` at new times; True where both neighbouring frames are valid."""
    right = np.clip(np.searchsorted(times_s, at_s, side="right"), 1, len(times_s) - 1)
    left = right - 1
    gap = np.maximum(times_s[right] - times_s[left], 1e-9)
    weight = np.clip((at_s - times_s[left]) / gap, 0.0, 1.0)
    filled = np.nan_to_num(values.astype(np.float64))
    shape = (-1,) + (1,) * (values.ndim - 1)
    rows = filled[left] * (1 - weight).reshape(shape) + filled[right] * weight.reshape(shape)
    frame_s = float(np.median(np.diff(times_s)))
    inside = (at_s >= times_s[0] - frame_s) & (at_s <= times_s[-1] + frame_s)
    return rows.astype(np.float32), inside & valid[left] & valid[right] & (gap < 3 * frame_s)


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Features ``[K, T, C]`` of K renderings of a sound, where there is speech ``[T]``, and what made the features."""

    features: NDArray[np.float16]
    is_speech: NDArray[np.bool_]
    extractor: str


def listen(path: Path, encoder: WhisperEncoder, config: CorpusConfig, cache: Path) -> Sound:
    """The sound of a clip as features, read from ``cache`` when they were made with the same settings."""
    recipe = f"{EXTRACTOR}/{config.n_recordings}/{config.seed}"
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as data:
            if str(data["recipe"]) == recipe:
                return Sound(data["features"], data["is_speech"], str(data["extractor"]))
    clip = load_audio_16k(path)
    features, extractor = sound_renderings(clip, encoder.extract, config)
    sound = Sound(features, detect_speech(clip), extractor)
    np.savez(
        cache,
        recipe=np.array(recipe),
        features=sound.features,
        is_speech=sound.is_speech,
        extractor=np.array(extractor),
    )
    return sound


def sound_renderings(
    clip: AudioClip, extract: Callable[[AudioClip], AudioFeatures], config: CorpusConfig
) -> tuple[NDArray[np.float16], str]:
    """Features ``[K, T, C]`` of the clean sound and of ``n_recordings`` others, with the extractor's name.

    The others start somewhere else in Whisper's window: its rows carry their position, and the network must not
    learn that speech begins at 0 s.
    """
    rng = np.random.default_rng(config.seed)
    clean = extract(clip)
    renderings = [clean.values]
    for index in range(config.n_recordings):
        lead_rows = int(rng.integers(0, 900))
        other = random_recording(clip, rng) if index % 2 else clip
        lead = np.zeros(lead_rows * SAMPLES_PER_ROW, np.float32)
        moved = extract(AudioClip(np.concatenate([lead, other.samples]), clip.sample_rate_hz))
        renderings.append(moved.values[lead_rows:])
    return np.stack(renderings).astype(np.float16), clean.extractor


def join(
    entry: ClipEntry, tracked: TrackedClip, coeffs: FaceModelCoeffs, sound: Sound, config: CorpusConfig
) -> SpeechMotionClip:
    """Put sound and mouth on one clock: rows of the sound, with the mouth ``sound_later_s`` earlier."""
    at_s = (np.arange(len(sound.is_speech)) + 0.5) / RATE_HZ - entry.sound_later_s
    opening, width = mouth_measures(tracked.landmarks)
    valid_frames = coeffs.valid & tracked.landmarks.valid
    measures, valid = resample_rows(np.stack([opening, width], axis=1), tracked.times_s, valid_frames, at_s)
    expression, _ = resample_rows(coeffs.expression, tracked.times_s, valid_frames, at_s)
    return SpeechMotionClip(
        name=entry.path.stem,
        speaker=config.speaker_of(entry.path.stem),
        features=sound.features,
        expression=expression,
        identity=coeffs.identity,
        opening=measures[:, 0],
        width=measures[:, 1],
        valid=valid,
        is_speech=sound.is_speech,
        rate_hz=float(RATE_HZ),
        extractor=sound.extractor,
        face_model_version=coeffs.face_model_version,
    )


def build(entries: list[ClipEntry], out: Path, config: CorpusConfig) -> int:
    """Prepare every clip, one after the other; a clip that cannot be used is logged and left out.

    Returns:
        the number of clips written.
    """
    folders = {name: out / name for name in ("landmarks", "sounds", "fits", "clips")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    face_model, encoder = FaceModel.load(FACE_MODEL_FILE), WhisperEncoder(WHISPER_FILE)
    written = 0
    for number, entry in enumerate(entries, start=1):
        name = f"{entry.path.stem}.npz"
        try:
            tracked = track(entry.path, folders["landmarks"] / name)
            coeffs = fit(tracked, face_model, folders["fits"] / name)
            sound = listen(entry.path, encoder, config, folders["sounds"] / name)
            clip = join(entry, tracked, coeffs, sound, config)
        except GeneFaceError as error:
            logger.warning("%s left out: %s", entry.path.stem, error)
            continue
        clip.save(folders["clips"] / name)
        written += 1
        logger.info("%d/%d %s: %d rows, %d usable", number, len(entries), clip.name, len(clip), int(clip.valid.sum()))
    return written


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with the videos (searched recursively)")
    parser.add_argument("--offsets", type=Path, required=True, help="JSON with the sound offset of each clip")
    parser.add_argument("--out", type=Path, required=True, help="where tables and clips go")
    parser.add_argument("--config", type=Path, default=EGS / "egs_bases" / "audio2motion" / "corpus.yaml")
    arguments = parser.parse_args(argv)
    configure_logging()
    try:
        config = load_config(arguments.config, CorpusConfig)
        written = build(select_clips(arguments.clips, arguments.offsets, config), arguments.out, config)
    except GeneFaceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments.out / 'clips'}: {written} clips\n")
    return 0 if written else 1


if __name__ == "__main__":
    raise SystemExit(main())
