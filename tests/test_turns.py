"""Turns: hooks around a machine."""

import asyncio
import functools
import importlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from inkturns.errors import DecodeError
from inkturns.events import (
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ServerError,
    StopReply,
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
from inkturns.policy import Policy, min_words
from inkturns.recording import Recorder
from inkturns.replay import replay
from inkturns.table import Phase
from inkturns.testing.strategies import Session, frames, hostile_sessions, policies
from inkturns.turns import Turns

HOOKS = (
    *("on_start", "on_update", "on_think", "on_eager_end", "on_resume", "on_cancel", "on_end", "on_interrupt"),
    *("on_abandon", "on_stall", "on_report"),
)
Call = tuple[Any, ...]
Calls = list[Call]


def calls_of(action: Action) -> Calls:
    """The hooks of an action with what they are given."""
    match action:
        case Listen(turn):
            return [("on_start", turn)]
        case Hear(turn):
            return [("on_update", turn)]
        case Think(turn, _, True):
            return [("on_think", turn), ("on_eager_end", turn)]
        case Think(turn):
            return [("on_think", turn)]
        case Resume(turn):
            return [("on_resume", turn)]
        case Cancel(turn, _, reason):
            return [("on_cancel", turn, reason)]
        case Respond(turn):
            return [("on_end", turn)]
        case Interrupt(number):
            return [("on_interrupt", number)]
        case Abandon(turn):
            return [("on_abandon", turn)]
        case Stall(turn):
            return [("on_stall", turn)]
        case _:
            return [("on_report", action)]


def observed(turns: Turns) -> Calls:
    """What the hooks are given from here on."""
    calls: Calls = []
    for name in HOOKS:
        getattr(turns, name)(lambda *given, name=name: calls.append((name, *given)))
    return calls


def on(turns: Turns, name: str, hook: Callable[..., object]) -> Any:
    return getattr(turns, name)(hook)


def kinds(actions: tuple[Action, ...]) -> list[type[Action]]:
    return [type(action) for action in actions]


HELLO = (TurnStart(), TurnUpdate(transcript="hello"), TurnEagerEnd(transcript="hello"), TurnEnd(transcript="hello"))


# -- what is called, when, with what


@given(hostile_sessions(), policies())
def test_hooks_are_called_in_the_order_of_the_actions_and_those_are_the_machines(
    session: Session, policy: Policy
) -> None:
    turns, machine = Turns(policy), TurnMachine(policy)
    calls = observed(turns)
    for event, now in session:
        calls.clear()
        actions = turns.feed(event, now)
        assert actions == machine.receive(event, now)
        assert calls == [call for action in actions for call in calls_of(action)]
    assert turns.machine.snapshot() == machine.snapshot()


def test_a_turn_as_the_design_draws_it() -> None:
    turns = Turns()
    calls = observed(turns)
    for frame in (
        '{"type":"turn.start"}',
        '{"type":"turn.eager_end","transcript":"so"}',
        '{"type":"turn.resume"}',
        '{"type":"turn.update","transcript":"so what"}',
        '{"type":"turn.eager_end","transcript":"so what"}',
        '{"type":"turn.end","transcript":"so what"}',
    ):
        turns.feed(frame)
    assert [call[0] for call in calls] == [
        *("on_start", "on_update", "on_think", "on_eager_end", "on_resume", "on_cancel", "on_update"),
        *("on_think", "on_eager_end", "on_end"),
    ]
    assert [call[2] for call in calls if call[0] == "on_cancel"] == [CancelReason.RESUMED]
    assert calls[-1] == ("on_end", Turn(1, "so what", end=EndReason.SERVER, latest_thought=2))


def test_a_thought_that_is_not_speculative_is_no_eager_end() -> None:
    turns = Turns()
    calls = observed(turns)
    turns.feed(TurnEnd(transcript="hello"))
    assert [call[0] for call in calls] == ["on_report", "on_start", "on_update", "on_think", "on_end"]


@pytest.mark.parametrize("name", HOOKS)
def test_several_hooks_of_a_name_are_called_in_the_order_of_their_decorators(name: str) -> None:
    turns = Turns(Policy(stall_timeout=1))
    calls: list[str] = []
    for which in "abc":
        on(turns, name, lambda *_, which=which: calls.append(which))
    feed_everything(turns)
    assert len(calls) >= 3
    assert "".join(calls) == "abc" * (len(calls) // 3)


def feed_everything(turns: Turns) -> None:
    """So that every hook has something to do."""
    for now, event in enumerate(
        (*HELLO[:3], TurnResume(), Tick(), Tick(), *HELLO, TurnStart(), EndNow(), TurnResume()), start=1
    ):
        turns.feed(event, now)


def test_every_action_has_its_hook() -> None:
    turns = Turns(Policy(stall_timeout=1))
    calls = observed(turns)
    feed_everything(turns)
    assert {call[0] for call in calls} == set(HOOKS)
    assert {name for name in dir(turns) if name.startswith("on_")} == set(HOOKS)


# -- registration


@pytest.mark.parametrize("name", HOOKS)
def test_a_decorator_returns_its_function(name: str) -> None:
    def hook(*given: object) -> None: ...

    assert on(Turns(), name, hook) is hook
    assert on(Turns(), name, print) is print


async def coroutine(*given: object) -> None: ...


async def stream(*given: object) -> Any:
    yield given


class Async:
    async def __call__(self, *given: object) -> None: ...

    async def method(self, *given: object) -> None: ...

    @staticmethod
    async def static(*given: object) -> None: ...


class Stream:
    async def __call__(self, *given: object) -> Any:
        yield given


ASYNC: dict[str, Callable[..., object]] = {
    "a coroutine function": coroutine,
    "an async generator function": stream,
    "a method": Async().method,
    "a static method": Async.static,
    "an object": Async(),
    "an object that streams": Stream(),
    "a partial": functools.partial(coroutine, 1),
    "a partial of a partial": functools.partial(functools.partial(stream, 1), 2),
    "a partial of a method": functools.partial(Async().method, 1),
    "a partial of an object": functools.partial(Async(), 1),
}


@pytest.mark.parametrize("hook", ASYNC.values(), ids=ASYNC)
@pytest.mark.parametrize("name", HOOKS)
def test_what_is_async_is_refused_when_registered(name: str, hook: Callable[..., object]) -> None:
    turns = Turns()
    with pytest.raises(TypeError, match=rf"{name}\(.*\): the hook must not be async, got .*; start a task"):
        on(turns, name, hook)
    feed_everything(turns)  # and is not called


@pytest.mark.parametrize("name", HOOKS)
def test_what_cannot_be_called_is_refused_when_registered(name: str) -> None:
    for hook in (None, 5, "on_start"):
        with pytest.raises(TypeError, match=rf"{name}\(.*\) must be a function, got {hook!r}"):
            on(Turns(), name, hook)  # type: ignore[arg-type]


def generator(*given: object) -> Iterator[object]:
    yield given


@pytest.mark.parametrize("name", HOOKS)
def test_a_generator_is_refused_when_registered(name: str) -> None:
    """Nothing of its body would run."""
    for hook in (generator, functools.partial(generator, 1)):
        with pytest.raises(
            TypeError, match=rf"{name}\(.*\): the hook must not be a generator, got .*; take the `yield`"
        ):
            on(Turns(), name, hook)


@pytest.mark.parametrize("name", HOOKS)
def test_a_wrong_number_of_arguments_is_refused_when_registered(name: str) -> None:
    two = name == "on_cancel"
    count = "2 arguments" if two else "1 argument"
    wrong: list[Callable[..., object]] = [lambda: None, lambda a, b, c: None, lambda *, turn: None]
    wrong.append((lambda a: None) if two else (lambda a, b: None))
    for hook in wrong:
        with pytest.raises(TypeError, match=rf"{name}\(.*\) must be a function of {count}, got <lambda>\("):
            on(Turns(), name, hook)
    right: list[Callable[..., object]] = [lambda *given: None, lambda a, b=None: None, lambda a, b=None, c=None: None]
    for hook in right:
        assert on(Turns(), name, hook) is hook


def test_a_function_that_hides_its_arguments_is_taken() -> None:
    """What a decorator adds is judged, not what it wraps; some functions that are written in C tell nothing."""

    def hook(turn: Turn, number: int) -> None: ...

    @functools.wraps(hook)
    def with_a_number(turn: Turn) -> None:
        hook(turn, 1)

    functions: tuple[Any, ...] = (with_a_number, {}.update, list[object]().append)
    for known in functions:
        assert on(Turns(), "on_start", known) is known


@pytest.mark.parametrize("name", ["on_eager", "on_think_start", "on_listen", "think"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(Turns(), name)
    with pytest.raises(AttributeError):
        setattr(Turns(), name, print)


def test_f41_unknown_options_and_wrong_ones_are_refused() -> None:
    with pytest.raises(TypeError, match="polcy"):
        Turns(polcy=Policy())  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Policy"):
        Turns(policy={"speculate": False})  # type: ignore[arg-type]


# -- bad frames

BAD: tuple[Any, ...] = ("", "[]", "{", "null", '{"transcript":"go"}', b"\xff\x00", b"", None, 5, [], object(), "\ud800")


@pytest.mark.parametrize("frame", BAD)
def test_f10_a_bad_frame_is_a_report_and_changes_nothing(frame: object) -> None:
    turns, calm = Turns(), Turns()
    calls = observed(turns)
    for event in HELLO:
        before = turns.machine.snapshot()
        (report,) = turns.feed(frame)
        assert isinstance(report, Report)
        assert (report.kind, report.event) == (ReportKind.BAD_FRAME, None)
        assert report.detail
        assert calls[-1] == ("on_report", report)
        assert turns.machine.snapshot() == before
        assert turns.feed(event) == calm.feed(event)


@given(st.lists(frames() | st.binary() | st.text(), max_size=8), policies())
def test_f10_no_frame_raises_out_of_feed(items: list[object], policy: Policy) -> None:
    turns = Turns(policy)
    calls = observed(turns)
    for item in items:
        calls.clear()
        actions = turns.feed(item)
        assert calls == [call for action in actions for call in calls_of(action)]


def test_f10_no_report_of_a_bad_frame_holds_the_callers_words() -> None:
    (report,) = Turns().feed('{"type":"turn.end","transcript":"shibboleth","turn_id":"1","request_id":5}')
    assert isinstance(report, Report)
    assert "shibboleth" not in repr(report)


# -- the log


def test_f59_reports_are_logged_as_warnings_without_the_callers_words(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns()
    reports: list[Report] = []
    turns.on_report(reports.append)
    for frame in (
        '{"type":"turn.end","transcript":"shibboleth","turn_id":"1"}',
        '{"type":"turn.end","transcript":"shibboleth","turn_id":"1"}',
        '{"type":"error","message":"shibboleth"}',
        '{"type":"shibboleth\\u001b[2J"}',
        '{"type":"turn.end","transcript":"shibboleth","request_id":5}',
    ):
        turns.feed(frame)
    kinds = [ReportKind.MISSED_START, ReportKind.LATE, ReportKind.SERVER_ERROR, ReportKind.UNKNOWN_TYPE]
    assert [report.kind for report in reports] == [*kinds, ReportKind.BAD_FRAME]
    assert caplog.record_tuples == [("inkturns", logging.WARNING, f"{each.kind}: {each.detail}") for each in reports]
    assert "shibboleth" not in caplog.text


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ({"type": "TurnInfo", "event": "Update", "transcript": "shibboleth"}, "inkturns.adapters.flux.Flux"),
        ({"type": "start_of_speech", "alternatives": []}, "inkturns.adapters.livekit.LiveKit"),
        ({"type": "transcript", "text": "shibboleth", "is_final": True}, "inkturns.adapters.manual.ManualFinalize"),
        ({"type": "Turn", "transcript": "shibboleth", "end_of_turn": False}, "AssemblyAI"),
    ],
)
def test_f59_frames_of_another_sender_are_named_with_what_reads_them(
    frame: dict[str, object], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    turns = Turns()
    for form in (frame, json.dumps(frame)):
        caplog.clear()
        (report,) = turns.feed(form)
        assert isinstance(report, Report)
        (line,) = caplog.messages
        assert line.startswith(f"unknown_type: {report.detail}; the frames are ")
        assert named in line
        assert "shibboleth" not in line
    path = named.rsplit(".", 1)
    if len(path) == 2:
        assert callable(getattr(importlib.import_module(path[0]), path[1]))


# -- feeding from inside a hook


def test_what_is_fed_inside_a_hook_waits_for_the_other_hooks() -> None:
    turns = Turns()
    log: list[object] = []

    @turns.on_start
    def first(turn: Turn) -> None:
        log.append("first")
        log.append(turns.feed(HELLO[1]))
        log.append(turns.machine.turn)

    calls = observed(turns)
    actions = turns.feed(HELLO[0])
    assert log == ["first", (), Turn(1)]
    assert [call[0] for call in calls] == ["on_start", "on_update"]
    assert kinds(actions) == [Listen, Hear]


def test_a_hook_that_is_registered_inside_a_hook_is_called_from_the_next_action_on() -> None:
    turns, called = Turns(), list[str]()

    @turns.on_update
    def again(turn: Turn) -> None:
        called.append(turn.transcript)
        turns.on_update(again)

    turns.feed(TurnStart())
    turns.feed(TurnUpdate(transcript="go"))
    assert called == ["go"]
    turns.feed(TurnUpdate(transcript="go on"))
    assert called == ["go", "go on", "go on"]


def test_what_is_fed_deeper_is_handled_in_the_order_of_feeding_and_comes_out_of_the_outermost() -> None:
    turns, plain = Turns(), TurnMachine()
    inner: list[object] = []
    on(turns, "on_start", lambda _: inner.extend((turns.feed(HELLO[1]), turns.feed(HELLO[2]))))
    on(turns, "on_update", lambda _: inner.append(turns.feed(ContextChanged())))
    on(turns, "on_cancel", lambda *_: inner.append(turns.feed(HELLO[3])))
    on(turns, "on_end", lambda _: inner.extend((turns.feed(StopReply()), turns.feed("no frame"))))
    calls = observed(turns)
    fed = (*HELLO[:3], ContextChanged(), HELLO[3], StopReply())
    expected = tuple(action for event in fed for action in plain.receive(event))
    *actions, bad = turns.feed(HELLO[0])
    assert tuple(actions) == expected
    assert isinstance(bad, Report)
    assert inner == [()] * 6
    assert calls == [call for action in (*actions, bad) for call in calls_of(action)]


def test_a_long_chain_of_feeding_needs_no_stack() -> None:
    turns = Turns()
    on(turns, "on_report", lambda _: turns.feed(TurnResume()) if next(left, None) else None)
    left = iter(range(1, 3000))
    assert len(turns.feed(TurnResume())) == 3000


def test_f26_the_machine_moves_in_one_step_that_no_hook_can_come_between() -> None:
    turns = Turns()
    seen: list[tuple[Phase, Turn | None]] = []

    def look(*_: object) -> None:
        seen.append((turns.machine.phase, turns.machine.turn))
        turns.feed(Disconnected())
        seen.append((turns.machine.phase, turns.machine.turn))

    for name in ("on_start", "on_update", "on_think", "on_eager_end"):
        on(turns, name, look)
    actions = turns.feed(TurnEagerEnd(transcript="hello"))
    begun = next(action.turn for action in actions if isinstance(action, Think))
    assert seen == [(Phase.EAGER_ENDED, begun)] * 8
    assert kinds(actions)[:4] == [Report, Listen, Hear, Think]
    assert kinds(actions)[4:] == [Cancel, Abandon]


# -- hooks that raise


def boom(error: BaseException) -> Callable[..., object]:
    def raises(*_: object) -> None:
        raise error

    return raises


def test_a_hook_that_raises_stops_no_other_and_comes_out_at_the_end_as_a_group() -> None:
    turns, plain = Turns(), TurnMachine()
    errors = [ValueError("one"), KeyError("two"), RuntimeError("three")]
    calls: Calls = []
    on(turns, "on_start", boom(errors[0]))
    on(turns, "on_start", lambda *given: calls.append(("on_start", *given)))
    on(turns, "on_start", lambda _: turns.feed(HELLO[3]))
    on(turns, "on_start", boom(errors[1]))
    on(turns, "on_end", boom(errors[2]))
    on(turns, "on_end", lambda *given: calls.append(("on_end", *given)))
    with pytest.raises(ExceptionGroup) as found:
        turns.feed(HELLO[0])
    assert list(found.value.exceptions) == errors
    assert [call[0] for call in calls] == ["on_start", "on_end"]
    for event in (HELLO[0], HELLO[3]):
        plain.receive(event)
    assert turns.machine.snapshot() == plain.snapshot()
    assert turns.feed(TurnResume()) == plain.receive(TurnResume())


def test_one_that_raises_comes_out_as_a_group_too() -> None:
    turns = Turns()
    on(turns, "on_report", boom(error := ValueError("one")))
    with pytest.raises(ExceptionGroup) as found:
        turns.feed("no frame")
    assert found.value.exceptions == (error,)


def test_f55_a_stray_cancelled_error_is_a_failure_like_any_other() -> None:
    turns, plain = Turns(), TurnMachine()
    stray, other = asyncio.CancelledError("of a future that the hook asked"), ValueError("one")
    calls: Calls = []
    on(turns, "on_start", boom(stray))
    on(turns, "on_start", lambda *given: calls.append(("on_start", *given)))
    on(turns, "on_update", boom(other))
    on(turns, "on_start", lambda _: turns.feed(HELLO[1]))
    with pytest.raises(ExceptionGroup) as found:
        turns.feed(HELLO[0])
    failure, second = found.value.exceptions
    assert (type(failure), failure.__cause__, second) == (RuntimeError, stray, other)
    assert str(failure) == "a hook raised CancelledError"
    assert [call[0] for call in calls] == ["on_start"]
    for event in HELLO[:2]:
        plain.receive(event)
    assert turns.feed(HELLO[2]) == plain.receive(HELLO[2])


def test_f55_where_nobody_has_imported_asyncio_nothing_else_is_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    turns = Turns()
    on(turns, "on_start", boom(Stop()))
    with pytest.raises(Stop):
        turns.feed(HELLO[0])


class Stop(BaseException): ...


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Stop])
def test_an_interrupt_from_a_hook_passes_and_the_machine_has_moved_on(kind: type[BaseException]) -> None:
    turns, plain = Turns(), TurnMachine()
    on(turns, "on_start", boom(kind()))
    with pytest.raises(kind):
        turns.feed(HELLO[0])
    plain.receive(HELLO[0])
    assert turns.feed(HELLO[1]) == plain.receive(HELLO[1])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Stop])
