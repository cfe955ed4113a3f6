"""What a portrait is shown: each step beside a plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.face_model.portrait_face import PortraitFace
from modules.radnerfs.official_dataset import read_official_dataset
from modules.radnerfs.portrait_motion import HeadPoses, PortraitCameras, PortraitMotion
from modules.structures.cameras import camera_pose, ngp_pose, pose6
from modules.structures.landmarks import LM68
from tests.support.official_portraits import official_dataset
from tests.support.small_bfm import small_bfm

FRAMES = 44


@pytest.fixture(scope="module")
def bfm():
    return small_bfm()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    file = tmp_path_factory.mktemp("May") / "trainval_dataset.npy"
    np.save(file, official_dataset(FRAMES))
    return read_official_dataset(file)


@pytest.fixture(scope="module")
def motion(dataset, bfm):
    return PortraitMotion(dataset, PortraitFace.of(bfm.landmark_rows()))


def z_scores(dataset, bfm, expression) -> np.ndarray:
    """``[T, 204]`` by GeneFace++'s recipe: of all 468 points, then the 68."""
    identity = torch.from_numpy(dataset.identity)
    own = bfm.idexp_lm3d(identity, torch.from_numpy(dataset.expression)).numpy()
    new = bfm.idexp_lm3d(identity, torch.from_numpy(expression)).numpy()
    z = (new - own.mean(axis=0)) / own.std(axis=0, ddof=1)
    return z[:, list(LM68)].reshape(len(z), 204)


def test_conditions_of_the_clips_own_motion(motion, dataset, bfm):
    shown = motion.show(torch.from_numpy(dataset.expression), 5, lle_percent=0.0)
    z = z_scores(dataset, bfm, dataset.expression)
    low, high = np.quantile(z, 0.03, axis=0), np.quantile(z, 0.97, axis=0)
    kept = np.clip(z, low, high)
    assert (kept != z).any()
    for frame in (0, 1, 20, FRAMES - 1):
        for place in range(5):
            row = frame - 2 + place
            wanted = kept[row] if 0 <= row < FRAMES else np.zeros(204)
            np.testing.assert_allclose(shown.windows[frame, place, 0], wanted, atol=2e-3)
    assert shown.windows.shape == (FRAMES, 5, 1, 204)
    assert torch.unique(shown.eye_area).tolist() == [pytest.approx(np.quantile(dataset.eye_area, 0.97))]


def test_strange_motion_is_pulled_to_the_persons_own(motion, dataset):
    strange = torch.from_numpy(3 * dataset.expression[::-1].copy())
    free = motion.show(strange, 3, lle_percent=0.0).windows
    pulled = motion.show(strange, 3, lle_percent=1.0).windows
    own = motion.show(torch.from_numpy(dataset.expression), 3, lle_percent=0.0).windows
    assert pulled.abs().max() <= own.abs().max() + 1e-4 and free.abs().max() <= own.abs().max() + 1e-4
    assert pulled.abs().mean() < free.abs().mean()


def test_blinks_close_the_eyes_by_the_clock(motion):
    still = torch.zeros(120, 64)
    open_eyes, blinking = motion.show(still, 3), motion.show(still, 3, blinks=True)
    eyes, mouth = slice(36 * 3, 48 * 3), slice(48 * 3, 204)
    moved = (blinking.windows - blinking.windows[10]).abs()[5:115, 1, 0]
    assert moved[70:77, eyes].max() > 0 and moved[10:60, eyes].max() == 0
    assert (blinking.windows[5:115, 1, 0, mouth] - open_eyes.windows[5:115, 1, 0, mouth]).abs().max() < 1e-4
    assert float(blinking.eye_area[78]) == pytest.approx(motion.closed_area, abs=1e-6)
    assert float(blinking.eye_area[40]) == pytest.approx(0.6, abs=1e-6)


def test_torso_landmarks_are_where_the_points_are_seen(motion, dataset, bfm):
    rows = np.full(9, 4)  # a head that stands still is not smoothed away
    expression = torch.from_numpy(dataset.expression[:9])
    seen = motion.torso_landmarks(expression, HeadPoses.of_rows(dataset, rows))
    identity = torch.from_numpy(dataset.identity)[0]
    euler, fitted = (torch.from_numpy(values[rows]) for values in (dataset.euler, dataset.translation))
    wanted = bfm.reconstruct_lm2d(identity, expression, euler, fitted)[:, list(LM68)]
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=0)
    assert seen.shape == (9, 68, 2)


def test_cameras(dataset):
    every = HeadPoses.of_rows(dataset, slice(None))
    plain = PortraitCameras.of(every, 4.0, (0.0, 0.0, 0.0), None)
    wanted = ngp_pose(camera_pose(dataset.euler, dataset.translation))
    np.testing.assert_allclose(plain.poses, wanted, atol=1e-6)
    np.testing.assert_allclose(plain.pose6, pose6(wanted), atol=1e-6)
    smooth = PortraitCameras.of(every, 4.0, (0.0, 0.0, 0.0), 7)
    steps = [np.abs(np.diff(cameras.poses.numpy(), axis=0)).mean() for cameras in (plain, smooth)]
    assert steps[1] < 0.5 * steps[0]
    moved = PortraitCameras.of(every, 2.0, (0.5, 0.0, 0.0), None)
    np.testing.assert_allclose(moved.poses[:, :3, 3], wanted[:, :3, 3] / 2 + [0.5, 0, 0], atol=1e-5)
