"""Whole LiveKit agents, unguarded and guarded: what the package does wrong, and that the guard's user hears one right
answer. The numbers are those of the README. What cannot be mended from there has a test that shows it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import APIConnectionError

from inkturns import AfterDisconnect, Policy, Recorder, Turns, min_words
from inkturns.actions import Turn
from inkturns.adapters.livekit import LiveKit
from inkturns.policy import AfterStall
from inkturns.replay import replay
from inkturns.report import turns_of
from inkturns.testing.emulator import Script, pause, say, trouble
from inkturns.testing.emulator.conversations import conversation, troubled_conversation

from .livekit_agents import Ear, Node, Said, Seen, by, called, called_by_ink, called_over_a_socket, unguarded
from .test_livekit import END, FINAL, INTERIM, PREFLIGHT, START, by_flux, flux, speech, wire
from .test_livekit_defects import defect_of

LATEST = ("livekit-agents", "1.8.9")


def turn(text: str, *, eager: bool = True, after: float = 0.1) -> Said:
    words: Said = [(after, speech(START)), (0.1, speech(INTERIM, text))]
    return [
        *words,
        *([(0.1, speech(PREFLIGHT, text))] if eager else []),
        (0.2, speech(FINAL, text)),
        (0.0, speech(END)),
    ]


def guard(policy: Policy | None = None, **options: Any) -> tuple[Turns, Callable[..., Any]]:
    turns = Turns(policy or Policy(), source=LiveKit(), **options)
    return turns, by(turns)


# -- what comes over the wire


def test_f10_a_node_that_fails_is_opened_again() -> None:
    """The unguarded agent is deaf from then on, and says nothing."""
    said: list[Said] = [[*turn("book a table")[:2], (0.1, KeyError("transcript"))], turn("hello")]
    with defect_of(*LATEST):
        seen = called(*[part[:] for part in said])
        assert seen.answers == []
    turns, node = guard()
    lost: list[str] = []
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = called(*said, node=node)
    assert lost == ["book a table"]
    assert seen.answers == ["You say: hello"]
    assert seen.questions == ["hello"]
    assert seen.left == []


def test_f15_what_was_generated_in_one_turn_is_not_adopted_by_the_next() -> None:
    """The first turn's end is missed. LiveKit keeps what it generated, and answers the next turn with it."""
    said = [*turn("book a table")[:3], *turn("book a table", eager=False, after=2.0)]
    with defect_of(*LATEST):
        seen = called(said[:])
        assert seen.asked == [(0.3, "book a table")]  # two seconds before it was answered
        assert len(seen.answers) == 1
    _, node = guard()
    seen = called(said, node=node)
    assert seen.answers == ["You say: book a table"]
    assert seen.asked == [(0.3, "book a table"), (2.6, "book a table")]


def test_f15_a_turn_that_ends_without_a_final_text_is_answered() -> None:
    """LiveKit says nothing to it, and keeps what it generated for the next."""
    said: Said = [*turn("book a table")[:3], (0.2, speech(END)), *turn("book a table", eager=False, after=4.0)]
    with defect_of(*LATEST):
        seen = called(said[:])
        assert len(seen.answers) == 1
        assert seen.asked == [(0.3, "book a table")]
    _, node = guard()
    assert len(called(said, node=node, seconds=12.0).answers) == 2


def test_f21_a_full_stop_does_not_begin_the_generation_anew() -> None:
    said: Said = [*turn("book a table")[:3], (0.1, speech(PREFLIGHT, "Book a table.")), *turn("Book a table.")[3:]]
    with defect_of(*LATEST):
        assert called(said[:]).questions == ["book a table", "Book a table."]
    _, node = guard()
    seen = called(said, node=node)
    assert seen.questions == ["book a table"]
    assert seen.answers == ["You say: book a table"]