def test_an_interrupt_from_a_hook_passes_and_what_was_queued_is_handled_first_by_the_next_feed(
    kind: type[BaseException],
) -> None:
    turns, plain = Turns(), TurnMachine()
    armed = [kind()]
    on(turns, "on_start", lambda _: turns.feed(HELLO[1]))
    on(turns, "on_start", lambda _: turns.feed(HELLO[2]))
    on(turns, "on_start", lambda _: armed and boom(armed.pop())())
    with pytest.raises(kind):
        turns.feed(HELLO[0])
    plain.receive(HELLO[0])
    assert turns.machine.snapshot() == plain.snapshot()
    calls = observed(turns)
    actions = turns.feed(HELLO[3])
    assert actions == tuple(action for event in HELLO[1:] for action in plain.receive(event))
    assert calls == [call for action in actions for call in calls_of(action)]
    assert turns.feed(TurnResume()) == plain.receive(TurnResume())


def test_a_clock_that_raises_leaves_it_usable() -> None:
    def clock() -> float:
        raise OSError("no clock")

    turns = Turns(clock=clock)
    with pytest.raises(OSError, match="no clock"):
        turns.feed(HELLO[0])
    assert kinds(turns.feed(HELLO[0], 1.0)) == [Listen]


# -- time


def test_now_is_the_clocks_where_it_is_not_given() -> None:
    times = iter((3.0, 4.5))
    turns = Turns(Policy(stall_timeout=2), clock=lambda: next(times))
    turns.feed(TurnStart())
    assert turns.machine.turn == Turn(1, started_at=3.0)
    assert turns.machine.deadline == 5.0
    (*_, answer) = turns.feed(TurnEnd(transcript="go"))
    assert isinstance(answer, Respond)
    assert (answer.turn.started_at, answer.turn.ended_at) == (3.0, 4.5)
    assert next(times, None) is None


