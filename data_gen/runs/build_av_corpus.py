"""Talking clips → sound features beside fitted mouth coefficients, one file per clip.

Reads: a folder of videos with sound, corpus.yaml, the table of speakers, the face model and the speech encoder.
Writes: OUT/landmarks/*.npz, OUT/sounds/*.npz, OUT/fits/*.npz (kept, so that a better fit needs no new tracking);
OUT/offsets.csv, by how much each sound is late and which clips are kept; OUT/clips/*.npz, which joins them, and
OUT/set_aside/*.npz, the same for clips whose sound does not go with the mouth; OUT/seen/*.npz, what predictions are
judged by, and with --again OUT/seen_again/*.npz, the same from a second tracking.
Run: ``python data_gen/runs/build_av_corpus.py --clips FOLDER --out OUT``
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.utils.av_corpus.config import CorpusConfig  # noqa: E402
from data_gen.utils.av_corpus.offset_estimation import HeardAndSeen, estimate_offsets  # noqa: E402
from data_gen.utils.av_corpus.offset_table import SoundOffset, read_offsets, write_offsets  # noqa: E402
from data_gen.utils.av_corpus.rows import resample_rows  # noqa: E402
from data_gen.utils.av_corpus.second_look import SecondLook  # noqa: E402
from data_gen.utils.av_corpus.sounds import Sound, listen, load_sound  # noqa: E402
from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker, build_landmarker  # noqa: E402
from data_gen.utils.process_audio.extract_whisper import RATE_HZ, WhisperEncoder  # noqa: E402
from data_gen.utils.process_audio.resample_audio_to_16k import file_start_s  # noqa: E402
from data_gen.utils.process_video.face_detector import FaceDetector  # noqa: E402
from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm  # noqa: E402
from data_gen.utils.process_video.landmark_track import track_and_landmark  # noqa: E402
from data_gen.utils.process_video.landmark_visibility import inside_frame  # noqa: E402
from modules.audio2motion.speaker_table import VIDEO_SUFFIXES  # noqa: E402
from modules.commons.command import GOES_ON, exit_status  # noqa: E402
from modules.commons.config import load_config  # noqa: E402
from modules.commons.errors import ConfigError, GeneFaceError  # noqa: E402
from modules.commons.hparams import parse_hparams  # noqa: E402
from modules.commons.workspace import EGS, FACE_MODEL_FILE, WHISPER_FILE  # noqa: E402
from modules.face_model.model import FaceModel  # noqa: E402
from modules.structures.face_coeffs import FaceModelCoeffs  # noqa: E402
from modules.structures.frames import Frame  # noqa: E402
from modules.structures.landmarks import (  # noqa: E402
    LIP_CORNERS,
    LIP_GAP_PAIRS,
    MEDIAPIPE_BLENDSHAPES,
    OUTER_EYE_CORNERS,
    Landmarks2D,
)
from modules.structures.seen_mouth import SeenMouth  # noqa: E402
from modules.structures.speech_motion import SpeechMotionClip  # noqa: E402
from modules.video.reader import VideoReader  # noqa: E402

__all__ = ["VIDEO_SUFFIXES", "CorpusConfig"]

logger = logging.getLogger(__name__)

FOLDERS = ("landmarks", "sounds", "fits", "clips", "set_aside", "seen")


def find_clips(folder: Path, config: CorpusConfig) -> list[Path]:
    """Videos below ``folder``, by name; those the table of speakers knows where the table says who speaks.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if config.speaker_from == "table":
        paths = [path for path in paths if path.stem in config.speaker_table]
    if not paths:
        raise ConfigError(f"{folder}: holds no video that {config.speakers} knows; check --clips and speaker_from")
    names = [clip_name(path, config) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{folder}: two videos are named {twice[0]}; rename one of them")
    return paths


def clip_name(path: Path, config: CorpusConfig) -> str:
    """Name of a clip's files; with its folders where names repeat from speaker to speaker."""
    return "__".join([*path.parts[-3:-1], path.stem]) if config.speaker_from == "folder" else path.stem


@dataclass(frozen=True, slots=True, eq=False)
class TrackedClip:
    """Landmarks with their frame times (seconds from the file's start) and the frame's size."""

    landmarks: Landmarks2D
    times_s: NDArray[np.float64]
    size_wh: tuple[int, int]


def track(path: Path, cache: Path, landmarker: Landmarker | None = None) -> TrackedClip:
    """Landmarks of the largest face, read from ``cache`` when they are there."""
    times_file = cache.with_suffix(".times.npz")
    if not (cache.is_file() and times_file.is_file()):
        times: list[float] = []
        start_s = file_start_s(path)
        with VideoReader(path) as reader:
            frames = _noting_times(reader.frames(), times, start_s)
            _, landmarks = track_and_landmark(frames, landmarker or build_landmarker(), FaceDetector())
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


@dataclass(frozen=True, slots=True, eq=False)
class PreparedClip:
    """A clip's mouth on the clock of the file; its sound stays on disk, for the renderings are large."""

    path: Path
    name: str
    speaker: str
    tracked: TrackedClip
    coeffs: FaceModelCoeffs
    sound_file: Path

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``[N]`` frames with a face that was fitted."""
        return self.coeffs.valid & self.tracked.landmarks.valid

    def heard_and_seen(self) -> HeardAndSeen:
        """What the offset is found from."""
        jaw = self.tracked.landmarks.blendshapes[:, MEDIAPIPE_BLENDSHAPES.index("jawOpen")]
        measures = np.stack([*mouth_measures(self.tracked.landmarks), jaw.astype(np.float64)], axis=1)
        clean = load_sound(self.sound_file).features[0].copy()
        return HeardAndSeen(self.name, self.speaker, clean, float(RATE_HZ), self.tracked.times_s, measures, self.valid)


def prepare_clips(paths: Sequence[Path], out: Path, config: CorpusConfig) -> list[PreparedClip]:
    """Track, fit and listen to every clip; one that cannot be used is logged and left out."""
    face_model, encoder = FaceModel.load(FACE_MODEL_FILE), WhisperEncoder(WHISPER_FILE)
    prepared = []
    for number, path in enumerate(paths, start=1):
        name = clip_name(path, config)
        file = f"{name}.npz"
        try:
            tracked = track(path, out / "landmarks" / file)
            coeffs = fit(tracked, face_model, out / "fits" / file)
            listen(path, encoder, config, out / "sounds" / file)
        except GeneFaceError as error:
            logger.warning("%s left out: %s", name, error)
            continue
        prepared.append(PreparedClip(path, name, config.speaker_of(path), tracked, coeffs, out / "sounds" / file))
        logger.info("%d/%d %s: %d frames", number, len(paths), name, len(tracked.landmarks))
    return prepared


def join(clip: PreparedClip, sound: Sound, sound_later_s: float) -> SpeechMotionClip:
    """Put sound and mouth on one clock: rows of the sound, with the mouth ``sound_later_s`` earlier."""
    at_s = _mouth_times(sound, sound_later_s)
    opening, width = mouth_measures(clip.tracked.landmarks)
    measures, valid = resample_rows(np.stack([opening, width], axis=1), clip.tracked.times_s, clip.valid, at_s)
    expression, _ = resample_rows(clip.coeffs.expression, clip.tracked.times_s, clip.valid, at_s)
    return SpeechMotionClip(
        name=clip.name,
        speaker=clip.speaker,
        features=sound.features,
        expression=expression,
        identity=clip.coeffs.identity,
        opening=measures[:, 0],
        width=measures[:, 1],
        valid=valid,
        is_speech=sound.is_speech,
        rate_hz=float(RATE_HZ),
        extractor=sound.extractor,
        face_model_version=clip.coeffs.face_model_version,
    )


def seen_mouth(clip: PreparedClip, sound: Sound, tracked: TrackedClip, sound_later_s: float) -> SeenMouth:
    """What a tracking of the clip shows, on the sound's clock."""
    at_s = _mouth_times(sound, sound_later_s)
    seen = np.stack(mouth_measures(tracked.landmarks), axis=1)
    values, valid = resample_rows(
        np.concatenate([seen, tracked.landmarks.blendshapes], axis=1), tracked.times_s, tracked.landmarks.valid, at_s
    )
    return SeenMouth(
        name=clip.name,
        speaker=clip.speaker,
        opening=values[:, 0],
        width=values[:, 1],
        scores=values[:, 2:],
        valid=valid,
        is_speech=sound.is_speech,
        level_db=sound.level_db,
        rate_hz=float(RATE_HZ),
    )


def _mouth_times(sound: Sound, sound_later_s: float) -> NDArray[np.float64]:
    """Time in the video, seconds, of the mouth that goes with each row of sound."""
    return (np.arange(len(sound.is_speech)) + 0.5) / RATE_HZ - sound_later_s


def find_offsets(clips: Sequence[PreparedClip], frozen: Path | None, config: CorpusConfig) -> dict[str, SoundOffset]:
    """The frozen table, or offsets estimated from the clips themselves.

    Raises:
        ConfigError: the frozen table cannot be read or lacks a clip, or there are too few speakers to estimate.
    """
    if frozen is None:
        try:
            return {row.clip: row for row in estimate_offsets([c.heard_and_seen() for c in clips], config.offsets)}
        except ValueError as error:
            raise ConfigError(f"sound offsets cannot be estimated: {error}") from error
    table = read_offsets(frozen)
    unknown = [clip.name for clip in clips if clip.name not in table]
    if unknown:
        raise ConfigError(f"{frozen}: says nothing about {unknown[0]}; leave --offsets out to estimate all of them")
    return table


def write_clips(clips: Iterable[PreparedClip], offsets: dict[str, SoundOffset], out: Path) -> int:
    """Join every clip and write what it shows; those that are not kept go to ``set_aside``.

    Returns:
        the number of clips kept.
    """
    kept = 0
    for clip in clips:
        offset = offsets[clip.name]
        folder, other = ("clips", "set_aside") if offset.kept else ("set_aside", "clips")
        (out / other / f"{clip.name}.npz").unlink(missing_ok=True)
        sound = load_sound(clip.sound_file)
        join(clip, sound, offset.sound_later_s).save(out / folder / f"{clip.name}.npz")
        seen_mouth(clip, sound, clip.tracked, offset.sound_later_s).save(out / "seen" / f"{clip.name}.npz")
        kept += offset.kept
        verdict = "kept" if offset.kept else "set aside"
        logger.info("%s %s: %+.0f ms, r %.2f, z %.1f", clip.name, verdict, *_figures(offset))
    return kept


def _figures(offset: SoundOffset) -> tuple[float, float, float]:
    return offset.sound_later_ms, offset.r_opening, offset.z


def track_again(clips: Iterable[PreparedClip], offsets: dict[str, SoundOffset], out: Path) -> None:
    """Track every clip a second time, through another square and in the mirror (``second_look``)."""
    counterpart = FaceModel.load(FACE_MODEL_FILE).landmark_mirror.numpy()
    landmarker = SecondLook(build_landmarker(), counterpart)
    for folder in ("landmarks_again", "seen_again"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for clip in clips:
        try:
            tracked = track(clip.path, out / "landmarks_again" / f"{clip.name}.npz", landmarker)
        except GeneFaceError as error:
            logger.warning("%s has no second tracking: %s", clip.name, error)
            continue
        seen = seen_mouth(clip, load_sound(clip.sound_file), tracked, offsets[clip.name].sound_later_s)
        seen.save(out / "seen_again" / f"{clip.name}.npz")
        logger.info("%s tracked again", clip.name)


def build(paths: Sequence[Path], out: Path, config: CorpusConfig, *, frozen: Path | None, again: bool) -> int:
    """The whole corpus; returns the number of clips kept."""
    for folder in FOLDERS:
        (out / folder).mkdir(parents=True, exist_ok=True)
    clips = prepare_clips(paths, out, config)
    if not clips:
        raise ConfigError(f"{out}: none of the {len(paths)} clips could be used; the log says why")
    offsets = find_offsets(clips, frozen, config)
    if frozen is None:
        write_offsets(out / "offsets.csv", list(offsets.values()))
    kept = write_clips(clips, offsets, out)
    if again:
        track_again(clips, offsets, out)
    return kept


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with the videos (searched recursively)")
    parser.add_argument("--offsets", type=Path, help="frozen table of sound offsets; default: estimate them")
    parser.add_argument("--again", action="store_true", help="also track every clip a second time, for the ceiling")
    parser.add_argument("--out", type=Path, required=True, help="where tables and clips go")
    parser.add_argument("--config", type=Path, default=EGS / "egs_bases" / "audio2motion" / "corpus.yaml")
    parser.add_argument("--hparams", default="", help="configuration overrides: speaker_from=folder,offsets.turns=2")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _build(arguments), GOES_ON)


def _build(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, CorpusConfig, parse_hparams(arguments.hparams))
    if arguments.offsets is not None:
        read_offsets(arguments.offsets)  # a bad table is refused before hours of tracking
    paths = find_clips(arguments.clips, config)
    kept = build(paths, arguments.out, config, frozen=arguments.offsets, again=arguments.again)
    sys.stdout.write(f"{arguments.out / 'clips'}: {kept} clips\n")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
