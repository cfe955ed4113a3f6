"""Train one person's post-net on their own clip, measure it on the clip's held-out frames, write its checkpoint.

Reads: a prepared clip (``data_gen/runs/process_video.py``), the face model.
Writes: the checkpoint and TensorBoard logs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.audio2motion.motion_space import columns_of, rest_expression
from modules.commons.checkpoint import load_checkpoint, save_checkpoint
from modules.commons.errors import CheckpointError, ConfigError, first_line
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, ROOT, VideoWorkspace
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.postnet.postnet import LandmarkPostNet
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.structures.dataset import NeRFDataset, last_eleventh
from modules.structures.landmarks import lip_opening
from tasks.audio2motion.fitting import learning_rate_share
from tasks.hooks import ProgressHook, ScalarHook
from tasks.postnet.configs import PostNetTaskConfig
from tasks.postnet.distortion import distort, mirrored_columns
from tasks.trainer import Trainer

logger = logging.getLogger(__name__)

LEAST_ROWS = 100
"""Fewer frames to learn from do not show a person."""
_MEASURED_DRAWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class PersonClip:
    """A person's motion as tables.

    Attributes:
        expression: ``[T, E]``; rows that are no evidence are left out. is_train: bool ``[T]``.
        rest: ``[E]`` mouth at rest in the training rows.
        neutral: ``[204]`` raw condition of expression 0. effect: ``[E, 204]`` what one unit of each adds; it is linear.
        columns: int64 ``[U]`` of the mouth units. mirror: ``[U]`` see ``mirrored_columns``.
        source_sha256, face_model_version: of the clip.
    """

    expression: NDArray[np.float32]
    is_train: NDArray[np.bool_]
    rest: NDArray[np.float32]
    neutral: NDArray[np.float32]
    effect: NDArray[np.float32]
    columns: NDArray[np.int64]
    mirror: NDArray[np.int64]
    source_sha256: str
    face_model_version: str

    def conditions(self, expression: NDArray[np.floating]) -> NDArray[np.float32]:
        """Raw conditions ``[..., 204]`` of ``[..., E]``."""
        return (self.neutral + expression @ self.effect).astype(np.float32)


def person_clip(dataset: NeRFDataset, face_model: FaceModel) -> PersonClip:
    """The tables of a prepared clip.

    Raises:
        CheckpointError: it belongs to another face model.
        ConfigError: it is too short.
    """
    coeffs = dataset.coeffs
    if coeffs.face_model_version != face_model.version:
        raise CheckpointError(
            f"the prepared clip {dataset.video_id} belongs to face model {coeffs.face_model_version!r}, installed is "
            f"{face_model.version!r}; prepare the video again"
        )
    keep = coeffs.valid & np.isfinite(coeffs.expression).all(axis=1)
    if keep.sum() < LEAST_ROWS:
        raise ConfigError(f"{dataset.video_id}: {int(keep.sum())} frames with a face, a post-net needs {LEAST_ROWS}")
    model = face_model.corrected(coeffs.correction)
    expression = coeffs.expression[keep]
    is_train = last_eleventh(len(coeffs)).is_train[keep]
    with torch.no_grad():
        points = model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(expression)).numpy()
    columns = columns_of(model.expression_names, MOUTH_UNITS)
    each = np.concatenate([np.zeros((1, model.n_expression)), np.eye(model.n_expression)]).astype(np.float32)
    moved = condition_from_expression(model, coeffs.identity, each)
    return PersonClip(
        expression=expression,
        is_train=is_train,
        rest=rest_expression(expression[is_train], lip_opening(points)[is_train]),
        neutral=moved[0],
        effect=moved[1:] - moved[0],
        columns=columns,
        mirror=mirrored_columns(model.expression_names, columns),
        source_sha256=dataset.source_sha256,
        face_model_version=model.version,
    )


class PostNetTask:
    """Training steps: windows of the clip, spoilt, to be mended; and as they are, to be left alone."""

    def __init__(self, net: LandmarkPostNet, clip: PersonClip, config: PostNetTaskConfig) -> None:
        self.net, self._clip, self._config = net.train(), clip, config
        self._rows = np.flatnonzero(clip.is_train)
        self._spread = clip.expression[clip.is_train][:, clip.columns].std(axis=0)
        self._rng = np.random.default_rng(config.seed)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One update; see ``tasks.trainer``."""
        config = self._config
        count = min(config.window_rows, len(self._rows))
        starts = self._rng.integers(0, len(self._rows) - count + 1, config.batch_windows)
        windows = [self._moved(self._clip.expression[self._rows[start : start + count]]) for start in starts]
        true = torch.from_numpy(np.stack([self._clip.conditions(window) for window in windows]))
        spoilt = np.stack([self._clip.conditions(spoil(self._clip, window, config, self._rng)) for window in windows])
        mended, untouched = self.net(torch.cat([torch.from_numpy(spoilt), true])).chunk(2)
        loss = self._error(mended, true) + config.identity_weight * self._error(untouched, true)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate_share(step, config.max_updates)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def _moved(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """A window with a constant added to its mouth units: a person's rest drifts, and that is not to be mended."""
        result, columns = window.copy(), self._clip.columns
        drift = self._config.drift * (self._spread * self._rng.standard_normal(len(columns)))
        result[:, columns] += drift.astype(np.float32)
        return result

    def _error(self, rows: Tensor, true: Tensor) -> Tensor:
        return ((rows - true) / self.net.std).square().mean()


def spoil(
    clip: PersonClip, expression: NDArray[np.float32], config: PostNetTaskConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """``expression [T, E]`` with its mouth units spoilt."""
    result = expression.copy()
    rest = clip.rest[clip.columns]
    result[:, clip.columns] = distort(expression[:, clip.columns], rest, clip.mirror, config.distortion, rng)
    return result


def train(config: PostNetTaskConfig, out_dir: Path, progress: Progress, *, work_dir: Path | None = None) -> None:
    """Train from a prepared clip to a checkpoint; it takes about half a minute on one core.

    Args:
        config: the task's configuration.
        out_dir: checkpoint directory.
        progress: told the steps.
        work_dir: logs; default ``data/training/<name of out_dir>``.

    Raises:
        GeneFaceError: the clip is missing or cannot be learnt from.
    """
    torch.set_num_threads(config.threads)
    dataset = _dataset(config)
    clip = person_clip(dataset, FaceModel.load(FACE_MODEL_FILE))
    net, held_out = fit(clip, config, work_dir or ROOT / "data" / "training" / out_dir.name, progress)
    logger.info("held-out frames, mm: %s", {name: round(value, 3) for name, value in held_out.items()})
    extra = {"source_sha256": clip.source_sha256, "face": config.face, "held_out_mm": held_out}
    tensors = {"model": net.state_dict()}
    save_checkpoint(out_dir, tensors, config, config.max_updates, extra, face_model_version=clip.face_model_version)


def fit(
    clip: PersonClip, config: PostNetTaskConfig, work_dir: Path, progress: Progress
) -> tuple[LandmarkPostNet, dict[str, float]]:
    """The trained net in evaluation mode, and ``held_out_errors``."""
    torch.manual_seed(config.seed)
    net = LandmarkPostNet(config.net)
    statistics = ConditionStatistics.of(clip.conditions(clip.expression[clip.is_train]))
    net.mean.copy_(torch.from_numpy(statistics.mean))
    net.std.copy_(torch.from_numpy(statistics.std))
    hooks = [ProgressHook(progress, "post-net"), ScalarHook(work_dir / "log", config.log_interval)]
    Trainer(PostNetTask(net, clip, config), config.max_updates, hooks).fit()
    net.eval()
    return net, held_out_errors(net, clip, config)


@torch.no_grad()
def held_out_errors(net: LandmarkPostNet, clip: PersonClip, config: PostNetTaskConfig) -> dict[str, float]:
    """Mean distance of the 68 landmarks from the true ones on frames held out, mm.

    ``spoilt``: as spoilt for training, ``mended``: by the net, ``untouched``: what the net does to the truth.
    """
    true_units = clip.expression[~clip.is_train]
    true = clip.conditions(true_units)
    rng = np.random.default_rng(config.seed + 1)
    spoilt = np.stack([clip.conditions(spoil(clip, true_units, config, rng)) for _ in range(_MEASURED_DRAWS)])
    mended = net(torch.from_numpy(spoilt)).numpy()
    untouched = net(torch.from_numpy(true)[None]).numpy()
    named = {"spoilt": spoilt, "mended": mended, "untouched": untouched}
    # a raw condition is ten times a displacement in dm
    apart = {name: (rows - true).reshape(*rows.shape[:-1], -1, 3) for name, rows in named.items()}
    return {name: float(10 * np.linalg.norm(values, axis=-1).mean()) for name, values in apart.items()}


def load_postnet(directory: Path, face_model_version: str) -> LandmarkPostNet:
    """A trained post-net in evaluation mode, on the CPU.

    Raises:
        CheckpointError: missing, corrupt, something else, or of another face model.
    """
    checkpoint = load_checkpoint(directory, parts={"model"})
    if checkpoint.face_model_version != face_model_version:
        raise CheckpointError(
            f"{directory}: a post-net for face model {checkpoint.face_model_version}, in use is {face_model_version}; "
            "train it again with: python tasks/run.py --config egs/egs_bases/postnet/base.yaml"
        )
    try:
        net = LandmarkPostNet(checkpoint.config(PostNetTaskConfig).net)
        net.load_state_dict(checkpoint.model)
    except (ConfigError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{directory}: not a post-net's checkpoint ({first_line(error)})") from error
    return net.eval()


def _dataset(config: PostNetTaskConfig) -> NeRFDataset:
    data_root = config.data_root if config.data_root.is_absolute() else ROOT / config.data_root
    workspace = VideoWorkspace(config.video_id, data_root, config.face)
    if not config.video_id or not workspace.dataset.is_file():
        raise ConfigError(
            f"{workspace.dataset}: there is no such prepared clip; name one with --hparams video_id=ID, made by "
            "data_gen/runs/process_video.py"
        )
    try:
        return NeRFDataset.load(workspace.dataset)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(f"{workspace.dataset}: {error}; prepare the video again") from error
