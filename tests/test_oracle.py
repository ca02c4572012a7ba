"""The oracle can fail: each law has traces that break it, and traces a step away that do not."""

from copy import copy

import pytest

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
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    StopReply,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
)
from inkturns.policy import Policy
from inkturns.testing import oracle as oracles
from inkturns.testing.oracle import LAWS, SHOWN_STEPS, Oracle, check, shown
from inkturns.testing.strategies import always, never

Step = tuple[Event | None, tuple[Action, ...]]

SERVER, LOST, EMPTY = EndReason.SERVER, EndReason.LOST, EndReason.EMPTY


def turn(
    text: str = "",
    thoughts: int = 0,
    end: EndReason | None = None,
    *,
    n: int = 1,
    at: float | None = None,
    ended: float | None = None,
    turn_id: str | None = None,
    request_id: str | None = None,
) -> Turn:
    return Turn(n, text, turn_id, request_id, at, ended, end, thoughts)


def step(event: Event | None, *actions: Action) -> Step:
    return event, actions


def cancel(of: Turn, thought: int = 1) -> Cancel:
    return Cancel(of, thought, CancelReason.MOVED)


def report(kind: ReportKind, event: Event) -> Report:
    return Report(kind, event, "")


def update(text: str, delta: str | None, *before: Action) -> Step:
    return step(TurnUpdate(transcript=text), *before, Hear(turn(text), delta))


START = step(TurnStart(), Listen(turn()))
GO = update("go", "go")
EAGER = step(TurnEagerEnd(transcript="go"), Think(turn("go", 1), 1, True))
AHEAD = (START, GO, EAGER)
ADOPTED = step(TurnEnd(transcript="go"), Respond(turn("go", 1, SERVER), 1))
ANSWERED = (*AHEAD, ADOPTED)
AFRESH = step(TurnEnd(transcript="go"), Think(turn("go", 1), 1, False), Respond(turn("go", 1, SERVER), 1))
SECOND = step(TurnStart(), Listen(turn(n=2)), Interrupt(1))
SECOND_GO = step(TurnUpdate(transcript="go"), Hear(turn("go", n=2), "go"))

