"""Rows of recordings: figures that were computed on paper, and recordings that hold less, or nonsense."""

import io
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.actions import Abandon, Respond, Turn
from inkturns.agent import Agent, Thought
from inkturns.errors import RecordingError, RecordingWarning
from inkturns.events import (
    ContextChanged,
    Event,
    ReplyDone,
    ReplyStarted,
    ThoughtFailed,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import Policy, same_text
from inkturns.reader import TruncatedError
from inkturns.recording import Recorder
from inkturns.report import ThoughtRow, TurnRow, turns_of
from inkturns.settings import TurnSettings
from inkturns.testing import virtual_time
from inkturns.testing.strategies import hostile_sessions, policies
from inkturns.turns import Turns

Line = tuple[float, Event] | dict[str, Any]  # an input with its time, or an agent's note


def settled(turn: int, thought: int, outcome: str, *times: float | None, **more: Any) -> dict[str, Any]:
    """What an Agent notes of a thought: when it began, had its first item, was finished, was cancelled."""
    names = ("began", "first_item", "finished", "cancelled_at")
    facts = {"thought": thought, "outcome": outcome, **dict(zip(names, times, strict=True)), **more}
    return {"agent": "settled", "turn": turn, "settled": facts}


def replied(turn: int, first_item: float | None) -> dict[str, Any]:
    return {"agent": "replied", "turn": turn, "replied": {"first_item": first_item}}


def usage(tokens: int, cost: float) -> dict[str, Any]:
    return {"input_tokens": tokens - 5, "output_tokens": 5, "cached_tokens": 1, "cost": cost}


CALL: list[Line] = [
    # Turn 1: the first guess is cancelled when the user goes on; the second is the reply, but for a full stop.
    (0.0, TurnStart()),
    (1.0, TurnEagerEnd(transcript="book")),
    (1.25, TurnResume()),
    settled(1, 1, "cancelled", 1.0, None, None, 1.25, usage=usage(105, 0.001)),
    (2.0, TurnEagerEnd(transcript="book it")),
    (2.5, TurnEnd(transcript="book it.")),
    settled(1, 2, "adopted", 2.0, 2.375, 2.75, None, usage=usage(120, 0.002), notes={"model": "gpt"}),
    (2.75, ReplyStarted(1)),
    (3.0, ReplyStarted(1)),  # said again: nothing new
    (4.0, ReplyDone(1)),
    replied(1, 2.5),
    # Turn 2: no guess; its reply is interrupted while it is heard.
    (5.0, TurnStart()),
    (6.0, TurnEnd(transcript="hello")),
    (6.5, ReplyStarted(2)),
    (7.0, TurnStart()),
    settled(2, 1, "adopted", 6.0, 6.375, 6.5, 7.0),
    replied(2, 6.375),
    # Turn 3: nothing was said.
    (8.0, TurnEnd()),
    # Turn 4: a guess that was finished is superseded, the next fails, the end thinks afresh. No reply was recorded.
    (9.0, TurnStart()),
    (10.0, TurnEagerEnd(transcript="yes")),
    (10.5, TurnEagerEnd(transcript="yes no")),
    settled(4, 1, "cancelled", 10.0, 10.25, 10.375, 10.5, usage=usage(60, 0.0005)),
    (10.625, ThoughtFailed(4, 2)),
    settled(4, 2, "failed", 10.5, None, None, 10.625),
    (11.0, TurnEnd(transcript="yes no")),
    settled(4, 3, "adopted", 11.0, 11.25, 11.5, None),
    {"agent": "report", "turn": 0, "report": {"kind": "stuck_task", "detail": "", "event": None}},
]
ABOUT: dict[str, Any] = {
    "call": "7f",
    "labels": {"arm": "b"},
    "settings": TurnSettings(end_threshold=0.5),
    "started": "2026-01-01T00:00Z",
}
ROWS = [
    TurnRow(
        call="7f",
        begins=1,
        number=1,
        end="server",
        answered=True,
        length=len("book it."),
        eager_ends=2,
        resumes=1,
        thoughts=(
            ThoughtRow(  # 1.0 to 1.25
                number=1,
                speculative=True,
                outcome="cancelled",
                reason="resumed",
                exact=False,
                ran=True,
                ended=0.25,
                finished=False,
                usage=True,
                tokens=105,
                output_tokens=5,
                cost=0.001,
            ),
            ThoughtRow(  # 2.0 to 2.75, its first item at 2.375
                number=2,
                speculative=True,
                outcome="adopted",
                exact=False,
                ran=True,
                first_item=0.375,
                ended=0.75,
                finished=True,
                usage=True,
                tokens=120,
                output_tokens=5,
                cost=0.002,
                model="gpt",
            ),
        ),
        gap=0.5,  # 2.0 to 2.5
        head_start=0.5,
        first_item=0.375,
        saved=0.375,  # the lesser
        end_to_first_item=0.0,  # 2.5 to 2.5
        end_to_first_item_without=0.375,
        end_to_first_sound=0.25,  # 2.5 to 2.75
        peak_calls=1,
        source="Ink2",
        settings={"end_threshold": 0.5},
        labels={"arm": "b"},
        started="2026-01-01T00:00Z",
    ),
    TurnRow(
        call="7f",
        begins=1,
        number=2,
        end="server",
        answered=True,
        length=5,
        thoughts=(
            ThoughtRow(
                number=1, speculative=False, outcome="adopted", ran=True, first_item=0.375, ended=0.5, finished=True
            ),
        ),
        head_start=0.0,
        first_item=0.375,
        saved=0.0,
        end_to_first_item=0.375,  # 6.0 to 6.375
        end_to_first_item_without=0.375,
        end_to_first_sound=0.5,
        interrupted=True,
        peak_calls=1,
        source="Ink2",
        settings={"end_threshold": 0.5},
        labels={"arm": "b"},
        started="2026-01-01T00:00Z",
    ),
    TurnRow(
        call="7f",
        begins=1,
        number=3,
        end="empty",
        answered=False,
        length=0,
        source="Ink2",
        settings={"end_threshold": 0.5},
        labels={"arm": "b"},
        started="2026-01-01T00:00Z",
    ),
    TurnRow(
        call="7f",
        begins=1,
        number=4,
        end="server",
        answered=True,
        length=6,
        eager_ends=2,
        thoughts=(
            ThoughtRow(
                number=1,
                speculative=True,
                outcome="cancelled",
                reason="superseded",
                exact=False,
                ran=True,
                first_item=0.25,
                ended=0.375,  # finished before it was cut
                finished=True,
                usage=True,
                tokens=60,
                output_tokens=5,
                cost=0.0005,
            ),
            ThoughtRow(number=2, speculative=True, outcome="failed", ran=True, ended=0.125, finished=False),
            ThoughtRow(
                number=3, speculative=False, outcome="adopted", ran=True, first_item=0.25, ended=0.5, finished=True
            ),
        ),
        head_start=0.0,
        first_item=0.25,
        saved=0.0,
        reports={"stuck_task": 1},
        peak_calls=1,
        source="Ink2",
        settings={"end_threshold": 0.5},
        labels={"arm": "b"},
        started="2026-01-01T00:00Z",
    ),
]


def recorded(lines: Iterable[Line], policy: Policy | None = None, **about: Any) -> list[bytes]:
    file = io.BytesIO()
    recorder = Recorder(file, **about)
    turns = Turns(policy or Policy(), recorder=recorder)
    for line in lines:
        if isinstance(line, dict):
            recorder.note(line)
        else:
            turns.feed(line[1], line[0])
    return file.getvalue().splitlines(keepends=True)


def inputs(call: Iterable[Line]) -> list[Line]:
    return [line for line in call if not isinstance(line, dict)]


def test_the_rows_of_an_agents_call_are_what_is_computed_on_paper() -> None:
    rows = turns_of(recorded(CALL, **ABOUT))
    for row, expected in zip(rows, ROWS, strict=True):
        assert msgspec.structs.asdict(row) == msgspec.structs.asdict(expected)


def test_rows_are_json_lines_and_back() -> None:
    data = [msgspec.json.encode(row) for row in ROWS]
    assert [msgspec.json.decode(line, type=TurnRow) for line in data] == ROWS


def test_without_actions_and_redacted_a_recording_has_the_same_rows() -> None:
    assert turns_of(recorded(CALL, out=False, **ABOUT)) == ROWS
    assert turns_of(recorded(CALL, redact=True, **ABOUT)) == ROWS


def test_a_watchers_recording_has_the_gap_and_the_thoughts_and_nothing_of_the_model() -> None:
    rows = turns_of(recorded(inputs(CALL)))
    assert [row.gap for row in rows] == [0.5, None, None, None]
    assert [row.head_start for row in rows] == [0.5, 0.0, None, 0.0]
    assert [row.end_to_first_sound for row in rows] == [0.25, 0.5, None, None]  # ReplyStarted says so
    assert {row.first_item for row in rows} | {row.saved for row in rows} | {row.peak_calls for row in rows} == {None}
    assert {row.end_to_first_item for row in rows} | {row.end_to_first_item_without for row in rows} == {None}
    assert [[thought.outcome for thought in row.thoughts] for row in rows] == [
        ["cancelled", "adopted"],
        ["adopted"],
        [],
        ["cancelled", "failed", "adopted"],
    ]
    assert {thought.ran for row in rows for thought in row.thoughts} == {None}


def test_bare_frames_are_decided_on_by_the_default_policy_and_have_no_times() -> None:
    path = Path(__file__).parent / "sessions/ink2-complete-turn.jsonl"
    (row,) = turns_of(path.read_bytes().splitlines())
    assert (row.call, row.begins, row.answered, row.source) == (None, 0, True, None)
    assert (row.eager_ends, row.resumes) == (1, 0)
    assert (row.gap, row.head_start, row.saved) == (None, None, None)


def test_a_turn_that_began_in_kept_sound_has_no_times_and_all_else() -> None:
    for at in (0, 1):  # the mark comes from a hook, before the line that opens the turn, or from an Agent after it
        row, *rest = turns_of(recorded([*CALL[:at], {"agent": "catching_up", "turn": 1}, *CALL[at:]], **ABOUT))
        times = dict.fromkeys(("gap", "head_start", "first_item", "saved", "end_to_first_sound"))
        times |= dict.fromkeys(("end_to_first_item", "end_to_first_item_without"))
        assert row == msgspec.structs.replace(ROWS[0], catching_up=True, **times)
        assert rest == ROWS[1:]


def test_recorded_frames_give_the_same_rows_by_both_ways() -> None:
    """As they come from a socket; an eager end that cannot be read is none, though it says that it is one."""
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file, **ABOUT))
    frames = [
        {"type": "turn.start"},
        {"type": "turn.update", "transcript": "so"},
        {"type": "turn.eager_end", "transcript": 7},
        {"type": "turn.eager_end", "transcript": "so it is"},
        {"type": "turn.end", "transcript": "so it is"},
    ]
    for t, frame in enumerate(frames):
        turns.feed(json.dumps(frame), float(t))
    turns.recorder.note({"agent": "catching_up", "turn": 1})  # type: ignore[union-attr]
    written = file.getvalue().splitlines(keepends=True)
    (row,) = turns_of(written)
    assert (row.eager_ends, row.reports, row.catching_up) == (1, {"bad_frame": 1}, True)
    assert ([row], []) == line_by_line(written)


