"""Small generated clips with known planes and times: constant and variable rate, edit lists, rotation, odd sizes."""

from __future__ import annotations

import math
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

_SHIFT_OF_SAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0)}
UNTAGGED = (2, 2, 2, 0)
"""FFmpeg's numbers for "unspecified": primaries, transfer, matrix, range."""

Planes = tuple[NDArray, NDArray, NDArray]
"""uint8, or uint16 above 8 bits."""


@dataclass(frozen=True)
class ClipSpec:
    """What to generate. ``pts`` (in ``time_base``) overrides the constant rate; ``hidden`` frames lie before the edit
    list's start; ``rotation_deg`` is counter-clockwise, as PyAV reads it back; ``tone_hz`` adds AAC sound; ``options``
    are the encoder's own.
    """

    width: int = 64
    height: int = 48
    n_frames: int = 12
    pixel_format: str = "yuv420p"
    rate: Fraction = Fraction(25)
    time_base: Fraction = Fraction(1, 12800)
    pts: tuple[int, ...] | None = None
    color_tags: tuple[int, int, int, int] = UNTAGGED
    rotation_deg: int = 0
    hidden: int = 0
    tone_hz: float | None = None
    codec: str | None = None
    sample_aspect_ratio: Fraction | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """A clip on disk with its truth: planes as coded (before rotation) and times of the frames that are shown."""

    path: Path
    spec: ClipSpec
    pts: tuple[int, ...]
    planes: tuple[Planes, ...]


def make_clip(path: Path, spec: ClipSpec | None = None) -> Clip:
    """Encode a lossless clip (x264 qp 0 where the size allows it, else FFV1) and return it with its truth."""
    spec = spec or ClipSpec()
    step = 1 / (spec.rate * spec.time_base)
    pts = spec.pts or tuple(int(i * step) for i in range(spec.n_frames))
    planes = tuple(frame_planes(spec, i) for i in range(len(pts)))
    options = {"movflags": "+faststart"}
    if path.suffix in {".mp4", ".mov"}:
        options["video_track_timescale"] = str(spec.time_base.denominator)
        options["movie_timescale"] = str(spec.time_base.denominator * 1000)
    if spec.hidden:
        options["avoid_negative_ts"] = "disabled"
    with av.open(str(path), "w", options=options) as container:
        stream = _video_stream(container, spec)
        sound = _sound_stream(container) if spec.tone_hz else None
        origin = pts[spec.hidden] if spec.hidden else 0
        for time, image in zip(pts, planes, strict=True):
            container.mux(stream.encode(video_frame(image, spec.pixel_format, time - origin, spec.time_base)))
        container.mux(stream.encode(None))
        if sound is not None:
            duration_s = float((pts[-1] - origin) * spec.time_base)
            _encode_tone(container, sound, spec.tone_hz, duration_s)
    shown = tuple(p - pts[spec.hidden] for p in pts[spec.hidden :]) if spec.hidden else pts
    return Clip(path, spec, shown, planes[spec.hidden :])


def depth_of(pixel_format: str) -> int:
    """Bits per sample: 8, 10 or 12."""
    return int(pixel_format.partition("p")[2].removesuffix("le") or 8)


