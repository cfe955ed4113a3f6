"""What the tests of inference share."""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from data_gen.utils.process_audio.extract_whisper import WhisperEncoder

MOST_WINDOWS = 24
_encode = WhisperEncoder._encode
_heard: OrderedDict[tuple[object, ...], NDArray[np.float32]] = OrderedDict()


@pytest.fixture(scope="module", autouse=True)
def each_sound_is_encoded_once() -> Iterator[None]:
    """The speech encoder remembers the last windows it was given, across tests and files.

    It fills every window up to 30 s, which takes longer than most of what is tested here, and many jobs hear one sound.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhisperEncoder, "_encode", _encoded_once)
        yield


def _encoded_once(encoder: WhisperEncoder, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = sum(float(weight.detach().sum()) for weight in encoder._network.parameters())
    key = (encoder.name, encoder._device, weights, samples.tobytes())
    if key not in _heard:
        _heard[key] = _encode(encoder, samples)
    _heard.move_to_end(key)
    while len(_heard) > MOST_WINDOWS:
        _heard.popitem(last=False)
    return _heard[key].copy()
