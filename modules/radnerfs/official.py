"""GeneFace++'s renderer checkpoints as portraits: all four kinds, their sizes told by the tensors themselves.

Reads: a folder (or file) of GeneFace++, or what ``tasks/import_geneface.py`` made of one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.config import read_mapping
from modules.commons.errors import CheckpointError, ConfigError, first_line
from modules.commons.official_checkpoint import (
    CONFIG_NAME,
    OfficialState,
    is_official,
    newest_checkpoint,
    read_official_hparams,
    read_official_state,
)
from modules.commons.workspace import ROOT, VideoWorkspace
from modules.face_model.bfm import BFM_VERSION_PREFIX
from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.config import (
    GridConfig,
    PortraitConfig,
    RADNeRFConfig,
    RenderConfig,
    SuperResolutionConfig,
    TorsoConfig,
)
from modules.radnerfs.portrait import Portrait, portrait_names

logger = logging.getLogger(__name__)

KIND_OF_TASK = {
    "tasks.radnerfs.radnerf.RADNeRFTask": "head",
    "tasks.radnerfs.radnerf_sr.RADNeRFTask": "head_sr",
    "tasks.radnerfs.radnerf_torso.RADNeRFTorsoTask": "torso",
    "tasks.radnerfs.radnerf_torso_sr.RADNeRFTorsoTask": "torso_sr",
}
"""GeneFace++'s ``task_cls`` strings, and the portrait that each of them trains (``Portrait.kind``)."""
_GRID_TYPES: dict[str, Literal["tiled", "hash"]] = {"tiledgrid": "tiled", "hashgrid": "hash"}
_UNTOLD = (
    "cond_win_size", "max_steps", "dt_gamma", "density_thresh", "bound", "camera_scale", "grid_type",
    "grid_interpolation_type", "log2_hashmap_size", "desired_resolution", "min_near", "grid_size",
)  # fmt: skip
"""Keys that shapes cannot tell; GeneFace++'s own values stand where a configuration lacks them, and the log says so."""


@dataclass(frozen=True, slots=True)
class ImportedPortraitConfig:
    """What an imported portrait's ``config.yaml`` holds.

    Attributes:
        task_cls: GeneFace++'s name of the task that trained it.
        video_id: the clip it was trained on, below data_root (relative paths lie below the repository).
        portrait: sizes, and how it is rendered.
        smooth_camera_path, camera_kernel: whether the head's pose is smoothed over time, over how many frames (odd).
        background: behind the person: '' = the clip's own, 'white', 'black', or a picture's path.
    """

    task: Literal["portrait"] = "portrait"
    task_cls: str = ""
    video_id: str = ""
    data_root: Path = Path("data")
    portrait: PortraitConfig = field(default_factory=PortraitConfig)
    smooth_camera_path: bool = True
    camera_kernel: int = 7
    background: str = ""

    @property
    def workspace(self) -> VideoWorkspace:
        """Where the clip lies."""
        return VideoWorkspace(self.video_id, ROOT / self.data_root)


@dataclass(frozen=True, slots=True, eq=False)
class OfficialPortrait:
    """A portrait that GeneFace++ trained.

    Attributes:
        portrait: in evaluation mode. config: its settings. source: where it was read from. step: of its training.
    """

    portrait: Portrait
    config: ImportedPortraitConfig
    source: Path
    step: int


def is_portrait(path: Path) -> bool:
    """Whether a path names a renderer that ``load_portrait`` reads: GeneFace++'s own, or an imported one."""
    if is_official(path):
        return True
    return is_checkpoint(path) and read_mapping(path / CONFIG_NAME).get("task") == "portrait"


def load_portrait(
    path: Path, device: torch.device | str = "cpu", backend: RenderBackend | None = None
) -> OfficialPortrait:
    """Read a renderer of GeneFace++, or one that was imported.

    Args:
        path: a folder with ``model_ckpt_steps_*.ckpt`` and ``config.yaml``, such a ``.ckpt``, or an imported folder.
        device: where it goes.
        backend: what computes it; None = the best one for the CPU.

    Raises:
        CheckpointError: missing, damaged, something else, or of sizes this project does not know.
        ConfigError: its configuration is missing or wrong.
    """
    if not is_official(path) and is_checkpoint(path):
        return _load_imported(path, device, backend)
    state = read_official_state(newest_checkpoint(path, "motion2video_nerf/may_torso"))
    return portrait_of_state(state, read_official_hparams(state.file.with_name(CONFIG_NAME)), device, backend)


