"""Audio → motion checkpoints of GeneFace++ itself, read without running anything in them.

Reads: ``model_ckpt_steps_*.ckpt`` files (or a folder of them), as released by GeneFace++ or trained with it, and what
``tasks/import_geneface.py`` made of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.audio2motion.speech_vae import SpeechInputs, SpeechVAE, SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.config import read_mapping
from modules.commons.errors import CheckpointError, first_line
from modules.commons.official_checkpoint import (
    CONFIG_NAME,
    OfficialState,
    is_official,
    newest_checkpoint,
    read_official_state,
)
from modules.face_model.bfm import BFM_VERSION_PREFIX, N_BFM_EXPRESSION, N_BFM_IDENTITY

logger = logging.getLogger(__name__)

OFFICIAL_MOTION_RATE_HZ = 25.0
"""Of what official networks predict; their features come at twice this rate."""


@dataclass(frozen=True, slots=True)
class ImportedMotionConfig:
    """What an imported network's ``config.yaml`` holds."""

    task: Literal["geneface_audio2motion"] = "geneface_audio2motion"
    network: SpeechVAEConfig = field(default_factory=SpeechVAEConfig)


class OfficialAudio2Motion:
    """An official network and what one needs to know to run it.

    Args:
        model: the network, in evaluation mode.
        source: file it was read from.
        step: of its training.
    """

    def __init__(self, model: SpeechVAE, source: Path, step: int = 0) -> None:
        self.model, self.source, self.step = model, source, step

    @property
    def hears_pitch(self) -> bool:
        """Whether ``predict`` needs f0."""
        return self.model.config.use_pitch

    @property
    def n_audio(self) -> int:
        """Values of a feature row."""
        return self.model.config.n_audio

    @torch.inference_mode()
    def predict(
        self,
        audio: NDArray[np.float32],
        f0_hz: NDArray[np.float32] | None,
        *,
        temperature: float = 0.0,
        mouth_amp: float = 0.4,
        generator: torch.Generator | None = None,
    ) -> NDArray[np.float32]:
        """BFM expression coefficients at 25 Hz; identity that the network may predict too is left out.

        Args:
            audio: ``[N, n_audio]`` features at 50 Hz.
            f0_hz: ``[N]`` at 50 Hz, 0 where unvoiced; None for a network without pitch.
            temperature: 0 gives the likeliest motion, GeneFace++ draws with 0.2.
            mouth_amp: how wide the mouth opens, GeneFace++'s default.
            generator: source of the draw.

        Returns:
            ``[ceil(N / 2), 64]``; the last rows hear the last feature row repeated up to a full block of 8.

        Raises:
            ValueError: features of another width, pitch missing or of another length, no rows.
        """
        config = self.model.config
        rows = len(audio)
        if audio.ndim != 2 or audio.shape[1] != config.n_audio or rows == 0:
            raise ValueError(f"{self.source} hears rows of {config.n_audio} features, got {audio.shape}")
        if config.use_pitch and (f0_hz is None or f0_hz.shape != (rows,)):
            raise ValueError(f"{self.source} hears pitch; give f0 of {rows} rows")
        padding = (0, -rows % config.block_rows)
        device = next(self.model.parameters()).device
        heard = torch.from_numpy(np.pad(audio.astype(np.float32), (padding, (0, 0)), mode="edge")).to(device)
        pitch = None
        if config.use_pitch and f0_hz is not None:
            pitch = torch.from_numpy(np.pad(f0_hz.astype(np.float32), padding, mode="edge")).to(device)[None]
        inputs = SpeechInputs(heard[None], pitch, mouth_amp=mouth_amp)
        motion = self.model.predict(inputs, temperature=temperature, generator=generator)[0]
        wanted = -(-rows // config.rows_per_motion)
        return motion[:wanted, -N_BFM_EXPRESSION:].cpu().numpy()


def is_official_motion(path: Path) -> bool:
    """Whether a path names a network that ``load_official`` reads, and not one that this project trained."""
    if is_official(path):
        return True
    return is_checkpoint(path) and read_mapping(path / CONFIG_NAME).get("task") == ImportedMotionConfig().task


def load_official(path: Path, device: torch.device | str = "cpu") -> OfficialAudio2Motion:
    """Read an official checkpoint; its sizes and inputs are told by the tensors themselves.

    Args:
        path: the ``.ckpt`` file, a folder of which the one with most steps is taken, or an imported folder.
        device: where the network runs.

    Raises:
        CheckpointError: missing, damaged, not an audio → motion network, or of sizes this project does not know.
    """
    if not is_official(path) and is_checkpoint(path):
        checkpoint = load_checkpoint(path, parts={"model"})
        model = _filled(path, checkpoint.model, checkpoint.config(ImportedMotionConfig).network)
        return OfficialAudio2Motion(model.to(device).eval(), path, checkpoint.step)
    return motion_of_state(read_official_state(newest_checkpoint(path)), device)


def motion_of_state(state: OfficialState, device: torch.device | str = "cpu") -> OfficialAudio2Motion:
    """The network of a checkpoint that was read.

    Raises:
        CheckpointError: it is another network, or of sizes this project does not know.
    """
    model = _filled(state.file, state.tensors, None)
    logger.info("%s: %s, %d coefficients", state.file, type(model).__name__, model.config.n_motion)
    return OfficialAudio2Motion(model.to(device).eval(), state.file, state.step)


def _filled(file: Path, state: Mapping[str, Tensor], config: SpeechVAEConfig | None) -> SpeechVAE:
    try:
        model = build_speech_vae(config or detect_config(state))
        model.load_state_dict(dict(state), strict=True)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file}: not an audio-to-motion checkpoint of GeneFace++ ({first_line(error)}); "
            "give its audio2motion_vae/model_ckpt_steps_*.ckpt"
        ) from error
    return model


