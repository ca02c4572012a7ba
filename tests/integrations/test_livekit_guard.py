"""The guarded `stt_node` by itself: what goes in, and what LiveKit is given. Whole agents are the next file's."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from types import SimpleNamespace
from typing import Any, cast
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc
from livekit.agents import Agent, AgentSession, APIConnectionError, APIStatusError, LanguageCode, stt
from livekit.agents.stt import SpeechEvent

from inkturns import AfterDisconnect, AfterResume, Policy, Recorder, Turns, min_words
from inkturns.actions import Cancel, CancelReason, ReportKind
from inkturns.adapters.flux import Flux
from inkturns.adapters.livekit import LiveKit, guarded
from inkturns.events import (
    ContextChanged,
    EndNow,
    ReplyDone,
    ReplyStarted,
    ThoughtFailed,
    TurnEnd,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import AfterStall, same_text
from inkturns.reader import raise_unless_truncated
from inkturns.replay import replay
from inkturns.report.calls import Note, calls_of
from inkturns.testing import virtual_time
from inkturns.testing.strategies import policies

from .livekit_agents import AGREED
from .test_livekit import (
    CONNECTION,
    END,
    FINAL,
    INTERIM,
    ITEMS,
    PREFLIGHT,
    START,
    USAGE,
    WORDS,
    Iterable_,
    hostile,
    said_by_a_coroutine,
    said_by_a_generator,
    speech,
    timed,
)

Item = SpeechEvent | Exception | float | Callable[[], object]


async def node_of(items: list[Item]) -> AsyncIterator[SpeechEvent]:
    """A node: a float is so many seconds, an exception is raised, a function is called in between."""
    for item in items:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, float):
            await asyncio.sleep(item)
        elif callable(item):
            item()
        else:
            yield item


NAMES = {
    "start_of_speech": "start",
    "interim_transcript": "interim",
    "preflight_transcript": "preflight",
    "final_transcript": "final",
    "end_of_speech": "end",
    "recognition_usage": "usage",
}


def through(
    items: list[Item], turns: Turns | None = None, session: Any = None
) -> tuple[list[tuple[float, str]], Exception | None]:
    """What LiveKit is given of these items, as "interim go" with the times, and what it then raises."""
    turns = Turns(source=LiveKit()) if turns is None else turns
    out: list[tuple[float, str]] = []

    async def call() -> Exception | None:
        try:
            async for event in guarded(node_of(items), turns, session):
                words = f" {event.alternatives[0].text}" if event.alternatives else ""
                out.append((round(asyncio.get_running_loop().time(), 3), NAMES[event.type.value] + words))
        except Exception as error:
            return error
        return None

    raised = virtual_time.run(call)
    return out, raised


def events(items: list[Item], turns: Turns | None = None, session: Any = None) -> list[str]:
    out, raised = through(items, turns, session)
    assert raised is None, raised
    return [what for _, what in out]


# -- an action, an event


def test_each_action_is_an_event() -> None:
    said: list[Item] = [
        *(speech(START), speech(INTERIM, "go"), speech(PREFLIGHT, "go on"), speech(INTERIM, "go on and")),
        *(speech(USAGE), speech(FINAL, "go on and"), speech(END)),
    ]
    assert events(said) == [
        *("start", "interim go", "preflight go on", "interim go on and", "usage", "final go on and", "end")
    ]


def test_what_an_event_has_besides_its_text_is_kept() -> None:
    """Also where its type changes: here a thought that the Policy does not begin."""
    data = stt.SpeechData(LanguageCode("de"), "los", confidence=0.7, speaker_id="Eva", start_time=1.0, end_time=2.0)
    event = SpeechEvent(PREFLIGHT, request_id="7", alternatives=[data], created_at=3.0)

    async def call() -> list[SpeechEvent]:
        turns = Turns(Policy(speculate=False))
        return [one async for one in guarded(node_of([speech(START), event]), turns)]

    _, interim, _ = asyncio.run(call())
    assert interim == SpeechEvent(INTERIM, request_id="7", alternatives=[data], created_at=3.0)


def test_an_end_without_a_start_is_a_whole_turn() -> None:
    assert events([speech(FINAL, "cancel it"), speech(END)]) == ["start", "final cancel it", "end"]


def test_an_end_of_speech_is_given_where_the_node_forgets_it() -> None:
    said: list[Item] = [speech(START), speech(FINAL, "one"), speech(START), speech(FINAL, "two")]
    assert events(said) == ["start", "final one", "end", "start", "final two", "end"]


@pytest.mark.parametrize(
    "late", [speech(INTERIM, "go"), speech(PREFLIGHT, "go"), speech(INTERIM, " "), speech(FINAL, "")]
)
def test_f30_what_comes_between_a_final_text_and_its_end_does_not_hold_the_end_back(late: SpeechEvent) -> None:
    """LiveKit answers at the END_OF_SPEECH."""
    out, _ = through([speech(START), speech(FINAL, "go"), late, speech(END), 5.0])
    assert out == [(0.0, "start"), (0.0, "final go"), (0.0, "end")]


def test_a_turn_that_the_application_begins_before_the_end_of_the_last_comes_after_it() -> None:
    turns = Turns()
    said: list[Item] = [speech(START), speech(FINAL, "go"), lambda: turns.feed(TurnUpdate("typed")), speech(END)]
    assert events(said, turns)[:5] == ["start", "final go", "end", "start", "interim typed"]


def test_a_turn_that_the_node_ends_without_a_final_text_has_one() -> None:
    said: list[Item] = [speech(START), speech(INTERIM, "go"), speech(END)]
    assert events(said) == ["start", "interim go", "final go", "end"]


def test_f06_the_same_end_twice_is_one() -> None:
    said: list[Item] = [speech(START), speech(FINAL, "go"), speech(END)]
    assert events([*said, speech(FINAL, "go"), speech(END)]) == ["start", "final go", "end"]


def test_f05_a_second_start_ends_the_open_turn_and_drops_what_livekit_generates() -> None:
    """An interim without words: LiveKit knows no other sign for it (F15)."""
    said: list[Item] = [speech(START), speech(PREFLIGHT, "book"), speech(START), speech(FINAL, "and"), speech(END)]
    assert events(said) == ["start", "preflight book", "interim  ", "end", "start", "final and", "end"]


def test_f07_blank_text_begins_nothing() -> None:
    said: list[Item] = [speech(START), speech(PREFLIGHT, " "), speech(INTERIM, ""), speech(FINAL, ""), speech(END)]
    assert events(said) == ["start", "end"]


def test_f21_words_that_differ_by_a_full_stop_begin_nothing_new() -> None:
    said: list[Item] = [speech(START), speech(PREFLIGHT, "go"), speech(PREFLIGHT, "Go."), speech(FINAL, "go!")]
    assert events(said) == ["start", "preflight go", "interim Go.", "final go!", "end"]


@pytest.mark.parametrize("policy", [Policy(), Policy(match=same_text)])
def test_words_that_livekit_takes_for_the_same_and_the_policy_does_not(policy: Policy) -> None:
    """LiveKit would answer "-5" with what it generated on "5"."""
    said: list[Item] = [speech(START), speech(PREFLIGHT, "5 degrees"), speech(FINAL, "-5 degrees")]
    given_ = ["start", "preflight 5 degrees", "interim  ", "final -5 degrees", "end"]
    assert events(said, Turns(policy)) == given_
    said.insert(2, speech(INTERIM, "-5 degrees"))
    given_.insert(3, "interim -5 degrees")
    assert events(said, Turns(policy)) == given_


def test_a_connection_that_is_cut_closes_its_turn() -> None:
    said: list[Item] = [
        *(speech(START), speech(PREFLIGHT, "book", request_id="a")),
        *(speech(INTERIM, "and", request_id="b"), speech(FINAL, "and so", request_id="b")),
    ]
    cut = ["start", "preflight book", "interim  ", "end", "start", "interim and", "final and so", "end"]
    assert events(said) == cut
    answered = Turns(Policy(after_disconnect=AfterDisconnect.RESPOND))
    assert events(said, answered) == [
        *("start", "preflight book", "final book", "end", "start", "interim and", "final and so", "end")
    ]


# -- the Policy


def test_repeats_that_say_nothing_new_are_left_out() -> None:
    said: list[Item] = [
        *(speech(START), speech(INTERIM, "go"), speech(INTERIM, "go"), speech(PREFLIGHT, "go")),
        *(speech(PREFLIGHT, "go"), speech(INTERIM, "go", words=True), speech(FINAL, "go"), speech(END)),
    ]
    assert events(said) == ["start", "interim go", "preflight go", "final go", "end"]


def test_think_after_waits() -> None:
    """And a turn that goes on meanwhile, or ends, begins no thought."""
    turns = Turns(Policy(think_after=0.2), source=LiveKit())
    said: list[Item] = [
        *(speech(START), speech(PREFLIGHT, "go"), 0.1, speech(INTERIM, "go on"), 0.5, speech(PREFLIGHT, "go on")),
        *(0.5, speech(FINAL, "go on"), speech(END), speech(START), speech(PREFLIGHT, "so"), 0.1, speech(FINAL, "so")),
    ]
    out, raised = through(said, turns)
    assert raised is None
    assert [what for _, what in out] == [
        *("start", "interim go", "interim go on", "preflight go on", "final go on", "end"),
        *("start", "interim so", "final so", "end"),
    ]
    assert out[3][0] == 0.8
    assert out[4][0] == 1.1


@pytest.mark.parametrize("clock", [None, lambda: asyncio.get_running_loop().time() + 1000])
def test_a_turn_that_stalls_is_ended(clock: Callable[[], float] | None) -> None:
    turns = Turns(Policy(stall_timeout=1.0, after_stall=AfterStall.END), clock=clock)
    said: list[Item] = [speech(START), 0.5, speech(INTERIM, "go"), 3.0, speech(FINAL, "go"), speech(END)]
    times: list[float | None] = []
    turns.on_start(lambda turn: times.append(turn.started_at))
    out, _ = through(said, turns)
    assert times == [0.0 if clock is None else 1000.0]
    assert out[2:] == [(1.5, "final go"), (1.5, "end")]  # the rest is an echo


def test_a_policy_that_the_application_sets_in_mid_turn_counts_from_the_next_event() -> None:
    turns = Turns()
    ends = UsePolicy(Policy(stall_timeout=1.0, after_stall=AfterStall.END))
    said: list[Item] = [speech(START), speech(INTERIM, "a"), lambda: turns.feed(ends), speech(INTERIM, "a b"), 3.0]
    assert through(said, turns)[0][2:] == [(0.0, "interim a b"), (1.0, "final a b"), (1.0, "end")]
    turns = Turns()
    withholds = UsePolicy(Policy(interrupts=min_words(3)))
    said = [speech(START), speech(INTERIM, "a"), lambda: turns.feed(withholds), lambda: turns.feed(ReplyStarted(0))]
    said += [speech(INTERIM, "a b"), speech(FINAL, "a b c"), speech(END)]
    assert events(said, turns) == ["start", "interim a", "final a b c", "end"]


def test_max_thoughts_and_min_words() -> None:
    words = ["go", "go on", "go on and", "go on and on"]
    said: list[Item] = [speech(START), *(speech(PREFLIGHT, text) for text in words), speech(FINAL, words[-1])]
    assert events(said, Turns(Policy(max_thoughts=1))) == [
        *("start", "preflight go", "interim go on", "interim go on and", "interim go on and on"),
        *("final go on and on", "end"),
    ]
    assert events(said, Turns(Policy(speculate=min_words(4)))) == [
        *("start", "interim go", "interim go on", "interim go on and", "preflight go on and on"),
        *("final go on and on", "end"),
    ]


def backchannels() -> tuple[Turns, list[str]]:
    turns, seen = Turns(Policy(interrupts=min_words(2)), source=LiveKit()), list[str]()
    turns.on_abandon(lambda turn: seen.append(turn.transcript))
    return turns, seen


def in_a_reply(turns: Turns) -> list[Item]:
    """A turn that is answered; its reply is heard."""
    return [speech(START), speech(FINAL, "hello"), speech(END), lambda: turns.feed(ReplyStarted(1))]


def test_a_backchannel_is_withheld() -> None:
    turns, seen = backchannels()
    said: list[Item] = [speech(START), speech(INTERIM, "mhm"), speech(USAGE), speech(FINAL, "Mhm."), speech(END)]
    assert events([*in_a_reply(turns), *said], turns) == ["start", "final hello", "end", "usage"]
    assert seen == ["Mhm."]


def test_words_that_interrupt_are_let_out() -> None:
    turns, _ = backchannels()
    said: list[Item] = [speech(START), speech(INTERIM, "no"), speech(INTERIM, "no stop"), speech(FINAL, "no stop it")]
    assert events([*in_a_reply(turns), *said], turns) == [
        *("start", "final hello", "end", "start", "interim no stop", "final no stop it", "end")
    ]
    turns, _ = backchannels()
    said = [speech(START), speech(INTERIM, "no"), speech(FINAL, "no stop"), speech(END)]
    assert events([*in_a_reply(turns), *said], turns) == [
        *("start", "final hello", "end", "start", "final no stop", "end")
    ]


def test_words_over_a_re_prompt_are_withheld_too() -> None:
    """It begins in the open turn, of which LiveKit has heard already."""
    turns = Turns(Policy(interrupts=min_words(3)), source=LiveKit())
    said: list[Item] = [speech(START), speech(INTERIM, "a"), lambda: turns.feed(ReplyStarted(0))]
    said += [speech(INTERIM, text) for text in ("a b", "a b c")]
    assert events([*said, speech(FINAL, "a b c d")], turns) == [
        "start",
        "interim a",
        "interim a b c",
        "final a b c d",
        "end",
    ]


def test_words_that_outlive_the_reply_are_let_out_when_it_ends() -> None:
    turns, _ = backchannels()
    said: list[Item] = [
        *(speech(START), speech(PREFLIGHT, "no"), 1.0, lambda: turns.feed(ReplyDone(1)), 1.0, speech(FINAL, "no")),
    ]
    out, _ = through([*in_a_reply(turns), *said], turns)
    assert out[3:] == [
        *((1.0, "start"), (1.0, "preflight no")),
        *((2.0, "final no"), (2.0, "end")),
    ]


# -- what the application feeds


def test_what_the_application_feeds_goes_out_with_the_nodes_next_event() -> None:
    turns = Turns(source=LiveKit())
    said: list[Item] = [
        *(speech(START), speech(INTERIM, "go"), lambda: turns.feed(EndNow()), speech(USAGE), speech(FINAL, "go.")),
        *(speech(END), speech(START), speech(PREFLIGHT, "so"), lambda: turns.feed(ContextChanged())),
        *(speech(INTERIM, "so"), lambda: turns.feed(ThoughtFailed(2, 2)), speech(FINAL, "so"), speech(END)),
    ]
    assert events(said, turns) == [
        *("start", "interim go", "final go", "end", "usage"),
        *("start", "preflight so", "preflight so", "interim  ", "final so", "end"),
    ]


def test_what_the_application_feeds_goes_out_at_once_where_a_deadline_is_set() -> None:
    turns = Turns(Policy(think_after=5.0), source=LiveKit())
    said: list[Item] = [speech(START), speech(PREFLIGHT, "go"), 1.0, lambda: turns.feed(EndNow()), 1.0]
    assert through(said, turns)[0] == [(0.0, "start"), (0.0, "interim go"), (1.0, "final go"), (1.0, "end")]


def test_a_thought_that_fails_before_livekit_hears_of_it() -> None:
    turns = Turns(source=LiveKit())
    said: list[Item] = [
        *(speech(START), speech(INTERIM, "go"), lambda: turns.feed(ReplyStarted(0)), speech(PREFLIGHT, "go")),
        *(lambda: turns.feed(ReplyDone(0)), lambda: turns.feed(ThoughtFailed(1, 1)), speech(FINAL, "go"), speech(END)),
    ]
    assert events(said, turns) == ["start", "interim go", "final go", "end"]
    turns = Turns(source=LiveKit())
    said[5] = speech(INTERIM, "Go")  # it has not failed
    assert events(said, turns) == ["start", "interim go", "preflight Go", "final go", "end"]


def test_f03_what_livekit_generates_on_a_thought_that_failed_is_dropped() -> None:
    turns = Turns(source=LiveKit())
    said: list[Item] = [speech(START), speech(PREFLIGHT, "go"), lambda: turns.feed(ThoughtFailed(1, 1))]
    said += [speech(INTERIM, "Go"), speech(FINAL, "Go"), speech(END)]
    assert events(said, turns) == ["start", "preflight go", "interim  ", "interim Go", "final Go", "end"]


def test_a_turn_that_the_application_feeds_is_told_too() -> None:

    turns = Turns(source=LiveKit())
    assert events([lambda: turns.feed(TurnEnd("typed")), speech(START), speech(END)], turns) == [
        *("start", "final typed", "end", "start", "end")
    ]
    turns = Turns(source=LiveKit())
    said: list[Item] = [speech(START), speech(INTERIM, "go"), lambda: turns.feed(TurnUpdate("gone")), speech(END)]
    assert events(said, turns) == ["start", "interim go", "final go", "end"]


def test_the_words_of_another_text_are_not_kept() -> None:
    turns = Turns(source=LiveKit())
    said: list[Item] = [speech(INTERIM, "go", words=True), lambda: turns.feed(TurnUpdate("gone")), speech(USAGE)]

    async def call() -> SpeechEvent:
        return [event async for event in guarded(node_of(said), turns)][2]

    event = asyncio.run(call())
    assert (event.type, event.alternatives[0].text, event.alternatives[0].words) == (INTERIM, "gone", None)


# -- a resume without new words

RESUMED: list[Item] = [
    *(speech(START), speech(PREFLIGHT, "go"), speech(INTERIM, "go"), speech(PREFLIGHT, "go"), speech(FINAL, "go")),
]


def test_without_a_session_a_resume_keeps_the_thought_and_the_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    turns = Turns(source=LiveKit(), recorder=Recorder(path))
    assert events(RESUMED, turns) == ["start", "preflight go", "final go", "end"]
    assert turns.recorder is not None
    turns.recorder.close()
    with path.open("rb") as lines:
        first, *rest = list(replay(lines))
    assert isinstance(first.event, UsePolicy)
    assert first.event.policy.after_resume is AfterResume.KEEP
    assert not [action for one in rest for action in one.actions if isinstance(action, Cancel)]


class Session(rtc.EventEmitter[str]):
    """As much of an AgentSession as the guard asks of a running one."""

    agent_state = "listening"
    current_speech: object = None
    vad = None

    def __init__(self, running: bool = True, **handling: Any) -> None:
        super().__init__()
        self.options = AgentSession(turn_handling=cast(Any, AGREED | handling), vad=None).options
        self.running = running
        self.interrupted = 0

    def interrupt(self) -> None:
        if not self.running:
            raise RuntimeError("AgentSession isn't running")
        self.interrupted += 1

    @property
    def listeners(self) -> list[tuple[str, Any]]:
        return [(name, callback) for name, callbacks in self._events.items() for callback in callbacks]

    def says(self, name: str, **fields: object) -> None:
        self.emit(name, SimpleNamespace(**fields))


@pytest.fixture(autouse=True)
def loop_for_sessions() -> Any:
    """An AgentSession is made in a loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.mark.parametrize("running", [True, False])
