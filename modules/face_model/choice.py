"""Which face model a configuration names."""

from __future__ import annotations

from typing import Literal

from modules.commons.workspace import BFM2009_DIR, FACE_MODEL_FILE
from modules.face_model.bfm import BfmModel
from modules.face_model.model import FaceModel

FaceModelName = Literal["embedded", "bfm2009"]


def load_face_model(name: FaceModelName) -> FaceModel | BfmModel:
    """The model of that name, from where ``modules/commons/workspace.py`` says it lies.

    'embedded' ships with the project and serves everything. 'bfm2009' is what official GeneFace++ checkpoints
    speak; its files are put there by hand, and it can be fitted but not trained or rendered with.

    Raises:
        CheckpointError: the embedded model is missing or damaged.
        ModelFileError: BFM2009 is missing or is something else.
    """
    return FaceModel.load(FACE_MODEL_FILE) if name == "embedded" else BfmModel.load(BFM2009_DIR)
