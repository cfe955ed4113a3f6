"""Adaptation on real video: a person whose sound is theirs is learnt, one whose sound is not stays as anybody."""

from __future__ import annotations

import pytest

from inference.adapting import learn_person
from inference.audio_to_motion import AudioToMotion
from inference.prepared import open_source
from modules.commons.progress import silent
from modules.commons.workspace import AUDIO2MOTION_DIR, WHISPER_FILE
from tests.support.tiny_run import own_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learnt(tmp_path_factory, shared_clips):
    def learn(name):
        with own_folders(tmp_path_factory.mktemp("clips")):
            source = open_source(shared_clips / name, silent)
            predictor = AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, source.face_model.version)
            return learn_person(source, predictor, "auto")

    return learn


def test_a_person_is_learnt_where_sound_and_mouth_agree(learnt):
    found = learnt("glasses_512_25fps.mp4")
    assert found.person is not None and found.held_out is not None
    assert found.held_out.gain > 0.05 and found.held_out.better > 0.6


def test_a_sound_that_is_not_the_mouths_is_left_alone(learnt):
    found = learnt("address_1280x720_25fps.mp4")
    assert found.person is None and "does not match its mouth" in found.reason
