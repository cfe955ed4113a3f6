"""The main command on two devices: the file of one device, whole, killed and gone on with, masks and records too."""

import json

import pytest
import torch

from inference import arbitrary_video
from inference.motion_to_frames import IdentityRenderer
from modules.commons.errors import ConfigError
from modules.structures.device_patch import DevicePatch
from tests.support.edited_clips import is_same_picture, run_job, segments_of
from tests.support.tiny_run import FRAMES, InterruptedForTest, all_frames, own_folders, tiny_run

PER_SEGMENT = 16
"""A multiple of the batches' size, as the usual one is."""
PART_S = (0.3, 1.1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


def frame_by_frame(self, frames, cond_windows, region="lower_face"):
    """What ``render_patches`` gives, sooner on a CPU."""
    camera = self.own_camera
    patches = [
        self.render_patch(frames.identity, new, euler, place, camera, window, shown, region)
        for new, euler, place, window, shown in zip(
            frames.expression, frames.euler, frames.translation, cond_windows, frames.shown, strict=True
        )
    ]
    return [DevicePatch(p.bounds, torch.from_numpy(p.rgb), torch.from_numpy(p.alpha)) for p in patches]


@pytest.fixture
def on_devices(run, monkeypatch):
    """Runs the job of the tests on so many devices, all of them the CPU."""
    editor = arbitrary_video.FrameEditor

    def watched(options, source, renderer, *rest):
        renderer.own_camera = source.coeffs.camera
        return editor(options, source, renderer, *rest)

    def start(count, folder, progress=None, **changes):
        monkeypatch.setattr(arbitrary_video, "render_devices", lambda *_: [CPU] * count)
        job = run.job(
            out_name=folder / "out.mp4", save_masks=folder / "masks.mkv", head_ckpt=run.identity, lossless=True,
            start=PART_S[0], end=PART_S[1], **changes,
        )  # fmt: skip
        with own_folders(run.root):
            run_job(job, progress)

    monkeypatch.setattr(IdentityRenderer, "render_patches", frame_by_frame)
    monkeypatch.setattr(arbitrary_video, "FrameEditor", watched)
    with pytest.MonkeyPatch.context() as patch:
        segments_of(PER_SEGMENT, patch)
        yield start


def record_of(folder):
    record = json.loads((folder / "out.mp4.json").read_text())
    return {key: value for key, value in record.items() if key not in ("output", "seconds_per_stage", "warnings")}


@pytest.mark.slow
def test_two_devices_write_the_file_of_one_whole_and_killed(run, on_devices, tmp_path):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    on_devices(1, one)
    on_devices(2, two)
    seen = []

    def progress(what, done, total):
        if what == "edit":
            seen.append(done)
            if done == 2 * PER_SEGMENT - 3 and len(seen) == done:
                raise InterruptedForTest

    with pytest.raises(InterruptedForTest):
        on_devices(2, killed, progress)
    on_devices(2, killed, progress)
    assert seen[-1] == FRAMES[1] - FRAMES[0] and seen[2 * PER_SEGMENT - 3] == PER_SEGMENT + 1
    plain, made = all_frames(one / "out.mp4"), all_frames(two / "out.mp4")
    edited = sum(not is_same_picture(a, b) for a, b in zip(made, all_frames(run.clip), strict=True))
    assert 10 < edited < len(made)
    for a, b in zip(plain, made, strict=True):
        assert all(abs(x.astype(int) - y).max() <= 1 for x, y in zip(a.planes, b.planes, strict=True))
    for name in ("out.mp4", "masks.mkv"):
        assert (killed / name).read_bytes() == (two / name).read_bytes(), name
    assert record_of(killed) == record_of(two)
    for key in ("frames", "frames_edited", "frames_with_hand"):
        assert record_of(one)[key] == record_of(two)[key]


@pytest.mark.parametrize("named", ["zero", "0"])
def test_gpus_are_named_in_text_and_refused_on_a_cpu(run, tmp_path, named):
    job = run.job(out_name=tmp_path / "out.mp4", head_ckpt=run.identity, devices=named, device="cpu")
    with own_folders(run.root), pytest.raises(ConfigError, match="--devices"):
        run_job(job)
    assert list(tmp_path.iterdir()) == []
