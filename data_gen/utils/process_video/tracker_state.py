"""What tracking is told, what it sees and what it remembers: plain data, so that it can stop and go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from data_gen.utils.process_video.appearance import FaceLook
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from modules.structures.landmarks import LandmarkResult


@dataclass(frozen=True, slots=True)
class FollowConfig:
    """When a face is acquired, followed and given up.

    Attributes:
        min_presence: landmark presence below it loses the face.
        min_agreement: IoU of detector box and landmark box that counts as agreement.
        min_confirmation: score of the cheap detectors on a followed face's region that counts as agreement.
        min_plausibility: what is acquired must look like a face so much, see ``face_plausibility``.
        sure_plausibility: what looks like one less than this is looked at once more, in the mirror.
        audit_s: seconds between coarse looks at the whole frame while a face is followed.
        search_s: the same while none is.
        fine_s: seconds between whole-frame looks fine enough for tiny faces and for faces that do not stand upright,
            while a face is followed and while none is.
        hold_s: so far a face just found is followed back, memory allowing.
        sides: longer side, px, of what the detector sees in a coarse and in a fine look.
        max_missed: detector looks in a row that may disagree before a followed face is given up.
        give_up_s: so long a lost face is looked for where it should be, in every frame.
        min_face_px: faces lower than this are not followed.
        max_faces: so many are followed at most, the largest first.
        max_overlap: two followed faces that overlap more are one; the less steady one is lost.
    """

    min_presence: float = 0.5
    min_agreement: float = 0.3
    min_confirmation: float = 0.65
    min_plausibility: float = 0.5
    sure_plausibility: float = 0.75
    audit_s: float = 0.3
    search_s: float = 0.2
    fine_s: tuple[float, float] = (3.0, 1.0)
    hold_s: float = 1.0
    sides: tuple[int, int] = (640, 2560)
    max_missed: int = 6
    give_up_s: float = 0.5
    min_face_px: float = 20.0
    max_faces: int = 12
    max_overlap: float = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One face in one frame.

    Attributes:
        row: frame, counted from the tracker's first.
        track: number of the track.
        result: its landmarks in frame pixels.
        detector_score: score of the detection that agreed; 0 where it was asked and none did, NaN where not asked.
        look: what the person looks like here, where it was looked at.
    """

    row: int
    track: int
    result: LandmarkResult
    detector_score: float
    look: FaceLook | None = None


@dataclass(frozen=True, slots=True)
class LiveFace:
    """What is remembered of a face that is followed.

    Attributes:
        track: its number.
        region: square that the landmark network looks through next.
        box: landmark box of the last sight. velocity: its movement per frame then, px (x, y).
        row, time_s: of the last sight.
        missed: detector looks in a row that disagreed.
    """

    track: int
    region: CropRegion
    box: BoundingBox
    velocity: tuple[float, float]
    row: int
    time_s: float
    missed: int = 0

    def expected(self, row: int) -> BoundingBox:
        """Where the face should be at ``row`` if it kept moving."""
        frames = min(row - self.row, 3)
        return self.box.shifted(self.velocity[0] * frames, self.velocity[1] * frames)


@dataclass(slots=True)
class TrackerState:
    """All that the tracker knows between two frames, except the pictures of the last few.

    Attributes:
        row: of the last frame.
        tracks: numbers given so far.
        live: faces being followed, or lost just now.
        audited_s, fine_s: times of the last looks at the whole frame.
        searched: the shot was looked through at full size, once, because no face was found otherwise.
        recent: rows held for looking back, with the boxes of the faces seen there.
    """

    row: int = -1
    tracks: int = 0
    live: list[LiveFace] = field(default_factory=list)
    audited_s: float = -1e9
    fine_s: float = -1e9
    searched: bool = False
    recent: list[tuple[int, list[BoundingBox]]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrackerState:
        """The inverse of ``to_dict``.

        Raises:
            KeyError, TypeError: when ``data`` is something else.
        """
        live = [
            LiveFace(
                face["track"], CropRegion(**face["region"]), BoundingBox(**face["box"]), tuple(face["velocity"]),
                face["row"], face["time_s"], face["missed"],
            )
            for face in data["live"]
        ]  # fmt: skip
        recent = [(row, [BoundingBox(**box) for box in boxes]) for row, boxes in data["recent"]]
        return cls(
            data["row"], data["tracks"], live, data["audited_s"], data["fine_s"], data["searched"], recent
        )  # fmt: skip