KEPT: dict[str, tuple[Step, ...]] = {
    "nothing": (),
    "a bad frame": (step(None, Report(ReportKind.BAD_FRAME, None, "")),),
    "adopted": ANSWERED,
    "afresh": (START, GO, AFRESH),
    "resumed, thought again": (
        *AHEAD,
        step(TurnResume(), Resume(turn("go", 1)), cancel(turn("go", 1))),
        step(TurnEagerEnd(transcript="go on"), Hear(turn("go on", 1), " on"), Think(turn("go on", 2), 2, True)),
        step(TurnEnd(transcript="go on"), Respond(turn("go on", 2, SERVER), 2)),
    ),
    "mismatched": (
        *AHEAD,
        step(
            TurnEnd(transcript="stop"),
            cancel(turn("go", 1)),
            Hear(turn("stop", 1), None),
            Think(turn("stop", 2), 2, False),
            Respond(turn("stop", 2, SERVER), 2),
        ),
    ),
    "the context changed": (*AHEAD, step(ContextChanged(), cancel(turn("go", 1)), Think(turn("go", 2), 2, True))),
    "all in one end": (
        step(
            TurnEnd(transcript="go"),
            report(ReportKind.MISSED_START, TurnEnd(transcript="go")),
            Listen(turn()),
            Hear(turn("go"), "go"),
            *AFRESH[1],
        ),
    ),
    "lost for the next one": (
        *AHEAD,
        step(
            TurnUpdate(transcript="stop", turn_id="2"),
            cancel(turn("go", 1)),
            Abandon(turn("go", 1, EndReason.SUPERSEDED)),
            Listen(turn(n=2, turn_id="2")),
            Hear(turn("stop", n=2, turn_id="2"), "stop"),
        ),
    ),
    "empty": (START, step(TurnEnd(transcript=" "), Abandon(turn(end=EMPTY)))),
    "blank changes nothing": (START, GO, step(TurnUpdate(transcript=" ")), step(TurnEagerEnd(transcript=""))),
    "repeats change nothing": (START, GO, step(TurnUpdate(transcript="go")), AFRESH),
    "stalled": (START, GO, step(Tick(), Stall(turn("go")))),
    "late": (*ANSWERED, step(TurnUpdate(transcript="g"), report(ReportKind.LATE, TurnUpdate(transcript="g")))),
    "barge-in": (*ANSWERED, SECOND),
    "stopped": (*ANSWERED, step(StopReply(), Interrupt(1)), step(TurnStart(), Listen(turn(n=2)))),
    "heard, the next": (*ANSWERED, step(ReplyDone(number=1)), step(TurnStart(), Listen(turn(n=2)))),
    "done of another": (*ANSWERED, step(ReplyDone(number=7)), SECOND),
    "own speech": (step(ReplyStarted(number=0)), step(TurnStart(), Listen(turn()), Interrupt(0))),
    "own speech, again": (
        step(ReplyStarted(number=0)),
        step(ReplyDone()),
        step(ReplyStarted(number=0)),
        step(StopReply(), Interrupt(0)),
    ),
    "timed": (
        step(TurnStart(), Listen(turn(at=1.0))),
        step(TurnEnd(), Abandon(turn(end=EMPTY, at=1.0, ended=1.0))),
        step(TurnStart(), Listen(turn(n=2, at=2.0))),
    ),
    "a turn_id that comes later": (
        START,
        step(TurnUpdate(transcript="go", turn_id="1"), Hear(turn("go", turn_id="1"), "go")),
        step(Disconnected(), Abandon(turn("go", end=LOST, turn_id="1"))),
    ),
}

