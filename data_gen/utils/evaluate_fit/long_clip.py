"""Fit one landmark file in a process of its own and tell its peak memory; ``speed.py`` starts it.

Reads: a landmark file, the face model.
Writes: a JSON file with seconds, and peak and starting memory in bytes.
Run: ``python -m data_gen.utils.evaluate_fit.long_clip LANDMARKS RESULT WIDTH HEIGHT DEVICE THREADS``
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from data_gen.utils.evaluate_fit.fitter import Fitter
from data_gen.utils.process_video.fit_3dmm_landmark import FitConfig
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import Landmarks2D


def peak_bytes() -> int:
    """The most memory that ever lay in RAM for this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fit_long_clip(landmarks: Path, size_wh: tuple[int, int], device: str) -> dict[str, float]:
    """Fit the file and say what it took.

    Raises:
        GeneFaceError: when the fit fails, or a frame of it is not finite.
    """
    fitter = Fitter(FaceModel.load(FACE_MODEL_FILE), FitConfig(), device)
    before = peak_bytes()
    started = time.perf_counter()
    coeffs = fitter.fit(Landmarks2D.load(landmarks), size_wh)
    seconds = time.perf_counter() - started
    if not (np.isfinite(coeffs.expression).all() and np.isfinite(coeffs.euler).all()):
        raise FitDivergedError(f"the fit of {landmarks} is not finite")
    return {"seconds": seconds, "peak_bytes": peak_bytes(), "before_bytes": before}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("result", type=Path)
    for name in ("width", "height"):
        parser.add_argument(name, type=int)
    parser.add_argument("device")
    parser.add_argument("threads", type=int)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    try:
        found = fit_long_clip(given.landmarks, (given.width, given.height), given.device)
    except GeneFaceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    temporary = given.result.with_suffix(".tmp")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(given.result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
