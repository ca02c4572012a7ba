"""What went wrong in released systems, and does not here: one test for each failure that a machine or its hooks can
decide, by the number of the failure, each with the order of events that brought it about."""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

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
    Stall,
    Think,
    Turn,
)
from inkturns.errors import DecodeError
from inkturns.events import (
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ThoughtFailed,
    Tick,
    TurnStart,
    Unknown,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text
from inkturns.settings import TurnSettings
from inkturns.turns import Turns
from inkturns.wire import decode
from tests.turn_events import eager, end, resume, start, update

A = TypeVar("A", bound=Action)


def feed(machine: TurnMachine, *events: Event | tuple[Event, float]) -> list[Action]:
    """All that came of these events, in order."""
    return [a for e in events for a in (machine.receive(*e) if isinstance(e, tuple) else machine.receive(e))]


def run(*events: Event | tuple[Event, float], **policy: Any) -> list[Action]:
    return feed(TurnMachine(Policy(**policy)), *events)


def of(kind: type[A], actions: Iterable[Action]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def kinds(actions: Iterable[Action]) -> list[ReportKind]:
    return [report.kind for report in of(Report, actions)]


def answers(actions: Iterable[Action]) -> list[tuple[int, str]]:
    return [(respond.turn.number, respond.turn.transcript) for respond in of(Respond, actions)]


def cancelled(actions: Iterable[Action]) -> list[tuple[int, int, CancelReason]]:
    return [(cancel.turn.number, cancel.thought, cancel.reason) for cancel in of(Cancel, actions)]


def live(actions: Iterable[Action]) -> set[tuple[int, int]]:
    """The thoughts that nothing has settled."""
    begun = {(a.turn.number, a.thought) for a in of(Think, actions)}
    return begun - {(a.turn.number, a.thought) for a in actions if isinstance(a, Cancel | Respond)}


def test_f01_a_second_eager_end_first_cancels_the_thought_of_the_first() -> None:
    actions = run(start(), eager("hello"), eager("hello world"), end("hello world"))
    assert [type(a) for a in actions] == [Listen, Hear, Think, Cancel, Hear, Think, Respond]
    assert cancelled(actions) == [(1, 1, CancelReason.SUPERSEDED)]
    [respond] = of(Respond, actions)
    assert (respond.thought, respond.turn.transcript) == (2, "hello world")


def test_f03_a_thought_that_failed_is_not_committed_and_the_end_thinks_afresh() -> None:
    actions = run(start(), eager("hello"), ThoughtFailed(1, 1), end("hello"))
    assert cancelled(actions) == [(1, 1, CancelReason.FAILED)]
    *_, think, respond = actions
    assert isinstance(think, Think)
    assert isinstance(respond, Respond)
    assert not think.speculative
    assert think.thought == respond.thought == 2


def test_f04_an_end_without_a_start_is_a_whole_turn_and_leaks_nothing_into_the_next() -> None:
    actions = run(end("hello", "1"), start("2"), update("you", "2"), end("you there", "2"))
    assert kinds(actions) == [ReportKind.MISSED_START]
    assert answers(actions) == [(1, "hello"), (2, "you there")]
    assert [hear.turn.transcript for hear in of(Hear, actions)] == ["hello", "you", "you there"]


def test_f05_a_second_start_closes_the_open_turn_and_hands_over_its_words() -> None:
    actions = run(start(), update("hello"), start(), update("you"), end("you"))
    assert kinds(actions) == [ReportKind.MISSED_END]
    [abandon] = of(Abandon, actions)
    assert (abandon.turn.number, abandon.turn.transcript, abandon.turn.end) == (1, "hello", EndReason.SUPERSEDED)
    assert answers(actions) == [(2, "you")]


@pytest.mark.parametrize("turn_id", [None, "1"])
def test_f06_the_same_end_twice_answers_once(turn_id: str | None) -> None:
    actions = run(start(turn_id), end("hello", turn_id), end("hello", turn_id))
    assert answers(actions) == [(1, "hello")]
    assert len(of(Listen, actions)) == 1
    assert kinds(actions) == [ReportKind.LATE]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_f07_blank_text_starts_no_thought_and_no_reply(blank: str) -> None:
    actions = run(start(), eager(blank), ContextChanged(), end(blank), eager(blank), end(blank))
    assert not of(Think, actions)
    assert not of(Respond, actions)
    assert [abandon.turn.end for abandon in of(Abandon, actions)] == [EndReason.EMPTY]
    for way in (EndNow(), Disconnected(), (Tick(), 10.0)):
        actions = run((start(), 0.0), eager(blank), way, after_disconnect="respond", after_stall="end", stall_timeout=6)
        assert [type(a) for a in actions if not isinstance(a, Stall)] == [Listen, Abandon]


def test_f08_there_is_one_deadline_and_it_does_not_outlive_its_turn() -> None:
    machine = TurnMachine(Policy(stall_timeout=6))
    seen = []
    for now, event in enumerate((start(), eager("a"), eager("a b"), eager("a b c"))):
        machine.receive(event, now)
        seen.append(machine.deadline)
    assert seen == [6, 7, 8, 9]
    machine.receive(end("a b c"), 4)
    assert machine.deadline is None
    assert not of(Stall, feed(machine, (Tick(), 9), (start(), 10), (Tick(), 15)))
    assert machine.deadline == 16


def test_f09_an_event_is_known_by_its_type_alone() -> None:
    class TurnEndLookalike:  # what an SDK makes of a type it does not know: an object of some class that it does
        type = "turn.sigh"
        transcript = "hello"
        turn_id = request_id = None

    turns = Turns()
    heard: list[Report] = []
    turns.on_report(heard.append)
    turns.on_end(lambda turn: pytest.fail("not a turn's end"))
    turns.feed(TurnStart())
    turns.feed(TurnEndLookalike())
    assert [report.kind for report in heard] == [ReportKind.UNKNOWN_TYPE]
    assert isinstance(heard[0].event, Unknown)
    assert heard[0].event.kind == "turn.sigh"
    assert turns.machine.turn == Turn(1)


@pytest.mark.parametrize(
    "frame",
    [
        *("{}", '{"transcript": "hello"}', "[]", '[{"type": "turn.end"}]', "null", "1", "", "turn.end", '{"type":'),
        *('{"type": 1}', '{"type": "turn.end", "transcript": 1}', '{"type": "turn.start", "request_id": []}'),
        *(b"", b"\x00\x01", None, 1, ..., [], {}, {"type": None}),
    ],
    ids=repr,
)
def test_f10_a_bad_frame_is_reported_and_changes_nothing(frame: object) -> None:
    turns = Turns()
    heard: list[ReportKind] = []
    turns.on_report(lambda report: heard.append(report.kind))
    turns.feed(start())
    before = turns.machine.snapshot()
    turns.feed(frame)
    assert heard == [ReportKind.BAD_FRAME]
    assert turns.machine.snapshot() == before
    assert answers(turns.feed(end("hello"))) == [(1, "hello")]


def test_f10_a_frame_without_a_transcript_is_one_with_no_text() -> None:
    turns = Turns()
    for frame in ('{"type":"turn.start"}', '{"type":"turn.update"}', '{"type":"turn.update","transcript":null}'):
        assert not kinds(turns.feed(frame))
    assert answers(turns.feed('{"type":"turn.end","transcript":"hello"}')) == [(1, "hello")]


@pytest.mark.parametrize("audio", [b"\x80\x81", b"\xff\xfe\x00", bytes(range(256)), b'{"type":"turn.end\xff"}'])
def test_f11_bytes_that_are_no_text_are_a_bad_frame(audio: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(audio)
    assert kinds(Turns().feed(audio)) == [ReportKind.BAD_FRAME]


def test_f12_no_watchdog_by_default_and_none_that_would_beat_a_slow_ending() -> None:
    actions = run((start(), 0.0), (eager("hello"), 1.0), (Tick(), 6.0), (Tick(), 6.5), (end("hello"), 6.6))
    assert [type(a) for a in actions] == [Listen, Hear, Think, Respond]
    for timeout in (5.0, 5.6):
        with pytest.raises(ValueError, match="stall_timeout"):
            Policy(stall_timeout=timeout).check(TurnSettings(end_timeout_ms=5600))
    Policy(stall_timeout=5.7).check(TurnSettings(end_timeout_ms=5600))
    Policy().check(TurnSettings(end_timeout_ms=5600))


def test_f13_a_turn_whose_text_stands_still_stalls_however_chatty_the_socket() -> None:
    chatter: list[Event] = [update(""), update(" "), update("hello"), Connected(), Unknown(kind="ping", fields={})]
    policy = {"stall_timeout": 6, "after_stall": AfterStall.END}
    machine = TurnMachine(Policy(**policy))  # type: ignore[arg-type]
    feed(machine, (Connected(request_id="a"), 0.0), (start(), 0.0), (update("hello"), 1.0))
    chatter[3] = Connected(request_id="a")
    for now in range(2, 7):
        assert not of(Respond, feed(machine, *((event, float(now)) for event in chatter)))
        assert machine.deadline == 7
    assert answers(feed(machine, (Tick(), 7.0))) == [(1, "hello")]


@pytest.mark.parametrize("late", ["hello", "hel", ""])
def test_f14_a_watchdog_that_closes_a_turn_settles_its_thought_and_makes_no_second_turn(late: str) -> None:
    actions = run(
        *((start("1"), 0.0), (eager("hello", "1"), 1.0), (Tick(), 7.0), (end(late, "1"), 8.0)),
        stall_timeout=6,
        after_stall=AfterStall.END,
    )
    assert not live(actions)
    assert answers(actions) == [(1, "hello")]
    assert len(of(Listen, actions)) == 1


def test_f15_nothing_eager_survives_into_the_next_turn() -> None:
    actions = run(start("1"), eager("hello", "1"), start("2"), end("hello", "2"))
    assert cancelled(actions) == [(1, 1, CancelReason.SUPERSEDED)]
    *_, think, respond = actions
    assert isinstance(think, Think)
    assert isinstance(respond, Respond)
    assert (think.turn.number, think.thought, think.speculative) == (2, 1, False)
    assert (respond.turn.number, respond.thought) == (2, 1)


def test_f16_no_way_out_of_a_turn_leaves_a_live_thought() -> None:
    ways: list[tuple[Event | tuple[Event, float], dict[str, Any]]] = [
        *((end(text, "1"), {}) for text in ("hello", "hello you", "", "Hello.")),
        *((event, {}) for event in (start("2"), update("you", "2"), eager("you", "2"), end("you", "2"), end("", "2"))),
        *(
            (event, {"after_disconnect": how})
            for how in AfterDisconnect
            for event in (Disconnected(), Connected(request_id="b"))
        ),
        (TurnStart(request_id="b"), {}),
        (EndNow(), {}),
        ((Tick(), 10.0), {"stall_timeout": 6, "after_stall": AfterStall.END}),
    ]
    for way, policy in ways:
        actions = run((TurnStart(turn_id="1", request_id="a"), 0.0), eager("hello", "1"), way, **policy)
        assert of(Think, actions)[0].thought == 1
        assert not {thought for thought in live(actions) if thought[0] == 1}, way
    actions = run(start(), ReplyStarted(0), update("hello"), end("hello"), interrupts=min_words(2))
    assert not live(actions)


def test_f17_after_any_storm_the_next_whole_turn_is_answered() -> None:
    storm = [
        *(
            start(),
            end("a"),
            end("a"),
            end("a b"),
            start(),
            start(),
            resume(),
            eager(""),
            eager("x"),
            end("y"),
            end("y"),
        ),
        *(update("z"), update("z", "7"), end("z", "7"), end("z", "7"), EndNow(), EndNow(), Disconnected()),
        *(ReplyStarted(3), ReplyDone(1), Connected(request_id="a"), Connected(request_id="a"), ThoughtFailed(1, 1)),
    ]
    for cut in range(len(storm) + 1):
        machine = TurnMachine(Policy())
        feed(machine, *storm[:cut])
        actions = feed(machine, start("9"), eager("whole", "9"), resume("9"), end("whole turn", "9"))
        assert [text for _, text in answers(actions)] == ["whole turn"], cut


def test_f19_while_a_reply_is_in_flight_nothing_is_thought_ahead() -> None:
    machine = TurnMachine(Policy(interrupts=min_words(3)))
    actions = feed(machine, start(), end("book it"), ReplyStarted(1), start(), eager("and tell"))
    assert not [think for think in of(Think, actions) if think.turn.number == 2]
    assert [think.speculative for think in of(Think, feed(machine, ReplyDone(1), end("and tell")))] == [True]
    assert of(Think, run(start(), end("book it"), ReplyDone(1), start(), eager("and tell")))[-1].speculative


def test_f20_a_changed_context_withdraws_the_thought_and_the_waste_is_seen() -> None:
    actions = run(start(), eager("hello"), ContextChanged(), end("hello"))
    assert cancelled(actions) == [(1, 1, CancelReason.CONTEXT_CHANGED)]
    [respond] = of(Respond, actions)
    assert respond.thought == 2
    assert respond.turn.latest_thought == 2  # both were paid for
    actions = run(start(), eager("hello"), resume(), ContextChanged(), end("hello"), after_resume=AfterResume.KEEP)
    assert cancelled(actions) == [(1, 1, CancelReason.CONTEXT_CHANGED)]
    assert of(Respond, actions)[0].thought == 2


@pytest.mark.parametrize("final", ["Hello, you.", "hello  you", "HELLO YOU!", "hello you"])
def test_f21_a_comma_does_not_throw_the_thought_away(final: str) -> None:
    actions = run(start(), eager("hello you"), end(final))
    assert not cancelled(actions)
    [respond] = of(Respond, actions)
    assert (respond.thought, respond.turn.transcript) == (1, final)


def test_f21_match_is_the_users_to_replace() -> None:
    assert cancelled(run(start(), eager("hello you"), end("Hello, you."), match=same_text))
    assert not cancelled(run(start(), eager("hello you"), end("goodbye"), match=lambda eager, final: True))


@pytest.mark.parametrize("final", ["-5", "5", "का", "की"])
def test_f21_but_another_word_or_number_does(final: str) -> None:
    said = {"-5": "5", "5": "-5", "का": "की", "की": "का"}[final]
    assert cancelled(run(start(), eager(said), end(final))) == [(1, 1, CancelReason.MISMATCHED)]


def test_f22_each_end_commits_one_turn_with_its_final_text_whatever_was_thought_before() -> None:
    actions = run(start(), eager("a"), resume(), eager("a b"), eager("a b c"), end("a b c d"), start(), end("e"))
    assert answers(actions) == [(1, "a b c d"), (2, "e")]
    assert len(cancelled(actions)) == 3
    assert not live(actions)


def test_f26_a_transition_is_one_step_even_where_a_hook_feeds() -> None:
    """What a hook feeds waits until the actions that it was called for are all handed over."""
    turns = Turns()
    order: list[str] = []

    @turns.on_eager_end
    def think(turn: Turn) -> None:
        order.append("think")
        assert turns.feed(end("hello")) == ()
        order.append("fed")

    @turns.on_think
    def also(turn: Turn) -> None:
        order.append("also")
        assert turns.machine.turn is not None  # the end has not happened yet

    turns.on_end(lambda turn: order.append("end"))
    turns.feed(start())
    actions = turns.feed(eager("hello"))
    assert order == ["think", "fed", "also", "end"]
    assert [type(a) for a in actions] == [Hear, Think, Respond]


def test_f27_a_turn_in_its_eager_state_is_user_activity() -> None:
    """The reply that a turn interrupted stays so: no eager end, and no word of its own, brings it back."""
    machine = TurnMachine(Policy())
    actions = feed(machine, start(), end("hello"), ReplyStarted(1), start(), eager("wait"))
    assert [a.number for a in of(Interrupt, actions)] == [1]
    assert machine.turn is not None
    actions = feed(machine, ReplyStarted(1), ReplyDone(1), resume(), eager("wait"), end("wait"), start())
    assert [a.number for a in of(Interrupt, actions)] == [2]


def test_f29_the_end_is_one_event_with_its_text() -> None:
    actions = run(start(), update("hello"), end("hello you"))
    assert answers(actions) == [(1, "hello you")]
    *_, hear, think, respond = actions
    assert isinstance(hear, Hear)
    assert isinstance(think, Think)
    assert isinstance(respond, Respond)
    assert hear.turn.transcript == think.turn.transcript == respond.turn.transcript == "hello you"


@pytest.mark.parametrize("turn_id", [None, "1"])
def test_f30_late_text_is_reported_and_text_that_goes_on_opens_a_turn_that_says_so(turn_id: str | None) -> None:
    machine = TurnMachine(Policy())
    feed(machine, start(turn_id), end("hello", turn_id), ReplyDone())
    assert kinds(feed(machine, update("hell", turn_id), update("hello", turn_id))) == [ReportKind.LATE] * 2
    machine = TurnMachine(Policy())
    feed(machine, start(turn_id), update("hello", turn_id), EndNow(), ReplyDone())
    actions = feed(machine, update("hello you", turn_id), end("hello you there", turn_id))
    assert not kinds(actions)
    [respond] = of(Respond, actions)
    assert (respond.turn.number, respond.turn.continues, respond.turn.transcript) == (2, 1, "hello you there")


def test_f30_late_text_does_not_leak_into_the_open_turn() -> None:
    actions = run(start("1"), end("hello", "1"), start("2"), update("hello you", "1"), end("bye", "2"))
    assert kinds(actions) == [ReportKind.LATE]
    assert answers(actions) == [(1, "hello"), (2, "bye")]


def test_f31_one_answer_a_turn_and_never_none_after_a_cancelled_thought() -> None:
    """Two turns with as many thoughts as the policy allows, and more: a thought is told by its numbers."""
    eagers = list(map(eager, "abcde"))
    actions = run(start(), *eagers, end("f"), ReplyDone(), start(), *eagers, end("f"))
    assert answers(actions) == [(1, "f"), (2, "f")]
    thoughts = [(a.turn.number, a.thought) for a in of(Think, actions)]
    assert thoughts == [(turn, thought) for turn in (1, 2) for thought in (1, 2, 3, 4)]


def test_f32_what_reopens_the_turn_moves_its_deadline() -> None:
    machine = TurnMachine(Policy(stall_timeout=6, after_stall=AfterStall.END))
    feed(machine, (start(), 0.0), (eager("hello"), 1.0), (resume(), 6.9))
    assert machine.deadline == 12.9
    assert not feed(machine, (Tick(), 7.0), (Tick(), 12.8))
    assert machine.turn is not None


def test_f34_a_new_connection_closes_the_open_turn_and_an_update_with_no_turn_opens_one() -> None:
    a, b = (Connected(request_id=name) for name in "ab")
    actions = run(a, start("1"), update("hello", "1"), b, start("1"), end("you", "1"))
    assert [(abandon.turn.transcript, abandon.turn.end) for abandon in of(Abandon, actions)] == [
        ("hello", EndReason.LOST)
    ]
    assert answers(actions) == [(2, "you")]
    assert not kinds(actions)
    actions = run(a, start("1"), update("hello", "1"), b, update("you", "1"), end("you too", "1"))
    assert answers(actions) == [(2, "you too")]
    assert kinds(actions) == [ReportKind.MISSED_START]


def test_f35_answer_now_adopts_the_thought_or_thinks_afresh() -> None:
    actions = run(start(), eager("hello"), EndNow())
    assert [(a.thought, a.turn.end) for a in of(Respond, actions)] == [(1, EndReason.FORCED)]
    assert not cancelled(actions)
    actions = run(start(), eager("hello"), resume(), EndNow())
    assert [a.thought for a in of(Respond, actions)] == [2]
    actions = run(start(), update("hello"), EndNow())
    assert [a.thought for a in of(Respond, actions)] == [1]


def test_f35_a_fast_end_is_answered() -> None:
    actions = run((start(), 1.0), (eager("hello"), 1.0), (end("hello"), 1.0))
    assert answers(actions) == [(1, "hello")]


def test_f36_few_words_are_kept_back_only_while_a_reply_is_audible() -> None:
    guard = {"interrupts": min_words(3)}
    said: list[Event] = [start(), update("oh"), end("oh")]
    before: list[tuple[list[Event], list[tuple[int, str]]]] = [
        ([], [(1, "oh")]),
        ([start(), end("hello")], [(1, "hello"), (2, "oh")]),  # while the model runs
        ([start(), end("hello"), ReplyStarted(1)], [(1, "hello")]),
        ([start(), end("hello"), ReplyStarted(1), ReplyDone(1)], [(1, "hello"), (2, "oh")]),
    ]
    for given, answered in before:
        assert answers(run(*given, *said, **guard)) == answered
    done_within = run(start(), end("hello"), ReplyStarted(1), start(), update("oh"), ReplyDone(1), end("oh"), **guard)
    assert answers(done_within) == [(1, "hello"), (2, "oh")]


def test_f37_what_one_turn_withdrew_does_not_withdraw_from_the_next() -> None:
    spoils: list[list[Event]] = [
        [eager("a"), resume()],
        [eager("a"), ThoughtFailed(1, 1)],
        [eager("a"), ContextChanged()],
        [eager("a"), update("b")],
        [eager("a"), eager("b"), eager("c"), eager("d")],
    ]
    for spoil in spoils:
        for leave in ([end("x")], [Disconnected()], [end("x"), ReplyStarted(1)]):
            actions = run(start(), *spoil, *leave, ReplyDone(), start(), eager("next"), end("next"))
            [respond] = [a for a in of(Respond, actions) if a.turn.number == 2]
            assert respond.thought == 1
            assert [a.speculative for a in of(Think, actions) if a.turn.number == 2] == [True]
    actions = run(ReplyStarted(0), start(), end("oh"), ReplyDone(), start(), end("oh"), interrupts=min_words(2))
    assert answers(actions) == [(2, "oh")]


def test_f38_a_number_is_never_used_again() -> None:
    machine = TurnMachine(Policy())
    events = [
        *(start(), end("a"), start(), end(""), start(), update("b"), Disconnected(), Connected(request_id="b")),
        *(start("1"), start("2"), EndNow(), end("c"), update("d"), update("e", "3"), TurnStart(request_id="c")),
    ]
    numbers = [listen.turn.number for listen in of(Listen, feed(machine, *events))]
    again = TurnMachine.restore(json.loads(json.dumps(machine.snapshot())), Policy())
    numbers += [listen.turn.number for listen in of(Listen, feed(again, end("f"), start()))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 8


def test_f39_a_thought_is_given_its_text_and_the_same_eager_end_again_does_nothing() -> None:
    machine = TurnMachine(Policy())
    actions = feed(machine, start(), end("before"), ReplyDone(), start(), eager("now"))
    assert of(Think, actions)[-1].turn.transcript == "now"
    assert feed(machine, eager("now"), eager("now")) == []


def test_f40_respond_is_asked_once_a_turn() -> None:
    turns = Turns()
    ended: list[int] = []
    turns.on_end(lambda turn: ended.append(turn.number))
    for event in (start("1"), eager("a", "1"), end("a", "1"), end("a", "1"), EndNow(), end("a."), end("a", "1")):
        turns.feed(event)
    turns.feed(Disconnected())
    assert ended == [1, 2]  # "a.", which has no id, is another's


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: Policy(max_thougths=2), TypeError, "max_thougths"),  # type: ignore[call-arg]
        (lambda: Policy(after_resume="hold"), ValueError, "hold"),  # type: ignore[arg-type]
        (lambda: Policy(max_thoughts="2"), TypeError, "max_thoughts"),  # type: ignore[arg-type]
        (lambda: Policy(max_thoughts=-1), ValueError, "max_thoughts"),
        (lambda: Policy(think_after="1.5"), TypeError, "think_after"),  # type: ignore[arg-type]
        (lambda: Policy(stall_timeout="6"), TypeError, "stall_timeout"),  # type: ignore[arg-type]
        (lambda: Policy(stall_timeout=float("nan")), ValueError, "stall_timeout"),
        (lambda: Policy(match="same_text"), TypeError, "match"),  # type: ignore[arg-type]
        (lambda: Policy(interrupts=3), TypeError, "interrupts"),  # type: ignore[arg-type]
        (lambda: Policy(speculate=1), TypeError, "speculate"),  # type: ignore[arg-type]
        (lambda: TurnSettings(end_timeout=5600), TypeError, "end_timeout"),  # type: ignore[call-arg]
        (lambda: TurnSettings(end_timeout_ms=1), ValueError, "end_timeout_ms"),
        (lambda: ReplyDone("1"), TypeError, "number"),  # type: ignore[arg-type]
        (lambda: Turns(polcy=Policy()), TypeError, "polcy"),  # type: ignore[call-arg]
        (lambda: TurnMachine({"max_thoughts": 2}), TypeError, "policy"),  # type: ignore[arg-type]
    ],
)
def test_f41_options_are_checked_when_given_and_unknown_names_refused(
    make: Callable[[], object], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        make()


def test_f41_an_option_is_not_ignored() -> None:
    """Each changes what comes of one session."""
    session: list[Event | tuple[Event, float]] = [
        *((start(), 0.0), eager("a"), resume(), eager("a"), eager("A"), eager("a b"), (Tick(), 10.0), end("a b")),
        *(ReplyStarted(1), start(), update("oh"), Disconnected()),
    ]
    options: list[dict[str, Any]] = [
        *({"speculate": False}, {"after_resume": "keep"}, {"match": same_text}, {"max_thoughts": 1}),
        *(
            {"speculate": min_words(2)},
            {"interrupts": min_words(2)},
            {"stall_timeout": 6},
            {"after_disconnect": "respond"},
        ),
        {"stall_timeout": 6, "after_stall": "end"},
    ]
    outcomes = [str(run(*session, **option)) for option in ({}, *options)]
    assert len(set(outcomes)) == len(outcomes)


def test_f43_times_are_the_turns_own_and_never_run_backwards() -> None:
    actions = run(
        *((start(), 10.0), (update("a"), 9.0), (end("a"), 8.0), (start(), 12.0), (end("b"), 11.0)),
        *((start(), 13.5), (end("c"), 15.0)),
    )
    times = [(a.turn.started_at, a.turn.ended_at) for a in of(Respond, actions)]
    assert times == [(10.0, 10.0), (12.0, 12.0), (13.5, 15.0)]


def test_f45_text_is_replaced_whole_and_kept_to_the_letter() -> None:
    texts = [" so the", " so the circum", " so the circumflex ", " so the hat "]
    actions = run(start(), *map(update, texts[:3]), end(texts[3]))
    assert [a.turn.transcript for a in of(Hear, actions)] == texts
    assert [a.delta for a in of(Hear, actions)] == [" so the", " circum", "flex ", None]
    assert answers(actions) == [(1, texts[3])]


@pytest.mark.parametrize("turn_id", [None, "1"])
@pytest.mark.parametrize("rest", ["Book a table.", "book a table ", "BOOK A", "", " "])
def test_f47_the_servers_own_end_of_a_turn_that_was_forced_says_nothing(turn_id: str | None, rest: str) -> None:
    machine = TurnMachine(Policy())
    assert answers(feed(machine, start(turn_id), update("book a table", turn_id), EndNow())) == [(1, "book a table")]
    said = feed(machine, update(rest, turn_id), eager(rest, turn_id), resume(turn_id), end(rest, turn_id))
    assert said == []
    assert machine.reply == 1


@pytest.mark.parametrize("turn_id", [None, "1"])
def test_f47_a_turn_that_stalled_is_closed_as_well(turn_id: str | None) -> None:
    machine = TurnMachine(Policy(stall_timeout=6, after_stall=AfterStall.END))
    feed(machine, (start(turn_id), 0.0), (update("book a table", turn_id), 1.0), (Tick(), 7.0))
    assert machine.turn is None
    assert feed(machine, (end("Book a table.", turn_id), 8.0)) == []


@pytest.mark.parametrize("turn_id", [None, "1"])
def test_f47_more_words_are_answered_still(turn_id: str | None) -> None:
    actions = run(start(turn_id), update("book a table", turn_id), EndNow(), end("Book a table for two.", turn_id))
    assert answers(actions) == [(1, "book a table"), (2, "Book a table for two.")]
    assert [turn.turn.continues for turn in of(Listen, actions)] == [None, 1]
    assert kinds(actions) == []


def test_f48_speech_that_begins_in_an_open_turn_is_stopped_by_its_next_words() -> None:
    machine = TurnMachine(Policy())
    feed(machine, start(), update("well"), ReplyStarted(0))
    assert of(Interrupt, feed(machine, update("well I"))) == [Interrupt(0)]
    machine = TurnMachine(Policy())
    feed(machine, start(), eager("well"), ReplyStarted(0))
    assert of(Interrupt, feed(machine, resume())) == [Interrupt(0)]
    machine = TurnMachine(Policy(interrupts=min_words(3)))  # unless the policy lets it go on
    assert of(Interrupt, feed(machine, start(), update("well"), ReplyStarted(0), update("well I"))) == []
    assert answers(feed(machine, end("well I"))) == [(1, "well I")]  # and it is the answer to the speech