BROKEN: list[tuple[str, str, tuple[Step, ...]]] = [
    ("A", "a thought that never began", (START, GO, step(EndNow(), Respond(turn("go", end=SERVER), 1)))),
    (
        "A",
        "a thought that was cancelled",
        (*AHEAD, step(ContextChanged(), cancel(turn("go", 1))), ADOPTED),
    ),
    ("A", "afresh, and not answered", (START, GO, step(TurnEnd(transcript="go"), Think(turn("go", 1), 1, False)))),
    (
        "A",
        "afresh, called speculative",
        (START, GO, step(EndNow(), Think(turn("go", 1), 1, True), Respond(turn("go", 1, SERVER), 1))),
    ),
    ("B", "two live thoughts", (*AHEAD, step(TurnEagerEnd(transcript="go"), Think(turn("go", 2), 2, True)))),
    ("B", "cancelled twice", (*AHEAD, step(ContextChanged(), cancel(turn("go", 1)), cancel(turn("go", 1))))),
    ("B", "cancelled after its answer", (*ANSWERED, step(TurnResume(), cancel(turn("go", 1))))),
    ("B", "never begun", (START, GO, step(TurnResume(), cancel(turn("go"))))),
    ("B", "lost with a live thought", (*AHEAD, step(Disconnected(), Abandon(turn("go", 1, LOST))))),
    ("C", "two open turns", (START, step(TurnStart(), Listen(turn(n=2))))),
    ("C", "answered twice", (*ANSWERED, ADOPTED)),
    ("C", "lost after its answer", (*ANSWERED, step(Disconnected(), Abandon(turn("go", 1, LOST))))),
    ("C", "heard, never opened", (GO,)),
    ("C", "another turn's words", (START, SECOND_GO)),
    ("C", "closed without an end", (START, step(TurnEnd(), Abandon(turn())))),
    ("C", "abandoned as if answered", (START, step(TurnEnd(), Abandon(turn(end=SERVER))))),
    ("C", "ended, and open", (START, step(Tick(), Stall(turn(end=EndReason.STALLED))))),
    (
        "C",
        "another turn_id",
        (
            step(TurnStart(turn_id="1"), Listen(turn(turn_id="1"))),
            step(TurnEnd(turn_id="2"), Abandon(turn(end=EMPTY, turn_id="2"))),
        ),
    ),
    (
        "C",
        "another connection",
        (
            step(TurnStart(request_id="a"), Listen(turn(request_id="a"))),
            step(TurnUpdate(transcript="go", request_id="b"), Hear(turn("go", request_id="b"), "go")),
        ),
    ),
    ("D", "the first turn is 0", (step(TurnStart(), Listen(turn(n=0))),)),
    ("D", "the first turn is 2", (step(TurnStart(), Listen(turn(n=2))),)),
    ("D", "a turn's number again", (START, step(TurnEnd(), Abandon(turn(end=EMPTY))), START)),
    ("D", "the first thought is 2", (START, GO, step(EAGER[0], Think(turn("go", 2), 2, True)))),
    (
        "D",
        "a thought's number again",
        (*AHEAD, step(ContextChanged(), cancel(turn("go", 1)), Think(turn("go", 1), 1, True))),
    ),
    ("D", "thoughts from the start", (step(TurnStart(), Listen(turn(thoughts=1))),)),
    ("D", "thoughts out of step", (*AHEAD, step(Tick(), Stall(turn("go", 0))))),
    (
        "D",
        "ended before it began",
        (
            step(TurnStart(), Listen(turn(at=2.0))),
            step(TurnEnd(), Abandon(turn(end=EMPTY, at=2.0, ended=1.0))),
        ),
    ),
    (
        "D",
        "begun before the last one ended",
        (
            step(TurnStart(), Listen(turn(at=1.0))),
            step(TurnEnd(), Abandon(turn(end=EMPTY, at=1.0, ended=2.0))),
            step(TurnStart(), Listen(turn(n=2, at=1.5))),
        ),
    ),
    (
        "D",
        "begun at another time",
        (step(TurnStart(), Listen(turn(at=1.0))), step(Tick(), Stall(turn(at=2.0)))),
    ),
    ("E", "a thought on blank text", (START, step(TurnEagerEnd(), Think(turn("", 1), 1, True)))),
    ("E", "a reply to blank text", (START, step(TurnEnd(), Respond(turn(end=SERVER), 1)))),
    ("E", "heard stripped", (START, step(TurnUpdate(transcript="go "), Hear(turn("go"), "go")))),
    ("E", "a blank heard", (START, GO, step(TurnUpdate(transcript=" "), Hear(turn(" "), None)))),
    ("E", "answered stripped", (START, update("go ", "go "), AFRESH)),
    ("E", "joined", (START, GO, step(TurnUpdate(transcript="go"), Hear(turn("gogo"), "go")))),
    ("E", "a revision back is not taken", (START, update("go on", "go on"), step(TurnUpdate(transcript="go")))),
    (
        "E",
        "words forgotten at the end",
        (START, GO, step(Disconnected(), Abandon(turn("", end=LOST)))),
    ),
    ("F", "not only the delta", (START, GO, update("go on", "go on"))),
    ("F", "a delta of a revision", (START, GO, update("stop", "stop"))),
    ("F", "no delta of what only grew", (START, GO, update("go on", None))),
    ("F", "no change", (START, GO, update("go", ""))),
    ("F", "text with no Hear, at once", (step(TurnUpdate(transcript="go"), Listen(turn("go"))),)),
    (
        "F",
        "a Hear before its Cancel",
        (*AHEAD, step(TurnUpdate(transcript="stop"), Hear(turn("stop", 1), None), cancel(turn("stop", 1)))),
    ),
    ("H", "interrupted twice", (*ANSWERED, step(StopReply(), Interrupt(1)), step(StopReply(), Interrupt(1)))),
    ("H", "interrupted after it was heard", (*ANSWERED, step(ReplyDone(number=1)), SECOND)),
    ("H", "interrupted after the one in flight was heard", (*ANSWERED, step(ReplyDone()), SECOND)),
    ("H", "no reply at all", (step(StopReply(), Interrupt(0)),)),
    ("H", "another's", (*ANSWERED, step(StopReply(), Interrupt(2)))),
    (
        "H",
        "two replies at once",
        (
            *ANSWERED,
            step(TurnStart(), Listen(turn(n=2))),
            SECOND_GO,
            step(EndNow(), Think(turn("go", 1, n=2), 1, False), Respond(turn("go", 1, EndReason.FORCED, n=2), 1)),
        ),
    ),
    ("I", "never heard", (START, step(TurnUpdate(transcript="go")))),
    ("I", "after the end, in silence", (*ANSWERED, step(TurnUpdate(transcript="go on")))),
    (
        "I",
        "reported, but not as late",
        (step(TurnEnd(transcript="go"), report(ReportKind.MISSED_START, TurnEnd(transcript="go"))),),
    ),
    ("I", "another's words reported", (START, step(GO[0], report(ReportKind.LATE, TurnUpdate(transcript="x"))))),
    (
        "I",
        "lost between two turns",
        (START, GO, step(TurnUpdate(transcript="stop"), Abandon(turn("go", end=EndReason.SUPERSEDED)))),
    ),
    (
        "I",
        "its words are the last turn's, the open one has none",
        (START, GO, step(GO[0], Abandon(turn("go", end=EndReason.SUPERSEDED)), Listen(turn(n=2)))),
    ),
    (
        "I",
        "revised by another turn's",
        (
            step(TurnStart(turn_id="1"), Listen(turn(turn_id="1"))),
            step(TurnUpdate(transcript="go", turn_id="1"), Hear(turn("go", turn_id="1"), "go")),
            step(TurnUpdate(transcript="stop", turn_id="2"), Hear(turn("stop", turn_id="1"), None)),
        ),
    ),
    (
        "I",
        "revised by another connection's",
        (
            step(TurnStart(request_id="a"), Listen(turn(request_id="a"))),
            step(TurnUpdate(transcript="go", request_id="b"), Hear(turn("go", request_id="a"), "go")),
        ),
    ),
]