def portrait_of_state(
    state: OfficialState,
    hparams: Mapping[str, Any],
    device: torch.device | str = "cpu",
    backend: RenderBackend | None = None,
) -> OfficialPortrait:
    """The renderer of a checkpoint that was read, with the flat keys of its ``config.yaml``.

    Raises:
        CheckpointError: it is another network, or of sizes this project does not know.
        ConfigError: a key has another type.
    """
    try:
        config = imported_config(state.tensors, hparams)
        portrait = _filled(config, portrait_names(state.tensors), backend)
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(
            f"{state.file}: not a head or torso checkpoint of GeneFace++ ({lacks}); "
            "give its motion2video_nerf/*/model_ckpt_steps_*.ckpt"
        ) from error
    logger.info("%s: a portrait of the kind %s after %d steps", state.file, portrait.kind, state.step)
    return OfficialPortrait(portrait.to(device), config, state.file, state.step)


def _filled(config: ImportedPortraitConfig, tensors: Mapping[str, Tensor], backend: RenderBackend | None) -> Portrait:
    _check_sizes(config, tensors)
    portrait = Portrait(config.portrait, backend).eval()
    wanted = {key: value for key, value in portrait.state_dict().items() if key.endswith(".offsets")}
    different = [key for key, value in wanted.items() if key in tensors and not torch.equal(tensors[key], value)]
    if different:
        raise ValueError(f"the levels of {different[0].removesuffix('.offsets')} are not those of its configuration")
    portrait.load_state_dict(dict(tensors), strict=True)
    return portrait


def _check_sizes(config: ImportedPortraitConfig, tensors: Mapping[str, Tensor]) -> None:
    """Tensors have the sizes that their configuration asks for, before any memory is taken: it may ask for anything."""
    with torch.device("meta"):
        wanted = Portrait(config.portrait).state_dict()
    for key, value in wanted.items():
        if key in tensors and tensors[key].shape != value.shape:
            raise ValueError(
                f"{key} has the shape {list(tensors[key].shape)}, its configuration asks for {list(value.shape)}"
            )


def _load_imported(path: Path, device: torch.device | str, backend: RenderBackend | None) -> OfficialPortrait:
    checkpoint = load_checkpoint(path, parts={"model"})
    config = checkpoint.config(ImportedPortraitConfig)
    try:
        portrait = _filled(config, checkpoint.model, backend)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: tensors and configuration disagree ({first_line(error)}); import it again"
        ) from error
    return OfficialPortrait(portrait.to(device), config, path, checkpoint.step)


def save_portrait(
    official: OfficialPortrait,
    directory: Path,
    hparams: Mapping[str, Any],
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
    *,
    face_model_version: str = BFM_VERSION_PREFIX,
) -> None:
    """Write a portrait as a checkpoint of this project.

    Args:
        official: what to write.
        directory: the checkpoint; an older one there is replaced.
        hparams: GeneFace++'s own keys, kept beside it so that nothing it knew is lost.
        more: further groups of tensors, such as an optimiser's.
        face_model_version: of the coefficients that it was trained with.

    Raises:
        OutputError: the directory cannot be written.
    """
    tensors = {"model": official.portrait.state_dict(), **(more or {})}
    extra = {"geneface_hparams": dict(hparams), "imported_from": str(official.source)}
    save_checkpoint(directory, tensors, official.config, official.step, extra, face_model_version=face_model_version)


