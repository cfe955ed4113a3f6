"""What every test shares: real material by path, and a closed network."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from modules.commons.workspace import DEMO_DIR, ROOT

# A busy machine makes any single example slow; that is no finding. The suite draws the same examples every time;
# new ones: pytest --hypothesis-profile=explore
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("house")


class NetworkBlockedError(RuntimeError):
    """A test tried to reach the network."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Only AF_UNIX sockets may connect, and no name is resolved: a test that passes needs no network."""

    def guarded(original):
        def connect(self: socket.socket, address, *args):
            if self.family != socket.AF_UNIX:
                raise NetworkBlockedError(f"tests run without a network; something connected to {address}")
            return original(self, address, *args)

        return connect

    def getaddrinfo(host, *args, **kwargs):
        raise NetworkBlockedError(f"tests run without a network; something looked up {host!r}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(scope="session")
def demo_dir() -> Path:
    """checkpoints/demo with the material that set-up fetches."""
    if not (DEMO_DIR / "WolfgangLanger_Pexels.mp4").is_file():
        pytest.fail(f"{DEMO_DIR} holds no demo material; fetch it with: bash scripts/setup.sh")
    return DEMO_DIR


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """Real clips that are no part of the project."""
    clips = ROOT.parent / "shared" / "clips"
    if not clips.is_dir():
        pytest.skip("../shared/clips is not on this machine")
    return clips