def test_a_frame_that_cannot_be_read_is_a_report_of_its_turn() -> None:
    frames = ['{"type":"turn.start"}', '{"typ":1}', '{"type":"turn.end","transcript":"hi"}', '{"typ":1}']
    assert [row.reports for row in turns_of(frames)] == [{"bad_frame": 2}]


def test_calls_of_a_file_have_rows_of_their_own() -> None:
    rows = turns_of([*recorded(CALL, call="a"), *recorded(inputs(CALL), call="b")])
    assert [row.call for row in rows] == ["a"] * 4 + ["b"] * 4
    assert {row.begins for row in rows} == {1, 29}
    assert [row.saved for row in rows][4:] == [None] * 4


def test_an_open_turn_has_no_row_and_a_call_without_one_neither() -> None:
    assert turns_of(recorded([(0.0, TurnStart()), (1.0, TurnUpdate(transcript="so"))])) == []
    assert turns_of([]) == []


def test_an_end_that_came_too_early_is_seen_where_the_next_turn_goes_on() -> None:
    call: list[Line] = [
        (0.0, TurnStart(turn_id="1")),
        (1.0, TurnEnd(transcript="a table", turn_id="1")),
        (1.5, TurnUpdate(transcript="a table for two", turn_id="1")),
        (2.0, TurnEnd(transcript="a table for two", turn_id="1")),
    ]
    early, rest = turns_of(recorded(call))
    assert (early.false_end, rest.false_end, rest.reports) == (False, True, {"missed_start": 1})
    heard = [*call[:2], (1.25, ReplyDone(1)), *call[2:]]
    assert [row.false_end for row in turns_of(recorded(heard))] == [False, False]