@pytest.mark.parametrize("now", [0.0, 7.5])
def test_now_is_what_is_given(now: float) -> None:
    def clock() -> float:
        raise AssertionError("the clock was asked")

    turns = Turns(clock=clock)
    turns.feed(TurnStart(), now)
    turns.feed("no frame", now=now)
    assert turns.machine.turn == Turn(1, started_at=now)


def test_without_a_clock_there_are_no_times() -> None:
    turns = Turns(Policy(stall_timeout=2))
    turns.feed(TurnStart())
    assert turns.machine.turn == Turn(1)
    assert turns.machine.deadline is None


def test_what_is_fed_inside_a_hook_has_the_time_of_its_feeding() -> None:
    turns = Turns()
    on(turns, "on_start", lambda _: turns.feed(TurnEnd(transcript="go"), 2.0))
    (*_, answer) = turns.feed(TurnStart(), 1.0)
    assert isinstance(answer, Respond)
    assert (answer.turn.started_at, answer.turn.ended_at) == (1.0, 2.0)


# -- sources


@attrs.frozen
class Told:
    """A source that gives what it was told to, or raises it."""

    says: dict[Any, Any]

    def events(self, frame: Any) -> tuple[Event, ...]:
        found = self.says[frame]
        if isinstance(found, BaseException):
            raise found
        return tuple(found)