def test_with_a_session_a_resume_interrupts_it(running: bool) -> None:
    session = Session(running)
    turns = Turns(source=LiveKit())
    reasons: list[CancelReason] = []
    turns.on_cancel(lambda turn, reason: reasons.append(reason))
    assert events(RESUMED, turns, session) == ["start", "preflight go", "preflight go", "final go", "end"]
    assert reasons == [CancelReason.RESUMED]
    assert session.interrupted == running
    assert session.listeners == []


@pytest.mark.parametrize("queued", [True, False])
def test_nothing_is_interrupted_where_something_is_spoken_or_queued(queued: bool) -> None:
    """Then the generation goes with the next words: here, since they are the same, by an interim without words."""
    session = Session()
    handle = SimpleNamespace(scheduled=True, done=lambda: False)

    def speak() -> None:
        if queued:
            session.says("speech_created", speech_handle=handle)
        else:
            session.current_speech = handle

    said = [*RESUMED[:2], speak, RESUMED[2], speech(FINAL, "go")]
    assert events(said, Turns(source=LiveKit()), session) == ["start", "preflight go", "interim  ", "final go", "end"]
    assert not session.interrupted
    said = [*RESUMED[:2], speak, speech(START), speech(FINAL, "no")]  # it is abandoned
    assert events(said, Turns(source=LiveKit()), session) == [
        "start",
        "preflight go",
        "end",
        "start",
        "final no",
        "end",
    ]


