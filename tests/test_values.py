"""Events and actions: frozen values, known by their tags, JSON both ways."""

import copy
import pickle
from enum import StrEnum
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    EndReason,
    Hear,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.events import (
    FROM_APPLICATION,
    FROM_SERVER,
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ServerError,
    ServerEvent,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy
from inkturns.table import Phase
from inkturns.testing.strategies import Session, events, hostile_sessions, policies

KINDS = tuple(kind for kind in Action.__subclasses__() if kind.__module__ == Action.__module__)  # no test's own
TURN = Turn(3, "go", "1", "r", 1.0, 2.0, EndReason.SERVER, 2, 1, 2)
EVENTS: tuple[Event, ...] = (
    Connected(request_id="r"),
    TurnStart(turn_id="1"),
    TurnUpdate(transcript="go"),
    TurnEagerEnd(transcript="go"),
    TurnResume(),
    TurnEnd(transcript="go"),
    ServerError(status_code=429, title="t", message="m", error_code="e", doc_url="d"),
    Unknown(kind="turn.sigh", fields={"a": [1, None]}),
    Disconnected("reason"),
    EndNow(),
    ContextChanged(),
    ThoughtFailed(1, 2),
    ReplyStarted(0),
    ReplyDone(),
    StopReply(),
    UsePolicy(Policy()),
    Tick(),
)
ACTIONS: tuple[Action, ...] = (
    Listen(TURN),
    Hear(TURN, None),
    Think(TURN, 2, True),
    Resume(TURN),
    Cancel(TURN, 2, CancelReason.MOVED),
    Respond(TURN, 2),
    Interrupt(2),
    Abandon(TURN),
    Stall(TURN),
    Report(ReportKind.LATE, TurnEnd(transcript="go"), "late"),
)


def test_nothing_is_missing_here() -> None:
    assert {type(event) for event in EVENTS} == set(FROM_SERVER + FROM_APPLICATION)
    assert {type(action) for action in ACTIONS} == set(KINDS)


@pytest.mark.parametrize("value", [*EVENTS, *ACTIONS, TURN], ids=lambda value: type(value).__name__)
def test_a_value_is_frozen_equal_to_its_like_and_copies(value: Any) -> None:
    for name in (*value.__struct_fields__, "other"):
        with pytest.raises(AttributeError):
            setattr(value, name, 1)
    assert value == copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value))
    if not isinstance(value, Unknown):
        assert len({value, copy.copy(value)}) == 1


@pytest.mark.parametrize("value", [*EVENTS, *ACTIONS], ids=lambda value: type(value).__name__)
def test_a_value_is_never_equal_to_one_of_another_kind(value: object) -> None:
    assert [other for other in (*EVENTS, *ACTIONS) if other == value] == [value]


def test_events_have_the_wires_tags_and_actions_their_names() -> None:
    assert {kind.__struct_config__.tag for kind in FROM_SERVER} == {
        *("connected", "turn.start", "turn.update", "turn.eager_end", "turn.resume", "turn.end", "error", "unknown")
    }
    tags = [kind.__struct_config__.tag for kind in FROM_SERVER + FROM_APPLICATION]
    assert len(set(tags)) == len(tags)
    for event in EVENTS:
        if not isinstance(event, UsePolicy):
            assert msgspec.to_builtins(event)["type"] == type(event).__struct_config__.tag
    for action in ACTIONS:
        assert msgspec.to_builtins(action)["type"] == type(action).__name__


@given(events())
def test_an_event_is_its_json(event: Event) -> None:
    if not isinstance(event, UsePolicy):
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


@given(hostile_sessions(), policies())
def test_an_action_is_its_json(session: Session, policy: Policy) -> None:
    machine = TurnMachine(policy)
    for event, now in session:
        for action in machine.receive(event, now):
            if not isinstance(action, Report):
                assert msgspec.json.decode(msgspec.json.encode(action), type=type(action)) == action


@pytest.mark.parametrize("kind", [kind for kind in FROM_SERVER if kind is not Unknown])
def test_every_field_of_a_server_event_is_optional(kind: type[ServerEvent]) -> None:
    event = kind()
    assert (event.request_id, event.turn_id) == (None, None)
    assert getattr(event, "transcript", "") == ""
    assert msgspec.json.encode(event) == msgspec.json.encode({"type": kind.__struct_config__.tag})