def test_a_sources_frame_may_say_several_events_one_or_none() -> None:
    turns, plain = Turns(source=Told({"a": HELLO[:3], "b": [HELLO[3]], "c": [], "d": [EndNow()]})), TurnMachine()
    assert turns.feed("c") == ()
    assert turns.feed("a", 1.0) == tuple(action for event in HELLO[:3] for action in plain.receive(event, 1.0))
    assert turns.feed("c", 2.0) == ()
    assert turns.feed("b", 3.0) == plain.receive(HELLO[3], 3.0)
    assert turns.feed("d", 4.0) == plain.receive(EndNow(), 4.0) == ()
    assert turns.machine.snapshot() == plain.snapshot()


def test_what_a_hook_feeds_comes_after_the_events_of_the_frame() -> None:
    turns = Turns(source=Told({"a": HELLO[:3], "b": [TurnResume()]}))
    on(turns, "on_start", lambda _: turns.feed("b"))
    on(turns, "on_update", lambda _: turns.feed(EndNow()))
    assert kinds(turns.feed("a")) == [Listen, Hear, Think, Resume, Cancel, Think, Respond]


def test_events_pass_a_source_by() -> None:
    assert kinds(Turns(source=Told({})).feed(TurnStart())) == [Listen]


def test_a_frame_that_a_source_cannot_read_is_a_report() -> None:
    turns = Turns(source=Told({"a": DecodeError("event: expected one of five", "shibboleth"), "b": [TurnStart()]}))
    (report,) = turns.feed("a")
    assert report == Report(ReportKind.BAD_FRAME, None, "event: expected one of five")
    assert kinds(turns.feed("b")) == [Listen]


