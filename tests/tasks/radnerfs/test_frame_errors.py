"""Frames whose errors stand out are no longer believed."""

from __future__ import annotations

import torch

from tasks.radnerfs.frame_errors import FrameErrors, believable


def errors_of(values):
    return torch.tensor(values), torch.ones(len(values))


def test_a_lone_bad_frame_is_dropped():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 4.0, 1.02]
    assert believable(*errors_of(values)).tolist() == [1, 1, 1, 1, 1, 0, 1]


def test_an_even_clip_keeps_every_frame():
    assert believable(*errors_of([1.0, 1.0, 1.0, 1.2])).min() == 1  # 20 % above identical frames is no fault
    assert believable(torch.zeros(3), torch.zeros(3)).tolist() == [1, 1, 1]


def test_frames_never_drawn_are_believed():
    total, count = errors_of([1.0, 1.1, 0.9, 1.0, 9.0, 0.0])
    count[5] = 0
    assert believable(total, count).tolist() == [1, 1, 1, 1, 0, 1]


def test_judged_once_after_watching_and_restored():
    frames = FrameErrors(5, torch.device("cpu"))
    every = torch.arange(5)
    bad = torch.full((5, 3), 0.02)
    bad[3] = 0.3
    frames.watch(0.0, every, 1 - bad)  # too early to count
    for progress in (0.2, 0.25):
        frames.watch(progress, every, bad)
    assert frames.believed.min() == 1
    again = FrameErrors(5, torch.device("cpu"))
    again.load_state(frames.state())
    for watcher in (frames, again):
        watcher.watch(0.31, every, bad)
        assert watcher.believed.tolist() == [1, 1, 1, 0, 1]
        watcher.watch(0.9, every, torch.zeros(5, 3))
        assert watcher.believed.tolist() == [1, 1, 1, 0, 1]
