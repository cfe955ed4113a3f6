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
from modules.structures.landmarks import IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE
from tasks.radnerfs.dataset_utils import RADNeRFDataset, dilate
from tasks.radnerfs.ray_table import POSITION_STEPS
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
        mine = slice(int(rays.starts[number]), int(rays.starts[number + 1]))
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
        assert rays.row[number] == number and mine.stop - mine.start > 3000
        shown = dataset.source.crop(index)[rays.pixel[mine, 1].long(), rays.pixel[mine, 0].long()]
        np.testing.assert_array_equal(shown, crop[kept])


def test_canonical_positions_agree_across_frames(dataset):
    """The same skin has the same colour in different frames: that is what the canonical space is for."""
    rays = dataset.rays
    unit = rays.position.float() / POSITION_STEPS
    cells = (unit * 24).round().int()
    key = (cells[:, 0] * 1000 + cells[:, 1]) * 1000 + cells[:, 2]
    mouth = torch.zeros(len(rays), dtype=torch.bool)
    mouth[rays.mouth.index] = True
    frame = rays.frame_of(torch.arange(len(rays)))
    means = []
    for number in (0, 9):
        mine = (frame == number) & ~mouth
        keys, place = torch.unique(key[mine], return_inverse=True)
        total = torch.zeros(len(keys), 3).index_add_(0, place, rays.rgb[mine].float())
        means.append(dict(zip(keys.tolist(), (total / torch.bincount(place)[:, None]).tolist(), strict=True)))
    shared = means[0].keys() & means[1].keys()
    error = np.abs([np.subtract(means[0][k], means[1][k]) for k in shared]).mean()
    assert len(shared) > 200 and error < 12


def test_what_is_hidden_is_not_learnt(clip, dataset):
    hidden = dataset.source.hidden(4)
    assert hidden is not None and hidden.sum() > 500
    frame = dataset.frame_rays(4)
    x0, y0, x1, y1 = frame.hits.bounds
    assert not (frame.learn & hidden[y0:y1, x0:x1]).any()
    assert 0 < dataset.rays.starts[5] - dataset.rays.starts[4] < dataset.rays.starts[4] - dataset.rays.starts[3]


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


def test_dilate_is_a_disc():
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    grown = dilate(mask, 4)
    y, x = np.mgrid[-10:11, -10:11]
    assert not grown[np.hypot(x, y) > 5].any() and grown[np.hypot(x, y) <= 3.5].all()
    np.testing.assert_array_equal(dilate(mask, 0), mask)


def test_eyes_are_marked_where_the_whole_face_is_rendered(clip, dataset):
    source, _ = clip
    assert len(dataset.rays.eyes) == 0
    rays = load(clip, region="face").rays
    assert len(rays.eyes) > 100
    first = rays.eyes.index[rays.eyes.starts[0] : rays.eyes.starts[1]]
    pixel = rays.pixel[first].float().numpy() + 0.5
    eyes = source.landmarks_px[0][list(IMAGE_LEFT_EYE + IMAGE_RIGHT_EYE)]
    away = np.linalg.norm(pixel[:, None] - eyes[None], axis=2).min(axis=1)
    assert away.max() < 0.6 * np.ptp(eyes[:16, 0]), "every one lies beside an eye's outline"