def test_f10_so_is_one_that_makes_its_code_raise() -> None:
    raised = asyncio.CancelledError("shibboleth")  # of a future that it asked (F55)
    turns = Turns(source=Told({"a": RuntimeError("shibboleth"), "c": raised, "b": [TurnStart()]}))
    unreadable: tuple[object, ...] = ("a", "c", "missing", [], {})
    for frame in unreadable:
        (report,) = turns.feed(frame)
        assert isinstance(report, Report)
        assert report.kind is ReportKind.BAD_FRAME
        assert "shibboleth" not in repr(report)
    assert kinds(turns.feed("b")) == [Listen]


def test_a_source_may_be_stopped() -> None:
    with pytest.raises(KeyboardInterrupt):
        Turns(source=Told({"a": KeyboardInterrupt()})).feed("a")


class Again(BaseException):
    """It was asked about what it said itself."""


@attrs.define
class Says:
    """A source that says one thing of every frame."""

    what: Callable[[object], Any]
    asked: int = 0

    def events(self, frame: object) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise Again
        return self.what(frame)


@pytest.mark.parametrize(
    "what",
    [lambda _: None, lambda _: 5, lambda frame: (frame,), lambda _: ({"type": "turn.start"},), lambda _: (None,)],
    ids=["none", "a number", "its frame", "a message", "no event"],
)
def test_f10_so_is_one_of_which_it_says_what_are_no_events(what: Callable[[object], Any]) -> None:
    turns = Turns(source=Says(what))
    (report,) = turns.feed("a")
    assert isinstance(report, Report)
    assert report.kind is ReportKind.BAD_FRAME
    assert kinds(turns.feed(TurnStart())) == [Listen]


