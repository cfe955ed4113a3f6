"""Which preset trains a person where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference import identity
from inference.identity import PRESETS, training_config
from modules.commons.errors import ConfigError


@pytest.mark.parametrize(("device", "preset"), [("cpu", "cpu.yaml"), ("cuda", "fast.yaml")])
def test_the_device_chooses_the_preset(monkeypatch, device, preset):
    monkeypatch.setattr(identity, "pick_device", lambda _: torch.device(device))
    chosen = training_config("clip", None, "auto", Path("data"))
    named = training_config("clip", PRESETS / preset, "auto", Path("data"))
    assert chosen == named and chosen.video_id == "clip" and chosen.device == "auto"


def test_a_head_that_cannot_edit_a_face_is_refused():
    with pytest.raises(ConfigError, match="does not train a person whose face can be edited"):
        training_config("clip", PRESETS / "geneface.yaml", "cpu", Path("data"))
