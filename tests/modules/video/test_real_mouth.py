"""A filmed mouth takes a rendering's place in the colours of the skin beside it, on a device as on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.video.device_real_mouth import rendered_only
from modules.video.device_real_mouth import with_real_mouth as on_device
from modules.video.real_mouth import affine_between, mouth_picture, with_real_mouth, without_filmed
from tests.modules.video.test_device_delta import EDGES, SIZES, batch_of, taken, window


def filmed(rgb, used):
    return np.dstack([np.round(rgb * 255), np.round(used * 255)]).astype(np.uint8)


def windows():
    """Three with a filmed mouth that covers part of what is rendered."""
    made = [window(seed, size, edge) for seed, (size, edge) in enumerate(zip(SIZES, EDGES, strict=True))]
    rng = np.random.default_rng(5)
    done = []
    for source, carried in made:
        used = np.zeros(carried.rendered.shape, np.float32)
        used[12:-14, 8:-20] = 1
        real = filmed(np.clip(source + rng.normal(0.05, 0.03, source.shape), 0, 1), used)
        done.append((source, replace(carried, real=real)))
    return done


@pytest.mark.parametrize("is_free", [True, False])
def test_the_device_does_the_same(is_free):
    made, device = windows(), torch.device("cpu")
    batch, put = batch_of([carried for _, carried in made], device)
    batch = replace(batch, real=put([carried.real.astype(np.float32) / 255 for _, carried in made]))
    free = None if is_free else [np.clip(source[..., 0] * 2, 0, 1) for source, _ in made]
    found = on_device(put([source for source, _ in made]), batch, None if free is None else put(free))
    for number, (source, carried) in enumerate(made):
        expected = with_real_mouth(source, carried, None if free is None else free[number])
        assert np.abs(expected.patch.rgb - carried.patch.rgb).max() > 0.1
        np.testing.assert_allclose(taken(found.new, number), expected.patch.rgb, atol=1e-3)
        share = without_filmed(carried).rendered
        np.testing.assert_allclose(taken(rendered_only(batch)[:, None], number)[..., 0], share, atol=1e-6)


def test_nothing_changes_where_no_mouth_was_filmed():
    source, carried = window(3, (96, 120), 3.0)
    assert with_real_mouth(source, carried) is carried and without_filmed(carried) is carried
    nothing = replace(carried, real=np.zeros((96, 120, 4), np.uint8))
    assert with_real_mouth(source, nothing) is nothing


def test_a_mouth_filmed_in_other_light_gets_the_light_of_the_skin_beside_it():
    source, carried = window(2, (110, 120), 3.0)
    carried = replace(carried, flow=np.zeros_like(carried.flow))
    lighter = np.clip(source + np.float32(0.08), 0, 1)
    real = filmed(lighter, np.ones(carried.rendered.shape))
    made = with_real_mouth(source, replace(carried, real=real)).patch.rgb
    inside = (carried.rendered > 0.05) & (lighter < 1).all(axis=2)
    off = np.abs(made - source)[inside].mean()
    assert off < 0.012, "of 0.08"


def test_a_crop_lies_where_the_lips_do():
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (40, 60, 4), np.uint8)
    here = rng.uniform(0, 60, (20, 2))
    weight = rng.uniform(1, 10, 20)
    moved = here + np.array([7, 3])
    crop_from_window = affine_between(here, moved - (2, 1), weight)
    np.testing.assert_allclose(crop_from_window, [[1, 0, 5], [0, 1, 2]], atol=1e-9)
    made = mouth_picture(picture, crop_from_window, (60, 40))
    assert np.array_equal(made[:38, :55], picture[2:, 5:]) and not made[38:, :, 3].any() and not made[:, 55:, 3].any()
    assert not mouth_picture(picture, crop_from_window + np.array([[0, 0, 99], [0, 0, 0]]), (60, 40)).any()


def test_what_counts_more_fits_better():
    here = np.array([[0, 0], [10, 0], [0, 10], [10, 10.0]])
    there = here + np.array([[0, 0], [0, 0], [0, 0], [4.0, 0]])
    off = []
    for weight in (1, 100):
        matrix = affine_between(here, there, np.array([1, 1, 1, weight]))
        off.append(np.abs(here[3] @ matrix[:, :2].T + matrix[:, 2] - there[3]).max())
    assert off[1] < off[0] / 2