@pytest.mark.parametrize(
    "event",
    [
        TurnUpdate(transcript=None),  # type: ignore[arg-type]
        TurnUpdate(transcript="\ud800"),
        TurnEnd(turn_id=1),  # type: ignore[arg-type]
        ServerError(status_code="429"),  # type: ignore[arg-type]
        Unknown(kind="a", fields={"b": object()}),
    ],
    ids=["no text", "no UTF-8", "no turn_id", "no number", "no JSON"],
)
def test_f10_so_is_one_of_which_it_makes_an_event_with_a_bad_field(event: Event) -> None:
    turns = Turns(source=Told({"frame": [event]}))
    turns.feed(TurnStart())
    [report] = turns.feed("frame")
    assert isinstance(report, Report)
    assert report.kind is ReportKind.BAD_FRAME
    turns.machine.snapshot()


def test_an_interrupt_from_a_source_passes() -> None:
    turns = Turns(source=Told({"a": KeyboardInterrupt(), "b": [TurnStart()]}))
    with pytest.raises(KeyboardInterrupt):
        turns.feed("a")
    assert kinds(turns.feed("b")) == [Listen]


# -- recordings


def test_a_recorder_writes_every_input_down_with_its_actions(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    turns = Turns(Policy(speculate=min_words(1)), recorder=Recorder(path, call="7f3a"))
    on(turns, "on_end", lambda _: turns.feed(ReplyDone(1)))
    items: tuple[tuple[object, float | None], ...] = (
        ('{"type":"turn.start"}', 1.0),
        (b'{"type":"turn.update","transcript":"go"}', 2.0),
        ({"type": "turn.eager_end", "transcript": "go"}, 3.0),
        ("no frame", 4.0),
        (TurnEnd(transcript="go"), 5.0),
        (object(), None),
    )
    actions = [action for item, now in items for action in turns.feed(item, now)]
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (header["inkturns"], header["call"], header["policy"]["speculate"]["min_words"]) == (1, "7f3a", 1)
    assert [sorted(set(line) - {"out", "t"}) for line in lines] == [
        *(["frame"], ["frame"], ["event"], ["frame"], ["event"], ["app"], ["bad"])
    ]
    assert [line.get("t") for line in lines] == [1.0, 2.0, 3.0, 4.0, 5.0, None, None]
    assert [action["type"] for line in lines for action in line["out"]] == [type(action).__name__ for action in actions]


@given(hostile_sessions(), policies())
def test_a_recorded_session_replays_to_the_same_actions(session: Session, policy: Policy) -> None:
    file = io.BytesIO()
    turns = Turns(policy, recorder=Recorder(file))
    # A recording imports no function of others', so what it says of a policy to use is not enough.
    actions = [turns.feed(event, now) for event, now in session if not isinstance(event, UsePolicy)]
    found = list(replay(file.getvalue().splitlines(keepends=True), policy))
    assert [entry.actions for entry in found] == actions
    assert not [entry for entry in found if entry.differs]


def test_a_sources_events_are_recorded_not_its_frames() -> None:
    file = io.BytesIO()
    turns = Turns(source=Told({"a": HELLO[:3], "b": [HELLO[3]], "c": [], "d": ValueError()}), recorder=Recorder(file))
    actions = [action for frame in "acbd" for action in turns.feed(frame)]
    _, *lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["event"]["type"] for line in lines[:4]] == ["turn.start", "turn.update", "turn.eager_end", "turn.end"]
    assert len(lines) == 5
    found = list(replay(file.getvalue().splitlines(keepends=True)))
    assert [action for entry in found[:4] for action in entry.actions] == actions[:-1]


