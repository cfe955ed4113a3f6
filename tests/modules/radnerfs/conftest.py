from __future__ import annotations

import pytest

from modules.radnerfs.backends import get_backend


@pytest.fixture(scope="package")
def backend():
    return get_backend("torch")
