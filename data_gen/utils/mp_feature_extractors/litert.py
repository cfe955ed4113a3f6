"""One .tflite network on LiteRT, the runtime MediaPipe itself uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.networks import SETUP_HINT, Images, read_network_file
from modules.commons.errors import BackendUnavailableError, ModelFileError


class LiteRtModel:
    """A network with one float32 image or vector input, run on the CPU.

    Args:
        content: the bytes of a ``.tflite`` file.
        source: where the bytes came from, for messages.
        threads: CPU threads; one is fastest for networks this small when cores are shared.

    Raises:
        BackendUnavailableError: LiteRT is not installed; it is imported here and never before.
        ModelFileError: the bytes are not a network.
    """

    def __init__(self, content: bytes, source: str, threads: int = 1) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise BackendUnavailableError(
                f"LiteRT cannot be imported here ({error}): `pip install ai-edge-litert`, or use extractor torch"
            ) from error
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"{source} is not a network LiteRT can run ({error}); {SETUP_HINT}") from error
        self.source = source
        details = self._interpreter.get_input_details()[0]
        self._input_index: int = details["index"]
        self.input_shape: tuple[int, ...] = tuple(int(n) for n in details["shape"])
        self._outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}

    @classmethod
    def from_file(cls, path: Path, threads: int = 1) -> LiteRtModel:
        """Load a ``.tflite`` file.

        Raises:
            ModelFileError: when the file is missing or not a network.
        """
        return cls(*read_network_file(path), threads)

    @classmethod
    def from_task(cls, path: Path, member: str, threads: int = 1) -> LiteRtModel:
        """Load one network out of a MediaPipe ``.task`` bundle, which is a zip archive.

        Raises:
            ModelFileError: when the bundle or the member is missing or damaged.
        """
        return cls(*read_network_file(path, member), threads)

    def run(self, values: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name, batch first, for inputs ``[B, ...]``, one after another."""
        found = [self._run_one(values[i : i + 1]) for i in range(len(values))]
        return {name: np.concatenate([one[name] for one in found]) for name in self._outputs} if found else {}

    def run_images(self, images: Images, low: float = 0.0, high: float = 1.0) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name, batch first, for pictures ``[B, H, W, 3]`` whose 0..255 means ``low``..``high``."""
        return self.run(np.asarray(images).astype(np.float32) / (255.0 / (high - low)) + low)

    def _run_one(self, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input_index, values)
        self._interpreter.invoke()
        found = {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
        # a network may drop the batch of one that it was made for
        return {name: value if value.ndim > 1 else value[None] for name, value in found.items()}
