"""When two corrections are the same."""

import numpy as np
import pytest
import torch

from modules.face_model.correction import SAME_CORRECTION, same_correction

ONE = np.random.default_rng(0).normal(size=(80, 52)).astype(np.float32)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, None, True),
        (None, np.zeros_like(ONE), True),
        (ONE, None, False),
        (None, torch.from_numpy(ONE), False),
        (ONE, torch.from_numpy(ONE), True),
        (ONE, ONE + 0.9 * SAME_CORRECTION, True),
        (ONE, ONE - 1.1 * SAME_CORRECTION, False),
        (ONE, ONE[:-1], False),
        (ONE, np.full_like(ONE, np.nan), False),
    ],
)
def test_what_is_the_same(one, other, same):
    assert same_correction(one, other) is same
    assert same_correction(other, one) is same
