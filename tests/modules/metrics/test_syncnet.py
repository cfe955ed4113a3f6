from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.commons.errors import BackendUnavailableError, CheckpointError
from modules.metrics.mfcc import mfcc
from modules.metrics.syncnet import (
    SyncNet,
    audio_features,
    frames_at_25fps,
    lip_features,
    load_syncnet,
    scores_of_distances,
    sync_distances,
    sync_scores,
    syncnet_regions,
)
from modules.structures.audio import AudioClip

CONVOLUTIONS = {
    "netcnnaud": {
        0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3), 14: (256, 256, 3, 3),
        18: (512, 256, 5, 4),
    },
    "netcnnlip": {
        0: (96, 3, 5, 7, 7), 4: (256, 96, 1, 5, 5), 8: (256, 256, 1, 3, 3), 11: (256, 256, 1, 3, 3),
        14: (256, 256, 1, 3, 3), 18: (512, 256, 1, 6, 6),
    },
    "netfcaud": {0: (512, 512), 3: (1024, 512)},
    "netfclip": {0: (512, 512), 3: (1024, 512)},
}  # fmt: skip
NORMS = {"netcnnaud": (1, 5, 9, 12, 15, 19), "netcnnlip": (1, 5, 9, 12, 15, 19), "netfcaud": (1,), "netfclip": (1,)}


def public_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of the public file, made without the network's own code."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for part, layers in CONVOLUTIONS.items():
        for index, shape in layers.items():
            spread = math.prod(shape[1:]) ** -0.5
            state[f"{part}.{index}.weight"] = torch.randn(shape, generator=generator) * spread
            state[f"{part}.{index}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
            if index + 1 in NORMS[part]:
                norm = f"{part}.{index + 1}"
                state[f"{norm}.weight"] = torch.rand(shape[0], generator=generator) + 0.5
                state[f"{norm}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
                state[f"{norm}.running_mean"] = torch.randn(shape[0], generator=generator) * 0.1
                state[f"{norm}.running_var"] = torch.rand(shape[0], generator=generator) + 0.5
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return public_state()


@pytest.fixture(scope="module")
def net(state) -> SyncNet:
    net = SyncNet()
    net.load_state_dict(state, strict=False)
    return net.eval()


class PlainNet(SyncNet):
    """Cheap stand-in: features that name the window they were made of. Keeps what it was given."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward_lips(self, frames: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(frames))
        assert frames.shape[1:] == (3, 5, 224, 224)
        found = frames[:, :, :, 10, 20].flatten(1)  # [B, 15]: channel-major
        return torch.nn.functional.pad(found, (0, 1024 - 15))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), np.uint8)


def sound_of(count: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness changes, so that windows differ."""
    generator = np.random.default_rng(seed)
    loudness = np.interp(
        np.arange(count), np.arange(0, count + 2000, 2000), generator.random(count // 2000 + 1 + (count % 2000 > 0))
    )
    return (generator.uniform(-0.8, 0.8, count) * loudness**2).astype(np.float32)


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1024)).astype(np.float32)


class TestNetwork:
    def test_layers_bear_the_public_names_and_shapes(self, state):
        own = {k: tuple(v.shape) for k, v in SyncNet().state_dict().items() if not k.endswith("num_batches_tracked")}
        assert own == {k: tuple(v.shape) for k, v in state.items()}

    def test_features_are_1024_wide(self, net):
        with torch.inference_mode():
            assert net.forward_lips(torch.zeros(2, 3, 5, 224, 224)).shape == (2, 1024)
            assert net.forward_sound(torch.zeros(3, 1, 13, 20)).shape == (3, 1024)

    @pytest.mark.parametrize(
        ("part", "shape", "after_pools", "last"),
        [
            ("netcnnlip", (1, 3, 5, 224, 224), [(1, 54, 54), (1, 13, 13), (1, 6, 6)], (1, 1, 1)),
            ("netcnnaud", (1, 1, 13, 20), [(13, 20), (11, 9), (5, 4)], (1, 1)),
        ],
    )
    def test_strides_and_pools_leave_one_point(self, net, part, shape, after_pools, last):
        x, sizes = torch.zeros(shape), []
        with torch.inference_mode():
            for layer in getattr(net, part):
                x = layer(x)
                if "Pool" in type(layer).__name__:
                    sizes.append(tuple(x.shape[2:]))
        assert sizes == after_pools and x.shape == (1, 512, *last)


class TestLoading:
    @pytest.mark.parametrize(("zipped", "nested"), [(True, False), (False, True)])
    def test_what_torch_saved_comes_back(self, net, state, tmp_path, zipped, nested):
        path = tmp_path / "syncnet_v2.model"
        saved = {"state_dict": state, "epoch": 3} if nested else state
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        loaded = load_syncnet(path, "cpu")
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())
        window = torch.rand(1, 1, 13, 20, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert torch.equal(loaded.forward_sound(window), net.forward_sound(window))

    def test_a_file_that_is_not_there(self, tmp_path):
        path = tmp_path / "nowhere" / "syncnet_v2.model"
        with pytest.raises(BackendUnavailableError, match=r"nowhere/syncnet_v2\.model.*not measured.*Oxford VGG"):
            load_syncnet(path, "cpu")
        with pytest.raises(BackendUnavailableError):
            load_syncnet(tmp_path, "cpu")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_truncated_file(self, state, tmp_path, zipped):
        path = tmp_path / "cut.model"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(CheckpointError, match=r"cut\.model: not SyncNet's weights"):
            load_syncnet(path, "cpu")

    @pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 9, b"\x80\x02}q\x00."])
    def test_a_foreign_file(self, tmp_path, content):
        path = tmp_path / "foreign.model"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"syncnet_v2\.model of Oxford VGG") as caught:
            load_syncnet(path, "cpu")
        assert "weights_only" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (3, "holds a int"),
            ({"netfcaud.0.weight": "text"}, "no table of named tensors"),
            ({1: torch.zeros(1)}, "no table of named tensors"),
            ({"state_dict": {"conv.weight": torch.zeros(1)}}, "unexpected: conv.weight"),
            ({}, r"missing: netcnnaud\.0\.weight.*and \d+ more; unexpected: none"),
        ],
    )
    def test_another_table(self, tmp_path, content, reason):
        path = tmp_path / "other.model"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=reason):
            load_syncnet(path, "cpu")

    def test_another_shape(self, state, tmp_path):
        path = tmp_path / "wide.model"
        torch.save(state | {"netfclip.3.weight": torch.zeros(256, 512)}, path)
        with pytest.raises(CheckpointError, match=r"netfclip\.3\.weight"):
            load_syncnet(path, "cpu")

    def test_a_file_that_would_run_code_is_not_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "ran",))

        path = tmp_path / "evil.model"
        torch.save({"a": Evil()}, path)
        with pytest.raises(CheckpointError):
            load_syncnet(path, "cpu")
        assert not (tmp_path / "ran").exists()