def imported_config(tensors: Mapping[str, Tensor], hparams: Mapping[str, Any]) -> ImportedPortraitConfig:
    """Settings of an official state: sizes from its tensors, the rest from its configuration.

    Args:
        tensors: under their official names.
        hparams: flat keys of its ``config.yaml``.

    Raises:
        KeyError: a tensor that every such network has is missing.
        ValueError: a value, or a ``task_cls``, that this project does not know, or one that the tensors contradict.
        ConfigError: a key has another type.
    """
    missing = [key for key in _UNTOLD if key not in hparams]
    if missing:
        logger.warning("config.yaml lacks %s; GeneFace++'s own values are taken", ", ".join(missing))
    portrait = PortraitConfig(
        head=_head_config(tensors, hparams),
        torso=_torso_config(tensors, hparams) if "torso_deform_net.net.0.weight" in tensors else None,
        super_resolution=_sr_config(tensors) if any(key.startswith("sr_net.") for key in tensors) else None,
        adaptive_ambient="lambda_ambient" in tensors,
        camera_scale=number(hparams, "camera_scale", 4.0),
        camera_offset=offset_of_hparams(hparams),
    )
    task_cls = str(hparams.get("task_cls", ""))
    _check_task(task_cls, portrait)
    return ImportedPortraitConfig(
        task_cls=task_cls,
        video_id=str(hparams.get("video_id", "")),
        data_root=data_root_of_hparams(hparams),
        portrait=portrait,
        smooth_camera_path=bool(hparams.get("infer_smooth_camera_path", True)),
        camera_kernel=int(number(hparams, "infer_smooth_camera_path_kernel_size", 7)),
        background=str(hparams.get("infer_bg_img_fname") or ""),
    )


def _check_task(task_cls: str, portrait: PortraitConfig) -> None:
    kind = ("head" if portrait.torso is None else "torso") + ("" if portrait.super_resolution is None else "_sr")
    if task_cls and KIND_OF_TASK.get(task_cls) != kind:
        known = f"that trains a {KIND_OF_TASK[task_cls]}" if task_cls in KIND_OF_TASK else "which is none of the four"
        raise ValueError(f"its task_cls is {task_cls}, {known}, and its tensors are those of a {kind}")


def _head_config(tensors: Mapping[str, Tensor], hparams: Mapping[str, Any]) -> RADNeRFConfig:
    """Sizes of the head (the checklist of GeneFace++'s shapes)."""
    grid = _grid_config(tensors["position_embedder.embeddings"], hparams)
    attention = tensors.get("cond_att_net.attentionNet.0.weight")
    blink = tensors.get("blink_encoder.1.weight")
    codes, color = tensors["individual_embeddings"], tensors["color_net.net.0.weight"]
    geometry = tensors[f"sigma_net.net.{_depth(tensors, 'sigma_net') - 1}.weight"].shape[0] - 1
    n_directions = color.shape[1] - geometry - codes.shape[1]
    return RADNeRFConfig(
        position_grid=grid,
        ambient_grid=grid,
        ambient_dim=tensors[f"ambient_net.net.{_depth(tensors, 'ambient_net') - 1}.weight"].shape[0],
        hidden_dim_ambient=tensors["ambient_net.net.0.weight"].shape[0],
        hidden_dim_sigma=tensors["sigma_net.net.0.weight"].shape[0],
        hidden_dim_color=color.shape[0],
        num_layers_ambient=_depth(tensors, "ambient_net"),
        num_layers_sigma=_depth(tensors, "sigma_net"),
        num_layers_color=_depth(tensors, "color_net"),
        geo_feat_dim=geometry,
        sh_degree=round(max(n_directions, 0) ** 0.5),
        cond_in_dim=tensors["cond_prenet.encoder_conv.0.weight"].shape[1],
        cond_out_dim=tensors["cond_prenet.encoder_fc1.2.weight"].shape[0],
        cond_win_size=int(number(hparams, "cond_win_size", 1)),
        smo_win_size=1 if attention is None else attention.shape[0],
        with_att=attention is not None,
        eye_blink_dim=0 if blink is None else blink.shape[0],
        individual_embedding_num=codes.shape[0],
        individual_embedding_dim=codes.shape[1],
        bound=number(hparams, "bound", 1.0),
        render=_render_config(tensors, hparams),
    )


def _render_config(tensors: Mapping[str, Tensor], hparams: Mapping[str, Any]) -> RenderConfig:
    cells = tensors["density_grid"].shape[1]
    return RenderConfig(
        max_steps=int(number(hparams, "max_steps", 16)),
        dt_gamma=number(hparams, "dt_gamma", 1 / 256),
        t_thresh=0.01,
        min_near=number(hparams, "min_near", 0.05),
        density_thresh=number(hparams, "density_thresh", 10.0),
        grid_size=round(cells ** (1 / 3)),
    )


def _grid_config(table: Tensor, hparams: Mapping[str, Any]) -> GridConfig:
    return replace(grid_of_hparams(hparams), features_per_level=table.shape[1])


