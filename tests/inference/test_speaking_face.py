"""Who speaks: made-up lips that follow a made-up sound, and real talking lips side by side."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from inference.speaking_face import (
    NOBODY,
    SpeakingConfig,
    _best_path,
    _Grid,
    _lips_on_grid,
    _settled,
    speaking_faces,
    speaking_in,
)
from modules.commons.errors import ConfigError, NoFaceError
from modules.structures.audio import AudioClip
from modules.structures.boxes import BoundingBox
from modules.structures.evaluation import SpeechTrack
from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.landmarks import lip_opening
from modules.structures.tracks import track_of_boxes
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, make_clip

SILENT = AudioClip(np.zeros(160, np.float32), 16000)
RATE = 50


def babble(seed: int, seconds: float) -> np.ndarray:
    """Lip opening at 50 Hz that wavers as speech does, a few times a second."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(round(seconds * RATE) + 14)
    smooth = np.convolve(noise, np.hanning(15)[1:], mode="valid")[: round(seconds * RATE)]
    return 0.15 + 0.05 * smooth


def speech(opening: np.ndarray, active: np.ndarray | None = None) -> SpeechTrack:
    spoken = np.ones(len(opening), bool) if active is None else active
    return SpeechTrack(opening.astype(np.float32), np.zeros(len(opening), np.float32), spoken, float(RATE), SILENT)


def seen_at(opening: np.ndarray, times_s: np.ndarray, late_s: float = 0.0, noise: float = 0.02, seed: int = 9):
    """What a camera measures of it: another gain and rest, noise, a lag."""
    asked = np.interp(times_s - late_s, (np.arange(len(opening)) + 0.5) / RATE, opening)
    return 0.6 * asked + 0.1 + noise * np.random.default_rng(seed).standard_normal(len(times_s))


def frames(seconds: float, rate: float = 25.0) -> np.ndarray:
    return np.arange(round(seconds * rate)) / rate


ONE_SHOT = np.array([0])


@pytest.mark.parametrize("rate", [23.976, 25.0, 59.94])
@pytest.mark.parametrize("late_s", [-0.24, 0.0, 0.2])
def test_two_people_take_turns(rate, late_s):
    """Both move their lips all the time; the sound is one's, then the other's."""
    left, right, times = babble(1, 20), babble(2, 20), frames(20, rate)
    sound = np.where(np.arange(1000) < 500, left, right)
    found = speaking_faces(
        np.stack([seen_at(left, times, late_s), seen_at(right, times, late_s)]), times, ONE_SHOT, speech(sound)
    )
    assert abs(found.lag_s - late_s) <= 0.021
    far = np.abs(times - late_s - 10) > 0.6
    assert (found.face == (times - late_s >= 10))[far].all()
    assert (np.diff(found.face) != 0).sum() == 1 and found.confidence.min() > 0.5
    assert found.agreement.shape == (2, len(times)) and np.abs(found.agreement).max() <= 1


def test_variable_frame_rate():
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.07, 400))
    times -= times[0]
    left, right = babble(1, 20), babble(2, 20)
    lips = np.stack([seen_at(left, times), seen_at(right, times)])
    assert (speaking_faces(lips, times, ONE_SHOT, speech(right)).face == 1).all()


def test_another_voice_is_nobodys():
    times, voice = frames(20), babble(7, 20)
    for seed in range(4):
        lips = np.stack([seen_at(babble(10 + seed, 20), times), seen_at(babble(20 + seed, 20), times)])
        assert (speaking_faces(lips, times, ONE_SHOT, speech(voice)).face == NOBODY).all()


def test_still_lips_do_not_speak_and_silence_asks_for_nobody():
    times, voice = frames(12), babble(1, 12)
    still = 0.05 + 0.001 * np.random.default_rng(0).standard_normal((1, len(times)))
    assert (speaking_faces(still, times, ONE_SHOT, speech(voice)).face == NOBODY).all()
    silent = speech(np.zeros(600), np.zeros(600, bool))
    found = speaking_faces(seen_at(voice, times)[None], times, ONE_SHOT, silent)
    assert (found.face == NOBODY).all() and (found.confidence == 1).all()


def test_a_pause_keeps_the_speaker_and_a_long_silence_does_not():
    voice, times = babble(1, 40), frames(40)
    grid_s = np.arange(2000) / RATE
    active = (grid_s < 10) | ((grid_s > 11.5) & (grid_s < 20))
    voice[~active] = voice.min()
    found = speaking_faces(seen_at(voice, times)[None], times, ONE_SHOT, speech(voice, active))
    assert (found.face[times < 19] == 0).all() and (found.face[times > 22] == NOBODY).all()


def test_a_face_speaks_only_in_shots_that_show_it():
    """The voice goes on over a shot of somebody else."""
    voice, times = babble(1, 15), frames(15)
    speaker, other = seen_at(voice, times), seen_at(babble(2, 15), times)
    cut = (times >= 5) & (times < 10)
    speaker[cut], other[~cut] = np.nan, np.nan
    starts = np.array([0, np.flatnonzero(cut)[0], np.flatnonzero(cut)[-1] + 1])
    found = speaking_faces(np.stack([speaker, other]), times, starts, speech(voice))
    assert (found.face == np.where(cut, NOBODY, 0)).all()


def test_a_hand_over_the_mouth_does_not_hand_the_word_on():
    voice, times = babble(1, 12), frames(12)
    speaker, other = seen_at(voice, times), seen_at(babble(2, 12), times)
    speaker[(times >= 5) & (times < 5.4)] = np.nan
    assert (speaking_faces(np.stack([speaker, other]), times, ONE_SHOT, speech(voice)).face == 0).all()