@pytest.mark.parametrize("name", KEPT)
def test_a_trace_that_keeps_the_laws_is_let_through(name: str) -> None:
    check(KEPT[name])


@pytest.mark.parametrize(
    ("law", "trace"), [pytest.param(law, trace, id=f"{law}: {name}") for law, name, trace in BROKEN]
)
def test_a_trace_that_breaks_a_law_is_caught_with_its_letter_at_its_last_step(
    law: str, trace: tuple[Step, ...]
) -> None:
    check(trace[:-1])
    with pytest.raises(AssertionError, match=rf"^law {law}: "):
        check(trace)


def test_each_law_that_a_trace_can_break_is_broken_above() -> None:
    assert {law for law, _, _ in BROKEN} == set("ABCDEFHI")


def test_a_report_breaks_law_j_only_of_lawful_traffic() -> None:
    trace = [step(TurnResume(), report(ReportKind.STRAY_RESUME, TurnResume()))]
    check(trace)
    with pytest.raises(AssertionError, match=r"^law J: "):
        check(trace, lawful=True)


def test_check_shows_the_shortest_prefix_a_line_a_step() -> None:
    trace = [START, GO, ADOPTED, SECOND]
    with pytest.raises(AssertionError) as broken:
        check(trace)
    law, *lines = str(broken.value).splitlines()
    assert law.startswith("law D: ")
    assert lines == [
        "   1  TurnStart()",
        "        -> Listen(turn=Turn(number=1))",
        "   2  TurnUpdate(transcript='go')",
        "        -> Hear(turn=Turn(number=1, transcript='go'), delta='go')",
        "   3  TurnEnd(transcript='go')",
        "        -> Respond(turn=Turn(number=1, transcript='go', end=SERVER, latest_thought=1), thought=1)",
    ]


