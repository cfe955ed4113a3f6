"""What is behind the person: GeneFace++'s own plates, a twin by nearest neighbours, clips that show nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data_gen.utils.process_video.background_plate import BackgroundPlate, sampled_rows
from modules.commons.errors import NoFaceError
from modules.commons.workspace import ROOT

FIXTURE = ROOT.parent / "shared" / "fixtures" / "geneface" / "segmentation.npz"


@pytest.mark.parametrize(("key", "frames"), [("bg_from_5_interval5", [0]), ("bg_all5", range(5))])
def test_it_is_genefaces_own_plate(key, frames):
    if not FIXTURE.is_file():
        pytest.skip("../shared/fixtures is not on this machine")
    data = np.load(FIXTURE)
    plate, furthest = BackgroundPlate((128, 128)), np.zeros((128, 128))
    for frame in frames:
        plate.add(data["imgs"][frame], data["segs"][frame] == 0)
        furthest = np.maximum(furthest, distances(data["segs"][frame] == 0))
    differs = (plate.picture() != data[key]).any(axis=2)
    differs[0, 0] = False  # GeneFace++'s slip
    assert not differs[furthest > 10].any() and differs.mean() < 0.015  # of equally near pixels it takes another


def distances(is_background):
    """Of every pixel to the nearest that shows the person."""
    y, x = np.indices(is_background.shape)
    pixels = np.stack([y.ravel(), x.ravel()], axis=1)
    return cKDTree(np.argwhere(~is_background)).query(pixels)[0].reshape(is_background.shape)


def clip(seed=0, count=4, size=40):
    """Frames of a still scene, a blob of the person's colour wandering over it: (scene, frames, where it is seen)."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 200, (size, size, 3), dtype=np.uint8)
    y, x = np.indices((size, size))
    frames, seen = [], []
    for step in range(count):
        blob = np.hypot(y - size * 0.6, x - size * (0.2 + 0.2 * step)) < size * 0.15
        frames.append(np.where(blob[..., None], 255, scene).astype(np.uint8))
        seen.append(~blob)
    return scene, frames, seen


def test_places_that_are_ever_clear_show_the_scene():
    scene, frames, seen = clip()
    plate = BackgroundPlate(scene.shape[:2])
    for frame, where in zip(frames, seen, strict=True):
        plate.add(frame, where)
    clear = np.max([distances(where) for where in seen], axis=0) > 10
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(plate.picture()[clear], scene[clear])
    assert not (plate.picture() == 255).all(axis=2).any()


def test_each_place_takes_the_frame_that_is_furthest_from_the_person():
    rng = np.random.default_rng(3)
    _, _, seen = clip(count=3)
    frames = [rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in seen]
    plate = BackgroundPlate((40, 40))
    for frame, where in zip(frames, seen, strict=True):
        plate.add(frame, where)
    away = np.stack([distances(where) for where in seen])
    clear = away.max(axis=0) > 10
    wanted = np.take_along_axis(np.stack(frames), away.argmax(axis=0)[None, ..., None], axis=0)[0]
    np.testing.assert_array_equal(plate.picture()[clear], wanted[clear])


def test_a_frame_without_the_person_is_all_background():
    scene, frames, seen = clip()
    plate = BackgroundPlate(scene.shape[:2])
    plate.add(frames[0], seen[0])
    plate.add(scene, np.ones(scene.shape[:2], bool))
    np.testing.assert_array_equal(plate.picture(), scene)


def test_a_person_who_fills_every_frame_is_told():
    plate = BackgroundPlate((40, 40))
    plate.add(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), bool))
    with pytest.raises(NoFaceError, match="fills the picture in every frame"):
        plate.picture()


@pytest.mark.parametrize(("count", "interval"), [(1, 5), (100, 5), (101, 20), (9999, 20), (10_000, 20), (30_000, 60)])
def test_the_plate_is_made_of_genefaces_frames(count, interval):
    assert sampled_rows(count) == range(0, count, interval)