def test_a_turn_that_is_abandoned_interrupts_the_session_too() -> None:
    """LiveKit 2.0's preview drops nothing for an interim."""
    session = Session()
    assert events([*RESUMED[:2], speech(START)], Turns(source=LiveKit()), session)[2:] == [
        "interim  ",
        "end",
        "start",
        "end",
    ]
    assert session.interrupted == 1


def test_the_machine_is_told_of_replies_with_the_same_number() -> None:
    session, turns, fed = Session(), Turns(Policy(interrupts=min_words(2)), source=LiveKit()), list[object]()
    session.agent_state = "speaking"  # a greeting

    def state(name: str) -> Callable[[], None]:
        def change() -> None:
            session.says("agent_state_changed", new_state=name)
            fed.append(turns.machine.reply)

        return change

    said: list[Item] = [
        *(speech(START), speech(INTERIM, "mhm"), 0.1, state("listening"), 0.1, speech(FINAL, "mhm so"), speech(END)),
        *(state("thinking"), state("speaking"), state("speaking"), state("thinking"), state("listening")),
    ]
    out, _ = through(said, turns, session)
    assert out == [(0.1, "start"), (0.1, "interim mhm"), (0.2, "final mhm so"), (0.2, "end")]
    assert fed == [None, 1, 1, 1, None, None]


