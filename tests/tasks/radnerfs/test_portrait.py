"""Portraits learn: the head first, then a torso onto it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import silent
from modules.face_model.bfm import BfmModel
from modules.face_model.portrait_face import PortraitFace
from modules.radnerfs.official import load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.radnerfs.portrait import Portrait
from tasks import run
from tasks.radnerfs import portrait_data
from tasks.radnerfs.perceptual import structure_loss
from tasks.radnerfs.portrait import PortraitTask, settle_codes, train_portrait
from tasks.radnerfs.portrait_config import PortraitTaskConfig
from tasks.radnerfs.portrait_data import PortraitClip
from tasks.radnerfs.portrait_evaluate import score
from tasks.radnerfs.portrait_optimizer import learning_share, parameter_groups
from tests.support.official_portraits import hparams_of, small_config
from tests.support.portrait_clips import write_clip
from tests.support.small_bfm import small_bfm

FRAMES = 11
CPU = torch.device("cpu")


def config(kind: str, root, **changes) -> PortraitTaskConfig:
    sizes = small_config(kind)
    head = replace(sizes.head, individual_embedding_num=FRAMES)
    torso = sizes.torso and replace(sizes.torso, individual_embedding_num=FRAMES)
    given = {"max_updates": 30, "n_rays": 256, "lr": 5e-3, "device": "cpu", "backend": "torch", "save_interval": 0}
    return PortraitTaskConfig(
        video_id="May", data_root=root, portrait=replace(sizes, head=head, torso=torso),
        **({"head_ckpt": "set"} if torso else {}) | given | changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Clips of the two sizes: of rays, and with super-resolution of twice as many."""
    folder = tmp_path_factory.mktemp("clips")
    return {side: write_clip(folder / str(side), FRAMES, side) for side in (16, 32)}


@pytest.fixture(scope="module")
def face():
    return PortraitFace.of(small_bfm().landmark_rows())


def task_of(kind, root, face, **changes) -> PortraitTask:
    data = root[32 if kind.endswith("_sr") else 16]
    settings = config(kind, data, **changes)
    dataset = load_portrait_dataset(data / "binary" / "videos" / "May")
    clip = PortraitClip(dataset, face, settings.portrait, data.parent, CPU)
    torch.manual_seed(0)
    return PortraitTask(settings, Portrait(settings.portrait), clip, structure_loss)


def losses(task: PortraitTask, steps: int, start: int = 0) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in task.training_step(start + step).items()} for step in range(steps)]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        pytest.param("head", {"loss", "mse", "entropy", "ambient"}, marks=pytest.mark.slow),
        pytest.param("head_sr", {"loss", "mse", "entropy", "ambient", "sr_mse"}, marks=pytest.mark.slow),
        ("torso", {"loss", "mse", "entropy"}),
        pytest.param("torso_sr", {"loss", "mse", "entropy", "sr_mse"}, marks=pytest.mark.slow),
    ],
)
def test_each_kind_learns(kind, names, root, face):
    task = task_of(kind, root, face)
    found = losses(task, 30)
    assert set(found[0]) == names
    mse = [step["mse"] for step in found]
    assert np.mean(mse[-5:]) < 0.7 * np.mean(mse[:3])
    assert all(np.isfinite(step["loss"]) for step in found)


def test_a_torso_leaves_head_and_super_resolution_alone(root, face):
    task = task_of("torso_sr", root, face)
    before = {key: value.clone() for key, value in task.portrait.state_dict().items()}
    losses(task, 3)
    changed = {key for key, value in task.portrait.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("torso.") for key in changed)
    assert "torso.head_color_weights_encoder.4.weight" in changed and "torso.density_grid_torso" in changed


