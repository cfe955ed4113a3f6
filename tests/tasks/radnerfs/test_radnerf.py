"""Training on the synthetic speaker: it learns, resumes exactly, and its checkpoint renders."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.motion_to_frames import IdentityRenderer
from modules.commons.checkpoint import is_checkpoint, load_checkpoint
from modules.commons.errors import CheckpointError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.radnerfs.surface import project_mesh
from tasks.configs import OptimConfig
from tasks.radnerfs import radnerf, validation
from tasks.radnerfs.evaluate import evaluate
from tasks.radnerfs.held_out_table import open_checkpoint
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset, load_person, train
from tasks.radnerfs.ray_table import Shares, draw_batch
from tasks.radnerfs.validation import SHARPEN_SHARES, natural_sharpening
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import SMALL, tiny_config

FAST = OptimConfig(lr=0.01, warmup_updates=10)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    source, speaker = prepare_synthetic_clip(root)
    return root, source, speaker


@pytest.fixture(scope="module")
def trained(clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoints") / "person"
    config = tiny_config(clip[0], max_updates=120, rays_per_step=4096, state_interval=0, val_images=1, optim=FAST)
    train(config, out, silent)
    return out


def test_training_beats_the_mean_face_and_stays_sharp(clip, trained):
    root, _, speaker = clip
    person, config, version = load_person(trained, torch.device("cpu"))
    dataset = load_dataset(config, speaker.model, silent)
    scores = evaluate(dataset, person, root / "evaluation", silent, pictures=1)
    assert version == speaker.model.version
    assert scores.frames == 2
    assert scores.psnr > 32 and scores.psnr > scores.mean_psnr and scores.sharpness > 0.5
    assert len(list((root / "evaluation").glob("*.png"))) == 1
    assert list((root / "training" / "person" / "validation" / "000120").glob("*.png"))
    assert list((root / "training" / "person" / "tb_logs").glob("events*"))


def test_sharpening_stops_where_training_mouths_are_as_sharp_as_the_clip(clip, trained, monkeypatch):
    _, _, speaker = clip
    person, config, _ = load_person(trained, torch.device("cpu"))
    dataset = load_dataset(config, speaker.model, silent)
    found = natural_sharpening(dataset, person)
    assert found == pytest.approx(float(person.sharpen_share)) and found in SHARPEN_SHARES
    monkeypatch.setattr(validation, "sharpness", lambda image, mask: 1.0 + (image.max() > 255))
    assert natural_sharpening(dataset, person) == SHARPEN_SHARES[-1]  # nothing makes it sharper than the clip
    monkeypatch.setattr(validation, "_sharpness_ratios", lambda *_: [0.5, 0.9, 1.01, 1.2, 1.4])
    assert natural_sharpening(dataset, person) == SHARPEN_SHARES[1]
    monkeypatch.setattr(validation, "_sharpness_ratios", lambda *_: None)
    assert natural_sharpening(dataset, person) == SHARPEN_SHARES[0]


def test_a_stopped_run_goes_on_to_the_same_weights(clip, tmp_path, monkeypatch):
    root, _, _ = clip
    config = tiny_config(root)
    train(config, tmp_path / "straight", silent)

    class Stopped(Exception):
        pass

    steps: list[int] = []
    original = RADNeRFTask.training_step

    def failing(self, step):
        if step == 5 and not steps:
            steps.append(step)
            raise Stopped
        return original(self, step)

    monkeypatch.setattr(RADNeRFTask, "training_step", failing)
    with pytest.raises(Stopped):
        train(config, tmp_path / "broken", silent)
    assert not is_checkpoint(tmp_path / "broken")  # an unfinished person is never taken for a finished one
    train(config, tmp_path / "broken", silent)
    whole, resumed = (load_checkpoint(tmp_path / name).model for name in ("straight", "broken"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)
    assert not (root / "training" / "broken" / "state").exists()


def test_a_state_of_other_settings_is_not_used(clip, tmp_path):
    root, _, speaker = clip
    config = tiny_config(root)
    task = RADNeRFTask(config, load_dataset(config, speaker.model, silent), torch.device("cpu"))
    radnerf.save_state(task, tmp_path / "state", 3)
    assert radnerf.resume(task, tmp_path / "state") == 3
    other = RADNeRFTask(replace(config, seed=1), task.dataset, torch.device("cpu"))
    assert radnerf.resume(other, tmp_path / "state") == 0


def test_init_from_takes_matching_tensors(clip, trained, tmp_path):
    root, _, speaker = clip
    config = tiny_config(root)
    task = RADNeRFTask(config, load_dataset(config, speaker.model, silent), torch.device("cpu"))
    taken = task.start_from(load_checkpoint(trained).model)
    assert taken == len(list(task.person.parameters())) - 1  # all but the (empty) codes of other frames
    batch = draw_batch(task.engine.rays, 32, 64, Shares(0.5), torch.Generator().manual_seed(0))
    fresh = RADNeRFTask(config, task.dataset, torch.device("cpu"))
    started, blank = ((t.engine.render_plainly(batch) - batch.rgb).square().mean() for t in (task, fresh))
    assert started < 0.3 * blank
    wide = replace(config, radnerf=replace(SMALL, hidden_dim_color=48), init_from=str(trained))
    train(replace(wide, max_updates=1, state_interval=0), tmp_path / "wide", silent)


def test_unprepared_clip_says_what_to_run(tmp_path, clip):
    with pytest.raises(CheckpointError, match=r"prepare the video first: python data_gen/runs/process_video\.py"):
        load_dataset(tiny_config(tmp_path), clip[2].model, silent)


def test_patch_covers_both_mouths_and_nothing_else(clip, trained):
    _, source, speaker = clip
    renderer = IdentityRenderer(trained, speaker.model, "cpu")
    coeffs = source.coeffs
    opened = coeffs.expression.copy()
    opened[:, speaker.model.unit("jawOpen")] = 0.6
    conditions = renderer.conditions(opened)
    row = 5
    arguments = (coeffs.identity, opened[row], coeffs.euler[row], coeffs.translation[row], coeffs.camera)
    patch = renderer.render_patch(*arguments, conditions[row], source_expression=coeffs.expression[row])
    alone = renderer.render_patch(*arguments, conditions[row])
    x0, y0, x1, y1 = patch.bounds
    assert 0 <= x0 < x1 <= 320 and 0 <= y0 < y1 <= 240
    assert patch.alpha.max() > 0.99 and 0.2 < (patch.alpha > 0).mean() < 0.95
    assert (patch.alpha > 0).sum() >= (alone.alpha > 0).sum()
    lips = speaker.landmarks(coeffs).points[row, [13, 14]].mean(axis=0)
    assert patch.alpha[int(lips[1]) - y0, int(lips[0]) - x0] > 0.99
    assert patch.rgb[patch.alpha > 0.5].std() > 0.02


def test_own_motion_gives_back_the_frame(clip, trained):
    _, source, speaker = clip
    renderer = IdentityRenderer(trained, speaker.model, "cpu")
    coeffs, row = source.coeffs, 20
    patch = renderer.render_patch(
        coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row], coeffs.camera,
        renderer.conditions(coeffs.expression)[row], source_expression=coeffs.expression[row],
    )  # fmt: skip
    x0, y0, x1, y1 = patch.bounds
    shown = speaker.frame(coeffs, row).rgb[y0:y1, x0:x1] / 255
    error = np.abs(patch.rgb - shown)[patch.alpha > 0.9].mean()
    assert error < 0.03


def test_a_face_outside_the_frame_gives_a_transparent_pixel(clip, trained):
    _, source, speaker = clip
    renderer = IdentityRenderer(trained, speaker.model, "cpu")
    coeffs = source.coeffs
    away = coeffs.translation[0] + np.array([30.0, 0, 0], np.float32)
    window = renderer.conditions(coeffs.expression)[0]
    patch = renderer.render_patch(coeffs.identity, coeffs.expression[0], coeffs.euler[0], away, coeffs.camera, window)
    assert patch.bounds == (0, 0, 1, 1) and not patch.alpha.any()


def test_a_much_larger_face_is_said_once(clip, trained, caplog):
    _, source, speaker = clip
    renderer = IdentityRenderer(trained, speaker.model, "cpu")
    coeffs = source.coeffs
    near = coeffs.translation[0].copy()
    near[2] = 10 - (10 - near[2]) / 2
    window = renderer.conditions(coeffs.expression)[0]
    for _ in range(2):
        renderer.render_patch(coeffs.identity, coeffs.expression[0], coeffs.euler[0], near, coeffs.camera, window)
    assert [r.message.count("larger than in training") for r in caplog.records].count(1) == 1


@pytest.fixture(scope="module")
def corrected(clip, tmp_path_factory):
    """The same clip as if its person had been fitted with a correction, and a person trained on that."""
    _, source, speaker = clip
    own = tmp_path_factory.mktemp("corrected")
    correction = np.zeros((speaker.model.n_identity, speaker.model.n_expression), np.float32)
    correction[:20, speaker.model.unit("jawOpen")] = 0.5
    coeffs = replace(source.coeffs, correction=correction)
    workspace = VideoWorkspace("clip", own)
    shutil.copytree(source.crops_dir, workspace.crops)
    raw = condition_from_expression(speaker.model.corrected(correction), coeffs.identity, coeffs.expression)
    statistics = ConditionStatistics.of(raw)
    dataset = replace(source, coeffs=coeffs, condition_mean=statistics.mean, condition_std=statistics.std)
    dataset.save(workspace.dataset)
    out = own / "person"
    train(tiny_config(own), out, silent)
    return own, correction, out


def test_training_casts_onto_the_corrected_head_and_sees_its_motion(clip, corrected):
    _, source, speaker = clip
    own, correction, _ = corrected
    dataset = load_dataset(tiny_config(own), speaker.model, silent)
    plain = load_dataset(tiny_config(clip[0]), speaker.model, silent)
    index = int(dataset.source.coeffs.expression[:, speaker.model.unit("jawOpen")].argmax())
    pose = dataset.pose(index)
    expected = speaker.model.corrected(correction)
    matrix = source.camera_matrix(index)
    pixels = project_mesh(dataset.face_model, pose, matrix).pixels
    np.testing.assert_array_equal(pixels, project_mesh(expected, pose, matrix).pixels)
    assert np.abs(pixels - project_mesh(plain.face_model, pose, matrix).pixels).max() > 0.5
    raw = condition_from_expression(expected, source.coeffs.identity, source.coeffs.expression)
    windows = dataset.conditions[:, dataset.conditions.shape[1] // 2].numpy()
    np.testing.assert_allclose(windows, dataset.statistics.normalize(raw), atol=1e-5)


def test_a_checkpoint_keeps_its_correction(clip, corrected):
    _, correction, out = corrected
    person, _, _ = load_person(out, torch.device("cpu"))
    assert person.correction is not None
    np.testing.assert_array_equal(person.correction.numpy(), correction)
    speaker, coeffs = clip[2], clip[1].coeffs
    onto_own = IdentityRenderer(out, speaker.model.corrected(correction), "cpu").conditions(coeffs.expression)
    onto_other = IdentityRenderer(out, speaker.model, "cpu").conditions(coeffs.expression)
    torch.testing.assert_close(onto_own, onto_other, atol=1e-4, rtol=0)


def test_a_person_is_not_scored_on_a_clip_of_another_correction(clip, corrected, trained):
    own, _, out = corrected
    here = tiny_config(own)
    assert open_checkpoint(out, here, silent)[0].face_model.correction is not None
    for person, config in ((out, tiny_config(clip[0])), (trained, here)):
        with pytest.raises(CheckpointError, match=r"another correction .* fit\.correct_expression as then") as error:
            open_checkpoint(person, config, silent)
        assert "\n" not in str(error.value)


def test_a_state_of_another_correction_is_not_gone_on_from(clip, corrected, tmp_path, caplog):
    own, _, _ = corrected
    task = RADNeRFTask(tiny_config(own), load_dataset(tiny_config(own), clip[2].model, silent), torch.device("cpu"))
    radnerf.save_state(task, tmp_path / "state", 3)
    assert radnerf.resume(task, tmp_path / "state") == 3
    assert task.dataset.face_model.correction is not task.person.correction
    config = tiny_config(clip[0])
    other = RADNeRFTask(config, load_dataset(config, clip[2].model, silent), torch.device("cpu"))
    other.config = task.config  # as if the clip had been prepared anew meanwhile
    with caplog.at_level("WARNING"):
        assert radnerf.resume(other, tmp_path / "state") == 0
    assert "another correction" in caplog.text
