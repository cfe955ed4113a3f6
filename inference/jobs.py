"""What the commands are asked to do: options as frozen dataclasses, checked before any work starts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, get_type_hints

from inference.controls import MotionControls
from inference.devices import parse_devices
from inference.drv_pose import pose_video
from inference.face_choice import FaceChoice, SpeechFiles, parse_drv_aud, parse_face
from inference.face_compositor import DEFAULT_BLEND_MODE, BlendMode
from inference.file_options import FileOptions
from inference.output_checks import check_container, check_folder, check_motion_outputs, check_output
from inference.timeline import TimeOptions, length_mode
from modules.commons.device import DeviceName
from modules.commons.errors import AudioReadError, CheckpointError, ConfigError, OutputError, VideoReadError
from modules.face_model.model import Region
from modules.structures.evaluation import TRIALS

BLEND_MODES = get_args(BlendMode)
MouthSource = Literal["filmed", "rendered"]
"""What a new mouth is made of in blend mode delta: frames that show this person's own, or the rendering alone."""
MOUTHS = get_args(MouthSource)
MOUTH_HELP = (
    "with blend mode delta: filmed puts this person's own mouth from another frame of the clip where one fits, "
    "rendered never does"
)
EvaluationMode = Literal["auto", "landmark", "audio"]
MODES = get_args(EvaluationMode)
OcclusionMode = Literal["auto", "head", "appearance", "hands", "off"]
"""What decides what is in front of a face; 'auto' is the trained head on a GPU and the clip's clean frames on a CPU."""
OCCLUSION_MODES = get_args(OcclusionMode)
END_THRESHOLD = 0.01
"""GeneFace++'s: a ray ends when less than this of its light is left."""
FAST_END_THRESHOLD = 0.05

Job = TypeVar("Job", bound="ArbitraryJob | ClassicJob")