def test_only_an_eager_end_of_an_open_turn_counts() -> None:
    call: list[Line] = [
        (0.0, TurnStart(turn_id="1")),
        (1.0, TurnEnd(transcript="a table", turn_id="1")),
        (1.5, TurnEagerEnd(transcript="a table", turn_id="1")),  # late
        (1.6, TurnEagerEnd(transcript=" ")),  # blank
        (2.0, TurnEagerEnd(transcript="for two", turn_id="2")),  # opens a turn
        (2.5, TurnEagerEnd(transcript="a table", turn_id="1")),  # late, while it is open
        (3.0, TurnEnd(transcript="for two", turn_id="2")),
    ]
    assert [(row.eager_ends, row.gap) for row in turns_of(recorded(call))] == [(0, None), (1, 1.0)]


def test_the_gap_counts_from_the_eager_end_and_the_head_start_from_the_thought() -> None:
    call: list[Line] = [
        (0.0, TurnStart()),
        (1.0, TurnEagerEnd(transcript="a")),
        (1.25, ContextChanged()),  # a second thought on the same eager end, which waits for the first to be gone
        (2.0, TurnEnd(transcript="a")),
        settled(1, 2, "adopted", 1.5, 2.5, 3.0, None),
    ]
    (row,) = turns_of(recorded(call))
    assert (row.gap, row.head_start, row.first_item, row.saved) == (1.0, 0.5, 1.0, 0.5)