def save_official(official: OfficialAudio2Motion, directory: Path, hparams: Mapping[str, Any]) -> None:
    """Write a network as a checkpoint of this project, GeneFace++'s own keys beside it.

    Raises:
        OutputError: the directory cannot be written.
    """
    config = ImportedMotionConfig(network=official.model.config)
    extra = {"geneface_hparams": dict(hparams), "imported_from": str(official.source)}
    tensors = {"model": official.model.state_dict()}
    save_checkpoint(directory, tensors, config, official.step, extra, face_model_version=BFM_VERSION_PREFIX)


def detect_config(state: Mapping[str, Tensor]) -> SpeechVAEConfig:
    """Sizes and inputs as the shapes of an official state tell them.

    Raises:
        KeyError: a tensor that every such network has is missing.
        ValueError: it predicts neither 64 expression nor 80 + 64 identity and expression coefficients.
    """
    out = state["vae.decoder.out_proj.weight"].shape[0]
    if out not in (N_BFM_EXPRESSION, N_BFM_IDENTITY + N_BFM_EXPRESSION):
        raise ValueError(f"it predicts {out} values, and BFM needs 64 or 144")
    spread, gate = state["vae.decoder.pre_net.0.weight"], state["vae.decoder.wn.in_layers.0.weight_v"]
    flow_gate = state["vae.prior_flow.flows.0.enc.in_layers.0.weight_v"]
    vae = FlowVAEConfig(
        hidden=gate.shape[1],
        latent=spread.shape[0],
        kernel=gate.shape[2],
        encoder_layers=_count(state, "vae.encoder.wn.in_layers."),
        decoder_layers=_count(state, "vae.decoder.wn.in_layers."),
        stride=spread.shape[2],
        flow_hidden=flow_gate.shape[1],
        flow_kernel=flow_gate.shape[2],
        flow_layers=_count(state, "vae.prior_flow.flows.0.enc.in_layers."),
        n_flows=_count(state, "vae.prior_flow.flows."),
    )
    return SpeechVAEConfig(
        n_audio=state["mel_encoder.0.weight"].shape[1],
        n_motion=out,
        n_condition=state["blink_embed.weight"].shape[1],
        use_pitch="pitch_embed.weight" in state,
        mouth_amp="mouth_amp_embed" in state,
        eye_amp="eye_amp_embed" in state,
        vae=vae,
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".", 1)[0] for key in state if key.startswith(prefix)})