def test_f42_the_late_end_of_a_reply_does_not_end_the_next() -> None:
    session, turns, replies = Session(), Turns(source=LiveKit()), list[int | None]()

    def state(name: str) -> Callable[[], None]:
        return lambda: session.says("agent_state_changed", new_state=name)

    said: list[Item] = [
        *(speech(START), speech(FINAL, "one"), speech(END), state("speaking"), speech(START), speech(FINAL, "two")),
        *(speech(END), state("listening"), lambda: replies.append(turns.machine.reply)),
    ]
    through(said, turns, session)
    assert replies == [2]


# -- the session's options against the Policy


@pytest.mark.parametrize(
    ("policy", "handling", "sentence"),
    [
        (Policy(), {"turn_detection": "vad"}, r'turn_detection must be "stt".*got .vad.'),
        (Policy(), {"endpointing": {}}, "endpointing min_delay must be 0.*got 0.5"),
        (Policy(), {"endpointing": {"min_delay": 0.0, "mode": "dynamic"}}, 'mode must be "fixed".*got .dynamic.'),
        (Policy(), {"interruption": {"enabled": False}}, "interruption enabled must be True.*got False"),
        (Policy(), {"interruption": {"min_words": 2}}, r"min_words must be 0.*say Policy\(interrupts=min_words\(2\)\)"),
        (Policy(match=lambda a, b: True), {}, "Policy.match must be same_words or same_text"),
        (Policy(), {"preemptive_generation": {"enabled": False}}, "preemptive_generation enabled must be True"),
        (Policy(max_thoughts=4), {}, "max_retries must be at least Policy.max_thoughts, 4; got 3"),
        (Policy(max_thoughts=None), {}, "max_retries must be at least Policy.max_thoughts, None; got 3"),
        (Policy(), {"preemptive_generation": {}}, "max_speech_duration must be 3600 or more.*got 10.0"),
    ],
)
def test_a_session_that_contradicts_the_policy_is_refused(policy: Policy, handling: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"the session contradicts the Policy: .*{sentence}"):
        guarded(node_of([]), Turns(policy), Session(**handling))


def test_all_that_contradicts_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"turn_detection must be.*; endpointing min_delay must be.*"):
        guarded(node_of([]), Turns(), Session(turn_detection="manual", endpointing={}))


def test_voice_activity_does_not_decide_where_interrupts_does() -> None:
    session = Session()
    session.vad = object()  # type: ignore[assignment]
    guarded(node_of([]), Turns(), session)
    with pytest.raises(ValueError, match=r"vad must be None where Policy.interrupts is set"):
        guarded(node_of([]), Turns(Policy(interrupts=min_words(2))), session)


def test_what_the_agent_is_set_to_goes_before_what_its_session_is() -> None:
    vad: Any = object()
    right, wrong = Session(), Session(turn_detection="vad", endpointing={})
    for session, handling in ((right, {"turn_detection": "vad", "endpointing": {"min_delay": 0.5}}), (wrong, AGREED)):
        session._agent = Agent(instructions="", turn_handling=cast(Any, handling), vad=None)  # type: ignore[attr-defined]
        session.vad = vad
    policy = Policy(interrupts=min_words(2))
    guarded(node_of([]), Turns(policy), wrong)
    with pytest.raises(ValueError, match=r"turn_detection must be .*; endpointing min_delay must be 0, .*; got 0.5$"):
        guarded(node_of([]), Turns(policy), right)
    session = Session()
    session._agent = Agent(instructions="")  # type: ignore[attr-defined]
    guarded(node_of([]), Turns(policy), session)
    session.vad = vad
    with pytest.raises(ValueError, match="vad must be None"):
        guarded(node_of([]), Turns(policy), session)


def test_who_does_not_think_ahead_may_leave_preemptive_generation_as_it_is() -> None:
    for policy in (Policy(speculate=False), Policy(max_thoughts=0)):
        guarded(node_of([]), Turns(policy), Session(preemptive_generation={}))