@pytest.mark.parametrize("session", [True, False])
def test_f21_words_that_are_not_the_same_are_not_taken_for_the_same(session: bool) -> None:
    said: Said = [*turn("5 degrees")[:3], (0.2, speech(FINAL, "-5 degrees")), (0.0, speech(END))]
    with defect_of(*LATEST):
        assert called(said[:]).answers == ["You say: 5 degrees"]
    seen = called(said, node=by(Turns(), session=session))
    assert seen.answers == ["You say: -5 degrees"]


def test_f34_a_turn_that_its_connection_cut_is_handed_over() -> None:
    """Flux's plugin goes on as if nothing had happened; the words of the first turn vanish."""
    said: Said = [
        *((0.1, speech(START)), (0.1, speech(PREFLIGHT, "book a table", request_id="1"))),
        *((1.0, speech(INTERIM, "so", request_id="2")), (0.2, speech(FINAL, "so a table", request_id="2"))),
        (0.0, speech(END)),
    ]
    with defect_of(*LATEST):
        assert [words for _, who, words in called(said[:]).said if who == "user"] == ["so a table"]
    turns, node = guard()
    lost: list[str] = []
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = called(said, node=node)
    assert lost == ["book a table"]
    assert seen.answers == ["You say: so a table"]


def test_turns_that_come_while_livekit_takes_up_another_are_not_joined() -> None:
    """The guard ends the first turn, which the node does not, and waits a few steps. What the node says meanwhile comes
    in one step then."""
    said: Said = [(0.1, speech(START)), (0.0, speech(FINAL, "so"))]
    for text in ("one", "two"):
        said += [(0.0, event) for event in (speech(START), speech(PREFLIGHT, text), speech(FINAL, text), speech(END))]
    seen = called(said, node=guard()[1])
    assert [words for _, who, words in seen.said if who == "user"] == ["so", "one", "two"]


def test_turns_that_the_guard_ends_are_not_joined_to_the_next() -> None:
    """In one step: the end that the node forgot, or that the Policy gives to a turn whose connection was cut, and the
    next start; or an end, and a start that the node forgot. LiveKit joins what follows so close."""
    forgotten: Said = [*turn("one", eager=False)[:-1], *turn("two", eager=False)]
    with defect_of(*LATEST):
        assert called(forgotten[:]).questions == ["one two"]
    assert called(forgotten, node=guard()[1]).questions == ["one", "two"]
    lawful: Said = [*turn("one", eager=False), *turn("two", eager=False, after=0.0)]
    assert called(lawful, node=guard(Policy(stall_timeout=5.0))[1]).questions == ["one", "two"]
    missed: Said = [*turn("one", eager=False), *turn("two", eager=False)]
    missed[4:5] = [(0.0, speech(INTERIM, "two"))]  # for its start
    assert called(missed, node=guard(Policy(stall_timeout=1.0))[1]).questions == ["one", "two"]
    cut: Said = [
        *((0.1, speech(START)), (0.1, speech(INTERIM, "one", request_id="1"))),
        *((0.2, speech(FINAL, "two", request_id="2")), (0.0, speech(END))),
    ]
    answered = guard(Policy(after_disconnect=AfterDisconnect.RESPOND))[1]
    assert called(cut, node=answered).questions == ["one", "two"]


# -- the Policy's caps, counted at the model


def test_think_after_saves_the_call_of_a_pause() -> None:
    said = [*turn("book a")[:3], (0.1, speech(INTERIM, "book a table")), *turn("book a table")[2:]]
    said[4:4] = [(0.5, speech(INTERIM, "book a table"))]
    assert called(said[:]).questions == ["book a", "book a table"]
    _, node = guard(Policy(think_after=0.15))
    seen = called(said, node=node)
    assert seen.asked[0][1] == "book a table"
    assert seen.questions == ["book a table"]
    assert seen.answers == ["You say: book a table"]


