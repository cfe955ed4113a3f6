"""Tables beside configurations: rows by name, or one sentence that says where the file is wrong."""

import pytest

from modules.commons.csv_table import read_rows
from modules.commons.errors import ConfigError


def test_rows_come_by_name_with_their_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('name,size\na, 1 \n"b, c",2\n', encoding="utf-8")
    assert read_rows(path, ("name", "size"), "sizes") == {
        "a": (2, {"name": "a", "size": "1"}),
        "b, c": (3, {"name": "b, c", "size": "2"}),
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "first line must be name,size"),
        (b"size,name\n", "first line must be name,size"),
        (b"name,size\na\n", "line 2: needs 2 cells"),
        (b"name,size\na,1,2\n", "line 2: needs 2 cells"),
        (b"name,size\na,1\na,2\n", "line 3: a stands there twice"),
        (b"name,size\n\xff,1\n", "cannot be read as a table of sizes"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        read_rows(path, ("name", "size"), "sizes")
    assert str(path) in str(error.value) and "\n" not in str(error.value)
