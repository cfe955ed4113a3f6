"""Cut the face crops out of a stream of frames, and keep where they were cut.

Reads: frames, crop metadata. Writes: ``crop_metadata.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ConfigError
from modules.structures.crops import CropMetadata, sample_region
from modules.structures.frames import Frame
from modules.video.colour import rgb_from_planes

RESAMPLING_REACH = 3
"""Frame pixels around a crop that its resampling may read."""


def extract_face_crops(frames: Iterable[Frame], metadata: CropMetadata) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The crop of each frame: (frame index, RGB ``[crop_size, crop_size, 3]``).

    Only the part of a frame under the crop is converted to RGB; beyond the frame its edge is repeated.
    """
    for frame in frames:
        yield frame.index, crop_frame(frame, metadata)


def crop_frame(frame: Frame, metadata: CropMetadata) -> NDArray[np.uint8]:
    """RGB crop ``[crop_size, crop_size, 3]`` of one frame."""
    size = metadata.crop_size
    height, width = frame.size_hw
    box = metadata.region(frame.index).bounding_box()
    grown = box.scaled(1 + 2 * RESAMPLING_REACH / box.width)
    bounds = grown.pixel_bounds(width, height)
    if bounds is None:
        raise ValueError(f"the crop {box} of frame {frame.index} lies outside the {width}x{height} frame")
    window = rgb_from_planes(frame, bounds)
    region = metadata.region(frame.index).shifted(-bounds[0], -bounds[1])
    return sample_region(window, region, size, flags=cv2.INTER_CUBIC)


def save_crop_metadata(metadata: CropMetadata, path: Path) -> None:
    """Write ``metadata`` as versioned JSON through a temporary name."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(metadata.to_json(), encoding="utf-8")
    temporary.replace(path)


def load_crop_metadata(path: Path) -> CropMetadata:
    """Read what ``save_crop_metadata`` wrote.

    Raises:
        ConfigError: when the file is missing or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"crop metadata {path} is missing: prepare this video again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"crop metadata {path} cannot be read ({error}): prepare this video again") from error
    try:
        return CropMetadata.from_json(text, path)
    except ValueError as error:
        raise ConfigError(f"{error}: prepare this video again") from error