class SpeechOptions(Protocol):
    """How speech becomes motion; every job has these."""

    @property
    def a2m_ckpt(self) -> Path | None: ...
    @property
    def temperature(self) -> float: ...
    @property
    def mouth_amp(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def controls(self) -> MotionControls: ...


class PersonOptions(Protocol):
    """Whose head is used, or how it is trained."""

    @property
    def head_ckpt(self) -> Path | None: ...
    @property
    def config(self) -> Path | None: ...
    @property
    def device(self) -> DeviceName: ...


class EditOptions(Protocol):
    """How frames are repainted."""

    @property
    def region(self) -> Region: ...
    @property
    def blend_mode(self) -> BlendMode: ...
    @property
    def mouth(self) -> MouthSource: ...
    @property
    def lle_percent(self) -> float: ...
    @property
    def raymarching_end_threshold(self) -> float: ...


@dataclass(frozen=True, slots=True)
class ArbitraryJob:
    """One lip-sync job on an arbitrary video.

    Attributes:
        src_video: the video to edit. out_name: the result.
        drv_aud: sound or video files with the new speech, one for all faces or one for each of some.
        a2m_ckpt: audio → motion checkpoint; None = the embedded one.
        head_ckpt: this person's checkpoint; None = found by content or trained on demand.
        region: what may be repainted. blend_mode: how it is put back, see ``FaceCompositor``.
        mouth: what it is made of, see ``MouthSource``; blend mode delta only.
        restore: a model that restores the rendered mouth, see ``modules.video.restoration``; blend mode delta only.
        face: which face speaks anew; None = the largest, or those that ``drv_aud`` names.
        times: which part is edited, when the speech begins and whose length the result has.
        fade_s: time in which edits fade at their borders. keep_audio: also carry the source's own sound tracks.
        mouth_amp: factor on the mouth's motion; 1.0 = the range natural to this person (where their way of speaking
            was learnt, else to people). temperature: 0 = one answer; above, ``seed`` varies it.
        lle_percent: share of the landmark condition pulled onto this person's own motion.
        raymarching_end_threshold: a ray ends when less than this of its light is left (occupancy samplers).
        preview: write only this frame, composited, as a PNG. save_masks: where the alpha goes, losslessly.
        occlusion: what decides what is in front of a face, see ``OcclusionMode``. debug_masks: where that is shown.
        config: preset for preparing and training a person (YAML below egs/).
        crf: quality on x264's scale. lossless: exact samples instead. debug: also strips source | result | alpha.
        devices: numbers of the GPUs that render; () = as many as the video is worth. report: folder for a report.
        export_arkit, export_npz: where the facial motion of the result goes, see ``inference.motion_export``.
        controls: how predicted motion becomes this person's; as a mapping's keys, its fields stand for themselves.
        file: what the result's file is like; likewise.
    """

    src_video: Path
    drv_aud: SpeechFiles
    out_name: Path
    a2m_ckpt: Path | None = None
    head_ckpt: Path | None = None
    face: FaceChoice | None = None
    times: TimeOptions = field(default_factory=TimeOptions)
    fade_s: float = 0.16
    keep_audio: bool = False
    region: Region = "lower_face"
    blend_mode: BlendMode = DEFAULT_BLEND_MODE
    mouth: MouthSource = "filmed"
    restore: Path | None = None
    mouth_amp: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    lle_percent: float = 0.2
    raymarching_end_threshold: float = END_THRESHOLD
    preview: int | None = None
    save_masks: Path | None = None
    occlusion: OcclusionMode = "auto"
    debug_masks: Path | None = None
    config: Path | None = None
    device: DeviceName = "auto"
    devices: tuple[int, ...] = ()
    crf: int = 14
    lossless: bool = False
    debug: bool = False
    report: Path | None = None
    export_arkit: Path | None = None
    export_npz: Path | None = None
    controls: MotionControls = field(default_factory=MotionControls)
    file: FileOptions = field(default_factory=FileOptions)

    def __post_init__(self) -> None:
        if not self.src_video.is_file():
            raise VideoReadError(f"{self.src_video}: there is no such video file; check --src_video")
        _check_speech(self)
        _check_restore(self.restore, self.blend_mode)
        _check_range("--fade_s", self.fade_s, 0.0, 10.0)
        if self.config is not None and not self.config.is_file():
            raise ConfigError(f"{self.config}: there is no such configuration file; presets lie in egs/egs_bases/")
        outputs = [p for p in (self.out_name, self.save_masks, self.debug_masks) if p is not None]
        for output in outputs:
            check_output(output, inputs=(self.src_video, *self.drv_aud.paths))
        for output in outputs if self.preview is None else []:
            check_container(output)
        if len({p.resolve() for p in outputs}) != len(outputs):
            raise OutputError(f"{outputs[-1]}: two of --out_name, --save_masks and --debug_masks name the same file")
        self.file.check_outputs((self.src_video, *self.drv_aud.paths), tuple(outputs))
        if self.report is not None:
            check_folder(self.report)
            _check_comparable(self.times)
            if self.file.watermark is not None:
                raise ConfigError("--report would measure the mark as a fault of the edit; leave out --watermark")
        check_motion_outputs(self.export_arkit, self.export_npz, inputs=(self.src_video, *self.drv_aud.paths))
        _check_range("--crf", self.crf, 0, 51)
        if self.preview is not None and self.preview < 0:
            raise ConfigError(f"--preview {self.preview}: frame numbers start at 0")
        if self.preview is not None and self.exports_motion:
            raise ConfigError("--preview writes one picture and no motion; leave out either it or the export")

    @property
    def exports_motion(self) -> bool:
        """Whether the facial motion of the result is written too."""
        return self.export_arkit is not None or self.export_npz is not None

    @property
    def summary_path(self) -> Path:
        """Where the JSON record of the run goes."""
        return self.out_name.with_name(self.out_name.name + ".json")

    @property
    def preview_path(self) -> Path:
        return self.out_name.with_suffix(".png")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ArbitraryJob:
        """Build a job from ``{'src_video', 'audio', 'out_name', ...}`` (``audio`` is another name of ``drv_aud``).

        ``drv_aud`` may be one file or ``{face: file}``; ``face`` and ``face_at`` are texts as on the command line;
        ``start``, ``end``, ``audio_offset`` and ``length`` are those of ``TimeOptions``.

        Raises:
            ConfigError: for a missing or unknown key.
        """
        given = {key: value for key, value in values.items() if value is not None and value != ""}
        choice = parse_face(given.pop("face", None), given.pop("face_at", None))
        times = TimeOptions(
            given.pop("start", None), given.pop("end", None), given.pop("audio_offset", 0.0),
            length_mode(given.pop("length", "source")),
        )  # fmt: skip
        for name, parse in (("audio", parse_drv_aud), ("drv_aud", parse_drv_aud), ("devices", parse_devices)):
            if name in given:
                given[name] = parse(given[name])
        given |= {"face": choice, "times": times}
        given.setdefault("file", FileOptions.taken_from(given))
        return _job_from(cls, given, ("src_video", "drv_aud", "out_name"))


@dataclass(frozen=True, slots=True)
class ClassicJob:
    """One video of a trained person saying something, as GeneFace++ makes it.

    Attributes:
        drv_aud: sound or video file with the speech. out_name: the result.
        head_ckpt: the person's checkpoint.
        drv_pose: 'nearest', 'static' or 'A-B': which frames of the person's clip are played; or the path of a video
            whose head a portrait's follows.
        a2m_ckpt, mouth_amp, temperature, seed, lle_percent, raymarching_end_threshold, device: see ``ArbitraryJob``.
        debug, controls: likewise.
    """

    drv_aud: Path
    out_name: Path
    head_ckpt: Path
    drv_pose: str = "nearest"
    a2m_ckpt: Path | None = None
    mouth_amp: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    lle_percent: float = 0.2
    raymarching_end_threshold: float = END_THRESHOLD
    device: DeviceName = "auto"
    debug: bool = False
    controls: MotionControls = field(default_factory=MotionControls)

    def __post_init__(self) -> None:
        _check_speech(self)
        check_output(self.out_name, inputs=(self.drv_aud,))
        check_container(self.out_name)
        pose_video(self.drv_pose)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClassicJob:
        """Build a job from ``{'drv_aud' (or 'audio'), 'out_name', 'head_ckpt' (or 'torso_ckpt'), ...}``.

        Raises:
            ConfigError: for a missing or unknown key.
        """
        if not (values.get("head_ckpt") or values.get("torso_ckpt")):
            raise ConfigError("no person is given: name a trained one with --head_ckpt or --torso_ckpt")
        return _job_from(cls, values, ("drv_aud", "out_name", "head_ckpt"))


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """What ``scripts/evaluate.sh`` is asked to measure.

    Attributes:
        src_video: the video. out: folder of the report.
        drv_aud: foreign speeches to dub it with, if any.
        result: a finished video to judge instead of making one. masks: what it edited.
        mode: 'auto' also drives held-out frames by the video's own speech where it has sound, 'audio' insists on it,
            'landmark' leaves it out.
        folds: cut clips under a minute into five folds as well.
        head_ckpt, config, device, a2m_ckpt, mouth_amp, temperature, seed, region, blend_mode: see ``ArbitraryJob``.
        mouth, lle_percent, raymarching_end_threshold: likewise.
        controls: likewise; nothing is learnt from the frames that are to be predicted.
    """

    src_video: Path
    out: Path
    drv_aud: tuple[Path, ...] = ()
    result: Path | None = None
    masks: Path | None = None
    mode: EvaluationMode = "auto"
    folds: bool = True
    head_ckpt: Path | None = None
    config: Path | None = None
    device: DeviceName = "auto"
    a2m_ckpt: Path | None = None
    mouth_amp: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    region: Region = "lower_face"
    blend_mode: BlendMode = DEFAULT_BLEND_MODE
    mouth: MouthSource = "filmed"
    lle_percent: float = 0.2
    raymarching_end_threshold: float = END_THRESHOLD
    controls: MotionControls = field(default_factory=lambda: MotionControls(adapt="off"))

    def __post_init__(self) -> None:
        for flag, path in (("--src_video", self.src_video), ("--result", self.result), ("--masks", self.masks)):
            if path is not None and not path.is_file():
                raise VideoReadError(f"{path}: there is no such video file; check {flag}")
        if self.masks is not None and self.result is None:
            raise ConfigError("--masks says what --result edited; give both")
        for missing in (speech for speech in self.drv_aud if not speech.is_file()):
            raise AudioReadError(f"{missing}: there is no such sound file; check --drv_aud")
        if self.config is not None and not self.config.is_file():
            raise ConfigError(f"{self.config}: there is no such configuration file; presets lie in egs/egs_bases/")
        _check_checkpoints(self.a2m_ckpt, self.head_ckpt)
        check_folder(self.out)
        _check_range("--lle_percent", self.lle_percent, 0.0, 1.0)

    @property
    def trials(self) -> Path:
        """Where the trials go."""
        return self.out / TRIALS

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> EvaluationJob:
        """The command line as a job."""
        values = {key: value for key, value in vars(arguments).items() if value is not None}
        folds = not values.pop("no_folds")
        return cls(**{**values, "drv_aud": tuple(values.get("drv_aud", ()))}, folds=folds)


def _job_from(cls: type[Job], values: Mapping[str, Any], required: tuple[str, ...]) -> Job:
    """A job from any mix of its own fields and GeneFace++'s keys; ``None`` and '' mean the default."""
    given = {key: value for key, value in values.items() if value is not None and value != ""}
    if "audio" in given:
        given["drv_aud"] = given.pop("audio")
    head = resolve_head_ckpt(given.pop("head_ckpt", None), given.pop("torso_ckpt", None))
    if head is not None:
        given["head_ckpt"] = head
    if given.pop("fast", False):
        given["raymarching_end_threshold"] = FAST_END_THRESHOLD
    given.pop("low_memory_usage", None)  # frames are always streamed
    given.setdefault("controls", MotionControls.taken_from(given))
    fields = cls.__dataclass_fields__
    if "drv_pose" not in fields:  # the head moves as in the video
        given.pop("drv_pose", None)
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise ConfigError(f"unknown job key {unknown[0]!r}; known keys: {', '.join(fields)}")
    missing = [key for key in required if key not in given]
    if missing:
        raise ConfigError(f"the job lacks {missing[0]!r}; it needs {', '.join(required)}")
    is_path = {key for key, kind in get_type_hints(cls).items() if kind in (Path, Path | None)}
    checked: dict[str, Any] = {key: Path(value) if key in is_path else value for key, value in given.items()}
    return cls(**checked)


def _check_restore(model: Path | None, blend_mode: BlendMode) -> None:
    if model is not None and blend_mode != "delta":
        raise ConfigError(f"--restore works with --blend_mode delta only, not with {blend_mode}; give both")


def _check_speech(job: ArbitraryJob | ClassicJob) -> None:
    """What both kinds of job must satisfy."""
    for path in (job.drv_aud,) if isinstance(job.drv_aud, Path) else job.drv_aud.paths:
        if not path.is_file():
            raise AudioReadError(f"{path}: there is no such sound file; check --drv_aud")
    check_speech_options(job)
    _check_checkpoints(job.head_ckpt)
    _check_range("--lle_percent", job.lle_percent, 0.0, 1.0)
    _check_range("--raymarching_end_threshold", job.raymarching_end_threshold, 0.0, 1.0)


def check_speech_options(options: SpeechOptions) -> None:
    """Refuse options that no speech can be turned into motion with.

    Raises:
        CheckpointError, ConfigError: the checkpoint is not there, a number is out of range.
    """
    _check_checkpoints(options.a2m_ckpt)
    _check_range("--mouth_amp", options.mouth_amp, 0.0, 3.0)
    _check_range("--temperature", options.temperature, 0.0, 2.0)


def _check_comparable(times: TimeOptions) -> None:
    """A report compares the result with the video frame by frame, and its lips with the speech from the first on."""
    if times.speech_starts_s:
        raise ConfigError("--report needs speech that begins with the video; leave out --start and --audio_offset")
    if times.length in ("pingpong", "hold"):
        raise ConfigError(f"--report compares frame by frame; leave out --length {times.length}")


def _check_checkpoints(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.exists():
            raise CheckpointError(f"{path}: there is no such checkpoint; check the path or leave the flag out")


def resolve_head_ckpt(head_ckpt: Path | None, torso_ckpt: Path | None) -> Path | None:
    """GeneFace++'s rule: a torso checkpoint holds the head too and wins when both are given."""
    return torso_ckpt if torso_ckpt is not None else head_ckpt


def _check_range(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{flag} {value}: must lie between {low} and {high}")