def test_occupancy_is_refreshed_until_the_lips_are_learnt(root, face):
    task = task_of("head", root, face, occupancy_interval=2, fine_start=4)
    seen = []
    for step in range(8):
        task.training_step(step)
        seen.append(task.portrait.head.density_grid.clone())
    same = [torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert same == [True, False, True, True, True, True, True]
    assert (seen[0] == -1).any() and (seen[0] > 0).any()  # the cameras do not see every cell


def test_the_lips_are_learnt_every_other_step(root, face):
    task = task_of("head", root, face, fine_start=0, perceptual_weight=0.1)
    assert losses(task, 1, 0)[0].keys().isdisjoint({"perceptual"})
    example = task.clip.example(0)
    assert example.lip_rect == (4, 12, 4, 12)
    lips = replace(example, lip_rect=(1, 13, 3, 15))  # left, right, top, bottom

    def mse(target: torch.Tensor) -> float:
        task.stage.tools.generator.manual_seed(0)
        terms = task.stage.terms(replace(lips, target=target.reshape(-1, 3)), 1)
        assert float(terms["perceptual"].detach()) > 0
        return float(terms["mse"].detach())

    filmed = example.target.view(16, 16, 3)
    beside, on_lips = filmed.clone(), filmed.clone()
    beside[:3] = beside[15:] = beside[:, :1] = beside[:, 13:] = 0.5
    on_lips[3, 12] = on_lips[14, 1] = 0.5
    assert mse(beside) == mse(filmed) != mse(on_lips)


def test_pictures_are_compared_late(root, face):
    task = task_of("head_sr", root, face, fine_start=2, perceptual_weight=0.1)
    first, later = losses(task, 1, 1)[0], losses(task, 1, 2)[0]
    assert set(later) - set(first) == {"perceptual", "sr_perceptual", "sr_lips"}
    assert all(later[name] > 0 for name in ("perceptual", "sr_perceptual", "sr_lips"))


def test_the_ambient_weight_is_constant_rising_or_adapted(root, face):
    adapted = task_of("head_sr", root, face)
    losses(adapted, 3)
    assert 1.0 < float(adapted.portrait.lambda_ambient) < 1.5  # far above its target
    rising = task_of("head", root, face)
    values = losses(rising, 1, 0)[0]["ambient"], losses(rising, 1, 29)[0]["ambient"]
    assert values[0] == 0 < values[1]


def test_rates_and_groups(root, face):
    task = task_of("head", root, face)
    groups = parameter_groups(task.portrait, 1.0)
    assert sorted(group["lr"] for group in groups) == [1.0, 5.0, 10.0]
    assert sum(len(group["params"]) for group in groups) == len(list(task.portrait.parameters()))
    settings = PortraitTaskConfig()
    assert learning_share(0, settings) == 1 and learning_share(250000, settings) == pytest.approx(0.1)
    assert learning_share(10**7, settings) == pytest.approx(0.02)


def test_a_head_then_its_torso(root, face, tmp_path):
    """From the clip to both checkpoints, which read back as they were."""
    head = train_portrait(config("head_sr", root[32], max_updates=3, save_interval=2), tmp_path / "head", silent, face)
    read = load_portrait(tmp_path / "head")
    assert read.step == 3 and read.config.video_id == "May" and read.portrait.kind == "head_sr"
    torso = config("torso_sr", root[32], max_updates=3, head_ckpt=str(tmp_path / "head"))
    made = train_portrait(torso, tmp_path / "torso", silent, face)
    both = load_portrait(tmp_path / "torso")
    assert both.portrait.kind == "torso_sr" and both.config.task_cls.endswith("radnerf_torso_sr.RADNeRFTorsoTask")
    for key, value in head.head.state_dict().items():
        assert torch.equal(both.portrait.head.state_dict()[key], value), key
    assert both.portrait.config.head.eye_blink_dim == 2  # the head's, whatever the torso's configuration says
    dataset = load_portrait_dataset(root[32] / "binary" / "videos" / "May")
    clip = PortraitClip(dataset, face, made.config, root[32].parent, CPU)
    scores = score(made, clip, tmp_path / "looks", silent)
    assert (scores.kind, scores.frames) == ("torso_sr", 1) and 3 < scores.psnr < 60


def test_new_motion_has_the_mean_appearance(root, face, tmp_path):
    for kind in ("head", "torso"):
        portrait = task_of(kind, root, face).portrait
        head = portrait.head.individual_embeddings
        codes = head if portrait.torso is None else portrait.torso.torso_individual_codes
        before, of_head = codes.detach().clone(), head.detach().clone()
        settle_codes(portrait, 10)
        torch.testing.assert_close(codes[0], before[:10].mean(dim=0))
        assert torch.equal(codes[1:], before[1:])
        assert kind == "head" or torch.equal(head, of_head)
    portrait = train_portrait(config("head", root[16], max_updates=1), tmp_path / "head", silent, face)
    spread = portrait.head.individual_embeddings.norm(dim=1)
    assert spread[0] < spread[1:].min()  # of ten random codes


def test_an_interrupted_run_goes_on(root, face, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(what, done, total):
        if done == 10:  # steps; the checkpoint of step 8 is there
            raise StoppedError

    settings = config("torso", root[16], max_updates=12, save_interval=4, head_ckpt=str(tmp_path / "head"))
    train_portrait(config("head", root[16], max_updates=1), tmp_path / "head", silent, face)
    with pytest.raises(StoppedError):
        train_portrait(settings, tmp_path / "run", stop, face)
    assert load_portrait(tmp_path / "run").step == 8
    steps = []
    train_portrait(settings, tmp_path / "run", lambda what, done, total: steps.append(done), face)
    assert steps[0] == 8 and steps[-1] == 12
    done = load_checkpoint(tmp_path / "run")
    assert done.step == 12 and set(done.tensors) == {"model"}  # complete: a further run starts anew
    with pytest.raises(StoppedError):
        train_portrait(settings, tmp_path / "run", stop, face, reset=True)
    wider = replace(settings.portrait.torso, hidden_dim_color=9)
    other = replace(settings, portrait=replace(settings.portrait, torso=wider))
    with pytest.raises(CheckpointError, match=r"the saved state has other sizes .*; use --reset"):
        train_portrait(other, tmp_path / "run", silent, face)


def test_moments_are_kept(root, face):
    task, other = (task_of("torso", root, face) for _ in range(2))
    losses(task, 2)
    other.portrait.load_state_dict(task.portrait.state_dict())
    other.optimizer.load_state({key: value.clone() for key, value in task.optimizer.state().items()})
    loss = [t.portrait.torso.torso_individual_codes.square().sum() for t in (task, other)]
    for trained, value in zip((task, other), loss, strict=True):
        trained.optimizer.update(value, 2)
    assert torch.equal(task.portrait.torso.torso_individual_codes, other.portrait.torso.torso_individual_codes)


def test_what_cannot_be_trained_is_one_sentence(root, face, tmp_path):
    with pytest.raises(ConfigError, match="a torso is trained onto a trained head; name it with head_ckpt"):
        train_portrait(config("torso", root[16], head_ckpt=""), tmp_path / "a", silent, face)
    with pytest.raises(CheckpointError, match="10 training frames, and the portrait has appearance codes for 3"):
        short = replace(small_config("head"))
        train_portrait(replace(config("head", root[16]), portrait=short), tmp_path / "a", silent, face)
    with pytest.raises(CheckpointError, match="frames are 16 px, super-resolution makes 32 px"):
        train_portrait(config("head_sr", root[16]), tmp_path / "a", silent, face)
    train_portrait(config("head", root[16], max_updates=1), tmp_path / "head", silent, face)
    with pytest.raises(CheckpointError, match="a head, and this torso goes with super-resolution"):
        train_portrait(config("torso_sr", root[32], head_ckpt=str(tmp_path / "head")), tmp_path / "b", silent, face)
    clip = PortraitClip(
        load_portrait_dataset(root[16] / "binary" / "videos" / "May"), face, small_config("head"), tmp_path, CPU
    )
    with pytest.raises(CheckpointError, match="is missing or cannot be read"):
        clip.example(0)


def test_the_command_trains_by_a_yaml_of_theirs(root, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(BfmModel, "load", small_bfm)
    keys = {**hparams_of("head"), "binary_data_dir": str(root[16] / "binary" / "videos"), "n_rays": 64}
    keys |= {"individual_embedding_num": FRAMES, "smo_win_size": 5, "lambda_lpips_loss": 0.0}
    (tmp_path / "may.yaml").write_text(yaml.safe_dump(keys))
    flags = ["--config", str(tmp_path / "may.yaml"), "--exp_name", "may_head", "--hparams", "max_updates=2"]
    assert run.main(flags) == 0
    made = load_portrait(tmp_path / "may_head")
    assert made.step == 2 and made.portrait.kind == "head" and made.config.video_id == "May"
    assert run.main([*flags, "--validate"]) == 0


def test_pictures_stay_decoded_while_there_is_room(root, face, tmp_path, monkeypatch):
    data = write_clip(tmp_path, FRAMES, 16)
    dataset = load_portrait_dataset(data / "binary" / "videos" / "May")
    monkeypatch.setattr(portrait_data, "MOST_KEPT_BYTES", 7 * 16 * 16)  # one frame and its torso
    clip = PortraitClip(dataset, face, small_config("head"), tmp_path, CPU)
    first, second = clip.example(0), clip.example(1)
    for name in (*dataset.samples.frame_files[:2], *dataset.samples.torso_files[:2]):
        (tmp_path / name).unlink()
    assert torch.equal(clip.example(0).full_target, first.full_target)
    assert not torch.equal(first.frame.window, second.frame.window)
    with pytest.raises(CheckpointError, match="is missing"):
        clip.example(1)
