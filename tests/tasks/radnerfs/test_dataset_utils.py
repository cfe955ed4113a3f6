"""The clip as rays: every ray is a pixel of its crop, and nothing hidden or foreign is among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.commons.errors import CheckpointError
from modules.commons.progress import silent
from modules.radnerfs.trust import good_views
from modules.structures.crops import CropMetadata
from tasks.radnerfs.dataset_utils import POSITION_STEPS, RADNeRFDataset, dilate, draw_batch, gather
from tests.support.synthetic_clip import CROP_SIZE, prepare_synthetic_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return prepare_synthetic_clip(tmp_path_factory.mktemp("data"), n_frames=11, occluded_row=4)


def load(clip, **options) -> RADNeRFDataset:
    source, speaker = clip
    settings = {"region": "lower_face", "margin_px": 8, "window": 5, "ray_stride": 1, "progress": silent} | options
    return RADNeRFDataset(source, speaker.model, **settings)


@pytest.fixture(scope="module")
def dataset(clip):
    return load(clip)


def test_rays_carry_the_colours_of_their_pixels(dataset):
    rays = dataset.rays
    for number in (0, 7):
        mine = rays.frame == number
        index = int(dataset.train_indices[number])
        frame = dataset.frame_rays(index)
        x0, y0, x1, y1 = frame.hits.bounds
        crop = dataset.source.crop(index)[y0:y1, x0:x1]
        kept = frame.learn & (np.abs(dataset.unit_positions(frame.hits.canonical)).max(axis=-1) <= 1)
        unit = torch.from_numpy(np.round(dataset.unit_positions(frame.hits.canonical)[kept] * POSITION_STEPS))
        good = good_views(unit / POSITION_STEPS, torch.from_numpy(frame.quality[kept]), rays.best_view)
        kept[kept] = good.numpy()
        assert 0.5 < good.float().mean() <= 1
        np.testing.assert_array_equal(rays.rgb[mine].numpy(), crop[kept])
        position = dataset.unit_positions(frame.hits.canonical)[kept]
        np.testing.assert_allclose(rays.position[mine].numpy() / POSITION_STEPS, position, atol=1e-4)
        assert (rays.row[mine] == number).all() and mine.sum() > 3000


def test_canonical_positions_agree_across_frames(dataset):
    """The same skin has the same colour in different frames: that is what the canonical space is for."""
    rays = dataset.rays
    unit = rays.position.float() / POSITION_STEPS
    cells = (unit * 24).round().int()
    key = (cells[:, 0] * 1000 + cells[:, 1]) * 1000 + cells[:, 2]
    mouth = torch.zeros(len(rays), dtype=torch.bool)
    mouth[rays.mouth] = True
    means = []
    for number in (0, 9):
        mine = (rays.frame == number) & ~mouth
        keys, place = torch.unique(key[mine], return_inverse=True)
        total = torch.zeros(len(keys), 3).index_add_(0, place, rays.rgb[mine].float())
        means.append(dict(zip(keys.tolist(), (total / torch.bincount(place)[:, None]).tolist(), strict=True)))
    shared = means[0].keys() & means[1].keys()
    error = np.abs([np.subtract(means[0][k], means[1][k]) for k in shared]).mean()
    assert len(shared) > 200 and error < 12


def test_what_is_hidden_is_not_learnt(clip, dataset):
    hidden = dataset.source.occluder(4)
    assert hidden is not None and hidden.sum() > 500
    frame = dataset.frame_rays(4)
    x0, y0, x1, y1 = frame.hits.bounds
    assert not (frame.learn & hidden[y0:y1, x0:x1]).any()
    assert 0 < (dataset.rays.frame == 4).sum() < (dataset.rays.frame == 3).sum()


def test_held_out_frames_give_no_rays(dataset):
    assert set(dataset.rays.row.tolist()) <= set(dataset.source.rows[dataset.source.is_train].tolist())
    assert len(dataset.val_indices) == 1


def test_pixels_beyond_the_frame_are_not_learnt(clip):
    source, speaker = clip
    regions = source.crop_metadata.regions  # y 25 to 225 of a frame that is said to end at 170, above the chin
    outside = replace(source, crop_metadata=CropMetadata(regions, (170, 320), CROP_SIZE))
    dataset = load((outside, speaker))
    frame = dataset.frame_rays(0)
    rows = np.flatnonzero(frame.learn.any(axis=1)) + frame.hits.bounds[1]
    assert rows.max() < (170 - 25) * CROP_SIZE / 200 < frame.hits.bounds[3]


def test_stride_thins_all_but_the_mouth(clip, dataset):
    thinned = load(clip, ray_stride=3)
    # how well a place is seen at best comes from the rays, so a few fall on the other side of the limit
    assert len(thinned.rays.mouth) == pytest.approx(len(dataset.rays.mouth), rel=1e-3)
    rest = len(dataset.rays) - len(dataset.rays.mouth)
    assert 0.25 < (len(thinned.rays) - len(thinned.rays.mouth)) / rest < 0.42


def test_another_face_model_is_refused(clip):
    source, speaker = clip
    foreign = replace(source, coeffs=replace(source.coeffs, face_model_version="other/1"))
    with pytest.raises(CheckpointError, match="belongs to face model 'other/1'"):
        load((foreign, speaker))


def test_batches_repeat_with_the_generator_and_hold_their_mouth_share(dataset):
    first, again = (draw_batch(dataset.rays, 400, 0.5, torch.Generator().manual_seed(1)) for _ in range(2))
    torch.testing.assert_close(first.rgb, again.rgb)
    mouth = gather(dataset.rays, dataset.rays.mouth)
    low, high = mouth.position.amin(dim=0), mouth.position.amax(dim=0)
    inside = ((first.position >= low) & (first.position <= high)).all(dim=1)
    assert inside[:200].all()
    torch.testing.assert_close(first.direction.norm(dim=1), torch.ones(400))
    assert first.rgb.min() >= 0 and first.rgb.max() <= 1


def test_dilate_is_a_disc():
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    grown = dilate(mask, 4)
    y, x = np.mgrid[-10:11, -10:11]
    assert not grown[np.hypot(x, y) > 5].any() and grown[np.hypot(x, y) <= 3.5].all()
    np.testing.assert_array_equal(dilate(mask, 0), mask)
