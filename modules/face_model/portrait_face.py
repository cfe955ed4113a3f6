"""The 68 points of a portrait's face model, BFM2009 or the embedded one, and where they are seen in its pictures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modules.commons.errors import CheckpointError
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.bfm import BFM_VERSION_PREFIX, BfmModel
from modules.face_model.fitting import LandmarkRows
from modules.face_model.keypoints import IDEXP_SCALE, idexp_keypoints
from modules.face_model.model import FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.landmarks import LM68
from modules.structures.portrait_dataset import PortraitDataset


@dataclass(frozen=True, slots=True, eq=False)
class PortraitFace:
    """A linear face at GeneFace++'s 68 points, head space, dm (BFM's unit is about one).

    Attributes:
        mean: ``[68, 3]``. identity: ``[68, 3, I]``. expression: ``[68, 3, E]``.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor

    @classmethod
    def of(cls, rows: LandmarkRows) -> PortraitFace:
        """The 68 of a model's MediaPipe points."""
        chosen = list(LM68)
        return cls(rows.mean[chosen], rows.identity[chosen], rows.expression[chosen])

    def offsets(self, identity: Tensor, expression: Tensor) -> Tensor:
        """GeneFace++'s ``idexp_lm3d``, ``[T, 68, 3]``, see ``keypoints.idexp_keypoints``."""
        return idexp_keypoints(identity, expression, self.identity, self.expression)

    def seen(
        self, identity: Tensor, expression: Tensor, euler: Tensor, translation: Tensor, camera: CameraIntrinsics
    ) -> Tensor:
        """Where the points are in a picture, ``[T, 68, 2]`` 0..1, x right, y down.

        Args:
            identity: ``[1, I]`` or ``[T, I]``.
            expression: ``[T, E]``.
            euler: ``[T, 3]`` rad.
            translation: ``[T, 3]`` as fitted.
            camera: of the picture.
        """
        identity = identity.expand(len(expression), -1)
        points = self.mean + self.offsets(identity, expression) / IDEXP_SCALE
        pixels, _ = project(points, euler, translation, camera)
        return pixels / pixels.new_tensor([camera.width, camera.height])


def is_bfm(clip: PortraitDataset) -> bool:
    """Whether a clip's coefficients are BFM2009's; else they are those of the embedded model."""
    return clip.face_model_version.startswith(BFM_VERSION_PREFIX)


def portrait_face(clip: PortraitDataset) -> PortraitFace:
    """The face that a clip's coefficients belong to.

    Raises:
        ModelFileError: they are BFM2009's, which is not here.
        CheckpointError: they are those of another face model than the embedded one.
    """
    if is_bfm(clip):
        return PortraitFace.of(BfmModel.load().landmark_rows())
    model = FaceModel.load(FACE_MODEL_FILE)
    if model.version != clip.face_model_version:
        raise CheckpointError(
            f"{clip.video_id} was prepared with the face model {clip.face_model_version}, but {model.version} is in "
            "use; prepare the video again"
        )
    return PortraitFace.of(model.corrected(clip.correction).landmark_rows())