def test_a_reply_whose_thought_failed_was_answered_by_none_that_was_adopted() -> None:
    call: list[Line] = [(0.0, TurnStart()), (1.0, TurnEnd(transcript="a"))]
    (row,) = turns_of(recorded([*call, settled(1, 1, "failed", 1.0, None, None, None)]))
    assert row.answered
    assert [thought.outcome for thought in row.thoughts] == ["failed"]


def test_times_that_are_none_are_absent() -> None:
    call: list[Line] = [(0.0, TurnStart()), (1.0, TurnEnd(transcript="a"))]
    (row,) = turns_of(recorded([*call, settled(1, 1, "adopted", -1e308, 1e308, None, None)]))
    assert (row.first_item, row.saved) == (None, None)


def test_a_reply_that_was_not_audible_is_not_counted_as_interrupted() -> None:
    call: list[Line] = [(0.0, TurnStart()), (1.0, TurnEnd(transcript="hello")), (2.0, TurnStart()), (3.0, TurnEnd())]
    assert [row.interrupted for row in turns_of(recorded(call))] == [False, False]


def test_reports_belong_to_the_turn_that_closes_next_and_the_last_to_the_last() -> None:
    rows = turns_of(
        recorded(
            [
                (0.0, TurnResume()),
                (0.5, TurnStart()),
                (0.6, TurnStart()),
                (1.0, TurnEnd(transcript="a")),
                (2.0, TurnResume()),
                (2.0, TurnResume()),
            ]
        )
    )
    assert [row.reports for row in rows] == [{"stray_resume": 3, "duplicate_start": 1}]


@pytest.mark.parametrize(
    ("spans", "peaks"),
    [
        ([(1.0, 1.5), (1.5, 2.0)], [1, 1]),  # one ends where the next begins
        ([(1.0, 2.5), (2.0, 2.25)], [2, 2]),
        ([(1.0, 1.0), (2.0, 2.5)], [1, 1]),  # was cut in the step in which it began
        ([(1.0, None), (None, None)], [1, None]),  # neither finished nor cut; never ran
    ],
)
def test_the_most_model_calls_at_once(spans: list[tuple[float | None, float | None]], peaks: list[int | None]) -> None:
    (began, done), (next_began, next_done) = spans
    rows = turns_of(
        recorded(
            [
                *((0.5, TurnStart()), (1.0, TurnEnd(transcript="a"))),
                settled(1, 1, "adopted", began, None, done, None),
                *((1.5, TurnStart()), (2.0, TurnEnd(transcript="b"))),
                settled(2, 1, "adopted", next_began, None, next_done, None),
            ]
        )
    )
    assert [row.peak_calls for row in rows] == peaks
    assert rows[1].thoughts[0].ran is (next_began is not None)