def test_the_fields_are_the_designs() -> None:
    kinds: tuple[type[msgspec.Struct], ...] = (*FROM_SERVER, *FROM_APPLICATION, Turn, *KINDS)
    ids = {"request_id", "turn_id"}
    assert all(ids <= set(kind.__struct_fields__) for kind in (*FROM_SERVER, Turn))
    assert {kind.__name__: [name for name in kind.__struct_fields__ if name not in ids] for kind in kinds} == {
        "Connected": [],
        "TurnStart": [],
        "TurnUpdate": ["transcript"],
        "TurnEagerEnd": ["transcript"],
        "TurnResume": [],
        "TurnEnd": ["transcript"],
        "ServerError": ["status_code", "title", "message", "error_code", "doc_url"],
        "Unknown": ["kind", "fields"],
        "Disconnected": ["reason"],
        "EndNow": [],
        "ContextChanged": [],
        "ThoughtFailed": ["number", "thought"],
        "ReplyStarted": ["number"],
        "ReplyDone": ["number"],
        "StopReply": [],
        "UsePolicy": ["policy"],
        "Tick": [],
        "Turn": [
            *("number", "transcript", "started_at", "ended_at", "end", "latest_thought"),
            *("continues", "interrupted"),
        ],
        "Listen": ["turn"],
        "Hear": ["turn", "delta"],
        "Think": ["turn", "thought", "speculative"],
        "Resume": ["turn"],
        "Cancel": ["turn", "thought", "reason"],
        "Respond": ["turn", "thought"],
        "Interrupt": ["number"],
        "Abandon": ["turn"],
        "Stall": ["turn"],
        "Report": ["kind", "event", "detail"],
    }


def test_a_value_can_be_matched_by_position() -> None:
    match Think(TURN, 2, True):
        case Think(Turn(number, transcript), thought, True):
            assert (number, transcript, thought) == (3, "go", 2)
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("number", ["1", 1.0, True, None, b"1", [1], TURN])
def test_a_number_is_an_int_or_a_type_error(number: Any) -> None:
    with pytest.raises(TypeError, match=r"ThoughtFailed\.number"):
        ThoughtFailed(number, 1)
    with pytest.raises(TypeError, match=r"ThoughtFailed\.thought"):
        ThoughtFailed(1, number)
    with pytest.raises(TypeError, match=r"ReplyStarted\.number"):
        ReplyStarted(number)
    if number is None:
        assert ReplyDone(number) == ReplyDone()
    else:
        with pytest.raises(TypeError, match=r"ReplyDone\.number"):
            ReplyDone(number)


@pytest.mark.parametrize("policy", [None, {}, Policy, "keep"])
def test_a_policy_to_use_is_a_policy(policy: Any) -> None:
    with pytest.raises(TypeError, match=r"UsePolicy\.policy"):
        UsePolicy(policy)


@pytest.mark.parametrize(
    ("enum", "members"),
    [
        (EndReason, "SERVER FORCED STALLED LOST EMPTY SUPERSEDED BACKCHANNEL"),
        (CancelReason, "RESUMED MOVED SUPERSEDED MISMATCHED BACKCHANNEL LOST CONTEXT_CHANGED FAILED"),
        (
            ReportKind,
            "BAD_FRAME UNKNOWN_TYPE SERVER_ERROR LATE FOREIGN MISSED_START MISSED_END DUPLICATE_START"
            " DUPLICATE_CONNECTED STRAY_RESUME BLANK_END POLICY_ERROR STUCK_TASK",
        ),
        (Phase, "IDLE SPEAKING EAGER_ENDED"),
        (AfterResume, "CANCEL KEEP"),
        (AfterStall, "WAIT END"),
        (AfterDisconnect, "ABANDON RESPOND"),
    ],
)
def test_the_enums_are_the_designs_and_say_their_names_in_small(enum: type[StrEnum], members: str) -> None:
    assert [member.name for member in enum] == members.split()
    assert all(member == member.name.lower() for member in enum)


def test_annotations_resolve() -> None:
    kinds: tuple[type[msgspec.Struct], ...] = (*FROM_SERVER, *FROM_APPLICATION, Turn, *KINDS)
    for kind in kinds:
        assert set(get_type_hints(kind)) >= set(kind.__struct_fields__)