class TestLipFeatures:
    def test_streaming_equals_the_whole_batch_in_bgr(self, net):
        frames = pictures(9)
        bgr = torch.from_numpy(frames[..., [2, 1, 0]].copy()).float()
        windows = torch.stack([bgr[i : i + 5].permute(3, 0, 1, 2) for i in range(4)])
        with torch.inference_mode():
            whole = net.forward_lips(windows).numpy()
        streamed = lip_features(net, iter(frames), batch=3)
        assert streamed.shape == (4, 1024) and streamed.dtype == np.float32
        assert np.allclose(streamed, whole, rtol=1e-4, atol=1e-3)
        assert np.abs(np.diff(whole, axis=0)).max() > 0.1  # the windows do differ

    @settings(max_examples=25)
    @given(count=st.integers(0, 24), batch=st.integers(1, 9))
    def test_windows_for_any_length_and_batch(self, count, batch):
        """A stand-in network answers with its input: window i holds frames i..i+4, channels turned round."""
        frames = pictures(count, seed=1)
        found = lip_features(PlainNet(), frames, batch=batch)
        assert found.shape == (max(count - 5, 0), 1024) and found.dtype == np.float32
        for i, row in enumerate(found):
            expected = [frames[i + k, 10, 20, 2 - channel] for channel in range(3) for k in range(5)]
            assert row[:15].tolist() == expected

    def test_few_frames_are_held_and_the_caller_may_reuse_its_array(self):
        """Frame k is all k: a generator that overwrites one array, and counts how far ahead of the network it is."""
        net, ahead = PlainNet(), []

        def overwriting() -> Iterator[np.ndarray]:
            frame = np.zeros((224, 224, 3), np.uint8)
            for index in range(40):
                frame[:] = index
                ahead.append(index + 1 - sum(net.batches))
                yield frame

        found = lip_features(net, overwriting(), batch=4)
        assert max(ahead) <= 4 + 4
        assert set(net.batches) == {4}  # 36 windows
        assert np.array_equal(found[:, :5], np.arange(35)[:, None] + np.arange(5))

    @pytest.mark.parametrize(
        "frame", [np.zeros((224, 224), np.uint8), np.zeros((224, 224, 3)), np.zeros((96, 96, 3), "u1")]
    )
    def test_other_frames_are_refused(self, frame):
        with pytest.raises(ValueError, match=r"uint8 \[224, 224, 3\]"):
            lip_features(PlainNet(), [frame])


