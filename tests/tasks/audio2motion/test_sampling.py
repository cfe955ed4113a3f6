"""Windows drawn from clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.commons.errors import ConfigError
from tasks.audio2motion.sampling import ClipRows, ResidentClips, StoredClips, WindowSampler

LENGTHS = (5, 40)


def counted_clip(index: int, length: int) -> ClipRows:
    """Targets count rows from 100 · index; the second rendering is half a step off."""
    rows = torch.arange(length).float()[:, None] + 100 * index
    return ClipRows(torch.stack([rows, rows + 0.5]), rows, torch.ones(length), 0.1 * index)


@pytest.fixture
def source():
    return ResidentClips([counted_clip(i, n) for i, n in enumerate(LENGTHS)])


def test_windows_are_runs_of_one_clip_with_padding_weighted_zero(source):
    batch = WindowSampler(source, 8).draw(64, np.random.default_rng(0))
    assert batch.components.shape == (64, 8, 1) and batch.weights.shape == (64, 8)
    seen = set()
    for rows, values, weight in zip(batch.components, batch.targets, batch.weights, strict=True):
        first = float(values[0, 0])
        count = 5 if first < 100 else 8
        assert weight.tolist() == [1.0] * count + [0.0] * (8 - count)
        assert values[:count, 0].tolist() == [first + step for step in range(count)]
        seen.add(float((rows - values).unique()))
    assert seen == {0.0, 0.5}
    assert sorted(set(batch.closed_below.tolist())) == pytest.approx([0.0, 0.1])


def test_the_generator_decides_everything(source):
    sampler = WindowSampler(source, 8, 0.1)
    first, other = (sampler.draw(16, np.random.default_rng(seed)) for seed in (0, 1))
    again = sampler.draw(16, np.random.default_rng(0))
    assert torch.equal(again.components, first.components) and not torch.equal(other.components, first.components)


def test_speed_changes_sound_and_motion_together(source):
    batch = WindowSampler(source, 20, 0.25).draw(200, np.random.default_rng(0))
    steps = batch.targets.diff(dim=1)[..., 0]
    long_clip = batch.targets[:, 0, 0] >= 100
    speeds = steps[long_clip, 0]
    assert speeds.min() < 0.85 and speeds.max() > 1.18
    assert float(speeds.min()) >= 0.8 - 1e-3 and float(speeds.max()) <= 1.25 + 1e-3
    inside = batch.weights > 0
    assert bool(inside[long_clip].all()), "a window that runs faster still lies in the clip"
    offset = (batch.components - batch.targets)[..., 0]
    assert (offset[inside] - offset[:, :1].expand_as(offset)[inside]).abs().max() < 1e-4


@pytest.fixture
def files(tmp_path):
    made = []
    for index, length in enumerate((300, 300, 30, 900)):
        made.append(tmp_path / f"{index}.npz")
        made[-1].write_bytes(b"x" * length)
    return made


def read_counted(file):
    index = int(file.stem)
    return None if index == 2 else counted_clip(index, 30)


def picked(source, step, count=12):
    clips = source.pick(count, np.random.default_rng([7, step]), step)
    return [int(clip.targets[0]) // 100 for clip in clips]


def test_a_pool_of_stored_clips_depends_on_the_step_alone(files):
    whole = StoredClips(files, read_counted, 6, 2, (0, 0))
    drawn = [picked(whole, step) for step in range(20)]
    resumed = StoredClips(files, read_counted, 6, 2, (0, 0))
    assert [picked(resumed, step) for step in range(13, 20)] == drawn[13:]
    other = StoredClips(files, read_counted, 6, 2, (0, 1))
    assert [picked(other, step) for step in range(20)] != drawn
    seen = [clip for clips in drawn for clip in clips]
    assert set(seen) == {0, 1, 3} and seen.count(3) > seen.count(0)


def test_reading_is_bounded_however_much_is_drawn(files):
    reads = []

    def read(file):
        reads.append(file)
        return counted_clip(int(file.stem), 30)

    source = StoredClips(files, read, 6, 2, (0, 0))
    for step in range(10):
        picked(source, step, count=100)
    assert 6 <= len(reads) <= 6 + 2 * 9


def test_a_corpus_without_faces_is_an_error(files):
    with pytest.raises(ConfigError, match="too little face"):
        StoredClips(files[2:3], read_counted, 1, 1, (0, 0)).pick(1, np.random.default_rng(0), 0)