def test_nothing_to_look_at():
    times = frames(4)
    found = speaking_faces(np.full((2, 100), np.nan), times, ONE_SHOT, speech(babble(1, 4)))
    assert (found.face == NOBODY).all() and (found.agreement == 0).all()
    assert (speaking_faces(np.zeros((0, 100)), times, ONE_SHOT, speech(babble(1, 4))).face == NOBODY).all()
    with pytest.raises(ValueError, match="do not belong to 100 frames"):
        speaking_faces(np.zeros((2, 99)), times, ONE_SHOT, speech(babble(1, 4)))


def naive_path(gain: np.ndarray, cost: np.ndarray) -> float:
    """Best total by trying every sequence of states."""
    count, length = gain.shape
    best = -np.inf
    for code in range(count**length):
        path = [code // count**step % count for step in range(length)]
        changes = [path[k] != path[k - 1] for k in range(1, length)]
        best = max(best, sum(gain[s, k] for k, s in enumerate(path)) - float((cost[1:] * changes).sum()))
    return best


def test_the_path_against_every_other():
    rng = np.random.default_rng(0)
    shot = np.array([0, 0, 0, 1, 1, 2])
    config = SpeakingConfig(switch_cost=0.4, cut_discount=0.25)
    cost = np.where(np.r_[False, np.diff(shot) > 0], 0.1, 0.4)
    for _ in range(20):
        gain = rng.normal(0, 0.4, (3, 6))
        path = _best_path(gain, _Grid(np.arange(6) / RATE, shot), config)
        assert set(path.tolist()) <= {0, 1, NOBODY}
        states = np.where(path == NOBODY, 2, path)
        total = gain[states, np.arange(6)].sum() - (cost[1:] * (np.diff(states) != 0)).sum()
        assert np.isclose(total, naive_path(gain, cost))


def test_short_spans_go_to_the_longer_neighbour_of_their_shot():
    shot = np.array([0] * 12 + [1] * 3)
    states = np.array([0] * 5 + [1] * 2 + [0] * 1 + [2] * 4 + [1] * 3)
    assert _settled(states, shot, 3).tolist() == [0] * 7 + [2] * 5 + [1] * 3
    assert _settled(states, shot, 1).tolist() == states.tolist()
    assert _settled(np.array([1, 1, 0]), np.array([0, 0, 1]), 9).tolist() == [1, 1, 0]  # whole shots stay


def test_lips_are_not_joined_across_cuts_and_holes():
    times = frames(2)
    opening = babble(3, 2)[::2].copy()
    opening[10:20] = np.nan  # 0.4 s
    grid = _Grid.of(times, np.array([0, 30]))
    lips, known = _lips_on_grid(opening[None], times, grid)
    hole = (grid.times_s > times[9] + 1e-6) & (grid.times_s < times[20] - 1e-6)
    cut = (grid.times_s > times[29] + 1e-6) & (grid.times_s < times[30] - 1e-6)
    assert hole.any() and cut.any() and not known[0][hole | cut].any() and known[0][~hole & ~cut].all()
    assert (lips[0][~known[0]] == 0).all()


def still_table(n_frames: int) -> FaceTable:
    boxes = np.tile([5.0, 5.0, 25.0, 30.0], (n_frames, 1))
    rng = np.random.default_rng(0)
    face = TrackedFace(track_of_boxes(boxes, np.ones(n_frames, bool)), rng.uniform(0, 0.2, n_frames).astype(np.float32))
    return FaceTable((48, 64), np.arange(n_frames) / 25, ONE_SHOT, (face,))


def test_a_video_without_speech_of_its_own(tmp_path):
    mute = make_clip(tmp_path / "mute.mp4", ClipSpec(n_frames=50)).path
    with pytest.raises(ConfigError, match=r"--face speaking needs the video's own sound: .*mute\.mp4"):
        speaking_in(mute, still_table(50), [0])


def test_real_sound_and_lips_that_have_nothing_to_do_with_it(shared_clips):
    video = shared_clips / "glasses_512_25fps.mp4"
    with pytest.raises(NoFaceError, match=r"no lips in .*glasses.* move with its sound"):
        speaking_in(video, still_table(200), [0])


@pytest.mark.slow
def test_an_interview(shared_clips):
    """The host listens with his lips shut while the guest talks, then asks; seen in the pictures."""
    video = shared_clips / "interview_two_speakers_hand_1280x720_25fps.mp4"
    places = (BoundingBox(770, 90, 1015, 360), BoundingBox(290, 150, 505, 405))
    landmarker, openings = FaceLandmarker(blendshapes=False), [[], []]
    with VideoReader(video) as reader:
        for frame in reader.frames():
            for place, opening in zip(places, openings, strict=True):
                bounds = place.scaled(1.6).pixel_bounds(1280, 720)
                rgb = rgb_from_planes(frame, bounds)
                points = landmarker.detect(rgb, place.shifted(-bounds[0], -bounds[1])).points
                opening.append(float(lip_opening(points)))
    count = len(openings[0])
    faces = tuple(
        TrackedFace(
            track_of_boxes(np.tile(place.as_array(), (count, 1)), np.ones(count, bool)), np.array(opening, np.float32)
        )
        for place, opening in zip(places, openings, strict=True)
    )
    table = FaceTable((720, 1280), np.arange(count) / 25, ONE_SHOT, faces)
    found = speaking_in(video, table, [0, 1])
    times = table.times_s
    assert (found.face[(times > 11) & (times < 15)] == 0).all() and (found.face[(times > 16) & (times < 17)] == 1).all()
    assert (found.face[(times > 4) & (times < 7)] == 1).all() and abs(found.lag_s) <= 0.08