def test_max_thoughts() -> None:
    said: Said = [*turn("a")[:3], *((0.2, speech(PREFLIGHT, text)) for text in ("a b", "a b c")), *turn("a b c")[3:]]
    assert called(said[:]).questions == ["a", "a b", "a b c"]
    _, node = guard(Policy(max_thoughts=1))
    seen = called(said, node=node)
    assert seen.questions == ["a", "a b c"]  # one ahead, and the end's own
    assert seen.answers == ["You say: a b c"]


def test_speculate_and_min_words() -> None:
    said = turn("go")
    _, node = guard(Policy(speculate=min_words(2)))
    assert called(said[:], node=node).asked == [(0.5, "go")]
    _, node = guard(Policy(speculate=False))
    assert called(turn("go on"), node=node).asked == [(0.5, "go on")]


def test_a_resume_without_new_words_cancels_the_generation_with_a_session() -> None:
    """Without one it is kept; and with new words LiveKit drops it itself."""
    said: Said = [*turn("go")[:3], (0.2, speech(INTERIM, "go")), (1.0, speech(FINAL, "go")), (0.0, speech(END))]
    assert called(said[:]).asked == [(0.3, "go")]
    assert called(said[:], node=by(Turns())).asked == [(0.3, "go"), (1.5, "go")]
    kept = called(said, node=by(Turns(), session=False))
    assert kept.asked == [(0.3, "go")]
    assert kept.answers == ["You say: go"]


# -- a new node while the last is still there


def in_mid_turn(node: Node, act: Callable[[Any], object]) -> Node:
    """The application does this to the agent, 0.6 s after its first node. LiveKit makes a second node, and then closes
    the first."""
    begun: list[object] = []

    def of(agent: Any, default: Any) -> Any:
        if not begun:
            asyncio.get_running_loop().call_later(0.6, act, agent)
        begun.append(default)
        return node(agent, default)

    return of


@pytest.mark.parametrize("policy", [Policy(), Policy(think_after=0.1)])
@pytest.mark.parametrize(("clears", "session"), [(True, True), (False, True), (False, False)])
def test_f15_a_turn_whose_node_is_replaced_is_lost_and_the_next_is_answered_with_its_own(
    clears: bool, session: bool, policy: Policy
) -> None:
    """By `clear_user_turn`, or by another recogniser. LiveKit keeps what it generated, and answers the next turn with
    it. After `clear_user_turn` only the session can drop that."""
    first, second = turn("book a table")[:3], turn("book a table", eager=False, after=2.0)

    def act(agent: Any) -> None:
        if clears:
            agent.session.clear_user_turn()
        else:
            agent.update_options(stt=Ear(second[:]))

    with defect_of(*LATEST):
        assert called(first[:], second[:], node=in_mid_turn(unguarded, act)).asked == [(0.3, "book a table")]
    turns, lost = Turns(policy), list[str]()
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = called(first[:], second[:], node=in_mid_turn(by(turns, session=session), act))
    assert lost == ["book a table"]
    assert seen.answers == ["You say: book a table"]
    assert [at for at, _ in seen.asked][1:] == [2.9]
    assert seen.left == []


# -- barge-ins and backchannels


def test_a_barge_in_stops_the_reply() -> None:
    said = [*turn("book a table"), *turn("no stop", after=0.7)]
    turns, node = guard()
    interrupted: list[int] = []
    turns.on_interrupt(interrupted.append)
    plain, seen = called(said[:]), called(said, node=node)
    assert seen.stopped == plain.stopped == [0.8]
    assert seen.asked == plain.asked
    assert interrupted == [1]
    assert seen.answers[-1] == "You say: no stop"


def test_f36_a_backchannel_does_not_stop_the_reply() -> None:
    """Unguarded, LiveKit stops at the first word."""
    said = [*turn("book a table"), *turn("Mhm.", after=0.7)]
    plain = called(said[:])
    assert plain.stopped == [0.8]
    turns, node = guard(Policy(interrupts=min_words(2, or_any=("stop",))))
    withheld: list[str] = []
    turns.on_abandon(lambda turn: withheld.append(turn.transcript))
    seen = called(said, node=node)
    assert seen.stopped == []
    assert seen.answers == ["You say: book a table"]
    assert seen.questions == ["book a table"]
    assert withheld == ["Mhm."]
    assert [words for _, words, _ in seen.heard if "Mhm" in words] == []


