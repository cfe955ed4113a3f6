"""Prepare a video again and again, killed each time by SIGKILL, then to the end; and once without, to compare.

    python tests/support/killed_runs.py VIDEO FOLDER KILLS SEED    # prints a JSON list of ``Attempt``

A program of its own: it imports everything once and forks an attempt at a time, before anything has started threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __name__ == "__main__":  # `python tests/support/killed_runs.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_gen.runs import stages
from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import STAGES, run_stages
from data_gen.utils.process_video import landmark_track
from modules.commons.workspace import VideoWorkspace
from modules.structures.frames import Frame
from modules.structures.masks import OcclusionTable

SEGMENT, HANDS_STRETCH, HANDS_MARGIN, BLOCK = 8, 12, 4, 10
"""Small, so that a short clip has many points to go on from."""
LATE_S = 0.05
"""A kill comes up to this long after the event it was meant for, so that it hits anything."""
FINISHED = "finished"


@dataclass
class Attempt:
    """One try at preparing the video.

    Attributes:
        events: what it told, in order; the last one is ``finished …`` with the names of the stages that ran.
        killed: it did not get to the end.
        stages: of those, which the manifest names as done when it was over.
        segments: finished segments of the observation log then.
        stretches: first frames of the finished stretches of the search for hands then.
        files: SHA-256 of every file then.
    """

    events: list[str] = field(default_factory=list)
    killed: bool = False
    stages: list[str] = field(default_factory=list)
    segments: int = 0
    stretches: list[int] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def shrink_pieces() -> None:
    """Make every piece of work small and the search for hands tell its frames."""
    stages.SEGMENT, stages.HANDS_STRETCH, stages.HANDS_MARGIN = SEGMENT, HANDS_STRETCH, HANDS_MARGIN
    stages.OCCLUSION_STRETCH = HANDS_STRETCH
    landmark_track.BLOCK = BLOCK


def prepare(video: Path, root: Path, pipe: int) -> None:
    """The child's work: run all stages and write each event as a line."""

    def tell(event: str) -> None:
        os.write(pipe, f"{event}\n".encode())

    def telling(frames: Iterable[Frame], start: int) -> Iterator[Frame]:
        for frame in frames:
            tell(f"look {start} {frame.index}")
            yield frame

    search = stages.occlusion_table

    def telling_search(frames: Iterable[Frame], *given, **named) -> OcclusionTable:
        start = given[-1][0]
        tell(f"stretch {start}")
        return search(telling(frames, start), *given, **named)

    stages.occlusion_table = telling_search
    workspace = VideoWorkspace("clip", root)
    ran = run_stages(STAGES, video, workspace, ProcessVideoConfig(), lambda what, done, _: tell(f"{what} {done}"))
    tell(f"{FINISHED} {' '.join(ran)}".strip())


def attempt(video: Path, root: Path, order: dict[str, int], target: int | None, late_s: float) -> Attempt:
    """Prepare in a child, killed ``late_s`` after an event that is number ``target`` or later of a whole run."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            prepare(video, root, writing)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    os.close(writing)
    made = Attempt()
    with os.fdopen(reading) as lines:
        for line in lines:
            made.events.append(line.strip())
            if target is not None and order.get(made.events[-1], -1) >= target:
                time.sleep(late_s)
                os.kill(child, signal.SIGKILL)
                made.events += [rest.strip() for rest in lines]
                break
    _, status = os.waitpid(child, 0)
    made.killed = os.WIFSIGNALED(status)
    if not made.killed and os.WEXITSTATUS(status):
        raise RuntimeError(f"an attempt failed after {made.events[-3:]}")
    note_what_is_there(made, VideoWorkspace("clip", root))
    return made


def note_what_is_there(made: Attempt, workspace: VideoWorkspace) -> None:
    """What an attempt left."""
    if workspace.manifest.is_file():
        made.stages = list(json.loads(workspace.manifest.read_text())["stages"])
    made.segments = len(list(workspace.observations.glob("[0-9]*.npz")))
    parts = workspace.hands.with_name("hands.parts")
    made.stretches = sorted(int(path.stem) for path in parts.glob("*.npz") if path.stem.isdecimal())
    root = workspace.data_root
    made.files = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def main(video: Path, folder: Path, kills: int, seed: int) -> list[Attempt]:
    """The whole run first, then the killed ones, then the one that gets to the end."""
    shrink_pieces()
    whole = attempt(video, folder / "whole", {}, None, 0.0)
    order = {event: number for number, event in reversed(list(enumerate(whole.events)))}
    random.seed(seed)
    by_stage: dict[str, list[int]] = {}
    for event, number in order.items():
        by_stage.setdefault(event.split()[0], []).append(number)
    by_stage.pop(FINISHED)
    kinds = ["track", "look", *random.choices(sorted(by_stage), k=kills - 2)]
    targets = sorted(random.choice(by_stage[kind]) for kind in kinds)
    attempts = [attempt(video, folder / "killed", order, number, random.uniform(0, LATE_S)) for number in targets]
    return [whole, *attempts, attempt(video, folder / "killed", order, None, 0.0)]


if __name__ == "__main__":
    report = main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps([asdict(made) for made in report]))