def test_check_shows_the_end_of_a_long_prefix() -> None:
    with pytest.raises(AssertionError) as broken:
        check([*[step(Tick())] * 100, ADOPTED])
    _, first, *lines = str(broken.value).splitlines()
    assert (first.strip(), len(lines)) == (f"… {101 - SHOWN_STEPS} steps before", SHOWN_STEPS + 1)


class Whisper(Action, frozen=True):
    """An action that no oracle knows."""


def test_an_action_of_a_later_version_breaks_nothing() -> None:
    check([START, step(Tick(), Whisper()), GO, AFRESH])


def test_a_value_is_shown_by_what_it_says() -> None:
    assert shown(TurnUpdate(transcript="go", turn_id="1")) == "TurnUpdate(transcript='go', turn_id='1')"


def test_an_oracle_remembers_nothing_of_what_is_settled() -> None:
    once, often = Oracle(), Oracle()
    for n in range(1, 100):
        for oracle in (once, often) if n == 1 else (often,):
            oracle.step(TurnStart(), [Listen(turn(n=n))])
            oracle.step(TurnEnd(), [Abandon(turn(n=n, end=EMPTY))])
    once.number = often.number
    assert once == often
    assert once.key() == often.key()


def test_a_copy_is_another_oracle() -> None:
    oracle = Oracle()
    oracle.step(*START)
    second = copy(oracle)
    assert second == oracle
    second.step(*GO)
    assert second != oracle
    assert second.key() != oracle.key()


def test_keys_hold_ages_where_a_time_is_given() -> None:
    early, late = Oracle(), Oracle()
    early.step(TurnStart(), [Listen(turn(at=1.0))])
    late.step(TurnStart(), [Listen(turn(at=101.0))])
    assert early.key(2.0) == late.key(102.0)
    assert early.key() != late.key()


def judged(policy: Policy | None, *steps: Step) -> None:
    judge = Oracle(policy=policy)
    for event, actions in steps:
        judge.step(event, actions)


OVER_A_REPLY = (*ANSWERED, step(ReplyStarted(1)), step(TurnStart(), Listen(turn(n=2))), SECOND_GO)


def test_a_reply_that_the_policy_stops_must_not_go_on() -> None:
    """Law K, which is judged where the policy is known."""
    with pytest.raises(AssertionError, match=r"law K: the reply to turn 1 goes on over turn 2"):
        judged(Policy(interrupts=always), *OVER_A_REPLY)
    judged(Policy(interrupts=never), *OVER_A_REPLY)
    judged(None, *OVER_A_REPLY)


FORCED = (START, GO, step(EndNow(), Think(turn("go", 1), 1, False), Respond(turn("go", 1, EndReason.FORCED), 1)))


@pytest.mark.parametrize("echo", ["go", "Go.", "g", " "])
def test_an_echo_of_a_turn_that_the_application_closed_is_not_lost(echo: str) -> None:
    judged(None, *FORCED, step(TurnEnd(transcript=echo)))


def test_an_end_of_an_earlier_connection_does_not_pay_for_the_owed_one() -> None:
    """Its turns have the same ids: the server's own rest of the closed turn is still to come."""
    foreign = TurnEnd(transcript="no", request_id="before")
    judged(None, *FORCED, step(foreign, report(ReportKind.FOREIGN, foreign)), step(TurnEnd(transcript="Go.")))


def test_more_words_than_an_echo_are_lost() -> None:
    with pytest.raises(AssertionError, match="law I"):
        judged(None, *FORCED, step(TurnEnd(transcript="go on")))


def test_each_law_has_its_sentence() -> None:
    assert "".join(LAWS) == "ABCDEFGHIJK"
    text = " ".join(f"{oracles.__doc__}".split())
    assert all(f"{letter}. {sentence}" in text and sentence.endswith(".") for letter, sentence in LAWS.items())