def grid_of_hparams(hparams: Mapping[str, Any]) -> GridConfig:
    """The feature grids of a configuration.

    Raises:
        ValueError: a kind of grid that this project does not know.
        ConfigError: a size is no number.
    """
    name = str(hparams.get("grid_type", "tiledgrid"))
    if name not in _GRID_TYPES:
        raise ValueError(f"its grid_type is {name}, known are {', '.join(_GRID_TYPES)}")
    smooth = str(hparams.get("grid_interpolation_type", "linear"))
    if smooth not in ("linear", "smoothstep"):
        raise ValueError(f"its grid_interpolation_type is {smooth}, known are linear and smoothstep")
    return GridConfig(
        desired_resolution=int(number(hparams, "desired_resolution", 2048)),
        log2_table_size=int(number(hparams, "log2_hashmap_size", 16)),
        grid_type=_GRID_TYPES[name],
        interpolation=smooth,
    )


_PLACE_WIDTH, _CUE_WIDTHS, _HEAD_WIDTH = 42, {54: "pose", 126: "landmarks"}, 16


def _torso_config(tensors: Mapping[str, Tensor], hparams: Mapping[str, Any]) -> TorsoConfig:
    codes, first = tensors["torso_individual_codes"], tensors["torso_deform_net.net.0.weight"]
    head_aware = "head_color_weights_encoder.0.weight" in tensors
    width = first.shape[1] - _PLACE_WIDTH - codes.shape[1] - (_HEAD_WIDTH if head_aware else 0)
    if width not in _CUE_WIDTHS:
        raise ValueError(f"its torso bends with {width} features, known are 54 (pose) and 126 (landmarks)")
    return TorsoConfig(
        grid=_grid_config(tensors["torso_embedder.embeddings"], hparams),
        cue="pose" if _CUE_WIDTHS[width] == "pose" else "landmarks",
        head_aware=head_aware,
        individual_embedding_num=codes.shape[0],
        individual_embedding_dim=codes.shape[1],
        hidden_dim_deform=first.shape[0],
        hidden_dim_color=tensors["torso_canonicial_net.net.0.weight"].shape[0],
        num_layers=_depth(tensors, "torso_deform_net"),
        shrink=number(hparams, "torso_shrink", 0.8),
        grid_size=round(tensors["density_grid_torso"].shape[0] ** 0.5),
        density_thresh=number(hparams, "density_thresh_torso", 0.01),
    )


def _sr_config(tensors: Mapping[str, Tensor]) -> SuperResolutionConfig:
    return SuperResolutionConfig(
        size=tensors["sr_net.block0.conv0.noise_const"].shape[0],
        channels=(tensors["sr_net.block0.conv0.weight"].shape[0], tensors["sr_net.block1.conv0.weight"].shape[0]),
        style_dim=tensors["sr_net.block0.conv0.affine.weight"].shape[1],
    )


def _depth(tensors: Mapping[str, Tensor], network: str) -> int:
    """Layers of one of the MLPs."""
    return len([key for key in tensors if key.startswith(f"{network}.net.") and key.endswith(".weight")])


def number(hparams: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a configuration; YAML 1.1 reads 5e-4 as text.

    Raises:
        ConfigError: it is none.
    """
    value = hparams.get(key, default)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{CONFIG_NAME}: {key} must be a number, got {value!r}") from error


def offset_of_hparams(hparams: Mapping[str, Any]) -> tuple[float, float, float]:
    """``camera_offset`` of a configuration.

    Raises:
        ConfigError: it is not three numbers.
    """
    values = hparams.get("camera_offset", (0.0, 0.0, 0.0))
    try:
        x, y, z = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{CONFIG_NAME}: camera_offset must be three numbers, got {values!r}") from error
    return x, y, z


def data_root_of_hparams(hparams: Mapping[str, Any]) -> Path:
    """``data`` of a configuration's ``binary_data_dir: data/binary/videos``.

    Raises:
        ConfigError: it ends in other folders.
    """
    binary = str(hparams.get("binary_data_dir") or "data/binary/videos")
    path = Path(binary)
    if path.parts[-2:] != ("binary", "videos"):
        raise ConfigError(f"binary_data_dir is {binary!r}; it must end in binary/videos, as data/binary/videos does")
    return path.parent.parent
