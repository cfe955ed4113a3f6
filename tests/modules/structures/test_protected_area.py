"""What the composite leaves alone around an occluder: all that is as likely as not, and a soft rim."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.structures.masks import OcclusionTable
from modules.structures.protected_area import (
    AS_LIKELY,
    LEAST_LIKELY,
    PROTECTED_MARGIN,
    occluder_in_crop,
    protected,
    protected_in_crop,
    swept,
)

SIZE = 256
MARGIN = round(PROTECTED_MARGIN * SIZE)


def half(level=1.0):
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[:, SIZE // 2 :] = level
    return mask


def test_the_rim_is_protected_and_fades_out():
    kept = protected(half())[SIZE // 2]
    edge = SIZE // 2
    assert (kept[edge - 1 :] > 0.95).all(), "the occluder and what touches it are the source's own"
    assert (np.diff(kept) > -1e-6).all() and (kept[: edge - 3 * MARGIN] < 0.01).all()
    assert 0.05 < kept[edge - MARGIN - 1] < 0.95


@pytest.mark.parametrize(("level", "inside"), [(LEAST_LIKELY, 0.0), (AS_LIKELY, 1.0), (0.9, 1.0)])
def test_noise_is_nothing_and_an_even_chance_is_an_occluder(level, inside):
    assert protected(half(level))[SIZE // 2, -10] == pytest.approx(inside, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_more_occluder_never_means_less_protection(seed):
    generator = np.random.default_rng(seed)
    small = generator.random((32, 32)).astype(np.float32)
    more = np.clip(small + generator.random((32, 32)).astype(np.float32) * 0.3, 0, 1).astype(np.float32)
    first, second = protected(small), protected(more)
    assert (second >= first - 1e-5).all() and first.min() >= 0 and second.max() <= 1


def hand_table(*rows, step=1):
    """In each of those rows, a hand over ``step`` times as many columns as its number says."""
    masks = np.zeros((len(rows), 64, 64), np.uint8)
    for mask, row in zip(masks, rows, strict=True):
        mask[:, : step * row] = 255
    return replace(OcclusionTable.nothing(12, 64), rows=np.array(rows), masks=masks)


def columns(table, row, cuts=None):
    found = swept(table, row, cuts)
    return None if found is None else int((found > 0.5)[0].sum())


def test_a_hand_is_where_it_was_and_will_be_but_not_over_a_cut():
    table = hand_table(4, 5, 6)
    assert [columns(table, row) for row in (2, 4, 5, 6, 8)] == [None, 5 + 1, 6 + 1, 6, None]
    cuts = np.array([0, 5])
    assert columns(table, 4, cuts) == 4 and columns(table, 3, np.array([0, 4])) is None


def test_a_fast_hand_is_grown_by_its_blur_and_a_resting_one_is_not():
    """Twice the strip's area over the outline, which is longer than the moving edge; never more than a 32nd."""
    resting = hand_table(4, 5, 6, step=0)
    resting = replace(resting, masks=np.repeat(hand_table(5, step=2).masks, 3, axis=0))
    assert columns(resting, 5) == 10
    moving = hand_table(4, 5, 6, step=2)
    outline_px = 2 * (11 + 63)
    assert columns(moving, 5) == 12 + round(2 * (2 * 64) / outline_px)
    assert columns(hand_table(4, 5, 6, step=10), 4) == 50 + 64 // 32


def test_a_frame_without_a_mask_takes_its_neighbours_but_not_over_a_cut():
    table = hand_table(4, 6)
    found = occluder_in_crop(table, 5)
    assert found is not None and found.dtype == np.float32 and (found[0] > 0.5).sum() == 6, "both neighbours together"
    own = occluder_in_crop(table, 4)
    assert own is not None and (own[0] > 0.5).sum() == 4
    cut = occluder_in_crop(table, 5, np.array([0, 5]))
    assert cut is not None and (cut[0] > 0.5).sum() == 6
    assert occluder_in_crop(table, 7, np.array([0, 7])) is None and occluder_in_crop(table, 9) is None


def test_what_hands_say_is_protected_beside_the_mask():
    nothing, hands = OcclusionTable.nothing(12, 4), hand_table(5)
    assert protected_in_crop(nothing, None, 5) is None
    alone = protected_in_crop(nothing, hands, 5)
    assert alone is not None and (alone[0] > 0.5).sum() == 5
    mask = np.zeros((1, 128, 128), np.uint8)
    mask[:, :, 100:] = 255
    found = replace(OcclusionTable.nothing(12, 128), rows=np.array([5]), masks=mask)
    kept = protected_in_crop(found, hands, 5)
    assert kept is not None and kept.shape == (128, 128)
    assert (kept[:, :9] > 0.5).all() and (kept[:, 100:] > 0.9).all() and (kept[:, 14:90] < 0.01).all()
