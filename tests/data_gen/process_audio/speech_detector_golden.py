"""The script that stored Silero VAD's own answers to ``whisper_golden.waveform`` in ``speech_detector_golden.npz``.

Made in a scratch environment (the package is no dependency of this project), from the repository's root:

    pip install silero-vad==6.2.3
    python tests/data_gen/process_audio/speech_detector_golden.py

It also wrote checkpoints/speech_detector/speech_detector.safetensors: the tensors of silero_vad.jit's 16 kHz network
under the names of its silero_vad_16k.safetensors (whose values are of an older version), in half precision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN_FILE = Path(__file__).with_name("speech_detector_golden.npz")


def main() -> None:
    import torch
    from safetensors.torch import save_file
    from silero_vad import load_silero_vad

    from modules.commons.workspace import SPEECH_DETECTOR_FILE
    from tests.data_gen.process_audio.whisper_golden import waveform

    model, samples = load_silero_vad(), torch.from_numpy(waveform())
    windows = samples[: len(samples) // 512 * 512].view(-1, 512)
    np.savez(GOLDEN_FILE, probability=np.array([model(window, 16_000).item() for window in windows], np.float32))
    theirs = model._model.state_dict()
    names = {"stft.forward_basis_buffer": "stft_conv.weight"}
    for part in ("weight", "bias"):
        names[f"decoder.decoder.2.{part}"] = f"final_conv.{part}"
        names |= {f"encoder.{i}.reparam_conv.{part}": f"conv{i + 1}.{part}" for i in range(4)}
        names |= {f"decoder.rnn.{part}_{end}": f"lstm_cell.{part}_{end}" for end in ("ih", "hh")}
    about = {"schema": "speech-detector/1", "model": "silero-vad 6.2.3", "licence": "MIT"}
    tensors = {ours: theirs[name].half().contiguous() for name, ours in names.items()}
    save_file(tensors, SPEECH_DETECTOR_FILE, metadata=about)


if __name__ == "__main__":
    main()