def test_words_that_the_policy_lets_interrupt_do() -> None:
    said = [*turn("book a table"), *turn("oh", after=0.7)[:2], (0.4, speech(INTERIM, "oh stop"))]
    said += [(0.2, speech(FINAL, "oh stop it")), (0.0, speech(END))]
    _, node = guard(Policy(interrupts=min_words(2)))
    seen = called(said, node=node)
    assert seen.stopped == [1.2]
    assert seen.answers[-1] == "You say: oh stop it"


def test_a_word_that_outlives_the_reply_is_answered() -> None:
    said = [*turn("book a table"), *turn("oh", after=1.8)[:2], (0.5, speech(FINAL, "oh")), (0.0, speech(END))]
    _, node = guard(Policy(interrupts=min_words(2)))
    seen = called(said, node=node)
    assert seen.stopped == []
    assert seen.answers == ["You say: book a table", "You say: oh"]
    assert (2.5, "oh", False) in seen.heard  # in the step in which the reply is over


# -- connections, closing, hooks


def test_a_reconnection_in_mid_turn() -> None:
    said: list[Said] = [[*turn("book a table")[:3], (0.1, APIConnectionError("cut", retryable=False))], turn("hello")]
    turns, node = guard()
    lost: list[str] = []
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = called(*said, node=node)
    assert lost == ["book a table"]
    assert seen.answers == ["You say: hello"]
    assert seen.questions == ["book a table", "hello"]
    assert seen.left == []


@pytest.mark.parametrize("policy", [Policy(), Policy(think_after=1.0), Policy(interrupts=min_words(2))])
def test_closing_in_mid_turn_ends_as_unguarded(policy: Policy) -> None:
    said = turn("book a table")[:3]
    plain = called(said[:], seconds=0.5)
    turns, node = guard(policy)
    lost: list[str] = []
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = called(said, node=node, seconds=0.5)
    assert seen.left == plain.left == []
    assert [one[1:] for one in seen.said] == [one[1:] for one in plain.said]
    assert [one[1:] for one in seen.states] == [one[1:] for one in plain.states]
    assert lost == ["book a table"]


def test_a_hook_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ValueError("mine")

    turns, node = guard()
    for on in (turns.on_start, turns.on_update, turns.on_think, turns.on_end, turns.on_interrupt):
        on(fail)
    said = [*turn("book a table"), *turn("no stop", after=0.7)]
    plain = called(said[:])
    seen = called(said, node=node)
    assert (seen.said, seen.states, seen.asked) == (plain.said, plain.states, plain.asked)
    assert "a hook raised" in caplog.text


def test_a_guarded_call_is_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "call.jsonl")
    _, node = guard(recorder=recorder)
    called([*turn("book a table"), *turn("no stop", after=0.7)], node=node)
    recorder.close()
    with (tmp_path / "call.jsonl").open("rb") as lines:
        inputs = list(replay(lines))
    assert [type(one.event).__name__ for one in inputs if type(one.event).__name__.startswith("Reply")] == [
        *("ReplyStarted", "ReplyDone", "ReplyStarted", "ReplyDone")
    ]
    with (tmp_path / "call.jsonl").open("rb") as lines:
        rows = turns_of(lines)
    assert [(row.answered, row.interrupted, len(row.thoughts)) for row in rows] == [(True, True, 1), (True, False, 1)]
    assert [round(row.head_start or 0.0, 3) for row in rows] == [0.2, 0.2]


def test_a_session_that_contradicts_the_policy_is_refused_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    _, node = guard()
    assert called(turn("go"), node=node, handling={"turn_detection": "stt"}).answers == []
    assert "guarded: the session contradicts the Policy: endpointing min_delay must be 0" in caplog.text


