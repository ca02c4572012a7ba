"""The calls of a recording: inputs and the agent's notes in the order of their lines, and what cannot be read."""

import json
from typing import Any

import pytest

from inkturns.actions import Listen, Report, ReportKind, Respond, Think
from inkturns.errors import RecordingError
from inkturns.events import Connected, TurnEnd, TurnStart, TurnUpdate
from inkturns.policy import Policy
from inkturns.report.calls import Input, Missing, Note, RecordedCall, calls_of
from tests.recorded import Recorded, answered


def read(lines: list[bytes] | list[str]) -> tuple[list[RecordedCall], list[RecordingError]]:
    faults: list[RecordingError] = []
    return list(calls_of(lines, faults.append)), faults


def changed(lines: list[bytes], **changes: Any) -> list[bytes]:
    """The same, with members of each input set, or taken away (None)."""
    made = []
    for line in lines:
        members = json.loads(line)
        if "out" in members:
            members = {name: value for name, value in {**members, **changes}.items() if value is not None}
        made.append(json.dumps(members).encode() + b"\n")
    return made


def actions_of(call: RecordedCall) -> list[type]:
    return [type(action) for step in call.steps if isinstance(step, Input) for action in step.actions]


def test_a_call_is_its_inputs_and_notes_in_the_order_of_their_lines() -> None:
    recorded = answered(Recorded(call="a"))
    [call], faults = read(recorded.lines)
    assert faults == []
    assert call.name == "a"
    kinds = [
        step.what if isinstance(step, Note) else type(step.event)
        for step in call.steps
        if not isinstance(step, Missing)
    ]
    assert kinds[:3] == [TurnStart, TurnUpdate, TurnUpdate]
    assert kinds[-2:] == ["began", TurnEnd]
    assert [step.t for step in call.steps if not isinstance(step, Missing)] == [
        100.0,
        100.5,
        101.0,
        101.5,
        101.5,
        102.0,
    ]


def test_lines_may_be_text() -> None:
    lines = [line.decode() for line in answered(Recorded()).lines]
    [call], faults = read(lines)
    assert faults == []
    assert len([step for step in call.steps if isinstance(step, Note)]) == 1


def test_a_file_may_have_many_calls_and_each_has_its_own_notes() -> None:
    first = answered(Recorded(call="a")).note(103, "first", 1, thought=1)
    second = answered(Recorded(call="b"))
    calls, faults = read(first.lines + second.lines)
    assert faults == []
    assert [(call.name, sum(isinstance(step, Note) for step in call.steps)) for call in calls] == [("a", 2), ("b", 1)]


def test_bare_frames_are_a_call_without_a_name() -> None:
    [call], _ = read([b'{"type": "turn.start"}\n', b'{"type": "turn.end", "transcript": "hi"}\n'])
    assert (call.header, call.name) == (None, None)
    assert actions_of(call)[0] is Listen
    assert actions_of(call)[-1] is Respond


def test_nothing_is_no_call() -> None:
    assert read([]) == ([], [])
    [call], _ = read(Recorded().lines)
    assert call.steps == []
    assert call.name is None


def test_the_recorded_actions_are_what_happened() -> None:
    """Though a machine of this version, or by this policy, would decide otherwise."""
    lines = changed(answered(Recorded()).lines, out=[{"type": "Report", "kind": "late", "event": None, "detail": "x"}])
    [call], faults = read(lines)
    assert faults == []
    assert set(actions_of(call)) == {Report}


def test_where_no_actions_were_recorded_a_machine_decides() -> None:
    recorded = answered(Recorded(Policy(speculate=False))).lines
    [call], faults = read(changed(recorded, out=None))
    assert faults == []
    assert actions_of(call) == actions_of(read(recorded)[0][0])
    thoughts = [one for step in call.steps if isinstance(step, Input) for one in step.actions if isinstance(one, Think)]
    assert [one.speculative for one in thoughts] == [False]


def test_actions_that_cannot_be_read_are_told_and_made_again() -> None:
    lines = answered(Recorded()).lines
    [call], faults = read(changed(lines, out=[{"type": "Nonsense"}]))
    assert len(faults) == 5
    assert faults[0].line == 2
    assert Respond in actions_of(call)


def of_another(*_: str) -> bool:
    return False


def test_a_policy_that_no_recording_may_name_matters_only_where_actions_are_missing() -> None:
    lines = answered(Recorded(Policy(match=of_another))).lines
    assert read(lines)[1] == []
    [call], faults = read(changed(lines, out=None))
    assert [(fault.line, "Policy.match" in fault.reason) for fault in faults] == [(1, True)]
    assert [step for step in call.steps if isinstance(step, Input)] == []


def test_what_cannot_be_read_is_told_and_the_rest_is_read() -> None:
    lines = answered(Recorded()).lines
    lines[2:2] = [b"garbage\n", b'{"t": 100, "frame": 7, "out": []}\n']
    [call], faults = read(lines)
    assert [fault.line for fault in faults] == [3, 4]
    assert len(call.steps) == 6


def test_a_pause_is_a_step_and_after_it_the_recorded_actions_alone_tell_what_happened() -> None:
    recorded = Recorded(Policy()).at(1, TurnStart()).pause().at(2, TurnUpdate("4242")).at(3, TurnUpdate("4242 1"))
    recorded.resume().at(4, TurnEnd("4242 1")).at(5, TurnStart(turn_id="2"))
    [call], faults = read(recorded.lines)
    assert faults == []
    assert Missing(3) in call.steps
    assert len([step for step in call.steps if isinstance(step, Input)]) == 2
    [call], faults = read(changed(recorded.lines, out=None))
    assert [("paused" in fault.reason, fault.line) for fault in faults] == [(True, 3)]
    assert len([step for step in call.steps if isinstance(step, Input)]) == 1


def test_a_bad_frame_is_a_report() -> None:
    recorded = Recorded().at(1, '{"no": "type"}').at(2, Connected())
    recorded.turns.feed(b"\xff\xfe", 3)
    [call], faults = read(changed(recorded.lines, out=None))
    assert faults == []
    reports = [step.actions[0] for step in call.steps if isinstance(step, Input) and step.event is None]
    assert [report.kind for report in reports if isinstance(report, Report)] == [ReportKind.BAD_FRAME] * 2


@pytest.mark.parametrize(
    "line",
    [
        '{"agent": "began"}',
        '{"agent": 7, "turn": 1}',
        '{"agent": "began", "turn": "1"}',
        '{"agent": "began", "turn": true}',
        '["agent"]',
        '"agent"',
    ],
)
def test_what_is_no_note_is_passed_over(line: str) -> None:
    [call], _ = read([*Recorded().lines, line.encode() + b"\n"])
    assert call.steps == []


def test_a_note_that_is_no_json_is_told_once() -> None:
    [call], faults = read([*Recorded().lines, b'{"agent": "began", \n', b"{}\n"])
    assert call.steps == []
    assert len(faults) == 1


@pytest.mark.parametrize("t", ['"soon"', "true", "1e300", "-1e16", "1" * 400, "null"])
def test_a_time_that_is_none_is_none(t: str) -> None:
    line = f'{{"t": {t}, "agent": "began", "turn": 1}}\n'
    [call], _ = read([*Recorded().lines, line.encode()])
    [note] = call.steps
    assert isinstance(note, Note)
    assert note.t is None
