import hashlib

import pytest

from modules.commons.hashing import file_sha256


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_it_is_the_hash_of_the_whole_content(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "nowhere")