@pytest.mark.parametrize("wrong", [None, "turns", Policy()])
def test_what_is_no_turns_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"guarded: turns must be a Turns, as in Turns\(.*\), got"):
        guarded(node_of([]), wrong)


@pytest.mark.parametrize("wrong", ["session", object(), SimpleNamespace(options=None)])
def test_what_is_no_session_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"guarded: session must be an AgentSession, .*, got"):
        guarded(node_of([]), Turns(), wrong)


@pytest.mark.parametrize("make", [said_by_a_generator, said_by_a_coroutine])
def test_a_refusal_leaves_nothing_unawaited(make: Any) -> None:
    with pytest.raises(ValueError, match="contradicts"):
        guarded(make([0]), Turns(), Session(turn_detection="vad"))
    with pytest.raises(TypeError, match=r"the source of turns must be LiveKit\(\) or None, got Flux"):
        guarded(make([0]), Turns(source=Flux()))


# -- the node fails, or is closed


def test_f10_what_is_no_apierror_becomes_one_and_the_turn_is_handed_over() -> None:
    lost: list[str] = []
    turns = Turns(source=LiveKit())
    turns.on_abandon(lambda turn: lost.append(turn.transcript))
    failure = KeyError("transcript")
    out, raised = through([speech(START), speech(INTERIM, "book a"), failure], turns)
    assert isinstance(raised, APIConnectionError)
    assert raised.__cause__ is failure
    assert [what for _, what in out] == ["start", "interim book a", "end"]
    assert lost == ["book a"]
    assert events([speech(START), speech(FINAL, "hello"), speech(END)], turns) == ["start", "final hello", "end"]


@pytest.mark.parametrize("error", [APIConnectionError("cut"), APIStatusError("no", status_code=401)])
def test_an_apierror_goes_on_as_it_is(error: Exception) -> None:
    out, raised = through([speech(START), speech(FINAL, "go"), error])
    assert raised is error
    assert [what for _, what in out] == ["start", "final go", "end"]


def test_f10_a_node_that_is_a_coroutine_and_fails() -> None:
    async def failing() -> AsyncIterator[SpeechEvent]:
        raise failures.pop()

    async def call() -> None:
        await guarded(failing(), Turns())

    failures = [error := APIConnectionError("cut"), ValueError("?")]
    with pytest.raises(APIConnectionError, match="ValueError"):
        asyncio.run(call())
    with pytest.raises(APIConnectionError) as raised:
        asyncio.run(call())
    assert raised.value is error


def test_f55_a_coroutine_that_raises_a_cancellation_of_its_own_has_failed() -> None:
    """And one that is cancelled has not."""

    async def cancelled() -> AsyncIterator[SpeechEvent]:
        raise asyncio.CancelledError

    async def waiting() -> AsyncIterator[SpeechEvent]:
        await asyncio.get_running_loop().create_future()
        return node_of([])

    async def call() -> None:
        with pytest.raises(APIConnectionError, match="the stt_node raised CancelledError"):
            await guarded(cancelled(), Turns())
        task = asyncio.ensure_future(guarded(waiting(), Turns()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(call())


class Odd(BaseException):
    """What no `except Exception` sees."""


@pytest.mark.parametrize("policy", [Policy(), Policy(stall_timeout=100.0)])
@pytest.mark.parametrize(("raises", "raised"), [(Odd, Odd), (StopIteration, APIConnectionError)])
def test_f10_what_is_no_common_exception_ends_the_node_too(
    raises: type[BaseException], raised: type[BaseException], policy: Policy
) -> None:
    """It must not be waited for for ever, in silence, where the node is read in a task."""

    class Node:
        def __init__(self) -> None:
            self.first = [speech(START), speech(INTERIM, "book a")]

        def __aiter__(self) -> "Node":
            return self

        def __anext__(self) -> Any:
            if not self.first:
                raise raises
            ready: asyncio.Future[SpeechEvent] = asyncio.get_running_loop().create_future()
            ready.set_result(self.first.pop(0))
            return ready

    turns, lost = Turns(policy), list[str]()
    turns.on_abandon(lambda turn: lost.append(turn.transcript))

    async def call() -> None:
        with pytest.raises(raised):
            async with asyncio.timeout(10.0):
                await _drained(guarded(Node(), turns))
        assert asyncio.get_running_loop().time() == 0.0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)
    assert lost == ["book a"]


@pytest.mark.parametrize("source", [LiveKit, lambda: None])
def test_f10_what_livekit_cannot_read_is_reported_and_left_out(source: Callable[[], LiveKit | None]) -> None:
    """LiveKit's own hearing ends at each of these."""
    turns, kinds = Turns(source=source()), list[ReportKind]()
    turns.on_report(lambda report: kinds.append(report.kind))
    bad: list[Any] = ["words", None, SpeechEvent(FINAL), SpeechEvent(INTERIM, alternatives=[])]
    assert events([speech(START), *bad, speech(FINAL, "go"), speech(END)], turns) == ["start", "final go", "end"]
    assert kinds == [ReportKind.BAD_FRAME] * len(bad)


def test_f10_what_is_no_event_of_livekits_never_reaches_it() -> None:
    """Its hearing ends at any object of another class; what the object says is heard."""

    def like(event: SpeechEvent) -> Any:
        return SimpleNamespace(type=event.type, request_id="", alternatives=event.alternatives)

    said = [speech(START), speech(PREFLIGHT, "go"), speech(USAGE), speech(FINAL, "go"), speech(END), speech(START)]

    async def call(turns: Turns) -> list[SpeechEvent]:
        return [event async for event in guarded(node_of([like(event) for event in said]), turns)]

    for policy, first in ((Policy(), PREFLIGHT), (Policy(speculate=False), INTERIM)):
        out = asyncio.run(call(Turns(policy)))
        assert {type(event) for event in out} == {SpeechEvent}
        assert [event.type for event in out] == [START, first, FINAL, END, START, END]
        assert [event.alternatives[0].text for event in out[1:3]] == ["go", "go"]


class NoIterator:
    def __aiter__(self) -> Any:
        raise KeyError("transcript")


async def cancelled_by_nobody() -> AsyncIterator[SpeechEvent]:
    yield speech(START)
    yield speech(INTERIM, "book a")
    raise asyncio.CancelledError


@pytest.mark.parametrize("policy", [Policy(), Policy(stall_timeout=100.0)])
@pytest.mark.parametrize("node", [NoIterator, cancelled_by_nobody])
def test_f10_whatever_the_node_raises_it_is_opened_again(node: Callable[[], Any], policy: Policy) -> None:
    """Also what a future that it asked was cancelled with (F55)."""
    turns = Turns(policy)
    with pytest.raises(APIConnectionError, match="the stt_node raised"):
        virtual_time.run(lambda: _drained(guarded(node(), turns)))
    assert turns.machine.turn is None


async def in_a_timeout() -> AsyncIterator[SpeechEvent]:
    async with asyncio.timeout(2.0):
        yield speech(START)
        yield speech(INTERIM, "book a")
        await asyncio.sleep(100.0)


async def in_a_group() -> AsyncIterator[SpeechEvent]:
    async def fail() -> None:
        await asyncio.sleep(2.0)
        raise ValueError("cut")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        yield speech(START)
        yield speech(INTERIM, "book a")
        await asyncio.sleep(100.0)


@pytest.mark.parametrize("node", [in_a_timeout, in_a_group])
@pytest.mark.parametrize("policy", [Policy(), Policy(stall_timeout=100.0), Policy(interrupts=min_words(2))])
def test_what_a_node_enters_in_one_step_it_may_leave_in_another(policy: Policy, node: Callable[[], Any]) -> None:
    """A timeout cancels the task that entered it: were each item awaited in a task of its own, it would be the wrong
    one, and the hearing would end in silence."""

    async def call() -> float:
        with pytest.raises(APIConnectionError):
            await _drained(guarded(node(), Turns(policy)))
        return asyncio.get_running_loop().time()

    assert virtual_time.run(call) == 2.0


def test_an_event_of_a_newer_livekit_goes_on() -> None:
    newer = SpeechEvent(cast(Any, "end_of_words"))
    turns = Turns(source=LiveKit())

    async def call() -> list[Any]:
        return [event async for event in guarded(node_of([speech(START), newer, speech(FINAL, "go")]), turns)]

    assert asyncio.run(call())[1] is newer


async def speaking(order: list[str]) -> AsyncIterator[SpeechEvent]:
    try:
        yield speech(START)
        yield speech(PREFLIGHT, "book a")
        await asyncio.get_running_loop().create_future()
    except BaseException as error:
        order.append(type(error).__name__)
        raise
    finally:
        order.append("over")


WAITING = [Policy(), Policy(think_after=5.0), Policy(stall_timeout=100.0)]


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_cancellation_goes_through_and_nothing_is_left(policy: Policy, after: int) -> None:
    order: list[str] = []
    turns = Turns(policy, source=LiveKit())
    turns.on_abandon(lambda turn: order.append(turn.transcript))

    async def call() -> None:
        async def listen() -> None:
            async for _ in guarded(speaking(order), turns):
                pass

        task = asyncio.create_task(listen())
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)
    assert order[1:] in ([], ["over", ""], ["over", "book a"])  # it had not begun; or was, or was not, being awaited
    assert order[:1] in ([], ["CancelledError"], ["GeneratorExit"])


