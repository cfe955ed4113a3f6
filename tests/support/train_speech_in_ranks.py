"""Started by torchrun: trains audio → motion on made-up talkers and writes what each process holds.

torchrun --nproc_per_node=2 tests/support/train_speech_in_ranks.py WAY CLIPS OUT DEVICE

WAY is "fit", by hand, which keeps each process's weights, or "train", through the front door, a corpus from disk. One
start does one of them: a process that joins the others a second time may meet what the first meeting left.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion.configs import A2MLossConfig, AudioToMotionTaskConfig, StoredCorpusConfig
from tasks.audio2motion.dataset_utils import load_clips
from tasks.audio2motion.fitting import fit_model, make_material
from tasks.audio2motion.train import train
from tasks.distributed import joined
from tests.support.tiny_speech import tiny_config


def main(way: str, clips: Path, out: Path, device: str) -> None:
    """Train as ``way`` says."""
    torch.set_num_threads(1)
    config: AudioToMotionTaskConfig = replace(
        tiny_config(clips, max_updates=12),
        device=device,
        ema_decay=0.9,
        loss=A2MLossConfig(relative_motion=False, sync_weight=0.1),
    )
    if way == "train":
        corpus = StoredCorpusConfig(resident_clips=3, probe_clips=2, held_out_speakers=1)
        train(replace(config, n_folds=0, corpus=corpus), out / "audio2motion", silent, work_dir=out / "front")
        return
    with joined(device) as ranks:
        material = make_material(load_clips(clips), FaceModel.load(FACE_MODEL_FILE), config)
        model = fit_model(material, config, out / "work", silent, "fit", ranks=ranks)
        torch.save(model.state_dict(), out / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
