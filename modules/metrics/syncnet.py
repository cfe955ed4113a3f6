"""LSE-C and LSE-D: do lips and sound belong together, as SyncNet hears and sees it.

The network of Chung & Zisserman, "Out of time: automated lip sync in the wild" (2016), and the protocol of its
published evaluation (``syncnet_python``, which Wav2Lip's LSE scores use): 25 fps, 16 kHz mono, windows of 5 frames =
20 MFCC columns = 0.2 s, shifts of -15..15 frames. The weights are the public ``syncnet_v2.model``, which the user has
or has not; nothing here stands in for them.

One difference is left: the published scripts store the crops as lossy video on the way, here they are taken as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional

from modules.commons.errors import BackendUnavailableError, CheckpointError, first_line
from modules.metrics.mfcc import SAMPLE_RATE_HZ, mfcc
from modules.structures.audio import AudioClip
from modules.structures.crops import CropRegion

FPS = 25
CROP_SIZE = 224
WINDOW = 5
"""Frames a feature sees."""
REACH = 15
"""Frames that picture and sound are shifted against each other, both ways."""
FEATURE_WIDTH = 1024

_MFCC_PER_FRAME = 4
_SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
_MEDIAN_FRAMES = 13
_WHERE_TO_GET = (
    "syncnet_v2.model of Oxford VGG (bash scripts/download_models.sh syncnet; "
    "also linked from github.com/joonson/syncnet_python)"
)


class SyncNet(nn.Module):
    """Two towers that map 0.2 s of lips and 0.2 s of sound to points that are near when they belong together.

    Names and order of the layers are those of the public weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, padding=1), nn.MaxPool2d(1, 1),
            *_conv2d(64, 192, 3, padding=1), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, padding=1),
            *_conv2d(384, 256, 3, padding=1),
            *_conv2d(256, 256, 3, padding=1), nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4)),
        )  # fmt: skip
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), stride=2), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), stride=2, padding=1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6)),
        )  # fmt: skip
        self.netfclip = _head()

    def forward_lips(self, frames: Tensor) -> Tensor:
        """``[B, 3, 5, 224, 224]`` BGR, values 0..255, to ``[B, 1024]``."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def forward_sound(self, coefficients: Tensor) -> Tensor:
        """``[B, 1, 13, 20]`` MFCC to ``[B, 1024]``."""
        return self.netfcaud(self.netcnnaud(coefficients).flatten(1))


def load_syncnet(path: Path, device: torch.device | str) -> SyncNet:
    """The network with the public weights, ready to use.

    Args:
        path: ``syncnet_v2.model``: a state dict saved by torch, plain or under the key ``state_dict``.
        device: where the network goes.

    Raises:
        BackendUnavailableError: there is no such file, so nothing can be measured.
        CheckpointError: the file is something else.
    """
    if not path.is_file():
        raise BackendUnavailableError(
            f"{path}: SyncNet's weights are not there, so LSE-C and LSE-D are not measured; get {_WHERE_TO_GET} "
            "and put it at this path."
        )
    state = _read_state(path)
    net = SyncNet()
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        raise _foreign(path, first_line(error)) from error
    # Batch norm's step counter does nothing outside training, and old versions of torch did not save it.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise _foreign(path, f"missing: {_some(missing)}; unexpected: {_some(unexpected)}")
    return net.to(device).eval().requires_grad_(False)


def lip_features(net: SyncNet, frames: Iterable[NDArray[np.uint8]], batch: int = 16) -> NDArray[np.float32]:
    """Features of all 5-frame windows but the last one, which the published protocol leaves out.

    Args:
        net: in evaluation mode.
        frames: RGB ``[224, 224, 3]`` at 25 fps, one by one; never more than ``batch + 4`` are held.
        batch: windows per run of the network.

    Returns:
        ``[max(T - 5, 0), 1024]``; row i starts at frame i.

    Raises:
        ValueError: a frame of another shape or type.
    """
    held: list[NDArray[np.uint8]] = []
    rows = [np.zeros((0, FEATURE_WIDTH), np.float32)]
    for frame in frames:
        if frame.shape != (CROP_SIZE, CROP_SIZE, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 [{CROP_SIZE}, {CROP_SIZE}, 3], got {frame.dtype} {frame.shape}")
        held.append(np.ascontiguousarray(frame[..., ::-1]))  # BGR, and a copy: the caller may reuse its array
        if len(held) == batch + WINDOW - 1:
            rows.append(_features_of_frames(net, held))
            held = held[batch:]
    if len(held) >= WINDOW:
        rows.append(_features_of_frames(net, held))
    return np.concatenate(rows)[:-1]


def audio_features(net: SyncNet, clip: AudioClip, batch: int = 256) -> NDArray[np.float32]:
    """Features of the sound's windows, one per 1/25 s, as many as the protocol takes from video of this length.

    Args:
        net: in evaluation mode.
        clip: 16 kHz; sample 0 is heard with frame 0 of the picture.
        batch: windows per run of the network.

    Returns:
        ``[max(F - 5, 0), 1024]`` with F the whole frames (640 samples) in the clip; row i starts at frame i.

    Raises:
        ValueError: another sample rate.
    """
    coefficients = mfcc(clip).astype(np.float32)
    count = len(clip.samples) // _SAMPLES_PER_FRAME - WINDOW
    if count <= 0:
        return np.zeros((0, FEATURE_WIDTH), np.float32)
    columns = WINDOW * _MFCC_PER_FRAME
    windows = sliding_window_view(coefficients, columns, axis=0)[::_MFCC_PER_FRAME][:count, None]  # [K, 1, 13, 20]
    device = next(net.parameters()).device
    with torch.inference_mode():
        rows = [
            net.forward_sound(torch.tensor(windows[i : i + batch], device=device)).cpu().numpy()
            for i in range(0, count, batch)
        ]
    return np.concatenate(rows)


@dataclass(frozen=True, slots=True)
class SyncScores:
    """What SyncNet says of one stretch.

    Attributes:
        offset_frames: whole frames of 40 ms, where lips and sound fit best. Positive: the sound is early (it is heard
            before the lips make it); negative: late. Delaying the sound by this much puts it right.
        lse_d: distance at that shift; lower is better.
        lse_c: confidence, median over all shifts minus ``lse_d``; higher is better.
        frames: windows behind the figures. With 0 the three figures are NaN: not measurable.
    """

    offset_frames: float
    lse_d: float
    lse_c: float
    frames: int


def sync_scores(lips: NDArray[np.float32], sound: NDArray[np.float32], reach: int = REACH) -> SyncScores:
    """LSE-C, LSE-D and offset of one unbroken stretch.

    Args:
        lips: ``[T, 1024]`` of ``lip_features``.
        sound: ``[K, 1024]`` of ``audio_features``; the longer of the two is cut.
        reach: frames of shift, both ways. A stretch should be much longer: what a shift pushes over the ends is
            compared with zeros, as published.

    Raises:
        ValueError: arrays of another shape.
    """
    return scores_of_distances(sync_distances(lips, sound, reach))


def sync_distances(lips: NDArray[np.float32], sound: NDArray[np.float32], reach: int = REACH) -> NDArray[np.float32]:
    """Distance of every lip feature to the sound's features around it.

    Rows may be put together from several stretches, or drawn again for an interval, before ``scores_of_distances``.

    Returns:
        ``[min(T, K), 2 reach + 1]``: column j compares lip row i with sound row ``i + j - reach`` (zeros outside) by
        ``|lip - sound + 1e-6|``, the L2 norm as torch's ``pairwise_distance`` has it.

    Raises:
        ValueError: arrays of another shape.
    """
    if lips.ndim != 2 or sound.ndim != 2 or lips.shape[1] != sound.shape[1] or reach < 0:
        raise ValueError(f"features must be [T, C] and [K, C], reach >= 0; got {lips.shape}, {sound.shape}, {reach}")
    count = min(len(lips), len(sound))
    near = torch.tensor(lips[:count])
    far = functional.pad(torch.tensor(sound[:count]), (0, 0, reach, reach))
    # Filled in place: results kept between the large temporaries hold the heap open (600 MB for 200 s).
    distances = np.empty((count, 2 * reach + 1), np.float32)
    for column in range(2 * reach + 1):
        distances[:, column] = functional.pairwise_distance(near, far[column : column + count], eps=1e-6).numpy()
    return distances


def scores_of_distances(distances: NDArray[np.float32]) -> SyncScores:
    """Scores of the mean curve of ``sync_distances``' rows ``[N, 2 reach + 1]``; NaN scores without a row."""
    if len(distances) == 0:
        return SyncScores(math.nan, math.nan, math.nan, 0)
    curve = distances.mean(axis=0, dtype=np.float64)
    best = int(curve.argmin())
    return SyncScores(
        offset_frames=float(distances.shape[1] // 2 - best),
        lse_d=float(curve[best]),
        lse_c=float(np.median(curve) - curve[best]),
        frames=len(distances),
    )


def syncnet_regions(boxes: NDArray[np.floating]) -> list[CropRegion]:
    """The square that SyncNet's face crop covers, from face boxes at 25 fps.

    With half-size ``s = max(width, height) / 2`` its side is 2.8 s: from s above the box's centre to 1.8 s below it.
    Centre and s are median filtered over 13 frames; the ends are held (the published script takes zeros beyond them,
    which moves and shrinks its first and last six crops). No face is too small, and no row is dropped.

    Args:
        boxes: ``[T, 4]`` x0 y0 x1 y1 px of the whole face (hairline to chin). Rows with NaN had no face: they are
            filled in from their neighbours.

    Returns:
        T squares, frame pixels; resize to 224 (the published script sees grey 110 outside the picture).

    Raises:
        ValueError: another shape, an empty or inverted box, or rows but never a face.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [T, 4], got {boxes.shape}")
    if len(boxes) == 0:
        return []
    x0, y0, x1, y1 = _without_gaps(boxes.astype(np.float64)).T
    half = _smoothed(np.maximum(x1 - x0, y1 - y0) / 2)
    centre_x, centre_y = _smoothed((x0 + x1) / 2), _smoothed((y0 + y1) / 2)
    return [CropRegion(*map(float, row)) for row in zip(centre_x, centre_y + 0.4 * half, 2.8 * half, strict=True)]


def frames_at_25fps(times_s: NDArray[np.floating]) -> NDArray[np.int64]:
    """Which source frame to show at each 1/25 s tick: the nearest in time, the earlier one of two as near.

    Args:
        times_s: ``[N]`` ascending frame times, seconds; the first tick stands at the first frame.

    Returns:
        ``[M]`` rows of ``times_s``, for the ticks up to the last frame. Frames repeat below 25 fps and are skipped
        above it.

    Raises:
        ValueError: times do not ascend.
    """
    if (np.diff(times_s) <= 0).any():
        raise ValueError("frame times must ascend")
    if len(times_s) < 2:
        return np.zeros(len(times_s), np.int64)
    since = times_s.astype(np.float64) - times_s[0]
    rounding_s = 1e-6  # times in seconds are rounded: a tick on the last frame, or half-way, must not depend on that
    ticks = np.arange(math.floor((since[-1] + rounding_s) * FPS) + 1) / FPS
    after = np.clip(np.searchsorted(since, ticks), 1, len(since) - 1)
    later_is_nearer = since[after] - ticks < ticks - since[after - 1] - rounding_s
    return np.where(later_is_nearer, after, after - 1).astype(np.int64)


def _conv2d(n_inputs: int, n_outputs: int, kernel: int | tuple[int, int], padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(n_inputs, n_outputs, kernel, padding=padding), nn.BatchNorm2d(n_outputs), nn.ReLU()]


def _conv3d(
    n_inputs: int, n_outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """Stride and padding act on rows and columns, never on time."""
    convolution = nn.Conv3d(n_inputs, n_outputs, kernel, (1, stride, stride), (0, padding, padding))
    return [convolution, nn.BatchNorm3d(n_outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, FEATURE_WIDTH))


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file breaks torch's reader anywhere: struct.error, AssertionError, ...
        # torch's own words are left out: they advise to switch the safe reader off
        raise _foreign(path, f"torch's safe reader stops with {type(error).__name__}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    is_table = isinstance(loaded, Mapping)
    if not is_table or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()):
        raise _foreign(path, f"it holds a {type(loaded).__name__} that is no table of named tensors")
    return loaded


def _foreign(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: not SyncNet's weights ({reason}); give {_WHERE_TO_GET}.")


def _some(names: list[str]) -> str:
    """The first few names of a list that may be long."""
    shown = ", ".join(names[:3]) or "none"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _features_of_frames(net: SyncNet, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """``n + 4`` BGR frames to the ``[n, 1024]`` features of their windows."""
    stacked = torch.from_numpy(np.stack(frames)).to(next(net.parameters()).device)
    windows = stacked.float().unfold(0, WINDOW, 1)  # [n, 224, 224, 3, 5], a view
    with torch.inference_mode():
        return net.forward_lips(windows.permute(0, 3, 4, 1, 2)).cpu().numpy()


def _without_gaps(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[T, 4]`` with the rows that hold NaN interpolated between their neighbours, held at the ends."""
    is_known = np.isfinite(boxes).all(axis=1)
    if not is_known.any():
        raise ValueError("no row holds a face box")
    if (boxes[is_known, 2:] <= boxes[is_known, :2]).any():
        raise ValueError("a face box is empty or inverted; boxes are x0 y0 x1 y1")
    rows = np.arange(len(boxes))
    return np.stack([np.interp(rows, rows[is_known], side[is_known]) for side in boxes.T], axis=1)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return median_filter(values, _MEDIAN_FRAMES, mode="nearest")