@pytest.mark.parametrize("policy", WAITING)
def test_closing_goes_through_and_the_open_turn_is_handed_over(policy: Policy) -> None:
    order: list[str] = []
    turns = Turns(policy, source=LiveKit())
    turns.on_abandon(lambda turn: order.append(turn.transcript))

    async def call() -> None:
        node = guarded(speaking(order), turns)
        await anext(node)
        await anext(node)
        await node.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(node)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)
    assert order[-1] == "book a"
    assert "over" in order


def test_closing_while_the_next_item_is_awaited_in_a_task() -> None:
    """It is given up between a thought that was waited for and the node's next event."""
    order: list[str] = []
    turns = Turns(Policy(think_after=1.0), source=LiveKit())
    turns.on_abandon(lambda turn: order.append(turn.transcript))

    async def call() -> None:
        node = guarded(speaking(order), turns)
        kinds = [(await anext(node)).type for _ in range(3)]
        assert kinds == [START, INTERIM, PREFLIGHT]
        await node.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)
    assert order == ["CancelledError", "over", "book a"]


def test_a_node_that_fails_while_its_task_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.first = [speech(START), speech(PREFLIGHT, "book a")]

        def __aiter__(self) -> "Stubborn":
            return self

        async def __anext__(self) -> SpeechEvent:
            if self.first:
                return self.first.pop(0)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise ValueError("not like this") from None
            raise StopAsyncIteration

    async def call() -> None:
        node = guarded(Stubborn(), Turns(Policy(think_after=1.0)))
        for _ in range(3):
            await anext(node)
        await node.aclose()

    virtual_time.run(call)
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("steps", range(5))
def test_words_that_come_as_it_is_cancelled_are_not_lost(policy: Policy, steps: int) -> None:
    """Once the node has said them."""
    lost, given_ = list[str](), list[str]()

    async def call() -> None:
        async def said() -> AsyncIterator[SpeechEvent]:
            while True:
                event = await words.get()
                given_.append(event.alternatives[0].text)
                yield event

        turns = Turns(policy)
        turns.on_abandon(lambda turn: lost.append(turn.transcript))
        words: asyncio.Queue[SpeechEvent] = asyncio.Queue()
        task = asyncio.create_task(_drained(guarded(said(), turns)))
        words.put_nowait(speech(INTERIM, "book a"))
        for _ in range(10):
            await asyncio.sleep(0)
        words.put_nowait(speech(INTERIM, "book a table"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    virtual_time.run(call)
    assert lost == given_[-1:]


@pytest.mark.parametrize("policy", WAITING)
@pytest.mark.parametrize("steps", range(5))
def test_the_open_turn_is_handed_over_however_often_it_is_cancelled(policy: Policy, steps: int) -> None:
    lost: list[str] = []

    async def slow_to_close() -> AsyncIterator[SpeechEvent]:
        try:
            yield speech(INTERIM, "book a")
            await asyncio.sleep(100.0)
        finally:
            await asyncio.sleep(0.1)

    async def call() -> None:
        turns = Turns(policy)
        turns.on_abandon(lambda turn: lost.append(turn.transcript))
        task = asyncio.create_task(_drained(guarded(slow_to_close(), turns)))
        await asyncio.sleep(1.0)
        task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0.2)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)
    assert lost == ["book a"]


@pytest.mark.parametrize("policy", WAITING)
def test_the_open_turn_is_handed_over_where_the_node_fails_as_it_is_closed(policy: Policy) -> None:
    lost: list[str] = []

    async def failing() -> AsyncIterator[SpeechEvent]:
        try:
            yield speech(INTERIM, "book a")
            yield speech(INTERIM, "book a table")
        finally:
            raise ValueError("not like this")

    async def call() -> None:
        turns = Turns(policy)
        turns.on_abandon(lambda turn: lost.append(turn.transcript))
        node = guarded(failing(), turns)
        assert [(await anext(node)).type for _ in range(2)] == [START, INTERIM]
        with pytest.raises(ValueError, match="not like this"):
            await node.aclose()

    virtual_time.run(call)
    assert lost == ["book a"]