def test_a_recording_is_in_the_order_of_feeding_and_whole_before_the_hooks_are_called() -> None:
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    written: list[int] = []
    on(turns, "on_start", lambda _: turns.feed(HELLO[1]))
    for name in ("on_start", "on_update"):
        on(turns, name, lambda _: written.append(file.getvalue().count(b"\n")))
    turns.feed(HELLO[0])
    assert written == [2, 3]
    assert [b"turn.start" in line for line in file.getvalue().splitlines()[1:]] == [True, False]


# -- failures that hooks can decide


def test_f29_an_end_is_one_event_with_its_text() -> None:
    turns = Turns()
    ends: list[Turn] = []
    turns.on_end(ends.append)
    for event in (*HELLO[:3], TurnEnd(transcript="hello there")):
        turns.feed(event)
    assert [turn.transcript for turn in ends] == ["hello there"]


def test_f40_respond_is_asked_once_a_turn() -> None:
    turns = Turns()
    ends: list[Turn] = []
    turns.on_end(ends.append)
    on(turns, "on_end", lambda _: turns.feed(HELLO[3]))
    for event in (*HELLO, HELLO[3], EndNow(), Disconnected(), *HELLO, EndNow(), HELLO[3]):
        turns.feed(event)
    assert [turn.number for turn in ends] == [1, 2]


def test_f44_feeding_inside_a_hook_waits_for_nothing() -> None:
    turns = Turns()
    log: list[str] = []

    @turns.on_eager_end
    def slow(turn: Turn) -> None:
        log.append("begin")
        assert turns.feed(TurnResume()) == ()
        log.append("end")

    on(turns, "on_cancel", lambda *_: log.append("cancel"))
    for event in HELLO[:3]:
        turns.feed(event)
    assert log == ["begin", "end", "cancel"]
    assert turns.machine.phase is Phase.SPEAKING


def test_a_source_is_an_instance() -> None:
    with pytest.raises(TypeError, match=r"Turns: source must be an instance, as Told\(\) is; got the class"):
        Turns(source=Told)  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value"), [("source", 3), ("clock", 3.0), ("recorder", "call.jsonl")])
def test_f41_options_are_checked_when_given(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"Turns: {option} must .*, got {value!r}"):
        Turns(**{option: value})