def test_a_policy_that_cannot_be_made_matters_only_where_there_are_no_actions() -> None:
    def match(eager: str, final: str) -> bool:
        return True

    policy = Policy(match=match)
    assert len(turns_of(recorded(inputs(CALL), policy))) == 4
    errors: list[RecordingError] = []
    assert turns_of(recorded(inputs(CALL), policy, out=False), on_error=errors.append) == []
    assert [error.line for error in errors] == [1]
    with pytest.raises(RecordingError, match=r"line 1: Policy\.match"):
        turns_of(recorded(inputs(CALL), policy, out=False))


def test_after_a_pause_whole_turns_count_and_a_replay_ends() -> None:
    for out in (True, False):
        file = io.BytesIO()
        recorder = Recorder(file, out=out)
        turns = Turns(recorder=recorder)
        for text in ("one", "hidden", "three"):
            if text == "hidden":
                turns.feed(TurnStart(), 0.0)  # its beginning is recorded, its end is not
                recorder.pause()
            else:
                turns.feed(TurnStart(), 0.0)
            turns.feed(TurnEagerEnd(transcript=text), 1.0)
            turns.feed(TurnEnd(transcript=text), 2.0)
            recorder.resume()
        errors: list[RecordingError] = []
        rows = turns_of(file.getvalue().splitlines(), on_error=errors.append)
        assert [(row.number, row.eager_ends) for row in rows] == ([(1, 1), (3, 1)] if out else [(1, 1)])
        assert [type(error) for error in errors] == ([] if out else [TruncatedError])


def test_an_input_whose_actions_were_too_deep_is_passed_over() -> None:
    data = recorded([(0.0, TurnStart()), (1.0, TurnEnd(transcript="a"))])
    assert len(turns_of([*data[:2], b'{"t":0.5,"frame":"{}"}\n', data[2]])) == 1


@pytest.mark.parametrize(
    "note",
    [
        {"agent": "settled", "turn": 1},
        {"agent": "settled", "turn": 1, "settled": {"thought": 1, "outcome": "adopted", "usage": {"cost": 1e300}}},
        {"agent": "replied", "turn": 1, "replied": {"first_item": "soon"}},
        {"agent": "report", "turn": 0, "report": None},
    ],
)
def test_a_note_that_cannot_be_read_costs_that_note(note: dict[str, Any]) -> None:
    data = recorded([(0.0, TurnStart()), (1.0, TurnEnd(transcript="a")), note])
    errors: list[RecordingError] = []
    assert len(turns_of(data, on_error=errors.append)) == 1
    (error,) = errors
    assert error.reason.startswith(f'a note of turn {note["turn"]}, "{note["agent"]}": Expected')


def test_notes_of_what_is_not_known_change_nothing() -> None:
    call: list[Line] = [(0.0, TurnStart()), (1.0, TurnEnd(transcript="a"))]
    notes: list[Line] = [
        {"agent": "began", "turn": 1, "thought": 1},
        settled(1, 7, "adopted", 0.0, 0.0, 0.0, None),
        settled(9, 1, "adopted", 0.0, 0.0, 0.0, None),
        settled(0, 1, "adopted", 0.0, 0.0, 0.0, None),
    ]
    assert turns_of(recorded([*call, *notes], **ABOUT)) == turns_of(recorded(call, **ABOUT))


def line_by_line(lines: list[bytes]) -> tuple[list[TurnRow], list[str]]:
    """The rows and the faults, read by the way that any recording can be read: here as after an empty line."""
    errors: list[RecordingError] = []
    rows = turns_of([b"\n", *lines], on_error=errors.append)
    moved = [RecordingError(error.reason, error.line and error.line - 1) for error in errors]
    return [msgspec.structs.replace(row, begins=max(0, row.begins - 1)) for row in rows], [str(one) for one in moved]


@pytest.mark.parametrize(
    "more", [{"bad": "x"}, {"app": {"type": "tick"}}, {"agent": "began", "turn": 1}, {"inkturns": 1}]
)
def test_a_line_with_two_inputs_is_read_by_itself(more: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in recorded(CALL, **ABOUT)]
    lines[2] |= more
    written = [json.dumps(line).encode() for line in lines]
    errors: list[RecordingError] = []
    assert (turns_of(written, on_error=errors.append), [str(error) for error in errors]) == line_by_line(written)
    assert len(errors) == ("bad" in more or "app" in more)  # a header begins another call