# -- what cannot be mended from there


def test_not_mended_abandoned_words_are_not_in_livekits_context() -> None:
    said = [*turn("book a table")[:3], *turn("hello", after=2.0)]
    _, node = guard()
    assert [words for _, who, words in called(said, node=node).said if who == "user"] == ["hello"]


def test_not_mended_livekit_generates_anew_where_its_context_changes_meanwhile() -> None:
    """The first words of a barge-in come with an eager end: LiveKit generates, and then writes down how much of its own
    reply was heard. With an interim before, it has written that down."""
    said = [*turn("book a table"), (0.7, speech(START)), *turn("no stop")[2:]]
    for node in (unguarded, guard()[1]):
        assert called(said[:], node=node).questions == ["book a table", "no stop", "no stop"]
    assert called([*turn("book a table"), *turn("no stop", after=0.7)], node=guard()[1]).questions[1:] == ["no stop"]


def test_not_mended_livekit_counts_the_thoughts_of_abandoned_turns_with_the_next() -> None:
    """Its `max_retries` counts from one answered turn to the next: a thought of the machine may begin no generation."""
    said = [*turn("a")[:3], *turn("b")[:3], *turn("c")[:3], *turn("go")]
    seen = called(said, node=guard()[1])
    assert seen.questions == ["a", "b", "c", "go"]
    assert seen.asked[-1][0] == 1.4  # at the end, and not ahead of it


def test_not_mended_livekit_generates_anew_after_an_end_without_words(tmp_path: Path) -> None:
    """By a rule of its own; the recording says so. Here the comma costs a second call."""
    said: Said = [
        (0.1, speech(START)),
        (0.2, speech(END)),
        *turn("go")[:3],
        (0.2, speech(FINAL, "go.")),
        (0.0, speech(END)),
    ]
    recorder = Recorder(tmp_path / "call.jsonl")
    seen = called(said, node=guard(recorder=recorder)[1])
    recorder.close()
    assert seen.questions == ["go", "go."]
    assert '"agent":"livekit"' in (tmp_path / "call.jsonl").read_text().replace(" ", "")


# -- with the real plugins, over sockets

FIRST = "I would like a table"


@pytest.mark.parametrize("kind", ["array", "typeless"])
def test_f10_a_bad_frame_of_inks_socket(kind: str) -> None:
    """The unguarded agent is deaf for the rest of the session. The plugin makes a final text of the words so far."""
    scripts = [Script(say(FIRST, trouble("garbage", kind=kind), "for two.")), Script(say("Hello?"))]
    answers = ["You say: I would like a", "You say: Hello?"]
    with defect_of("livekit-plugins-cartesia", "1.8.9"):
        assert called_by_ink(*scripts).answers == answers[:1]
    seen = called_by_ink(*scripts, node=guard()[1])
    assert seen.answers == answers
    assert seen.left == []


def test_f10_a_text_that_is_no_text_over_inks_socket() -> None:
    """It ends the hearing in LiveKit itself; the guard leaves it out, and the connection stays."""
    script = Script(say(FIRST, trouble("garbage", kind="field"), "for two."))
    with defect_of(*LATEST):
        assert called_by_ink(script).answers == []
    assert called_by_ink(script, node=guard()[1]).answers == [f"You say: {FIRST} for two."]


def test_f13_a_turn_that_the_server_never_ends() -> None:
    script = Script(say(FIRST, "for two."), trouble("mute", on="turn.eager_end", chatty=True), pause(20.0))
    assert called_by_ink(script).answers == []
    _, node = guard(Policy(stall_timeout=6.0, after_stall=AfterStall.END))
    assert called_by_ink(script, node=node).answers == [f"You say: {FIRST} for two."]


