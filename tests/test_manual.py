"""Ink 2 without turn detection: deltas and the client's own signals to events."""

import json
from collections.abc import Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from inkturns.actions import Abandon, Action, EndReason, Report, ReportKind, Respond, Turn
from inkturns.adapters.manual import ManualFinalize, Signal
from inkturns.agent import Agent, Thought
from inkturns.errors import DecodeError
from inkturns.events import (
    Disconnected,
    EndNow,
    Event,
    ServerError,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.testing.oracle import check
from inkturns.testing.strategies import frames, policies
from inkturns.turns import Turns

Message = dict[str, Any]
SECRET = "shibboleth"


def final(text: str, request_id: str = "r") -> Message:
    return {
        "type": "transcript",
        "is_final": True,
        "text": text,
        "request_id": request_id,
        "duration": 0.5,
        "language": "en",
        "words": [{"word": word, "start": 0.0, "end": 0.1} for word in text.split()],
    }


def interim(text: str, request_id: str = "r") -> Message:
    return final(text, request_id) | {"is_final": False}


FLUSH_DONE = {"type": "flush_done", "request_id": "r"}
DONE = {"type": "done", "request_id": "r"}
FORMS: dict[str, Callable[[Message], object]] = {
    "str": json.dumps,
    "bytes": lambda message: json.dumps(message, ensure_ascii=False).encode(),
    "dict": dict,
    "mapping": MappingProxyType,
    "object": lambda message: SimpleNamespace(**message),
}
STARTED, STOPPED = ManualFinalize().speech_started(), ManualFinalize().speech_stopped()
ASK = object()  # where a finalize is taken and sent


def events(*items: object, ink: ManualFinalize | None = None) -> list[Event]:
    ink, found = ink or ManualFinalize(), list[Event]()
    for item in items:
        if item is ASK:
            assert ink.finalize() == "finalize"
        else:
            found += ink.events(item)
    return found


def start(turn_id: str = "1") -> Event:
    return TurnStart(turn_id=turn_id)


def update(text: str, turn_id: str = "1") -> Event:
    return TurnUpdate(text, turn_id=turn_id)


def eager(text: str, turn_id: str = "1") -> Event:
    return TurnEagerEnd(text, turn_id=turn_id)


def resume(turn_id: str = "1") -> Event:
    return TurnResume(turn_id=turn_id)


def end(text: str, turn_id: str = "1") -> Event:
    return TurnEnd(text, turn_id=turn_id)


def reports(actions: Iterable[Action]) -> list[Report]:
    return [action for action in actions if isinstance(action, Report)]


# -- messages and signals to events


@pytest.mark.parametrize("form", FORMS)
def test_a_turn_in_any_form(form: str) -> None:
    of = FORMS[form]
    turn = (STARTED, of(interim("So")), of(final("So the")), STOPPED, ASK, of(final(" end.")), of(FLUSH_DONE))
    expected = [start(), update("So"), update("So the"), eager("So the"), update("So the end."), end("So the end.")]
    assert events(*turn) == expected


def test_f45_final_chunks_are_joined_to_the_letter() -> None:
    chunks = ("This is a", " single sen", "tence. ", " ", "")
    turn = (STARTED, *map(final, chunks), STOPPED, ASK, FLUSH_DONE)
    assert events(*turn)[-2:] == [eager("".join(chunks)), end("".join(chunks))]


def test_what_is_not_final_is_shown_behind_what_is_until_another_takes_its_place() -> None:
    turn = (
        STARTED,
        final("a"),
        interim(" be"),
        interim(" bee"),
        interim(" bee"),
        final(" B"),
        STOPPED,
        ASK,
        FLUSH_DONE,
    )
    assert events(*turn) == [
        *(start(), update("a"), update("a be"), update("a bee"), update("a B")),
        *(eager("a B"), end("a B")),
    ]


def test_what_never_became_final_is_no_part_of_the_end() -> None:
    assert events(STARTED, final("a"), interim(" b"), STOPPED, ASK, FLUSH_DONE)[-2:] == [eager("a b"), end("a")]


def test_several_chunks_for_a_finalize_and_some_before_it() -> None:
    turn = (STARTED, final("a"), final(" b"), STOPPED, ASK, final(" c"), final(" d"), FLUSH_DONE)
    assert events(*turn)[-3:] == [update("a b c"), update("a b c d"), end("a b c d")]


def test_a_turn_whose_text_comes_by_the_finalize_has_no_eager_end() -> None:
    assert events(STARTED, STOPPED, ASK, final("yes"), FLUSH_DONE) == [start(), update("yes"), end("yes")]


def test_noise_is_a_turn_without_words() -> None:
    assert events(STARTED, final(" "), STOPPED, ASK, FLUSH_DONE) == [start(), end(" ")]
    assert events(final(" "), final(""), FLUSH_DONE, DONE) == []


def test_the_user_goes_on_before_the_flush() -> None:
    """The answer to a finalize that was sent too early ends nothing; the next one does."""
    turn = (STARTED, final("a"), STOPPED, ASK, STARTED, FLUSH_DONE, final(" b"), STOPPED, ASK, FLUSH_DONE)
    assert events(*turn) == [
        *(start(), update("a"), eager("a"), resume(), update("a b"), eager("a b"), end("a b")),
    ]


def test_only_the_answer_to_the_last_finalize_ends_the_turn() -> None:
    turn = (STARTED, final("a"), STOPPED, ASK, STARTED, STOPPED, ASK, FLUSH_DONE)
    ink = ManualFinalize()
    assert events(*turn, ink=ink) == [start(), update("a"), eager("a"), resume(), eager("a")]
    assert events(final(" b"), FLUSH_DONE, ink=ink) == [update("a b"), end("a b")]


def test_speech_again_without_an_eager_end_before_is_no_resume() -> None:
    assert events(STARTED, STOPPED, STARTED, final("a")) == [start(), update("a")]


def test_a_signal_that_is_no_news_changes_nothing() -> None:
    ink = ManualFinalize()
    assert events(STOPPED, ink=ink) == []
    assert ink.finalize() is None
    assert events(STARTED, STARTED, final("a"), STOPPED, ASK, STOPPED, ink=ink) == [start(), update("a"), eager("a")]
    assert ink.finalize() is None
    assert events(FLUSH_DONE, FLUSH_DONE, STOPPED, ink=ink) == [end("a")]
    assert events(STARTED, final("a"), STOPPED, STARTED, STARTED) == [start(), update("a"), eager("a"), resume()]


def test_a_finalize_is_due_once_from_the_silence_on_until_the_user_goes_on() -> None:
    ink = ManualFinalize()
    assert ink.finalize() is None
    for signal, due in ((STARTED, None), (STOPPED, "finalize"), (STARTED, None), (STOPPED, "finalize")):
        ink.events(signal)
        assert (ink.finalize(), ink.finalize()) == (due, None)
    ink.events(STARTED)
    ink.events(STOPPED)
    ink.events(STARTED)  # within the silence that the client waits out: nothing was sent, nothing is taken back
    assert ink.finalize() is None


def test_a_finalize_that_was_sent_by_other_means_ends_the_turn_too() -> None:
    ink = ManualFinalize()
    assert events(STARTED, final("a"), STOPPED, FLUSH_DONE, ink=ink)[-1] == end("a")
    assert ink.finalize() is None
    assert events(STARTED, final("b"), STOPPED, ASK, FLUSH_DONE, ink=ink)[-1] == end("b", "2")


def test_words_that_no_signal_announced_are_a_turn() -> None:
    """The machine reports that its start is missing; a detector that wakes up late goes on with the same turn."""
    turns = Turns(source=ManualFinalize())
    (report,) = reports(turns.feed(final("a")))
    assert report.kind is ReportKind.MISSED_START
    assert isinstance(turns.feed(FLUSH_DONE)[-1], Respond)
    assert events(final("a"), FLUSH_DONE) == [update("a"), end("a")]
    assert events(final("a"), STARTED, final(" b"), FLUSH_DONE, STOPPED, ASK, FLUSH_DONE) == [
        *(update("a"), update("a b"), eager("a b"), end("a b"))
    ]
    assert events(final("a"), STOPPED, ASK, FLUSH_DONE) == [update("a"), eager("a"), end("a")]


def test_done_ends_what_is_open() -> None:
    """`close` flushes as `finalize` does, whether the user has fallen silent or hung up in mid-word."""
    assert events(STARTED, final("a"), STOPPED, ASK, STARTED, final(" b"), DONE)[-1] == end("a b")
    assert events(STARTED, DONE) == [start(), end("")]
    assert events(DONE) == []
    answered = FLUSH_DONE | {"request_id": None}
    assert events(STARTED, STOPPED, ASK, DONE, STARTED, STOPPED, ASK, answered)[-1] == end("", "2")


def test_turns_are_counted() -> None:
    turn = (STARTED, final("a"), STOPPED, ASK, FLUSH_DONE)
    assert [event.turn_id for event in events(*turn, *turn) if isinstance(event, TurnEnd)] == ["1", "2"]
    assert events(*turn, *turn)[4:] == [start("2"), update("a", "2"), eager("a", "2"), end("a", "2")]


def test_a_new_connection_goes_on_with_the_turn_and_has_to_be_asked_again() -> None:
    """The SDK reconnects in silence; the answer that the turn waits for was lost with the old connection."""
    ink = ManualFinalize()
    events(STARTED, final("a"), STOPPED, ASK, final(" b", "s"), ink=ink)
    assert events(ASK, FLUSH_DONE | {"request_id": "s"}, ink=ink) == [end("a b")]
    ink = ManualFinalize()
    assert events(STARTED, final("a"), final(" b", "s"), ink=ink)[-1] == update("a b")
    assert ink.finalize() is None
    assert events(STOPPED, ASK, FLUSH_DONE | {"request_id": None}, final("late", "t"), ink=ink)[1:] == [
        *(end("a b"), update("late", "2"))
    ]


def test_what_a_new_connection_says_first_answers_all_that_it_was_asked_before() -> None:
    """Nobody can tell what of it was sent over the old one; a turn that is left open for ever would be worse."""
    first = (STARTED, final("a"), STOPPED, ASK, FLUSH_DONE, STARTED, STOPPED, ASK, STARTED, STOPPED, ASK)
    assert events(*first, FLUSH_DONE | {"request_id": "s"})[-2:] == [start("2"), end("", "2")]


def test_f34_a_lost_connection_closes_the_turn_with_its_words() -> None:
    ink = ManualFinalize()
    turns = Turns(source=ink)
    for item in (STARTED, final("a"), STOPPED):
        turns.feed(item)
    assert ink.finalize()
    closed = turns.feed(ink.disconnected("gone"))[-1]
    assert isinstance(closed, Abandon)
    assert (closed.turn.transcript, closed.turn.end) == ("a", EndReason.LOST)
    assert ink.events(ink.disconnected("gone")) == (Disconnected("gone"),)
    asked = (STARTED, STOPPED, ASK, STARTED, STOPPED, ASK)  # all of it of the new connection, which is silent so far
    assert events(*asked, FLUSH_DONE | {"request_id": "s"}, ink=ink) == [start("2")]
    last = (final("b", "s"), FLUSH_DONE | {"request_id": "s"})
    assert events(*last, ink=ink) == [update("b", "2"), end("b", "2")]
    again = (STARTED, STOPPED, ASK, Signal("disconnected"), STARTED, STOPPED, ASK, FLUSH_DONE | {"request_id": None})
    assert events(*again)[-1] == end("", "2")


def test_a_turn_that_the_application_closed_is_known_by_its_number_when_the_server_closes_it() -> None:
    turns = Turns(source=ManualFinalize())
    for item in (STARTED, final("a"), STOPPED):
        turns.feed(item)
    assert isinstance(turns.feed(EndNow())[-1], Respond)
    assert turns.feed(FLUSH_DONE) == ()  # the echo of the end that the application has called
    again = [turns.feed(item) for item in (STARTED, final("b"), STOPPED, FLUSH_DONE)]
    assert not reports(sum(again, ()))


def test_signals_inside_a_hook_keep_their_order() -> None:
    ink = ManualFinalize()
    turns, said = Turns(source=ink), list[str]()

    @turns.on_update
    def on_update(turn: Turn) -> None:
        turns.feed(ink.speech_stopped())
        turns.feed(FLUSH_DONE)

    turns.on_end(lambda turn: said.append(turn.transcript))
    turns.feed(ink.speech_started())
    turns.feed(final("a"))
    assert said == ["a"]


@pytest.mark.parametrize("form", FORMS)
def test_an_error_is_a_report(form: str) -> None:
    error = {"type": "error", "status_code": 500, "title": "Internal", "message": "m", "request_id": "r"}
    (report,) = reports(Turns(source=ManualFinalize()).feed(FORMS[form](error)))
    assert report.kind is ReportKind.SERVER_ERROR
    assert report.event == ServerError(status_code=500, title="Internal", message="m", request_id="r")


@pytest.mark.parametrize("form", FORMS)
def test_f09_a_kind_that_nobody_knows_is_reported_as_itself(form: str) -> None:
    (event,) = ManualFinalize().events(FORMS[form]({"type": "turn.sigh", "request_id": "r", "depth": 3}))
    assert event == Unknown(kind="turn.sigh", fields={"depth": 3}, request_id="r")


def test_a_silence_whose_finalize_is_yet_to_be_sent_outlives_the_answer_to_the_last_one() -> None:
    ink = ManualFinalize()
    asked = (STARTED, final("A table"), STOPPED, ASK, STARTED, STOPPED)
    assert events(*asked, FLUSH_DONE, ink=ink)[-1] == TurnEagerEnd("A table", turn_id="1")
    assert events(ASK, final(" for two."), FLUSH_DONE, ink=ink) == [update("A table for two."), end("A table for two.")]


def test_an_answer_that_never_comes_spoils_one_turn_only() -> None:
    ink = ManualFinalize()
    turns, said = Turns(Policy(stall_timeout=2), source=ink), list[str]()
    turns.on_stall(lambda turn: turns.feed(ink.end_now()))
    turns.on_end(lambda turn: said.append(turn.transcript))

    def feed(*items: object, now: float) -> list[Report]:
        return reports(action for item in items for action in turns.feed(item, now))

    feed(STARTED, final("one"), STOPPED, now=0)
    assert ink.finalize()
    feed(Tick(), now=5)
    assert not feed(STARTED, final("two"), STOPPED, now=6)
    assert ink.finalize()
    assert not feed(FLUSH_DONE, now=7)
    assert said == ["one", "two"]


def test_what_is_said_over_a_lost_connection_is_asked_for() -> None:
    ink = ManualFinalize()
    assert events(STARTED, final("a"), ink.disconnected(), ink=ink)[-2:] == [Disconnected(), start("2")]
    assert events(STOPPED, ASK, final(" b", "s"), FLUSH_DONE | {"request_id": "s"}, ink=ink)[-1] == end(" b", "2")


def test_a_signal_is_one() -> None:
    with pytest.raises(ValueError, match=r"Signal.kind must be one of .* got "):
        Signal("nonsense")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason"):
        ManualFinalize().disconnected(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (None, "null"),
        ("[]", "array"),
        ({"text": SECRET}, "`type`"),
        ({"type": "transcript", "text": SECRET}, "`is_final`"),
        ({"type": "transcript", "text": 3, "is_final": True}, "$.text"),
        (final(SECRET) | {"is_final": "yes"}, "$.is_final"),
        (final("\ud800"), "UTF-8"),
        (b"\x00\x01 audio", "frame cannot be read"),
    ],
    ids=range(8),
)
def test_f10_a_bad_frame_is_a_report_that_names_the_field(frame: object, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        ManualFinalize().events(frame)
    assert reason in caught.value.reason
    assert SECRET not in caught.value.reason
    turns = Turns(source=ManualFinalize())
    turns.feed(STARTED)
    assert [report.kind for report in reports(turns.feed(frame))] == [ReportKind.BAD_FRAME]
    assert turns.machine.turn is not None


def test_text_that_is_null_is_none() -> None:
    assert events(STARTED, {"type": "transcript", "is_final": True, "text": None}, final("a")) == [start(), update("a")]


# -- an agent


async def test_an_agent_thinks_from_the_silence_on_and_answers_at_the_flush() -> None:
    ink, begin = ManualFinalize(), anyio.current_time()
    agent, seen, sent = Agent(source=ink), list[tuple[float, str]](), list[str]()

    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(0.25)
        return "Sure."

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        seen.append((round(anyio.current_time() - begin, 3), f"{turn.transcript} {await thought}"))

    async with agent:
        for gap, item in ((0.0, STARTED), (0.5, final("A table")), (0.1, STOPPED), (0.4, FLUSH_DONE)):
            await anyio.sleep(gap)
            agent.feed(item)
            if frame := ink.finalize():
                sent.append(frame)
        await anyio.sleep(1)
    assert seen == [(1.0, "A table Sure.")]
    assert sent == ["finalize"]


# -- any stream keeps the laws

WORDS = ("go", " on", " go", "ing", ".", "5")
PIECES = (*WORDS, " ")


@st.composite
def lawful_streams(draw: DrawFn) -> list[object]:
    """What the endpoint promises and the client does: speech, chunks in it, final or not, before and after a silence;
    silences that last and are asked to be flushed, one or more in a turn, some answered while the user speaks again;
    connections that change between turns, announced, or not and then heard of before they are asked anything; `close`
    at the end, or nothing. What was shown is made final by the flush or by a chunk before it, as itself or as other
    words, but never as none."""
    ink = ManualFinalize()  # the client's, for when a finalize is due; what is fed goes through another one
    stream: list[object] = []
    connection, unanswered, loose, unheard = 0, 0, "", False

    def feed(item: object) -> None:
        stream.append(item)
        ink.events(item)

    def send() -> None:
        nonlocal unanswered
        stream.append(ASK)
        assert ink.finalize()
        unanswered += 1

    def chunk(is_final: bool) -> None:
        nonlocal loose
        text = draw(st.sampled_from(WORDS if loose else PIECES)) + draw(st.sampled_from(("", *PIECES)))
        feed((final if is_final else interim)(text, f"connection {connection}"))
        loose = "" if is_final else text

    def answer() -> None:
        nonlocal unanswered, loose
        if loose:
            feed(final(loose, f"connection {connection}"))
            loose = ""
        feed(FLUSH_DONE | {"request_id": f"connection {connection}"})
        unanswered -= 1

    for _ in range(draw(st.integers(0, 3))):
        loose = ""
        feed(STARTED)
        if unheard:
            chunk(True)
        unheard = False
        for _ in range(draw(st.integers(0, 3))):  # silences that are none
            for _ in range(draw(st.integers(0, 2))):
                chunk(draw(st.booleans()))
            feed(STOPPED)
            if draw(st.booleans()):
                send()
                if draw(st.booleans()):
                    chunk(True)
            feed(STARTED)
            if unanswered and draw(st.booleans()):
                answer()
        for _ in range(draw(st.integers(0, 3))):
            chunk(draw(st.booleans()))
        feed(STOPPED)
        send()
        while unanswered:
            if draw(st.booleans()):
                chunk(True)
            answer()
        match draw(st.sampled_from(("stays", "stays", "changes", "is lost"))):
            case "changes":
                connection, unheard = connection + 1, True
            case "is lost":
                connection += 1
                feed(ink.disconnected())
    if draw(st.booleans()):
        feed(STARTED)
        chunk(True)
        if draw(st.booleans()):
            feed(DONE | {"request_id": f"connection {connection}"})
    return stream


def trace(stream: list[object], machine: TurnMachine) -> Iterable[tuple[Event, tuple[Action, ...]]]:
    ink = ManualFinalize()
    for item in stream:
        if item is ASK:
            ink.finalize()
            continue
        try:
            found = ink.events(item)
        except DecodeError:
            continue
        yield from ((event, machine.receive(event)) for event in found)


@given(lawful_streams(), policies(sound=True))
def test_a_lawful_stream_keeps_the_laws_and_gives_no_report(stream: list[object], policy: Policy) -> None:
    check(trace(stream, TurnMachine(policy)), lawful=True)


@given(lawful_streams())
def test_every_final_word_is_in_the_turn_that_it_was_said_in(stream: list[object]) -> None:
    """And each turn that the user finished has ended, by the answer to its last finalize and no sooner."""
    ended = [
        action.turn.transcript
        for _, actions in trace(stream, TurnMachine())
        for action in actions
        if isinstance(action, Respond)
    ]
    said, turns, asked, speaking = "", list[str](), 0, False
    for item in stream:
        if isinstance(item, Signal):
            speaking = item == STARTED
        elif item is ASK:
            asked += 1
        elif isinstance(item, dict) and item["type"] == "transcript":
            said += item["text"] if item["is_final"] else ""
        elif isinstance(item, dict):
            asked -= 1
            if item["type"] == "done" or (not asked and not speaking):
                turns, said, asked = [*turns, said], "", 0
    assert ended == [text for text in turns if text.strip()]


def hostile_items() -> SearchStrategy[object]:
    """The endpoint's messages and the client's signals in no order, messages marred, and whatever else."""
    values: SearchStrategy[Any] = st.sampled_from((None, "", "a", 0, 1.5, [], {}, True, "\ud800"))
    chunks = st.builds(final, st.sampled_from((*PIECES, "", "a")), st.sampled_from(("r", "s")))
    others: SearchStrategy[Message] = st.sampled_from(
        (FLUSH_DONE, FLUSH_DONE, DONE, {"type": "error"}, {"type": "sigh"})
    )
    messages = chunks | chunks.map(lambda message: message | {"is_final": False}) | others
    marred = st.builds(
        lambda message, field, value: {**message, field: value},
        messages,
        st.sampled_from(("type", "text", "is_final", "request_id")),
        values,
    )
    built = (messages | messages | marred).flatmap(
        lambda message: st.sampled_from((message, SimpleNamespace(**message), json.dumps(message)))
    )
    signals = st.sampled_from((STARTED, STOPPED, STARTED, STOPPED, ASK, Signal("disconnected")))
    return signals | signals | built | built | frames()


@given(st.lists(hostile_items(), max_size=20), policies())
def test_any_stream_keeps_the_laws(stream: list[object], policy: Policy) -> None:
    check(trace(stream, TurnMachine(policy)))


@given(st.lists(hostile_items(), max_size=20))
def test_f10_any_stream_raises_nothing_out_of_feed(stream: list[object]) -> None:
    turns = Turns(source=ManualFinalize())
    for item in stream:
        for report in reports(turns.feed(item)):
            assert "the source raised" not in report.detail
