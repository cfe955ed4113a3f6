"""Tables as Markdown and JSON."""

import json
import math

from data_gen.utils.evaluate_fit.tables import Column, FitReport, Row, Table, as_json, markdown
from modules.structures.scores import Measure

TABLE = Table(
    "clips", "Clips", (Column("lips", "lips %"), Column("frames", "frames", 0)),
    (
        Row("one", "on", {"lips": Measure(1.234, 1.0, 1.5, 20), "frames": Measure(20.0)}),
        Row("two", "off", {"lips": Measure.missing("no frame")}),
    ),
    ("What it means.",),
)  # fmt: skip
REPORT = FitReport("bash scripts/evaluate_fit.sh", {"machine": "a big one"}, (TABLE,))


def test_markdown():
    lines = markdown(REPORT).splitlines()
    assert lines[0].startswith("# ") and "`bash scripts/evaluate_fit.sh`" in lines and "- machine: a big one" in lines
    assert "| one | on | 1.23 (1.00–1.50) | 20 |" in lines and "| two | off | – | – |" in lines
    assert lines[-1] == "- What it means." and "## Clips" in lines
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_json_has_no_nan():
    found = json.loads(json.dumps(as_json(REPORT), allow_nan=False))
    one, two = found["tables"][0]["rows"]
    assert one["measures"]["lips"] == {"value": 1.234, "low": 1.0, "high": 1.5, "count": 20, "note": ""}
    assert two["measures"]["lips"]["value"] is None and two["measures"]["lips"]["note"] == "no frame"
    assert one["measures"]["frames"]["low"] is None and math.isnan(TABLE.rows[0].measures["frames"].low)