def test_what_no_recorder_writes_is_read_line_by_line_from_there_on() -> None:
    a, b = recorded(CALL, **ABOUT | {"call": "a"}), recorded(CALL, **ABOUT | {"call": "b"})
    cut = [*b[:-1], b[-1][:-9] + b"\n"]
    with pytest.warns(RecordingWarning, match=f"line {len(a) + len(b)}: cut short; its writer was killed"):
        rows = turns_of([*a, *cut, *a])
    assert [(row.call, row.begins) for row in rows][::4] == [("a", 1), ("b", len(a) + 1), ("a", len(a) + len(b) + 1)]
    newer = [b'{"inkturns":2}\n', *b]
    with pytest.raises(RecordingError, match=f"line {len(a) + 1}: recorded in format 2"):
        turns_of([*a, *newer])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TIMES = st.one_of(JSON, st.floats(), st.just(1e308), st.just(-1e308), st.just(10**400))


@given(
    st.lists(st.tuples(st.integers(0, 27), st.sampled_from(("t", "out", "settled", "replied", "agent", "turn")), TIMES))
)
def test_a_hostile_recording_raises_nothing_and_is_counted(changes: list[tuple[int, str, Any]]) -> None:
    lines = [json.loads(line) for line in recorded(CALL, **ABOUT)]
    for where, name, value in changes:
        lines[where][name] = value
    errors: list[RecordingError] = []
    written = [json.dumps(line).encode() for line in lines]
    rows = turns_of(written, on_error=errors.append)
    assert len(rows) <= 4
    for row in rows:
        msgspec.json.encode(row)
    assert (rows, [str(error) for error in errors]) == line_by_line(written)


@given(hostile_sessions(), policies())
def test_of_every_session_each_closed_turn_has_one_row(
    session: list[tuple[Event, float | None]], policy: Policy
) -> None:
    file = io.BytesIO()
    turns = Turns(policy, recorder=Recorder(file))
    closed = [
        (action.turn.number, action.turn.end, isinstance(action, Respond), len(action.turn.transcript))
        for event, now in session
        if not isinstance(event, UsePolicy)
        for action in turns.feed(event, now)
        if isinstance(action, Respond | Abandon)
    ]
    written = file.getvalue().splitlines()
    rows = turns_of(written)
    assert [(row.number, row.end, row.answered, row.length) for row in rows] == closed
    assert (rows, []) == line_by_line(written)
    for row in rows:
        assert sum(thought.outcome == "adopted" for thought in row.thoughts) == row.answered


def test_rows_stand_in_the_order_of_the_turns() -> None:
    """A turn of which nothing was heard, too, though the next one opens in the step that closes it."""
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    for event in (TurnStart(turn_id="1"), TurnEagerEnd(turn_id="2", transcript="go"), TurnEnd(turn_id="2")):
        turns.feed(event)
    assert [row.number for row in turns_of(file.getvalue().splitlines())] == [1, 2]


def test_a_real_agents_recording_says_what_it_saved() -> None:
    """The model needs 0.3 s, and a gap is 0.2 s or 0.5 s: saved is the lesser, and the rest is waited for."""
    file = io.BytesIO()
    agent = Agent(policy=Policy(match=same_text), recorder=Recorder(file))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await anyio.sleep(0.3)
        yield "hello"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            await anyio.sleep(0.1)

    async def frames() -> AsyncIterator[Event]:
        for gap in 0.2, 0.5:
            yield TurnStart()
            yield TurnEagerEnd(transcript="hi")
            await anyio.sleep(gap)
            yield TurnEnd(transcript="hi")
            await anyio.sleep(1)

    virtual_time.run(agent.run, frames())
    rows = turns_of(file.getvalue().splitlines())
    measures = ("gap", "head_start", "first_item", "saved", "end_to_first_item", "end_to_first_item_without")
    assert [[pytest.approx(getattr(row, name)) for name in measures] for row in rows] == [
        [0.2, 0.2, 0.3, 0.2, 0.1, 0.3],
        [0.5, 0.5, 0.3, 0.3, 0.0, 0.3],
    ]
    assert [pytest.approx(row.end_to_first_sound) for row in rows] == [0.1, 0.0]


def test_what_is_told_of_a_reply_that_is_over_is_not_its_first_sound() -> None:
    """As the machine takes it."""
    for over in (ReplyDone(1), ReplyDone(), TurnStart()):  # the last one interrupts it
        lines: list[Line] = [(0.0, TurnStart()), (1.0, TurnEnd("yes")), (2.0, over), (3.0, ReplyStarted(1))]
        assert [row.end_to_first_sound for row in turns_of(recorded(lines))] == [None]