@pytest.mark.parametrize("policy", WAITING)
def test_a_node_that_begins_before_the_last_is_closed_is_heard(policy: Policy) -> None:
    turns, ended = Turns(policy), list[str]()
    turns.on_end(lambda turn: ended.append(turn.transcript))

    async def call() -> None:
        first = asyncio.create_task(_drained(guarded(node_of([speech(START), speech(INTERIM, "one"), 100.0]), turns)))
        await asyncio.sleep(1.0)
        said: list[Item] = [1.0, speech(START), speech(FINAL, "two"), speech(END), 1.0]
        second = asyncio.create_task(_drained(guarded(node_of(said), turns)))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.wait({first, second})

    virtual_time.run(call)
    assert ended == ["two"]


@pytest.mark.parametrize("policy", WAITING)
def test_a_node_that_takes_its_time_to_close_ends_no_turn_of_the_next(policy: Policy) -> None:
    turns, lost, out = Turns(policy), list[str](), list[str]()
    turns.on_abandon(lambda turn: lost.append(turn.transcript))

    async def slow_to_close() -> AsyncIterator[SpeechEvent]:
        try:
            yield speech(INTERIM, "one")
            await asyncio.sleep(100.0)
        finally:
            await asyncio.sleep(1.0)

    async def call() -> None:
        first = asyncio.create_task(_drained(guarded(slow_to_close(), turns)))
        await asyncio.sleep(1.0)
        first.cancel()
        said: list[Item] = [speech(START), speech(INTERIM, "two"), 2.0, speech(FINAL, "two"), speech(END)]
        async for event in guarded(node_of(said), turns):
            out.append(NAMES[event.type.value])
        await asyncio.wait({first})

    virtual_time.run(call)
    assert lost == ["one"]
    assert out == ["start", "interim", "final", "end"]


def test_what_is_said_as_the_last_node_is_closed_is_not_taken_for_the_next_ones() -> None:
    turns, ended = Turns(Policy(stall_timeout=100.0)), list[str]()
    turns.on_end(lambda turn: ended.append(turn.transcript))

    class Late:
        def __aiter__(self) -> "Late":
            return self

        async def __anext__(self) -> SpeechEvent:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0.5)
            return speech(FINAL, "late")

    async def call() -> None:
        first = asyncio.create_task(_drained(guarded(Late(), turns)))
        await asyncio.sleep(1.0)
        first.cancel()
        await _drained(guarded(node_of([speech(START), speech(INTERIM, "two"), 2.0, speech(FINAL, "two")]), turns))

    virtual_time.run(call)
    assert ended == ["two"]


def test_the_session_is_listened_to_by_the_node_that_began_last() -> None:
    """LiveKit's `clear_user_turn` has a node begin before the last one is closed."""
    session, turns = Session(), Turns(source=LiveKit())

    async def call() -> None:
        first = asyncio.create_task(_drained(guarded(node_of([100.0]), turns, session)))
        second = asyncio.create_task(_drained(guarded(node_of([100.0]), turns, session)))
        await asyncio.sleep(1.0)
        first.cancel()
        await asyncio.wait({first})
        assert sorted(name for name, _ in session.listeners) == ["agent_state_changed", "speech_created"]
        second.cancel()
        await asyncio.wait({second})

    virtual_time.run(call)
    assert session.listeners == []


@pytest.mark.parametrize("policy", WAITING)
def test_a_node_that_cannot_be_closed_is_left(policy: Policy) -> None:
    class Open:
        def __aiter__(self) -> "Open":
            return self

        async def __anext__(self) -> SpeechEvent:
            return speech(INTERIM, "book a")

    async def call() -> None:
        turns = Turns(policy)
        node = guarded(Open(), turns)
        assert [(await anext(node)).type for _ in range(2)] == [START, INTERIM]
        await node.aclose()
        assert turns.machine.turn is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(call)


def test_a_node_that_heeds_no_cancellation_is_closed_after_its_item() -> None:
    """What it says is not lost."""
    order: list[str] = []

    class Stubborn:
        def __aiter__(self) -> "Stubborn":
            return self

        async def __anext__(self) -> SpeechEvent:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            return speech(INTERIM, "book a")

        async def aclose(self) -> None:
            order.append("closed")

    async def call() -> None:
        turns = Turns(Policy(stall_timeout=100.0))
        turns.on_abandon(lambda turn: order.append(turn.transcript))
        task = asyncio.create_task(_drained(guarded(Stubborn(), turns)))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait({task})

    virtual_time.run(call)
    assert order == ["closed", "book a"]


def test_the_end_of_the_node_while_its_next_item_is_awaited_in_a_task() -> None:
    said: list[Item] = [speech(START), speech(PREFLIGHT, "go"), 0.1]
    out, raised = through(said, Turns(Policy(think_after=1.0)))
    assert raised is None
    assert out[-1] == (0.1, "end")
    out, raised = through([*said, KeyError("?")], Turns(Policy(think_after=1.0)))
    assert isinstance(raised, APIConnectionError)


def test_what_is_no_node_stays_what_it_is() -> None:
    async def deaf() -> None:
        return None

    assert guarded(None, Turns()) is None
    assert asyncio.run(guarded(deaf(), Turns())) is None


def test_a_turns_is_not_kept_alive() -> None:
    turns = Turns()
    asyncio.run(_drained(guarded(node_of([speech(START)]), turns)))
    gone = ref(turns)
    del turns
    gc.collect()
    assert gone() is None