class TestAudioFeatures:
    def test_rows_start_every_four_columns(self, net):
        samples = sound_of(640 * 12 + 333)
        clip = AudioClip(samples, 16_000)
        found = audio_features(net, clip, batch=3)
        columns = torch.from_numpy(mfcc(clip)).float().T
        with torch.inference_mode():
            expected = torch.cat([net.forward_sound(columns[None, None, :, 4 * i : 4 * i + 20]) for i in range(7)])
        assert found.shape == (7, 1024) and found.dtype == np.float32
        assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-3)
        assert np.abs(np.diff(found, axis=0)).max() > 0.1

    def test_a_row_hears_its_own_fifth_of_a_second(self, net):
        """Row i hears samples 640 i - 1 (pre-emphasis) up to 640 i + 3440 = its 20 steps and the last one's window."""
        samples = sound_of(640 * 14)
        later = samples.copy()
        later[640 * 4 + 3440 :] = 0
        before, after = (audio_features(net, AudioClip(s, 16_000)) for s in (samples, later))
        changed = np.abs(before - after).max(axis=1) > 1e-6
        assert changed.tolist() == [False] * 5 + [True] * 4

    @pytest.mark.parametrize(
        ("count", "rows"), [(0, 0), (640 * 5 + 639, 0), (640 * 6 - 1, 0), (640 * 6, 1), (640 * 9, 4)]
    )
    def test_as_many_rows_as_video_of_that_length_has(self, net, count, rows):
        assert audio_features(net, AudioClip(sound_of(count), 16_000)).shape == (rows, 1024)
        assert len(lip_features(PlainNet(), np.zeros((count // 640, 224, 224, 3), np.uint8))) == rows

    def test_another_rate_is_refused(self, net):
        with pytest.raises(ValueError, match="resample first"):
            audio_features(net, AudioClip(sound_of(9000), 8_000))


class TestScores:
    def test_curve_by_hand(self):
        # shift -1: |0-0|, |3-3|;  shift 0: |0-3|, |3-7|;  shift +1: |0-7|, |3-0|
        lips, sound = np.array([[0.0], [3.0]], np.float32), np.array([[3.0], [7.0], [99.0]], np.float32)
        distances = sync_distances(lips, sound, reach=1)
        assert np.allclose(distances, [[0, 3, 7], [0, 4, 3]], atol=1e-5)  # 99 lies beyond the shorter one: zero
        scores = sync_scores(lips, sound, reach=1)
        assert (scores.offset_frames, scores.frames) == (1.0, 2)
        assert scores.lse_d == pytest.approx(0, abs=1e-5) and scores.lse_c == pytest.approx(3.5, abs=1e-5)

    @settings(max_examples=25)
    @given(
        t=st.integers(1, 12),
        k=st.integers(1, 12),
        width=st.integers(1, 6),
        reach=st.integers(0, 5),
        seed=st.integers(0, 99),
    )
    def test_naive_twin(self, t, k, width, reach, seed):
        generator = np.random.default_rng(seed)
        lips = (generator.standard_normal((t, width)) * 5).astype(np.float32)
        sound = (generator.standard_normal((k, width)) * 5).astype(np.float32)
        count = min(t, k)
        curve = []
        for shift in range(-reach, reach + 1):
            total = 0.0
            for i in range(count):
                other = sound[i + shift] if 0 <= i + shift < count else np.zeros(width)
                total += math.sqrt(sum((float(a) - float(b) + 1e-6) ** 2 for a, b in zip(lips[i], other, strict=True)))
            curve.append(total / count)
        found = sync_scores(lips, sound, reach)
        assert np.allclose(sync_distances(lips, sound, reach).mean(axis=0), curve, rtol=1e-5)
        assert found.lse_d == pytest.approx(min(curve), rel=1e-5)
        assert found.lse_c == pytest.approx(sorted(curve)[reach] - min(curve), rel=1e-4, abs=1e-5)
        assert found.frames == count
        assert curve[reach - int(found.offset_frames)] == pytest.approx(min(curve), rel=1e-5)

    @pytest.mark.parametrize("late", [-15, -7, -1, 0, 1, 3, 15])
    def test_planted_offset(self, late):
        """Sound row i + late belongs to lip row i: sound that is late has a negative offset."""
        stream = features(120)
        lips, sound = stream[20:100], stream[20 - late : 100 - late]
        scores = sync_scores(lips, sound)
        assert scores.offset_frames == -late
        assert scores.frames == 80
        assert scores.lse_c > 0.5 * scores.lse_d + 5

    def test_sound_that_is_delayed_is_late(self, net):
        """From samples to the sign: features of the sound itself stand for lips that fit it exactly."""
        samples, silence = sound_of(32_000), np.zeros(1920, np.float32)  # 120 ms
        fitting, late, early = (
            audio_features(net, AudioClip(heard, 16_000))
            for heard in (
                samples,
                np.concatenate([silence, samples[:-1920]]),
                np.concatenate([samples[1920:], silence]),
            )
        )
        assert [sync_scores(fitting, heard).offset_frames for heard in (fitting, late, early)] == [0, -3, 3]

    def test_fit_and_misfit(self):
        lips = features(200)
        noisy = [lips + s * features(200, seed=1) for s in (0.1, 0.5, 1.0)]
        scores = [sync_scores(lips, sound.astype(np.float32)) for sound in noisy]
        assert scores[0].lse_d < scores[1].lse_d < scores[2].lse_d
        assert scores[0].lse_c > scores[1].lse_c > scores[2].lse_c > 0
        assert sync_scores(lips, features(200, seed=2)).lse_c < 0.1 * scores[2].lse_c

    def test_stretches_are_put_together_by_their_rows(self):
        first = sync_distances(features(40), features(40, seed=1))
        second = sync_distances(features(10, seed=2), features(10, seed=3))
        joined = scores_of_distances(np.concatenate([first, second]))
        curve = (40 * first.mean(axis=0) + 10 * second.mean(axis=0)) / 50
        assert joined.frames == 50 and joined.lse_d == pytest.approx(curve.min(), rel=1e-5)

    def test_nothing_to_compare_is_not_measurable(self):
        scores = sync_scores(features(0), features(30))
        assert scores.frames == 0
        assert math.isnan(scores.lse_c) and math.isnan(scores.lse_d) and math.isnan(scores.offset_frames)

    def test_a_clip_of_five_frames_is_not_measurable(self, net):
        lips = lip_features(PlainNet(), pictures(5))
        assert sync_scores(lips, audio_features(net, AudioClip(sound_of(16_000), 16_000))).frames == 0

    def test_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r"\(3, 1024\), \(3, 7\)"):
            sync_scores(features(3), np.zeros((3, 7), np.float32))


class TestRegions:
    def test_a_still_face(self):
        (region, *others) = syncnet_regions(np.tile([100.0, 50.0, 180.0, 170.0], (30, 1)))  # 80 x 120: s = 60
        assert all(other == region for other in others) and len(others) == 29
        box = region.bounding_box()
        assert (box.x0, box.x1) == pytest.approx((140 - 1.4 * 60, 140 + 1.4 * 60))
        assert (box.y0, box.y1) == pytest.approx((110 - 60, 110 + 1.8 * 60))
        assert region.side == pytest.approx(2.8 * 60) and region.angle_rad == 0

    def test_the_median_of_13_frames_away_from_the_ends(self):
        boxes = np.random.default_rng(0).uniform(0, 40, (40, 4)) + np.array([100, 100, 200, 220])
        found = syncnet_regions(boxes)
        for t in range(6, 34):
            near = boxes[t - 6 : t + 7]
            half = np.median(np.maximum(near[:, 2] - near[:, 0], near[:, 3] - near[:, 1]) / 2)
            assert found[t].side == pytest.approx(2.8 * half)
            assert found[t].center_x == pytest.approx(np.median((near[:, 0] + near[:, 2]) / 2))
            assert found[t].center_y == pytest.approx(np.median((near[:, 1] + near[:, 3]) / 2) + 0.4 * half)

    def test_the_ends_are_held(self):
        steady = np.tile([0.0, 0.0, 10.0, 10.0], (3, 1))
        assert [region.side for region in syncnet_regions(steady)] == pytest.approx([14.0] * 3)

    def test_frames_without_a_face_are_filled_in(self):
        boxes = np.arange(9)[:, None] * 10.0 + [0, 0, 20, 20]
        held = boxes.copy()
        held[0], held[8] = boxes[1], boxes[7]  # beyond the known rows
        boxes[[0, 3, 4, 8]] = np.nan
        boxes[5, 2] = np.nan
        for filled, expected in zip(syncnet_regions(boxes), syncnet_regions(held), strict=True):
            assert (filled.center_x, filled.center_y) == pytest.approx((expected.center_x, expected.center_y))
            assert filled.side == pytest.approx(28)

    def test_tiny_faces_are_kept(self):
        assert syncnet_regions(np.array([[5.0, 5.0, 8.0, 9.0]]))[0].side == pytest.approx(2.8 * 2)

    def test_no_rows_no_regions(self):
        assert syncnet_regions(np.zeros((0, 4))) == []

    @pytest.mark.parametrize(
        ("boxes", "reason"),
        [
            (np.zeros((3, 5)), r"\[T, 4\]"),
            (np.full((3, 4), np.nan), "no row holds a face box"),
            (np.array([[5.0, 0, 5, 9]]), "empty or inverted"),
            (np.array([[0.0, 9, 5, 2]]), "empty or inverted"),
        ],
    )
    def test_bad_boxes(self, boxes, reason):
        with pytest.raises(ValueError, match=reason):
            syncnet_regions(boxes)


def nearest_frames(times: list[Fraction]) -> list[int]:
    """The definition, in exact numbers: min takes the earlier of two as near."""
    found, tick = [], times[0]
    while tick <= times[-1]:
        found.append(min(range(len(times)), key=lambda i: abs(times[i] - tick)))
        tick += Fraction(1, 25)
    return found


class TestTicks:
    @pytest.mark.parametrize(
        "rate",
        [
            Fraction(12),
            Fraction(25, 2),
            Fraction(24000, 1001),
            Fraction(24),
            Fraction(25),
            Fraction(30000, 1001),
            Fraction(30),
            Fraction(50),
            Fraction(60),
            Fraction(120),
        ],
    )
    @pytest.mark.parametrize("start", [Fraction(0), Fraction(1001, 30)])
    def test_constant_rates(self, rate, start):
        times = [start + i / rate for i in range(151)]
        found = frames_at_25fps(np.array([float(t) for t in times]))
        assert found.dtype == np.int64 and found.tolist() == nearest_frames(times)

    def test_simple_rates(self):
        assert frames_at_25fps(np.arange(8) / 25).tolist() == list(range(8))
        assert frames_at_25fps(np.arange(8) / 50).tolist() == [0, 2, 4, 6]
        assert frames_at_25fps(np.arange(4) / 12.5).tolist() == [0, 0, 1, 1, 2, 2, 3]

    @settings(max_examples=100)
    @given(steps=st.lists(st.integers(1, 300), max_size=40), start=st.integers(0, 10**6))
    def test_variable_rates(self, steps, start):
        ticks = np.concatenate([[start], start + np.cumsum(steps, dtype=int)]).astype(int)  # ms
        times = [Fraction(int(t), 1000) for t in ticks]
        assert frames_at_25fps(ticks / 1000).tolist() == nearest_frames(times)

    def test_few_frames(self):
        assert frames_at_25fps(np.zeros(0)).tolist() == []
        assert frames_at_25fps(np.array([3.0])).tolist() == [0]

    def test_times_must_ascend(self):
        with pytest.raises(ValueError, match="ascend"):
            frames_at_25fps(np.array([0.0, 0.04, 0.04]))
