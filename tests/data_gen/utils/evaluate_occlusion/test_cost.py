"""What a pass costs: figures of made-up passes, and that the expected face is asked once."""

import time
from typing import cast

import numpy as np
import pytest
import torch

from data_gen.utils.evaluate_occlusion import cost
from data_gen.utils.evaluate_occlusion.cost import PassCost, Remembered, pass_costs
from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.occlusion_parts import PassConfig, PassTables
from modules.structures.expected_face import ExpectedFace
from modules.structures.masks import OcclusionMask

TABLES = cast(PassTables, None)
CROPS = [(row, np.full((4, 4, 3), row, np.uint8)) for row in (5, 6)]


class Knows:
    """Expects a grey face in row 5; counts how often it is asked."""

    asked = 0

    def knows(self, row):
        return row == 5

    def at(self, row, size):
        self.asked += 1
        plane = np.full((size, size), 0.5, np.float32)
        return ExpectedFace(np.stack([plane] * 3, axis=-1), plane, plane) if self.knows(row) else None


def passing(crops, tables, face, config, device, hints):
    """Takes 20 ms a frame on the device, 5 by arrays; the device is two codes off in one pixel of each mask."""
    for row, _ in crops:
        assert (face.at(row, config.working_size) is not None) == face.knows(row) == (row == 5)
        time.sleep(0.02 if device.type == "meta" else 0.005)
        values = np.full((4, 4), 0.5, np.float32)
        values[0, 0] += 2 / 255 if device.type == "meta" else 0
        yield row, OcclusionMask(values, "crop", np.zeros((0, 21, 2), np.float32))


def test_runs_are_timed_per_frame_and_compared_with_arrays(monkeypatch):
    monkeypatch.setattr(cost, "occlusion_pass", passing)
    face = Knows()
    arrays, device = pass_costs(
        CROPS, TABLES, face, PassConfig(working_size=8), FrameHints(),
        devices=[torch.device("meta")], repeats=2,
    )  # fmt: skip
    assert face.asked == 2
    assert (arrays.device, arrays.mean_codes, arrays.most_codes, arrays.beyond) == ("cpu", 0, 0, 0)
    assert 5 <= arrays.wall_ms < 20 <= device.wall_ms < 60
    assert device.cpu_ms < device.wall_ms / 2
    assert device.mean_codes == pytest.approx(2 / 16, rel=1e-4) and device.most_codes == pytest.approx(2, rel=1e-4)
    assert device.beyond == 1 / 16


def test_a_cost_reads_well():
    assert str(PassCost("cuda:0", 9.87, 31.2, 0.00012, 3.4, 0.0001)) == (
        "cuda:0: 9.9 ms per frame (31.2 ms of CPU time), from arrays' masks 0.0001 codes away on average, 3.40 at "
        "most, 0.0100% beyond one"
    )


def test_without_an_expectation_nothing_is_known():
    remembered = Remembered.of(None, [1, 2], 8)
    assert not remembered.knows(1) and remembered.at(2, 8) is None and not remembered.knows(9)
