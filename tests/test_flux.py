"""Deepgram Flux: its messages to events, its settings to Ink 2's; and the same conversation through either."""

import json
import math
from collections.abc import Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from inkturns.actions import Abandon, Action, Cancel, EndReason, Report, ReportKind, Respond, Think, Turn
from inkturns.adapters.flux import Flux, FluxSettings, flux_to_ink
from inkturns.agent import Agent, Settled, Thought
from inkturns.errors import DecodeError
from inkturns.events import (
    Connected,
    Disconnected,
    Event,
    ServerError,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, Policy
from inkturns.settings import BALANCED, PATIENT, RESPONSIVE, TurnSettings
from inkturns.sources import Source
from inkturns.testing.oracle import check
from inkturns.testing.strategies import frames, policies
from inkturns.turns import Turns

Message = dict[str, Any]
SECRET = "shibboleth"


def info(event: str, transcript: str = "", turn_index: object = 0, request_id: str | None = "r") -> Message:
    """A TurnInfo, with all that Flux documents of one."""
    return {
        "type": "TurnInfo",
        "request_id": request_id,
        "sequence_id": 7,
        "event": event,
        "turn_index": turn_index,
        "audio_window_start": 0.0,
        "audio_window_end": 1.3,
        "transcript": transcript,
        "words": [{"word": word, "confidence": 0.9} for word in transcript.split()],
        "end_of_turn_confidence": 0.1,
        **({"trigger": "model"} if event == "EndOfTurn" else {}),
    }


CONNECTED = {"type": "Connected", "request_id": "r", "sequence_id": 0}
ERROR = {"type": "Error", "sequence_id": 9, "code": "INTERNAL_SERVER_ERROR", "description": "An internal error."}
FORMS: dict[str, Callable[[Message], object]] = {
    "str": json.dumps,
    "bytes": lambda message: json.dumps(message, ensure_ascii=False).encode(),
    "bytearray": lambda message: bytearray(json.dumps(message).encode()),
    "dict": dict,
    "mapping": MappingProxyType,
    "object": lambda message: SimpleNamespace(**message),
}


def events(*messages: object) -> list[Event]:
    flux = Flux()
    return [event for message in messages for event in flux.events(message)]


def said(kind: Callable[..., Event], *text: str, turn_id: str | None = "0") -> Event:
    return kind(*text, request_id="r", turn_id=turn_id)


# -- messages to events


@pytest.mark.parametrize("form", FORMS)
def test_a_turn_in_any_form(form: str) -> None:
    turn = [
        CONNECTED,
        info("Update"),
        info("StartOfTurn", "Hi"),
        info("Update", "Hi I need"),
        info("EagerEndOfTurn", "Hi I need"),
        info("TurnResumed", "Hi I need help"),
        info("EagerEndOfTurn", "Hi, I need help."),
        info("EndOfTurn", "Hi, I need help."),
        info("Update", turn_index=1),
    ]
    expected = [
        Connected(request_id="r"),
        said(TurnStart),
        said(TurnUpdate, "Hi"),
        said(TurnUpdate, "Hi I need"),
        said(TurnEagerEnd, "Hi I need"),
        said(TurnResume),
        said(TurnUpdate, "Hi I need help"),
        said(TurnEagerEnd, "Hi, I need help."),
        said(TurnEnd, "Hi, I need help."),
    ]
    assert events(*map(FORMS[form], turn)) == expected


def test_an_idle_line_says_nothing() -> None:
    assert events(info("Update"), info("Update", " "), info("Update", turn_index=4)) == []


def test_text_that_has_not_moved_is_said_once() -> None:
    turn = [
        info("StartOfTurn", "a"),
        info("Update", "a"),
        info("Update", ""),
        info("Update", "a"),
        info("Update", "a b"),
    ]
    expected = [said(TurnStart), said(TurnUpdate, "a"), said(TurnUpdate, "a b")]
    assert events(*turn) == expected
    assert events(info("StartOfTurn"), info("EagerEndOfTurn", "a"), info("Update", "a"), info("TurnResumed", "a")) == [
        *(said(TurnStart), said(TurnEagerEnd, "a"), said(TurnResume))
    ]


def test_the_same_words_in_another_turn_are_said() -> None:
    """Also where no start, no connection or no turn_index tells the turns apart; what is late the machine says."""
    for other in (info("Update", "a", 1), info("Update", "a", request_id="s"), info("EndOfTurn", "a", None)):
        assert len(events(info("StartOfTurn", "a"), other)) == 3
    again = [info("StartOfTurn", "a"), info("EndOfTurn", "a"), info("Update", "a")]
    assert events(*again)[-1] == said(TurnUpdate, "a")
    assert events(info("StartOfTurn", "a"), info("StartOfTurn", "a"))[2:] == [said(TurnStart), said(TurnUpdate, "a")]
    assert events(info("StartOfTurn", "a"), CONNECTED, info("Update", "a"))[-1] == said(TurnUpdate, "a")


def test_earlier_text_may_be_revised() -> None:
    turns, heard = Turns(source=Flux()), []
    turns.on_update(lambda turn: heard.append(turn.transcript))
    for message in (info("StartOfTurn", "wreck a"), info("Update", "recognise"), info("EndOfTurn", "recognise speech")):
        turns.feed(message)
    assert heard == ["wreck a", "recognise", "recognise speech"]


@pytest.mark.parametrize("index", [3, "3"])
def test_a_number_may_be_a_string(index: object) -> None:
    message = info("StartOfTurn", turn_index=index) | {"sequence_id": "7", "end_of_turn_confidence": "0.1"}
    assert events(json.dumps(message), message) == [said(TurnStart, turn_id="3")] * 2


def test_what_is_absent_or_null() -> None:
    assert events({"type": "TurnInfo", "event": "StartOfTurn"}) == [TurnStart()]
    null = dict.fromkeys(info("EndOfTurn"), None) | {"type": "TurnInfo", "event": "EndOfTurn"}
    assert events(null, json.dumps(null)) == [TurnEnd(), TurnEnd()]
    assert events({"type": "Connected"}) == [Connected()]


def test_an_error_settles_the_turn_that_it_cuts_off() -> None:
    """Whether the server closes the socket soon, late or never."""
    expected = ServerError(title="Error", message="An internal error.", error_code="INTERNAL_SERVER_ERROR")
    assert events(ERROR) == [expected, Disconnected("INTERNAL_SERVER_ERROR")]
    assert events({"type": "Error"}) == [ServerError(title="Error"), Disconnected()]
    assert events(info("StartOfTurn", "a"), ERROR, info("Update", "a"))[-1] == said(TurnUpdate, "a")
    for after_disconnect, kind in ((AfterDisconnect.ABANDON, Abandon), (AfterDisconnect.RESPOND, Respond)):
        turns = Turns(Policy(after_disconnect=after_disconnect), source=Flux())
        for message in (CONNECTED, info("StartOfTurn", "a")):
            turns.feed(message)
        closed = turns.feed(ERROR)[-1]
        assert isinstance(closed, kind)
        assert closed.turn.end is EndReason.LOST
        assert turns.feed(Disconnected()) == ()
        assert [report.kind for report in reports(turns.feed(info("Update", "a b")))] == [ReportKind.FOREIGN]
        again = [
            turns.feed(m | {"request_id": "s"}) for m in (CONNECTED, info("StartOfTurn", "c"), info("EndOfTurn", "c"))
        ]
        assert not reports(sum(again, ()))


@pytest.mark.parametrize("kind", ["Warning", "ConfigureFailure"])
def test_a_complaint_is_a_report_and_changes_nothing(kind: str) -> None:
    message = {"type": kind, "request_id": "r", "sequence_id": 3, "code": "CODE", "description": "In prose."}
    expected = ServerError(request_id="r", title=kind, message="In prose.", error_code="CODE")
    assert events(message) == [expected]
    turns = Turns(source=Flux())
    turns.feed(info("StartOfTurn", "a"))
    assert turns.feed(message) == (Report(ReportKind.SERVER_ERROR, expected, reports(turns.feed(message))[0].detail),)
    assert turns.machine.turn is not None


def test_settings_that_were_taken_are_no_event() -> None:
    success = {"type": "ConfigureSuccess", "request_id": "r", "sequence_id": 2, "thresholds": {"eot_threshold": 0.8}}
    assert events(success, json.dumps(success)) == []


@pytest.mark.parametrize("form", FORMS)
def test_f09_a_kind_that_nobody_knows_is_reported_as_itself(form: str) -> None:
    turns = Turns(source=Flux())
    turns.feed(info("StartOfTurn", "a"))
    sigh = {key: value for key, value in info("Sigh", SECRET).items() if key not in ("type", "request_id")}
    for message, kind, fields in (
        ({"type": "SpeechSigned", "request_id": "r", "depth": 3}, "SpeechSigned", {"depth": 3}),
        (info("Sigh", SECRET), "TurnInfo.Sigh", sigh),
    ):
        (report,) = reports(turns.feed(FORMS[form](message)))
        assert report.kind is ReportKind.UNKNOWN_TYPE
        assert report.event == Unknown(kind=kind, fields=fields, request_id="r")
        assert SECRET not in report.detail
    assert turns.machine.turn is not None


class Slots:
    """An object that has its attributes elsewhere."""

    __slots__ = ("event", "type")

    def __init__(self, **members: str) -> None:
        for name, value in members.items():
            setattr(self, name, value)


class Late:
    """An object that has its type by its class."""

    type = "\ud800"


class Raises:
    """An object of an SDK's that cannot give its text."""

    type, event = "TurnInfo", "EndOfTurn"

    @property
    def transcript(self) -> str:
        raise RuntimeError


BAD: dict[str, tuple[object, str]] = {
    "None, the SDK's for what it does not know": (None, "null"),
    "an array": ("[]", "array"),
    "cut off": ('{"type":"TurnInfo"', "truncated"),
    "no type": ({"event": "Update"}, "`type`"),
    "a type that is none": ({"type": 3}, "$.type"),
    "no event": ({"type": "TurnInfo"}, "`event`"),
    "a transcript that is none": (info("Update") | {"transcript": 3}, "$.transcript"),
    "an index that is no whole number": (info("Update", SECRET, turn_index=3.5), "$.turn_index"),
    "an index that no text can hold": (info("Update", SECRET, turn_index=10**5000), "$.turn_index"),
    "an index below 0": (info("Update", SECRET, turn_index=-1), "$.turn_index"),
    "a request_id that is none": (json.dumps(info("Update", SECRET) | {"request_id": 3}), "$.request_id"),
    "text that UTF-8 cannot hold": (info("Update", "\ud800"), "UTF-8"),
    "a type that UTF-8 cannot hold": ({"type": "\ud800"}, "UTF-8"),
    "an object of such a type": (Late(), "UTF-8"),
    "too deep": ('{"type":"SpeechSigned","depth":' + "[" * 100_000, "deeply"),
    "bytes that are no text": (b"\xff", "frame cannot be read"),
    "an unknown object without members": (Slots(type="SpeechSigned"), "TypeError"),
    "an unknown event without members": (Slots(type="TurnInfo", event="Sigh"), "TypeError"),
    "an object whose text raises": (Raises(), "RuntimeError"),
}


@pytest.mark.parametrize("name", BAD)
def test_f10_a_bad_frame_is_a_report_that_names_the_field(name: str) -> None:
    frame, reason = BAD[name]
    with pytest.raises(DecodeError) as caught:
        Flux().events(frame)
    assert reason in caught.value.reason
    assert SECRET not in caught.value.reason
    turns = Turns(source=Flux())
    turns.feed(info("StartOfTurn", "a"))
    (report,) = reports(turns.feed(frame))
    assert report.kind is ReportKind.BAD_FRAME
    assert turns.machine.turn is not None


def reports(actions: Iterable[Action]) -> list[Report]:
    return [action for action in actions if isinstance(action, Report)]


# -- any stream keeps the laws


TEXTS = ("go", "go on", "Go on.", "Go on. ", "goo", "stop", "5")


@st.composite
def lawful_streams(draw: DrawFn) -> list[object]:
    """What Flux promises, and what it does not exclude: idle updates; a start with words or none; updates that grow,
    revise or repeat; eager ends, never blank, with updates after them, taken back with words or none; an end with the
    last words or with others, by whatever trigger, or none, where the connection is cut; settings taken in between."""
    stream: list[object] = []
    number = draw(st.sampled_from((int, str)))

    def say(event: str, text: str = "") -> None:
        stream.append(info(event, text, number(turn), request_id))
        if draw(st.sampled_from((False, False, True))):
            stream.append({"type": "ConfigureSuccess", "request_id": request_id, "sequence_id": 3})

    for connection in range(draw(st.integers(1, 3))):
        request_id = f"connection {connection}"
        stream.append(CONNECTED | {"request_id": request_id})
        turns = draw(st.integers(0, 3))
        for turn in range(turns):
            for _ in range(draw(st.integers(0, 2))):
                say("Update")
            text, eager = draw(st.sampled_from(("", *TEXTS))), False
            say("StartOfTurn", text)
            for _ in range(draw(st.integers(0, 6))):
                text = draw(st.sampled_from((text, text, *TEXTS)))
                if draw(st.booleans()):
                    say("Update", text)
                elif eager:
                    say("TurnResumed", text)
                    eager = False
                elif text:
                    say("EagerEndOfTurn", text)
                    eager = True
            if turn < turns - 1 or draw(st.booleans()):
                say("EndOfTurn", draw(st.sampled_from((text, text, *TEXTS))) if text else "")
        if draw(st.booleans()):
            stream.append(Disconnected())
    return [draw(_in_some_form(message)) if isinstance(message, dict) else message for message in stream]


def _in_some_form(message: Message) -> SearchStrategy[object]:
    return st.sampled_from(list(FORMS.values())).map(lambda form: form(message))


def hostile_messages() -> SearchStrategy[object]:
    """Flux's messages, as they are, in no order, or with a field gone or of another kind; and whatever else."""
    values: SearchStrategy[Any] = st.sampled_from((None, "", "0", 0, 1.5, [], {}, True, "\ud800", 10**400))
    kinds = ("Update", "StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EndOfTurn", "Sigh")
    turn = st.builds(
        info, st.sampled_from(kinds), st.sampled_from((*TEXTS, "", " ")), st.sampled_from((0, 1, "1", None))
    )
    others: SearchStrategy[Message] = st.sampled_from((CONNECTED, ERROR, ERROR | {"type": "Warning"}, {"type": "Sigh"}))
    whole: SearchStrategy[Message] = turn | turn | others
    marred = st.builds(
        lambda message, field, value: {**message, field: value},
        whole,
        st.sampled_from(("type", "event", "turn_index", "transcript", "request_id", "code", "words")),
        values,
    )
    built = (whole | whole | marred).flatmap(
        lambda message: st.just(message) | st.just(SimpleNamespace(**message)) | st.just(json.dumps(message))
    )
    return built | built | frames()


@given(lawful_streams(), policies(sound=True))
def test_a_lawful_stream_keeps_the_laws_and_gives_no_report(stream: list[object], policy: Policy) -> None:
    flux, machine = Flux(), TurnMachine(policy)
    check(
        (
            (event, machine.receive(event))
            for frame in stream
            for event in ((frame,) if isinstance(frame, Disconnected) else flux.events(frame))
        ),
        lawful=True,
    )


@given(lawful_streams())
def test_no_words_are_lost_on_the_way(stream: list[object]) -> None:
    """After each message that has some, the turn's text, open or closed by it, is that message's."""
    turns, closed = Turns(source=Flux()), list[Turn]()
    turns.on_end(closed.append)
    for frame in stream:
        turns.feed(frame)
        message = frame if isinstance(frame, dict) else vars(frame) if isinstance(frame, SimpleNamespace) else {}
        if message.get("transcript"):
            turn = turns.machine.turn or closed[-1]
            assert (turn.transcript, turn.turn_id) == (message["transcript"], str(message["turn_index"]))


@given(st.lists(hostile_messages(), max_size=20), policies())
def test_any_stream_keeps_the_laws(stream: list[object], policy: Policy) -> None:
    flux, machine, trace = Flux(), TurnMachine(policy), list[tuple[Event | None, tuple[Action, ...]]]()
    for frame in stream:
        try:
            found = flux.events(frame)
        except DecodeError:
            continue
        trace += [(event, machine.receive(event)) for event in found]
    check(trace)


@given(st.lists(hostile_messages(), max_size=20))
def test_f10_any_stream_raises_nothing_out_of_feed(stream: list[object]) -> None:
    turns = Turns(source=Flux())
    for frame in stream:
        actions = turns.feed(frame)
        for report in reports(actions):
            assert "the source raised" not in report.detail  # it reads whatever it is given, or says why not


# -- the same conversation through Ink 2 and through Flux

TOLD: list[tuple[float, str, str]] = [  # Flux's documented turn: seconds of audio, event, text
    (0.2, "Update", ""),
    (0.5, "Update", ""),
    (0.6, "StartOfTurn", "Hi I"),
    (0.8, "Update", "Hi I need"),
    (1.0, "Update", "Hi I need to cancel"),
    (1.1, "EagerEndOfTurn", "Hi I need to cancel"),
    (1.2, "TurnResumed", "Hi I need to cancel my"),
    (1.4, "Update", "Hi I need to cancel my subscription"),
    (1.5, "EagerEndOfTurn", "Hi I need to cancel my subscription please."),
    (1.6, "Update", "Hi I need to cancel my subscription please."),
    (1.7, "EndOfTurn", "Hi I need to cancel my subscription please."),
    (1.9, "Update", ""),
]
AS_INK = {
    "Update": ("turn.update",),
    "StartOfTurn": ("turn.start", "turn.update"),
    "EagerEndOfTurn": ("turn.eager_end",),
    "TurnResumed": ("turn.resume", "turn.update"),
    "EndOfTurn": ("turn.end",),
}
THROUGH_FLUX = [(now, json.dumps(info(event, text, 1 if now > 1.7 else 0))) for now, event, text in TOLD]
THROUGH_INK = [
    (now, json.dumps({"type": kind, "request_id": "r", "turn_id": "0"} | ({"transcript": text} if "." in kind else {})))
    for now, event, text in TOLD
    if text
    for kind in AS_INK[event]
]


def test_the_same_conversation_decides_the_same_as_through_ink() -> None:
    def decided(source: Source | None, stream: list[tuple[float, str]]) -> list[tuple[float, Action]]:
        turns = Turns(source=source)
        return [(now, action) for now, frame in stream for action in turns.feed(frame, now)]

    flux, ink = decided(Flux(), THROUGH_FLUX), decided(None, THROUGH_INK)
    assert flux == ink
    seen = [(now, type(action).__name__) for now, action in flux if isinstance(action, Think | Cancel | Respond)]
    assert seen == [(1.1, "Think"), (1.2, "Cancel"), (1.5, "Think"), (1.7, "Respond")]


async def test_the_same_conversation_is_answered_alike_and_at_the_same_time() -> None:
    async def answered(source: Source | None, stream: list[tuple[float, str]]) -> list[tuple[float, str]]:
        agent, begin = Agent(source=source), anyio.current_time()
        seen: list[tuple[float, str]] = []

        def see(what: str) -> None:
            seen.append((round(anyio.current_time() - begin, 3), what))

        @agent.think
        async def think(turn: Turn) -> str:
            see(f"think: {turn.transcript}")
            await anyio.sleep(0.15)
            return "Done."

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            see(f"respond: {await thought} {thought.speculative}")

        @agent.on_settled
        def on_settled(settled: Settled) -> None:
            see(f"settled: {settled.outcome.name}")

        async with agent:
            for now, frame in stream:
                await anyio.sleep_until(begin + now)
                agent.feed(frame)
            await anyio.sleep(1)
        return seen

    flux, ink = await answered(Flux(), THROUGH_FLUX), await answered(None, THROUGH_INK)
    assert flux == ink
    assert flux == [
        (1.1, "think: Hi I need to cancel"),
        (1.2, "settled: CANCELLED"),
        (1.5, "think: Hi I need to cancel my subscription please."),
        (1.7, "settled: ADOPTED"),
        (1.7, "respond: Done. True"),
    ]


# -- settings


BOUNDS: dict[str, tuple[float, float]] = {
    "eot_threshold": (0.5, 1.0),
    "eager_eot_threshold": (0.3, 0.9),
    "eot_timeout_ms": (500, 60000),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_settings_are_checked_when_made(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low, high):
        assert FluxSettings(**{name: value}).given() == {name: value}  # type: ignore[arg-type]
    whole = name == "eot_timeout_ms"
    outside = (low - 1, high + 1) if whole else (math.nextafter(low, 0), math.nextafter(high, 2), math.nan)
    for value in outside:
        with pytest.raises(ValueError, match=rf"FluxSettings\.{name} must be from {low} to {high}, got {value!r}"):
            FluxSettings(**{name: value})  # type: ignore[arg-type]
    for wrong in ("0.7", True, *([700.0] if whole else [])):
        with pytest.raises(
            TypeError, match=rf"FluxSettings\.{name} must be a {'whole ' if whole else ''}number, got {wrong!r}"
        ):
            FluxSettings(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        FluxSettings(threshold=0.7)  # type: ignore[call-arg]


def test_settings_are_frozen_and_make_a_query() -> None:
    settings = FluxSettings(eot_timeout_ms=5000, eager_eot_threshold=0.4, eot_threshold=0.7)
    assert settings.query() == "eot_threshold=0.7&eager_eot_threshold=0.4&eot_timeout_ms=5000"
    assert FluxSettings().query() == ""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.eot_threshold = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("name", ["eot_threshold", "eager_eot_threshold"])
@pytest.mark.parametrize("value", [0.5, 0.7, 0.9])
def test_a_threshold_is_never_copied(name: str, value: float) -> None:
    """Not even where Ink 2 would take it: its thresholds run the other way."""
    settings = FluxSettings(**{name: value}, eot_timeout_ms=5000)
    with pytest.raises(ValueError, match=rf"{name} is {value}, but no value of .* carries over .*profile="):
        flux_to_ink(settings)
    for profile in (BALANCED, RESPONSIVE, PATIENT, TurnSettings()):
        assert flux_to_ink(settings, profile=profile) == attrs.evolve(profile, end_timeout_ms=5000)


def test_the_timeout_is_copied_where_ink_takes_it() -> None:
    assert flux_to_ink(FluxSettings()) == TurnSettings()
    assert flux_to_ink(FluxSettings(), BALANCED) == BALANCED
    for timeout in (640, 5000, 11200):
        assert flux_to_ink(FluxSettings(eot_timeout_ms=timeout)) == TurnSettings(end_timeout_ms=timeout)
    for timeout in (500, 639, 11201, 60000):
        with pytest.raises(ValueError, match=rf"Ink 2's end_timeout_ms must be from 640 to 11200, got {timeout}"):
            flux_to_ink(FluxSettings(eot_timeout_ms=timeout), BALANCED)


def test_what_are_no_settings_is_refused() -> None:
    with pytest.raises(TypeError, match="settings must be a FluxSettings"):
        flux_to_ink(BALANCED)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="profile must be a TurnSettings"):
        flux_to_ink(FluxSettings(), profile="balanced")  # type: ignore[arg-type]