async def _drained(node: Any) -> None:
    async for _ in node:
        pass


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError()])
def test_what_a_hook_raises_is_logged_and_goes_no_further(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def on_start(turn: object) -> None:
        raise error

    turns = Turns(source=LiveKit())
    turns.on_start(on_start)
    said: list[Item] = [speech(START), speech(FINAL, "go"), speech(END)]
    assert events(said, turns) == ["start", "final go", "end"]
    turns.on_abandon(on_start)
    assert events([speech(START)], turns) == ["start", "end"]
    record, *others = (one for one in caplog.records if one.levelname == "ERROR")
    assert len(others) == 2
    assert record.name == "inkturns.adapters.livekit"
    assert record.exc_info


# -- what LiveKit generates by its own rule


def test_what_livekit_generates_by_its_own_rule_is_noted(tmp_path: Path) -> None:
    """After an END_OF_SPEECH without a final text, LiveKit generates at the next final text anew."""
    path = tmp_path / "call.jsonl"
    recorder = Recorder(path)
    said: list[Item] = [speech(START), speech(END)]
    for text in ("go.", "so."):
        said += [speech(START), speech(PREFLIGHT, text.strip(".")), speech(FINAL, text), speech(END)]
    said += [speech(START), speech(END), speech(START), speech(PREFLIGHT, "ok"), speech(FINAL, "ok"), speech(END)]
    events(said, Turns(source=LiveKit(), recorder=recorder))
    recorder.close()
    with path.open("rb") as lines:
        (call,) = calls_of(lines, raise_unless_truncated)
    notes = [step for step in call.steps if isinstance(step, Note)]
    assert [(note.turn, note.what) for note in notes] == [(2, "livekit")]


# -- a lawful sender


@st.composite
def ink_says(draw: st.DrawFn) -> tuple[list[tuple[SpeechEvent, int]], list[SpeechEvent]]:
    """What Ink's plugin may say, with the steps of the loop before each event; and those that say something new."""
    said, new = list[tuple[SpeechEvent, int]](), list[SpeechEvent]()

    def say(kind: Any, text: str | None = None, *, is_new: bool = True) -> None:
        event = speech(kind, text)
        said.append((event, draw(st.integers(0, 3))))
        if is_new:
            new.append(event)
        if draw(st.sampled_from((False, False, True))):
            usage = SpeechEvent(type=USAGE, recognition_usage=stt.RecognitionUsage(audio_duration=1.0))
            said.append((usage, 0))
            new.append(usage)

    for _ in range(draw(st.integers(0, 3))):
        say(START)
        text, thought, thoughts = "", "", 0
        for what in draw(st.lists(st.sampled_from(("word", "word", "repeat", "eager")), max_size=8)):
            if what == "word":
                text += f" word{draw(st.integers(0, 9))}"
                say(INTERIM, text)
            elif what == "repeat" and text:  # a resume
                say(INTERIM, text, is_new=False)
            elif what == "eager" and text and (text == thought or thoughts < 3):
                thoughts += text != thought
                say(PREFLIGHT, text, is_new=text != thought)
                thought = text
        if text or draw(st.booleans()):
            say(FINAL, text + draw(st.sampled_from(("", ".", " more"))) if text else "all at once")
        say(END)
    return said, new


async def said_with_pauses(said: list[tuple[SpeechEvent, int]]) -> AsyncIterator[SpeechEvent]:
    for event, pause in said:
        for _ in range(pause):
            await asyncio.sleep(0)
        yield event


@pytest.mark.parametrize("source", [LiveKit, lambda: None])
@given(drawn=ink_says())
def test_with_a_lawful_sender_the_same_events_go_on_in_the_same_step(
    source: Callable[[], LiveKit | None], drawn: tuple[list[tuple[SpeechEvent, int]], list[SpeechEvent]]
) -> None:
    said, new = drawn
    unguarded = asyncio.run(timed(said_with_pauses(said)))
    passed_on = asyncio.run(timed(guarded(said_with_pauses(said), Turns(source=source()))))
    kept = {id(event) for event in new}
    assert passed_on == [(step, one) for step, one in unguarded if one in kept]


@pytest.mark.parametrize("make", [said_by_a_generator, said_by_a_coroutine, Iterable_])
def test_each_kind_of_node_is_guarded(make: Callable[[list[int]], Any]) -> None:
    """What is no speech event in ITEMS is left out."""
    passed_on = asyncio.run(timed(guarded(make([0] * len(ITEMS)), Turns())))
    unguarded = asyncio.run(timed(make([0] * len(ITEMS))))
    assert passed_on[:-1] == [one for one in unguarded if any(one[1] == id(e) for e in ITEMS if hasattr(e, "type"))]


@given(st.lists(hostile(), max_size=15), policies())
def test_whatever_comes_livekit_is_given_lawful_turns(storm: list[Any], policy: Policy) -> None:
    """START, texts, and FINAL with END or END alone; nothing raises; the next whole turn is answered."""
    turns = Turns(policy)

    async def call() -> list[Any]:
        node = guarded(node_of([*storm, speech(START), speech(FINAL, "at last"), speech(END)]), turns)
        return [event async for event in node]

    storm = [item for item in storm if not isinstance(item, float) and not callable(item)]
    out = virtual_time.run(call)
    kinds = [event.type for event in out if event.type in (START, INTERIM, PREFLIGHT, FINAL, END)]
    open_ = final = False
    for kind in kinds:
        assert open_ is (kind != START)
        assert not final or kind == END
        open_, final = kind != END, kind == FINAL
    assert not open_
    if policy.interrupts is None:
        assert [event.alternatives[0].text for event in out if event.type == FINAL][-1] == "at last"


# -- what it costs


def test_what_the_guard_costs_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    """Above the node's own cost, against the same events through `Turns.feed` with the same policy, clock and hooks, in
    one run: at most one and a half times as much. The least of many short runs each, so that other work on the machine
    does not count."""
    texts = [" ".join(WORDS[:n]) for n in range(1, len(WORDS) + 1)]
    eager, last = texts[7], texts[-1]
    spoken = partial(speech, request_id=CONNECTION)
    said = [
        *(speech(START), *(spoken(INTERIM, text) for text in texts[:8]), spoken(PREFLIGHT, eager)),
        *(spoken(INTERIM, eager), *(spoken(INTERIM, text) for text in texts[8:]), spoken(PREFLIGHT, last)),
        *(spoken(FINAL, last), speech(END)),
    ] * 20

    async def node() -> AsyncIterator[SpeechEvent]:
        for event in said:
            yield event

    def turns() -> Turns:
        made = Turns(Policy(after_resume=AfterResume.KEEP), source=LiveKit(), clock=monotonic)
        for on in (made.on_start, made.on_update, made.on_eager_end, made.on_resume, made.on_end):
            on(heard.append)
        return made

    def fed() -> float:
        feed = turns().feed
        begin = perf_counter()
        for event in said:
            feed(event)
        return perf_counter() - begin

    async def passed(items: Any) -> float:
        begin = perf_counter()
        async for _ in items:
            pass
        return perf_counter() - begin

    heard: list[object] = []
    alone, inside, own = list[float](), list[float](), list[float]()
    gc.collect()
    gc.freeze()
    for _ in range(100):
        alone.append(fed())
        inside.append(asyncio.run(passed(guarded(node(), turns()))))
        own.append(asyncio.run(passed(node())))
        heard.clear()
    found = (min(inside) - min(own)) / min(alone)
    gc.unfreeze()
    with capsys.disabled():
        print(f"\na guarded speech event, against Turns.feed: {found:.2f}")
    assert found <= 1.5
