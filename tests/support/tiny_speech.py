"""Audio → motion small enough to be trained in a test, for the clips of ``talking_clips``."""

from __future__ import annotations

from pathlib import Path

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.sync_expert import SyncExpertConfig
from modules.audio2motion.vae import FlowVAEConfig
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tests.support.talking_clips import BLOCK_WIDTH, UNITS

TINY_VAE = FlowVAEConfig(
    hidden=12, latent=4, encoder_layers=1, decoder_layers=2, flow_hidden=6, flow_layers=1, n_flows=2
)


def tiny_config(clips: Path, max_updates: int) -> AudioToMotionTaskConfig:
    """A member of each kind."""
    return AudioToMotionTaskConfig(
        clips=clips,
        max_updates=max_updates,
        batch_windows=4,
        window_rows=32,
        n_folds=2,
        state_interval=10,
        ridge_penalty=0.001,
        lr=0.01,
        sync=SyncExpertConfig(hidden=8, embedding=4, layers=1, max_lag_rows=8, max_updates=12),
        model=Audio2MotionConfig(
            block_width=BLOCK_WIDTH,
            bottleneck=BLOCK_WIDTH,
            units=UNITS,
            hidden=12,
            recurrent_hidden=8,
            convolutional=1,
            recurrent=1,
            variational=1,
            vae=TINY_VAE,
            dropout=0.1,
            feature_noise=0.05,
            window_noise=0.0,
        ),
    )
