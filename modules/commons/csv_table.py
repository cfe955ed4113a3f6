"""Small tables kept as CSV files beside configurations, one row per name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from modules.commons.errors import ConfigError


def read_rows(path: Path, columns: Sequence[str], what: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Rows of a table by their first cell, each with the number of its line; cells are stripped.

    Args:
        path: of the file.
        columns: what its first line must name.
        what: what it holds, for messages.

    Raises:
        ConfigError: the file is missing or is no such table, a cell is empty, or a first cell stands there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a table of {what} ({error})") from error
    if found != list(columns):
        raise ConfigError(f"{path}: its first line must be {','.join(columns)}")
    table: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in enumerate(rows, start=2):
        cells = {name: (row[name] or "").strip() for name in columns}
        if None in row or not all(cells.values()):
            raise ConfigError(f"{path}, line {number}: needs {len(columns)} cells, none of them empty")
        name = cells[columns[0]]
        if name in table:
            raise ConfigError(f"{path}, line {number}: {name} stands there twice")
        table[name] = number, cells
    return table