def test_f34_a_connection_of_flux_that_is_cut_in_mid_turn() -> None:
    """The plugin swallows the next start. LiveKit never hears that the first turn is over, and its words vanish."""
    cut = [flux("StartOfTurn", "book a"), flux("EagerEndOfTurn", "book a table")]
    whole = [flux(event, text, "connection 2") for event, text in (("StartOfTurn", "so"), ("Update", "so a"))]
    whole += [flux("EndOfTurn", "so a table", "connection 2")]

    def call(node: Node) -> Seen:
        return called_over_a_socket(lambda: wire(cut, whole), lambda at, http: by_flux(at[0], http), node, seconds=9.0)

    with defect_of("livekit-plugins-deepgram", "1.8.9"):
        assert [one[1:] for one in call(unguarded).states].count(("user", "speaking")) == 1
    turns, node = guard()
    lost: list[str] = []
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    seen = call(node)
    assert lost == ["book a table"]
    assert seen.answers == ["You say: so a table"]
    assert [one[1:] for one in seen.states].count(("user", "speaking")) == 2


def test_f39_the_same_eager_end_twice_is_one_call_of_the_model() -> None:
    script = Script(say("Hello?", trouble("repeat", on="turn.eager_end")))
    with defect_of(*LATEST):
        assert called_by_ink(script).questions == ["Hello?", "Hello?"]
    assert called_by_ink(script, node=guard()[1]).questions == ["Hello?"]


def test_not_mended_f04_f05_what_cartesias_plugin_drops_never_reaches_the_guard() -> None:
    headless = Script(say(trouble("lose", on="turn.start"), "Cancel it."), say("Hello?"))
    assert called_by_ink(headless, node=guard()[1]).answers == ["You say: Hello?"]
    endless = Script(say("One.", trouble("lose", on="turn.end")), say("Two."))
    assert called_by_ink(endless, node=guard()[1]).questions[-1] == "Two."
    assert len(called_by_ink(endless, node=guard()[1]).answers) == 1


def news(seen: Seen) -> list[tuple[float, str, bool]]:
    """What was heard, without an interim that says the same as the one before."""
    heard: list[tuple[float, str, bool]] = []
    for one in seen.heard:
        if not heard or one[2] or heard[-1][1:] != one[1:]:
            heard.append(one)
    return heard


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in range(1, 20))])
@pytest.mark.parametrize("session", [True, False])
def test_a_lawful_session_is_the_same_guarded_or_not(part: int, session: bool, full: bool) -> None:
    """Drawn conversations over Ink's socket: what LiveKit calls back agrees one by one, with the times, but for
    repeats that say nothing new; the model is asked the same."""
    for seed in range(50 * part, 50 * part + (50 if full else 10)):
        script = conversation(seed, turns=1 + seed % 2)
        plain, seen = called_by_ink(script), called_by_ink(script, node=by(Turns(), session=session))
        assert news(seen) == news(plain), seed
        assert (seen.states, seen.said, seen.stopped) == (plain.states, plain.said, plain.stopped), seed
        assert seen.asked == plain.asked, seed
        assert seen.left == plain.left == [], seed


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in range(1, 10))])
def test_the_model_is_asked_no_more_than_the_policy_allows(part: int, full: bool, tmp_path: Path) -> None:
    """In conversations with faults of the network, under several policies. What LiveKit generates by a rule of its own
    is noted in the recording."""
    wanted = [Policy(max_thoughts=1), Policy(think_after=0.3), Policy(speculate=min_words(3)), Policy(speculate=False)]
    for seed in range(20 * part, 20 * part + (20 if full else 4)):
        recorder = Recorder(tmp_path / f"{seed}.jsonl")
        thoughts: list[Turn] = []
        turns, node = guard(wanted[seed % len(wanted)], recorder=recorder)
        turns.on_think(thoughts.append)
        seen = called_by_ink(troubled_conversation(seed, turns=2), Script(say("Are you there?")), node=node)
        recorder.close()
        noted = (tmp_path / f"{seed}.jsonl").read_text().count('"agent":"livekit"')
        assert len(seen.asked) <= len(thoughts) + noted, seed
        assert seen.left == [], seed