def frame_planes(spec: ClipSpec, index: int) -> Planes:
    """Planes of frame ``index``: gradients that move, a bright square that moves, a corner of noise; within 16..235,
    or that range of a greater depth with its lowest bits used.
    """
    generator = np.random.default_rng(index)
    shift_x, shift_y = _shift_of(spec.pixel_format)
    finer = 1 << (depth_of(spec.pixel_format) - 8)
    made = []
    for plane in range(3):
        width = -(-spec.width >> shift_x) if plane else spec.width
        height = -(-spec.height >> shift_y) if plane else spec.height
        x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
        wave_values = np.sin(2 * math.pi * (x + 0.7 * y * (plane + 1) + index / 16))
        values = 120 + 70 * wave_values
        left, top = int((0.1 + 0.02 * index) * width) % max(width - 4, 1), height // 3
        values[top : top + height // 4, left : left + width // 5] = 200 - 50 * plane
        values[: height // 4, : width // 4] += generator.uniform(-20, 20, (height // 4, width // 4))
        coded = np.clip(np.rint(values * finer), 16 * finer, 235 * finer)
        made.append(coded.astype(np.uint8 if finer == 1 else np.uint16))
    return made[0], made[1], made[2]


def video_frame(planes: Sequence[NDArray], pixel_format: str, pts: int, time_base: Fraction) -> av.VideoFrame:
    """A PyAV frame holding copies of ``planes``."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for target, source in zip(frame.planes, planes, strict=True):
        _samples(target, depth_of(pixel_format))[:] = source
    frame.pts, frame.time_base = pts, time_base
    return frame


def write_tone(
    path: Path,
    duration_s: float,
    *,
    hz: float = 440.0,
    rate_hz: int = 44100,
    channels: int = 1,
    onset_s: float = 0.0,
) -> Path:
    """Write a 16-bit WAV: silence until ``onset_s``, then a sine of amplitude 0.5 at full strength at once."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    samples = np.where(times >= onset_s, 0.5 * np.sin(2 * math.pi * hz * (times - onset_s) + math.pi / 2), 0.0)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(np.repeat(np.int16(samples * 32767), channels).tobytes())
    return path


def read_video(path: Path) -> tuple[list[Fraction], list[Planes], av.VideoFrame]:
    """Times in seconds, planes as coded and the last PyAV frame, read without the project's reader."""
    times, images, last = [], [], None
    with av.open(str(path)) as container:
        for last in container.decode(video=0):
            times.append(last.pts * last.time_base)
            depth = last.format.components[0].bits
            images.append(tuple(_samples(plane, depth).copy() for plane in last.planes))
    assert last is not None
    return times, images, last


def read_audio(path: Path) -> tuple[NDArray[np.float32], int, float]:
    """Mono samples ``[N]``, their rate, and the time of the first one as the container presents it."""
    blocks, start_s, rate = [], None, 0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            start_s = float(frame.pts * frame.time_base) if start_s is None else start_s
            rate = frame.sample_rate
            data = frame.to_ndarray().astype(np.float32)
            data = data / 32768 if frame.format.name.startswith("s16") else data
            blocks.append(
                data.reshape(-1, len(frame.layout.channels)).mean(1) if not frame.format.is_planar else data.mean(0)
            )
    return np.concatenate(blocks), rate, start_s or 0.0


def _shift_of(pixel_format: str) -> tuple[int, int]:
    return next(shift for sampling, shift in _SHIFT_OF_SAMPLING.items() if sampling in pixel_format)


def _samples(plane: av.video.plane.VideoPlane, depth: int) -> NDArray:
    rows = np.frombuffer(plane, np.uint8 if depth == 8 else np.dtype("<u2")).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _video_stream(container: av.container.OutputContainer, spec: ClipSpec) -> av.VideoStream:
    shift_x, shift_y = _shift_of(spec.pixel_format)
    has_whole_chroma = spec.width % (1 << shift_x) == 0 and spec.height % (1 << shift_y) == 0
    codec = spec.codec or ("libx264" if has_whole_chroma and depth_of(spec.pixel_format) <= 10 else "ffv1")
    options = {**({"qp": "0"} if codec == "libx264" else {}), **spec.options}
    stream = container.add_stream(codec, rate=spec.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, spec.pixel_format
    stream.time_base = stream.codec_context.time_base = spec.time_base
    if spec.sample_aspect_ratio is not None:
        stream.codec_context.sample_aspect_ratio = spec.sample_aspect_ratio
    context = stream.codec_context
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = spec.color_tags
    if spec.rotation_deg:
        stream.set_display_rotation(spec.rotation_deg)
    return stream


def _sound_stream(container: av.container.OutputContainer) -> av.AudioStream:
    return container.add_stream("aac", rate=44100, layout="mono")


def _encode_tone(container: av.container.OutputContainer, stream: av.AudioStream, hz: float, duration_s: float) -> None:
    count = max(round(duration_s * 44100), 2048)
    samples = 0.5 * np.sin(2 * math.pi * hz * np.arange(count) / 44100)
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
