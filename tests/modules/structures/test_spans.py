"""The span table: its invariants, its runs, its JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.evaluation import EDITED as EDITED_OUTCOME
from modules.structures.spans import FACE_REASONS, Reason, Span, SpanKind, SpanTable, runs_of

OTHERS = [reason for reason in Reason if reason is not Reason.EDITED]


def table(*frames):
    """A table of (strength, reason)."""
    return SpanTable(np.array([strength for strength, _ in frames], np.float32), tuple(reason for _, reason in frames))


@st.composite
def tables(draw):
    rows = []
    for _ in range(draw(st.integers(0, 8))):
        strength = draw(st.sampled_from([0.0, 1.0, 0.25, 1 / 3, 1e-6]))
        reason = Reason.EDITED if strength else draw(st.sampled_from(OTHERS))
        rows += [(strength, reason)] * draw(st.integers(1, 4))
    return table(*rows)


@given(tables())
def test_json_gives_back_the_very_same_table(made):
    again = SpanTable.from_json(json.loads(json.dumps(made.to_json())))
    assert again.reasons == made.reasons and again.strength.dtype == np.float32
    np.testing.assert_array_equal(again.strength, made.strength)


@given(tables())
def test_spans_cover_every_frame_once_and_change_at_every_border(made):
    spans = made.spans()
    assert [row for span in spans for row in range(span.first, span.stop)] == list(range(len(made)))
    for span in spans:
        for row in range(span.first, span.stop):
            strength = made.strength[row]
            kind = "passthrough" if strength == 0 else "edited" if strength == 1 else "fade"
            assert span.kind == made.kind(row) == kind and span.reason is made.reasons[row]
    for before, after in zip(spans, spans[1:], strict=False):
        assert (before.kind, before.reason) != (after.kind, after.reason)
    assert sum(made.counts().values()) == len(made)


def test_the_sidecar_reads_as_it_is_described():
    made = table((0, Reason.LOST), (0, Reason.PROFILE), (0.5, Reason.EDITED), (1, Reason.EDITED), (1, Reason.EDITED))
    assert made.to_json() == [
        {"first": 0, "stop": 1, "kind": "passthrough", "reason": "face lost"},
        {"first": 1, "stop": 2, "kind": "passthrough", "reason": "face in profile"},
        {"first": 2, "stop": 3, "kind": "fade", "reason": "edited", "strength": [0.5]},
        {"first": 3, "stop": 5, "kind": "edited", "reason": "edited"},
    ]
    assert made.counts() == {"face lost": 1, "face in profile": 1, "edited": 3}
    assert all(type(key) is str for key in made.counts())
    assert made.edited.tolist() == [False, False, True, True, True]
    assert "frames=5" in repr(made)


@pytest.mark.parametrize(
    ("strength", "reasons", "message"),
    [
        ([0.0], (Reason.EDITED,), "frame 0"),
        ([1.0, 0.5], (Reason.EDITED, Reason.LOST), "frame 1"),
        ([1.5], (Reason.EDITED,), "0..1"),
        ([np.nan], (Reason.EDITED,), "0..1"),
        ([1.0, 1.0], (Reason.EDITED,), r"\[1\]"),
        ([0.0], ("a hunch",), "a hunch"),
    ],
)
def test_strength_and_reason_cannot_disagree(strength, reasons, message):
    with pytest.raises(ValueError, match=message):
        SpanTable(np.array(strength, np.float32), reasons)


def test_strength_is_float32():
    with pytest.raises(ValueError, match="float32"):
        SpanTable(np.ones(1), (Reason.EDITED,))


GOOD = {"first": 0, "stop": 2, "kind": "edited", "reason": "edited"}


@pytest.mark.parametrize(
    "data",
    [
        [{**GOOD, "first": 1}],
        [GOOD, {**GOOD, "first": 3, "stop": 4}],
        [{**GOOD, "stop": 0}],
        [{**GOOD, "kind": "hidden"}],
        [{**GOOD, "reason": "a hunch"}],
        [{**GOOD, "kind": "passthrough"}],
        [{**GOOD, "kind": "fade"}],
        [{**GOOD, "kind": "fade", "strength": [0.5, 1.0]}],
        [{**GOOD, "strength": [1.0, 1.0]}],
        [{"first": 0}],
        [3],
        [{**GOOD, "first": None}],
    ],
)
def test_json_that_is_no_table_is_refused(data):
    with pytest.raises(ValueError, match=r".+"):
        SpanTable.from_json(data)


def test_the_empty_table():
    empty = SpanTable(np.zeros(0, np.float32), ())
    assert empty.spans() == [] and empty.counts() == {} and len(SpanTable.from_json([])) == 0


def test_reasons_are_one_vocabulary():
    assert Reason.EDITED == EDITED_OUTCOME, "trials and plans use one word"
    assert Reason.EDITED not in FACE_REASONS and set(Reason) > FACE_REASONS


def test_a_span_knows_its_length():
    assert len(Span(3, 7, SpanKind.EDITED, Reason.EDITED)) == 4


@given(st.lists(st.booleans(), max_size=40))
def test_runs_are_what_a_loop_finds(flags):
    expected, first = [], None
    for row, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = row
        elif not flag and first is not None:
            expected.append((first, row))
            first = None
    assert runs_of(np.array(flags, bool)) == expected
