"""What a pass over frames costs, and whether a device finds the masks that arrays find."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.occlusion_parts import PassConfig, PassTables
from data_gen.utils.process_video.occlusion_pass import occlusion_pass
from modules.structures.expected_face import ExpectedFace, FaceExpectation

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class PassCost:
    """Of one way to make masks.

    Attributes:
        device: what the maths ran on.
        wall_ms, cpu_ms: per frame, of the fastest run: on the clock, and of all CPU cores together.
        mean_codes, most_codes: difference to the masks of arrays, 8-bit steps.
        beyond: share of pixels that differ by more than one step.
    """

    device: str
    wall_ms: float
    cpu_ms: float
    mean_codes: float
    most_codes: float
    beyond: float

    def __str__(self) -> str:
        return (
            f"{self.device}: {self.wall_ms:.1f} ms per frame ({self.cpu_ms:.1f} ms of CPU time), from arrays' masks "
            f"{self.mean_codes:.4f} codes away on average, {self.most_codes:.2f} at most, {self.beyond:.4%} beyond one"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """A ``FaceExpectation`` that was asked before: making it is no part of the pass."""

    faces: dict[int, ExpectedFace | None]

    @classmethod
    def of(cls, expectation: FaceExpectation | None, rows: Sequence[int], size: int) -> Remembered:
        """Ask for ``rows`` at ``[size, size]``."""
        return cls({row: None if expectation is None else expectation.at(row, size) for row in rows})

    def knows(self, row: int) -> bool:
        """Whether there was an answer."""
        return self.faces.get(row) is not None

    def at(self, row: int, size: int) -> ExpectedFace | None:
        """The answer; ``size`` is the one that was asked for."""
        return self.faces.get(row)


def pass_costs(
    crops: Sequence[tuple[int, NDArray[np.uint8]]],
    tables: PassTables,
    expectation: FaceExpectation | None,
    config: PassConfig,
    hints: FrameHints,
    devices: Sequence[torch.device],
    repeats: int = 3,
) -> list[PassCost]:
    """Time a pass over the same frames by arrays and on each of ``devices``.

    Args:
        crops: (row, uint8 ``[L, L, 3]``) of consecutive rows.
        tables: of the whole clip.
        expectation: asked once for all runs, and not counted.
        config: how masks are decided.
        hints: what else is evidence; asking it counts.
        devices: besides the CPU's arrays.
        repeats: runs of each, the fastest counts; one more comes before, for what is made once.
    """
    remembered = Remembered.of(expectation, [row for row, _ in crops], config.working_size)

    def masks(device: torch.device) -> NDArray[np.float32]:
        return np.stack([m.values for _, m in occlusion_pass(crops, tables, remembered, config, device, hints)])

    by_arrays = masks(CPU)
    costs = []
    for device in (CPU, *devices):
        away = np.abs(masks(device) - by_arrays) * 255
        wall, used = min(_clocked(lambda device=device: masks(device)) for _ in range(repeats))
        per_frame = 1e3 / len(crops)
        costs.append(
            PassCost(
                str(device), wall * per_frame, used * per_frame, float(away.mean()), float(away.max()),
                float((away > 1).mean()),
            )
        )  # fmt: skip
    return costs


def _clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that ``work`` takes, on the clock and of CPU time."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used
